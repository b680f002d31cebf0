"""Selection by the contrastive loss, with the hook on classifiers of mmpretrain."""

import math
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_classes
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from slow_supcon import slow_gradients, slow_term
from tiny import TinyPictures, state_of, tiny_config, train
from tiny_classes import BACKBONES, TinyClasses, classes_config, classifier
from torch import nn
from torch.utils.data import DataLoader

from mmgps.engine import ClassBalancedSampler, GPSHook, SupConLoss, build_plain, tune_config
from mmgps.selection import Selection, load_selection, preserved

SEED, SIZE = 3, 4


def selected(work_dir: Path, kind: str = 'vit', **changes) -> tuple[Selection, nn.Module]:
    """Selection of the hook and its untrained model."""
    runner = train(classes_config(work_dir, kind, max_iters=0, **changes))
    return load_selection(work_dir / 'selection.safetensors'), runner.model


def same(one: Selection, other: Selection) -> bool:
    return one.connections.keys() == other.connections.keys() and all(
        torch.equal(item.positions, other.connections[name].positions) for name, item in one.connections.items()
    )


@pytest.mark.parametrize('kind', BACKBONES)
def test_the_hook_selects_what_a_slow_loop_selects(kind: str, tmp_path: Path) -> None:
    """Features are a class token, pooled maps of Swin and ResNet, and the feature that ConvNeXt pools itself."""
    from mmengine.registry import DATASETS

    selection, model = selected(tmp_path, kind)
    dataset = DATASETS.build(classes_config(tmp_path).train_dataloader.dataset)
    with preserved(model):
        gradients = slow_gradients(model.train().requires_grad_(), dataset, SEED, SIZE)
    differing = checked = 0
    for name, item in selection.connections.items():
        rows = gradients[name].flatten(1).abs()
        for row, flat in zip(rows, item.positions.tolist(), strict=True):
            chosen = row[flat % item.fan_in].item()
            checked += 1
            # Either of two connections that differ only by rounding may be chosen.
            differing += not math.isclose(max(row.tolist()), chosen, rel_tol=2e-4, abs_tol=1e-7)
    assert checked > 30
    assert differing == 0


def test_the_same_bits_every_time_with_or_without_workers(tmp_path: Path) -> None:
    first, _ = selected(tmp_path / 'a')
    files = [(tmp_path / 'a/selection.safetensors').read_bytes()]
    for name, workers in (('b', 0), ('c', 1)):
        cfg = classes_config(tmp_path / name)
        cfg.train_dataloader.num_workers = workers
        selected(tmp_path / name, train_dataloader=cfg.train_dataloader)
        files.append((tmp_path / name / 'selection.safetensors').read_bytes())
    assert files[0] == files[1] == files[2]
    again, _ = selected(tmp_path / 'd', randomness=dict(seed=4))
    assert not same(first, again)


@pytest.mark.parametrize('loss', ['SupConLoss', 'TaskLoss'])
def test_the_head_plays_no_part_in_the_contrast_and_does_in_the_task(loss: str, tmp_path: Path) -> None:
    chosen = []
    for std in (0.1, 2.0):
        model = classifier()
        model['head']['init_cfg'] = dict(type='Normal', layer='Linear', std=std)
        hooks = [dict(type='mmgps.GPSHook', loss=dict(type=f'mmgps.{loss}'))]
        chosen.append(selected(tmp_path / f'{std}', model=model, custom_hooks=hooks)[0])
    assert same(*chosen) == (loss == 'SupConLoss')


def test_mixup_plays_no_part(tmp_path: Path) -> None:
    plain, _ = selected(tmp_path / 'a')
    mixed, _ = selected(tmp_path / 'b', model=classifier(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8))))
    assert same(plain, mixed)


def test_views_have_a_pipeline_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image has two different views, and none passes the pipeline of the training set."""
    seen: dict[int, list[torch.Tensor]] = {}
    original = tiny_classes.DrawView.transform

    def seeing(self, results: dict) -> dict:
        found = original(self, results)
        seen.setdefault(results['number'], []).append(torch.as_tensor(found['img']))
        return found

    monkeypatch.setattr(tiny_classes.DrawView, 'transform', seeing)
    monkeypatch.setattr(tiny_classes.DrawClass, 'transform', None)
    loss = dict(type='mmgps.SupConLoss', pipeline=[dict(type='DrawView'), dict(type='PackInputs')])
    selected(tmp_path, custom_hooks=[dict(type='mmgps.GPSHook', loss=loss)])
    assert sorted(seen) == list(range(12))
    for first, second in seen.values():
        assert not torch.equal(first, second)


def test_classes_of_a_single_image_give_no_nan(tmp_path: Path) -> None:
    cfg = classes_config(tmp_path)
    cfg.train_dataloader.dataset.labels = (0, 1, 2)
    selection, _ = selected(tmp_path / 'run', train_dataloader=cfg.train_dataloader)
    assert len(selection) > 0


def test_the_batches_are_the_same_on_any_number_of_processes() -> None:
    """So the sum over all processes equals that of one, and all take equally many steps."""
    loader = DataLoader(list(range(22)), batch_size=4, collate_fn=list)
    batches = {}
    for world in (1, 2, 3, 8):
        shares = [list(SupConLoss().batches(loader, None, 7, rank, world)) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        batches[world] = sorted(batch for share in shares for batch, weight in share if weight)
    assert sorted(map(len, batches[1])) == [4, 8, 8, 8, 8, 8]
    assert all(found == batches[1] for found in batches.values())
    assert sorted(index for batch in batches[1] for index in batch) == sorted([*range(22)] * 2)
    limited = [list(SupConLoss(batch_size=2).batches(loader, 2, 7, rank, 2)) for rank in range(2)]
    assert [[len(batch) for batch, _ in share] for share in limited] == [[4, 4], [4, 4]]


def test_a_lone_last_image_joins_the_batch_before() -> None:
    loader = DataLoader(list(range(9)), batch_size=4, collate_fn=list)
    assert [len(batch) for batch, _ in SupConLoss().batches(loader, None, 0, 0, 1)] == [8, 10]


def test_balanced_classes() -> None:
    labels = (0,) * 7 + (1,) * 2 + (2,) * 3
    dataset = TinyClasses(labels, pipeline=[])
    drawn = ClassBalancedSampler(2).indices(dataset, 5)
    assert Counter(labels[index] for index in drawn) == {0: 8, 1: 8, 2: 8}
    assert all(labels[one] == labels[other] for one, other in zip(drawn[::2], drawn[1::2], strict=True))
    assert set(drawn) == set(range(12))
    assert set(Counter(index for index in drawn if labels[index] == 1).values()) == {4}
    again, other = (ClassBalancedSampler(2).indices(dataset, seed) for seed in (5, 6))
    assert drawn == again != other
    # The neighbours in a batch are random, too.
    pairs = [set(map(frozenset, zip(order[::2], order[1::2], strict=True))) for order in (drawn, other)]
    assert pairs[0] != pairs[1]


def test_balanced_classes_in_the_hook(tmp_path: Path) -> None:
    loss = dict(type='mmgps.SupConLoss', order=dict(type='mmgps.ClassBalancedSampler', images_per_class=2))
    selection, _ = selected(tmp_path / 'a', custom_hooks=[dict(type='mmgps.GPSHook', loss=loss)])
    assert not same(selection, selected(tmp_path / 'b')[0])


def test_training_goes_on_as_under_any_loss(tmp_path: Path) -> None:
    cfg = classes_config(tmp_path)
    before = state_of(train(classes_config(tmp_path / 'base', max_iters=0)))
    model = train(cfg).model
    selection = load_selection(tmp_path / 'selection.safetensors')
    for parameter, connections in selection.resolve(model.backbone):
        moved = parameter.value != before[f'backbone.{parameter.name}']
        assert not (moved & ~connections.mask(parameter.neurons)).any()
        assert moved.any()


def test_another_method_keeps_the_loss(tmp_path: Path) -> None:
    cfg = classes_config(tmp_path)
    for method in ('spt-lora', 'linear', 'lora', 'gps'):
        [hook] = [hook for hook in tune_config(cfg, method).custom_hooks if hook.type == 'mmgps.TuneHook']
        assert hook.loss.type == 'mmgps.SupConLoss'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(temperature=0), 'temperature must be above 0'),
        (dict(batch_size=1), 'at least 2, since the loss compares images'),
        (dict(order=dict(type='mmgps.ClassBalancedSampler', images_per_class=0)), 'at least 1, got 0'),
        (dict(embedding=dict(type='mmgps.PixelEmbedding', per_image=0)), 'at least 1, got 0'),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPSHook(loss=dict(type='mmgps.SupConLoss', **options))


def test_a_data_set_that_cannot_say_its_classes_is_named() -> None:
    for dataset in ([1, 2, 3], TinyPictures(pipeline=[])):
        with pytest.raises(TypeError, match=rf'{type(dataset).__name__} has no classes of images .* use order'):
            ClassBalancedSampler().indices(dataset, 0)


def test_pixels_of_images_of_unlike_sizes(tmp_path: Path) -> None:
    """Images are padded with their labels as in training; the oracle pairs positions by hand."""
    model = build_plain(tiny_config(tmp_path)).eval()
    torch.manual_seed(0)
    inputs, samples = [], []
    for height, width in ((32, 24), (24, 32)):
        inputs.append(torch.randint(0, 255, (3, height, width)))
        label = PixelData(data=torch.randint(0, 2, (1, height, width)))
        samples.append(SegDataSample(gt_sem_seg=label, metainfo=dict(img_shape=(height, width))))
    padded = torch.zeros(2, 3, 32, 32)
    features, labels = [], []
    for at, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        height, width = image.shape[1:]
        padded[at, :, :height, :width] = (image - 100) / 50
        for row in range(height // 8):
            for column in range(width // 8):
                features.append((at, row, column))
                labels.append(int(sample.gt_sem_seg.data[0, 8 * row, 8 * column]))
    maps = model.backbone(padded)[-1]
    expected = slow_term([maps[at, :, row, column] for at, row, column in features], labels)
    loss = SupConLoss(embedding=dict(type='mmgps.PixelEmbedding'))
    plain = SimpleNamespace(optim_context=lambda model: nullcontext())
    found = loss.bind(model, model.backbone, plain)(dict(inputs=inputs, data_samples=samples))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_pixels_of_a_segmentor_and_images_that_have_no_class(tmp_path: Path) -> None:
    loss = dict(type='mmgps.SupConLoss', embedding=dict(type='mmgps.PixelEmbedding', per_image=4))
    chosen = []
    for name, hook in (('pixels', dict(loss=loss)), ('task', {})):
        train(tiny_config(tmp_path / name, max_iters=0, custom_hooks=[dict(type='mmgps.GPSHook', **hook)]))
        chosen.append(load_selection(tmp_path / name / 'selection.safetensors'))
    assert not same(*chosen)
    cfg = tiny_config(tmp_path / 'images', max_iters=0)
    cfg.custom_hooks[0].loss = dict(type='mmgps.SupConLoss')
    with pytest.raises(ValueError, match=r'have no gt_label, only .*gt_sem_seg.*mmgps.PixelEmbedding'):
        train(cfg)
