"""GPS on networks of timm, transformers and torchvision: roles, choice and training, against slow ways."""

from importlib.util import find_spec
from pathlib import Path

import pytest

LIBRARIES = ('timm', 'transformers', 'torchvision')
missing = [library for library in LIBRARIES if find_spec(library) is None]
if missing:
    pytest.skip(f'needs {", ".join(missing)}', allow_module_level=True)

from frameworks.check import ALL, UNKNOWN, check  # noqa: E402
from frameworks.networks import TIMM, TORCHVISION, TRANSFORMERS  # noqa: E402

#: A window attention that composes its bias, standardised weights, layer scales, a norm beside a norm, talking heads,
#: relative positions of each kind, weights stored by input, a parametrized convolution, a mixture of experts.
SAMPLE = [
    'beit_base_patch16_224',
    'cait_xxs24_224',
    'levit_128s',
    'mvitv2_tiny',
    'test_nfnet',
    'swinv2_tiny_window8_256',
    'CLIPVisionModel',
    'GPT2Model',
    'T5EncoderModel',
    'MixtralModel',
    'Wav2Vec2Model',
    'swin_transformer.SwinTransformer',
]


@pytest.mark.parametrize('name', SAMPLE)
@pytest.mark.filterwarnings('ignore')  # those of the libraries
def test_sample(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in ALL if name not in SAMPLE])
@pytest.mark.filterwarnings('ignore')
def test_every_network(name: str) -> None:
    check(name)


def test_the_sweep_is_as_wide_as_it_says() -> None:
    assert (len(TIMM), len(TRANSFORMERS), len(TORCHVISION)) >= (60, 25, 10)


def test_unknown_parameters_are_those_of_the_docs() -> None:
    text = (Path(__file__).parents[2] / 'docs/coverage_frameworks.md').read_text()
    section = text.split('## What stays frozen')[1].split('\n## ')[0]
    assert all(f'`{name}`' in section for name in UNKNOWN), UNKNOWN
