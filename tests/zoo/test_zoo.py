"""GPS on zoo configs with only data and size changed, each in its own process."""

import json
from pathlib import Path

import pytest

from mmgps.utils.requirements import require

require('mmseg')

from zoos.architectures import listed  # noqa: E402
from zoos.drive import probed, sweep  # noqa: E402

SAMPLE = [
    ('mmseg', 'cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py'),
    ('mmseg', 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'),
    ('mmseg', 'hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py'),
    ('mmseg', 'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py'),
    ('mmpretrain', 'lenet/lenet5_mnist.py'),
    ('mmpretrain', 'mobilevit/mobilevit-xxsmall_8xb128_in1k.py'),
    ('mmpretrain', 'regnet/regnetx-400mf_8xb128_in1k.py'),
    ('mmpretrain', 'deit/deit-tiny_4xb256_in1k.py'),
]


@pytest.mark.parametrize(('stack', 'config'), SAMPLE)
def test_sample(stack: str, config: str) -> None:
    require_or_skip(stack)
    check_both_ways(stack, config)


def check_both_ways(stack: str, config: str) -> None:
    facts = probed(stack, config, timeout_s=300, memory_gib=12)
    assert facts['plain']['ok'], facts
    assert facts['gps']['ok'], facts
    assert facts['gps']['connections'] >= facts['gps']['moved'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('stack', ['mmseg', 'mmpretrain'])
def test_every_architecture(stack: str, tmp_path: Path) -> None:
    require_or_skip(stack)
    found, _ = listed(stack, tmp_path / f'{stack}.json')
    sweep(found, tmp_path / stack, timeout_s=600, memory_gib=12)
    results = [json.loads(path.read_text()) for path in (tmp_path / stack).glob('*.json')]
    plain = [result for result in results if result['trains'] and result['plain']['ok']]
    failed = {result['config']: result['gps'] for result in plain if not result['gps']['ok']}
    assert plain
    assert len(failed) <= 0.03 * len(plain), failed


def require_or_skip(stack: str) -> None:
    pytest.importorskip(stack)
    require(stack)
