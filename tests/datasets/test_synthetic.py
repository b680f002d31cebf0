"""The drawn sets: the same frame everywhere, exact masks, variety, and samples like loaded ones."""

import hashlib
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmgps.datasets import RenderFrame, SyntheticPolypDataset, SyntheticShapesDataset
from mmgps.datasets.render import endoscope, solids
from mmgps.datasets.render.endoscope import draw_lesion, draw_mucosa, lay_over
from mmgps.datasets.synthetic import ProceduralDataset

SETS = [SyntheticPolypDataset, SyntheticShapesDataset]
PIPELINE = [{'type': 'mmgps.RenderFrame'}, {'type': 'PackSegInputs'}]
PINNED_AREA, PINNED_COLOUR = 1719, (45.78, 70.32, 149.33)  # frame 0 of world 0 at 144 px


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmseg')


@pytest.fixture(scope='module')
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return [endoscope.render_polyp_frame(3, i, 96) for i in range(120)]


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b''.join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


@pytest.mark.parametrize('kind', SETS)
def test_sample_looks_as_if_loaded_from_files(kind: type[ProceduralDataset]) -> None:
    data = kind(length=3, size=64, pipeline=PIPELINE[:1])
    sample = data[2]
    assert len(data) == 3
    assert sample['img'].shape == (64, 64, 3)
    assert sample['gt_seg_map'].shape == (64, 64)
    assert sample['img'].dtype == sample['gt_seg_map'].dtype == np.uint8
    assert sample['img_shape'] == sample['ori_shape'] == (64, 64)
    assert sample['seg_fields'] == ['gt_seg_map']
    assert sample['img_path'] == 'synthetic/00002.png'
    assert sample['gt_seg_map'].max() < len(data.metainfo['classes']) == len(data.metainfo['palette'])


@pytest.mark.parametrize('kind', SETS)
def test_loading_twice_gives_the_same_and_leaves_global_state(kind: type[ProceduralDataset]) -> None:
    data = kind(length=4, size=64, seed=5, pipeline=PIPELINE[:1])
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    first, again = data[1], data[1]
    assert digest(first['img'], first['gt_seg_map']) == digest(again['img'], again['gt_seg_map'])
    assert first['seg_fields'] == again['seg_fields'] == ['gt_seg_map']
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


def test_another_process_draws_the_same_frame() -> None:
    code = (
        'import hashlib; from mmgps.datasets.render.endoscope import render_polyp_frame as f;'
        'print(hashlib.sha256(b"".join(a.tobytes() for a in f(7, 11, 80))).hexdigest())'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == digest(*endoscope.render_polyp_frame(7, 11, 80))


def test_frames_do_not_depend_on_opencv_threads() -> None:
    threads = cv2.getNumThreads()
    try:
        digests = set()
        for n in (1, 4):
            cv2.setNumThreads(n)
            digests.add(digest(*endoscope.render_polyp_frame(1, 2, 144)))
    finally:
        cv2.setNumThreads(threads)
    assert len(digests) == 1


def test_frames_do_not_depend_on_the_number_of_workers() -> None:
    def load(workers: int) -> list[str]:
        loader = Runner.build_dataloader(
            {
                'batch_size': 3,
                'num_workers': workers,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
                'dataset': {'type': 'mmgps.SyntheticPolypDataset', 'length': 9, 'size': 48, 'pipeline': PIPELINE},
            },
            seed=workers,
        )
        return [digest(image.numpy()) for batch in loader for image in batch['inputs']]

    assert len(set(load(0))) == 9
    assert load(0) == load(2)


def test_frame_is_pinned_across_library_versions() -> None:
    """Builds of numpy and OpenCV may differ in the rounding of a grey level, but not in the picture."""
    image, mask = endoscope.render_polyp_frame(0, 0, 144)
    assert mask.sum() == pytest.approx(PINNED_AREA, abs=3)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), PINNED_COLOUR, atol=0.5)


def test_mask_is_where_the_polyp_was_drawn() -> None:
    """Every pixel inside the outline changes, and none outside the outline and its shadow."""
    rng = np.random.default_rng(4)
    scene = draw_mucosa(rng, 128)
    lesion = draw_lesion(rng, 128)
    after = lay_over(rng, scene, lesion)
    changed = (after.albedo != scene.albedo).any(axis=2)
    np.testing.assert_array_equal(changed, lesion.inside > 0)
    assert (lesion.height[lesion.inside <= 0] == 0).all()


def test_mask_is_empty_where_the_view_is_black(monkeypatch: pytest.MonkeyPatch) -> None:
    half = np.zeros((96, 96), bool)
    half[:, :48] = True
    monkeypatch.setattr(endoscope, '_view', lambda rng, size: half)
    masks = [endoscope.render_polyp_frame(0, i, 96)[1] for i in range(12)]
    assert not np.any([m[:, 48:] for m in masks])
    assert np.any([m[:, :48] for m in masks])


def test_frames_vary(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    area = np.array([m.mean() for _, m in frames])
    parts = [cv2.connectedComponents(m)[0] - 1 for _, m in frames]
    tint = np.array([i[i.max(2) > 40].mean(0) for i, _ in frames])
    assert 0 < (area == 0).mean() < 0.12
    assert 0.03 < (np.array(parts) > 1).mean() < 0.3
    assert np.percentile(area, 95) > 4 * np.percentile(area[area > 0], 10)
    assert (tint.std(axis=0) > 10).all()
    assert len({digest(i) for i, _ in frames}) == len(frames)


def test_brightness_and_colour_do_not_give_the_polyp_away(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    def dice(guess: np.ndarray, truth: np.ndarray) -> float:
        return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())

    shown = [(i.astype(np.float32), m > 0) for i, m in frames if m.any()]
    cues = [lambda i: i[..., 2], lambda i: i[..., 2] / (i[..., 1] + 1), lambda i: i.max(2) - i.min(2)]
    for cue in cues:
        levels = np.percentile([cue(i) for i, _ in shown], range(5, 100, 10))
        assert max(np.mean([dice(s * cue(i) > s * t, m) for i, m in shown]) for t in levels for s in (1, -1)) < 0.4


def test_train_and_val_worlds_share_no_frame() -> None:
    train, val = ({digest(endoscope.render_polyp_frame(s, i, 48)[0]) for i in range(20)} for s in (0, 1))
    assert len(train) == len(val) == 20
    assert not train & val


def test_every_solid_appears_and_labels_match_the_classes() -> None:
    seen = set()
    for i in range(30):
        seen |= set(np.unique(solids.render_shapes(0, i, 64)[1]).tolist())
    assert seen == set(range(len(SyntheticShapesDataset.METAINFO['classes'])))


def test_chosen_classes_are_relabelled() -> None:
    classes = ('background', 'ball')
    data = SyntheticShapesDataset(length=8, size=64, metainfo={'classes': classes}, pipeline=PIPELINE[:1])
    for i in range(8):
        truth = solids.render_shapes(0, i, 64)[1]
        expected = np.where(truth == 0, 0, np.where(truth == 1, 1, 255))
        np.testing.assert_array_equal(data[i]['gt_seg_map'], expected)


@pytest.mark.parametrize('bad', [{'length': 0}, {'length': 1, 'size': 16}, {'length': 1, 'seed': -1}])
def test_bad_arguments_are_named(bad: dict) -> None:
    with pytest.raises(ValueError, match='length >= 1, size >= 32 and seed >= 0, found'):
        SyntheticPolypDataset(**bad)


def test_render_frame_refuses_a_set_with_files() -> None:
    with pytest.raises(KeyError, match='LoadImageFromFile'):
        RenderFrame()({'img_path': 'a.png', 'seg_fields': []})
