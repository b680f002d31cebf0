"""The extracted file holds the whole backbone of a checkpoint, unchanged, and nothing else."""

from pathlib import Path

import pytest
import torch

from mmgps.models.convert import extract_backbone


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    big = torch.randn(1000, 4)
    return {'backbone.a': big[:2], 'backbone.n': torch.tensor(3), 'decode_head.backbone.w': torch.randn(5)}


@pytest.mark.parametrize('wrap', [True, False])
def test_only_the_backbone_is_written(tmp_path: Path, state: dict[str, torch.Tensor], wrap: bool) -> None:
    torch.save({'state_dict': state, 'meta': {}} if wrap else state, tmp_path / 'whole.pth')
    extract_backbone(tmp_path / 'whole.pth', tmp_path / 'part.pth')
    part = torch.load(tmp_path / 'part.pth', weights_only=True)
    assert set(part) == {'a', 'n'}
    assert torch.equal(part['a'], state['backbone.a'])
    assert (tmp_path / 'part.pth').stat().st_size < 4000


def test_half_keeps_integers(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / 'whole.pth')
    part = extract_backbone(tmp_path / 'whole.pth', tmp_path / 'part.pth', dtype=torch.float16)
    assert part['a'].dtype == torch.float16
    assert part['n'].dtype == torch.int64


def test_a_prefix_that_matches_nothing_is_named(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / 'whole.pth')
    with pytest.raises(ValueError, match=r"no weight begins with 'backbon\.'.*nearest: backbone\."):
        extract_backbone(tmp_path / 'whole.pth', tmp_path / 'part.pth', prefix='backbon.')
    assert not (tmp_path / 'part.pth').exists()


def test_a_file_with_objects_is_refused(tmp_path: Path) -> None:
    torch.save({'state_dict': {'backbone.a': torch.ones(1)}, 'object': Path('x')}, tmp_path / 'whole.pth')
    with pytest.raises(ValueError, match='ExactResumeHook'):
        extract_backbone(tmp_path / 'whole.pth', tmp_path / 'part.pth')
