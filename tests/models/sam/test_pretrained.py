"""The published files, in miniature, are loaded completely or refused with the reason."""

import hashlib
import random
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from support.file_server import FileServer
from tiny_sam import TINY, build_sam

from mmgps.engine import tune_config
from mmgps.models.sam import FILES, CheckpointKeysError, WeightsUnavailableError, find_weights, load_published
from mmgps.models.sam.weights import PARTS, locate
from mmgps.utils.download import Checksum

ROOT = Path(__file__).resolve().parents[3]
NAME = 'sam_vit_b_01ec64.pth'
CONTENT = random.Random(7).randbytes(20_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))


def published(model) -> dict[str, torch.Tensor]:
    """Return the state of ``model`` under the names of the published files."""
    found = {}
    for name, value in model.state_dict().items():
        theirs, ours = next(pair for pair in PARTS.items() if name.startswith(pair[1]))
        found[theirs + name.removeprefix(ours)] = torch.randn_like(value)
    return found


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return published(build_sam())


@pytest.fixture
def file(state, tmp_path: Path) -> Path:
    path = tmp_path / 'made/own.pth'
    path.parent.mkdir()
    torch.save(state, path)
    return path


def test_init_cfg_loads_a_file(state, file: Path) -> None:
    model = build_sam(init_cfg=dict(type='mmgps.SAMPretrained', checkpoint=str(file)))
    model.init_weights()
    own = model.state_dict()
    assert len(own) == len(state)
    for theirs, ours in PARTS.items():
        names = [name for name in state if name.startswith(theirs)]
        assert names
        assert all(torch.equal(own[ours + name.removeprefix(theirs)], state[name]) for name in names)


@pytest.mark.parametrize('method', ['lora', 'adapter', 'ssf'])
def test_a_file_loads_beside_what_a_method_injected(method: str, state, tmp_path: Path) -> None:
    """As under ``--tune`` of the flagship config; injected parameters keep their values."""
    torch.save(state, tmp_path / 'own.pth')
    cfg = Config.fromfile(ROOT / 'configs/gps_polyp.py')
    cfg.model.init_cfg.checkpoint = str(tmp_path / 'own.pth')
    cfg.model.backbone.update(arch=TINY, img_size=64)
    tune_config(cfg, method)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    own = model.state_dict()
    loaded = {ours + name.removeprefix(part) for part, ours in PARTS.items() for name in state if name.startswith(part)}
    injected = {name for name in own if f'.{method}.' in name}
    assert own.keys() - loaded == injected
    assert injected
    assert all(torch.equal(own[name], before[name]) for name in injected)
    assert not any(torch.equal(own[name], before[name]) for name in loaded)
    with pytest.raises(CheckpointKeysError, match=r'1 missing: image_encoder\.pos_embed\. Expected'):
        load_published(model, {k: v for k, v in state.items() if not k.endswith('pos_embed')}, 'file.pth')


def test_every_fault_is_listed_and_nothing_is_loaded(state) -> None:
    model = build_sam()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state['image_encoder.pos_embd'] = state.pop('image_encoder.pos_embed')
    state['text_encoder.weight'] = torch.zeros(2)
    state['mask_decoder.iou_token.weight'] = torch.zeros(1, 3)
    with pytest.raises(CheckpointKeysError) as raised:
        load_published(model, state, 'file.pth')
    text = str(raised.value)
    assert '\n' not in text
    assert 'file.pth does not fit EncoderDecoder: 1 missing: image_encoder.pos_embed; ' in text
    assert '2 surplus: image_encoder.pos_embd (nearest: image_encoder.pos_embed), text_encoder.weight; ' in text
    assert '1 of another shape: mask_decoder.iou_token.weight (1, 3) instead of (1, 256). ' in text
    assert 'set arch of the backbone to its size' in text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_of_another_size_is_refused(state) -> None:
    model = build_sam(dict(embed_dims=24, depth=3, num_heads=2, global_blocks=(1,)))
    with pytest.raises(CheckpointKeysError, match=r'14 missing: image_encoder\.blocks\.2\..*; .* shape: ') as raised:
        load_published(model, state, 'file.pth')
    own = [name for name in model.state_dict() if name.startswith('backbone.blocks.2.')]
    assert len(own) == 14
    assert all(name.replace('backbone', 'image_encoder') in str(raised.value) for name in own)


def test_an_address_is_fetched_into_the_cache(tmp_path: Path, capsys) -> None:
    with FileServer(CONTENT) as server:
        address = server.url('own.pth')
        for _ in range(2):
            assert find_weights(address, DIGEST) == tmp_path / 'hub/checkpoints/own.pth'
        assert len(server.requests) == 1
    assert 'downloading own.pth: ' in capsys.readouterr().err


def test_a_broken_transfer_is_resumed(tmp_path: Path) -> None:
    target = tmp_path / 'hub/checkpoints/own.pth'
    target.parent.mkdir(parents=True)
    target.with_name('own.pth.part').write_bytes(CONTENT[:5000])
    target.with_name('own.pth.part.tag').write_text('"v1"')
    with FileServer(CONTENT, cut_after=3000, cuts=1) as server:
        find_weights(server.url('own.pth'), DIGEST)
        assert server.requests[0]['Range'] == 'bytes=5000-'
    assert target.read_bytes() == CONTENT


def test_a_published_name_must_have_the_published_content(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'something else')
    with pytest.raises(WeightsUnavailableError, match=rf'{NAME} .* has sha256 .* expected {FILES["vit_b"].sha256}'):
        find_weights(tmp_path / NAME)


def test_a_published_name_is_fetched_from_its_authors(tmp_path: Path) -> None:
    for file in FILES.values():
        found = locate(tmp_path / file.name)
        assert found.target == tmp_path / file.name
        assert found.url == f'https://dl.fbaipublicfiles.com/segment_anything/{file.name}'
        assert found.checksum == Checksum('sha256', file.sha256)
        assert locate(found.url).target == tmp_path / 'hub/checkpoints' / file.name


def test_an_unpublished_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=rf'mine\.pth does not exist, .* {NAME}, .*; put yours there'):
        find_weights(tmp_path / 'mine.pth')


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({'backdoor': Path('x')}, tmp_path / 'own.pth')
    model = build_sam(init_cfg=dict(type='mmgps.SAMPretrained', checkpoint=str(tmp_path / 'own.pth')))
    with pytest.raises(Exception, match=r'weights_only|Weights only'):
        model.init_weights()
