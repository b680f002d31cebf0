"""Every shipped config of a classifier builds, and says what the paper's recipes say."""

import json
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain', reason='mmpretrain is not installed on this stack')

import mmpretrain
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn
from zoo import without_memory

from mmgps.datasets.prepare.class_sets import FGVC
from mmgps.registry import HOOKS, OPTIM_WRAPPERS
from mmgps.vtab_tasks import TASKS

ROOT = Path(__file__).resolve().parents[1] / 'configs/classification'
LEAVES = sorted(ROOT.rglob('*.py'))
ARCHITECTURES = ('vit-b16', 'swin-b', 'convnext-b')
SETS = {
    'cub': 'cub',
    'nabirds': 'nabirds',
    'flowers': 'oxford-flowers',
    'dogs': 'stanford-dogs',
    'cars': 'stanford-cars',
}
#: Learning rate, batch size, K, drop-path and decay of the average, as the authors' scripts give them.
RECIPES = {
    'cub': (3e-3, 32, 2, 0.0, 0.9998), 'nabirds': (1e-4, 32, 20, 0.1, 0.9998), 'flowers': (1e-3, 32, 1, 0.1, 0.99),
    'cars': (5e-4, 32, 15, 0.0, 0.9998), 'dogs': (1e-4, 64, 1, 0.0, 0.9998),
}  # fmt: skip
#: Learning rate, batch size and drop-path of the tasks of VTAB-1k, in the order of ``TASKS``, as the scripts give them.
RATES = (
    1e-2, 2e-3, 2e-3, 2e-3, 3e-3, 5e-3, 2.5e-3, 4e-3, 2e-3, 1.5e-3, 2e-3, 3e-4, 2e-3, 1.5e-3, 1e-3, 7e-3, 5e-4, 3e-3,
    3e-4,
)  # fmt: skip
BATCHES = (32, 16, 16, 16, 32, 32, 16, 32, 16, 16, 32, 16, 16, 16, 16, 32, 16, 32, 32)
DROPPED = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0.2, 0.1, 0.1, 0.1, 0, 0, 0.2, 0.1, 0.2)


def leaf(suite: str, architecture: str, name: str) -> Config:
    return Config.fromfile(ROOT / suite / f'{architecture}_{name}.py')


@cache
def built(options: str) -> nn.Module:
    """The backbone of a config in JSON: that of most leaves is the same, and a classifier takes one that is built."""
    with without_memory():
        return MODELS.build(json.loads(options))


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_builds(path: Path) -> None:
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone = built(json.dumps(cfg.model.backbone))
    with without_memory():
        model = MODELS.build(cfg.model)
    assert model.head.num_classes == cfg.model.head.num_classes
    for hook in [*cfg.custom_hooks, *cfg.default_hooks.values()]:
        HOOKS.build(hook)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            assert registry.get(loader.dataset.type)
        Compose(list(loader.dataset.pipeline))
    assert OPTIM_WRAPPERS.get(cfg.optim_wrapper.type)
    loss = cfg.custom_hooks[0].loss
    assert loss.type == 'mmgps.SupConLoss'
    Compose(list(loss.get('pipeline') or []))


def test_there_is_a_leaf_for_each_architecture_and_set() -> None:
    expected = {'fgvc': list(SETS), 'vtab': [task.name for task in TASKS]}
    found = {path.relative_to(ROOT).as_posix() for path in LEAVES if path.parent != ROOT}
    assert found == {
        f'{suite}/{a}_{name}.py' for suite, names in expected.items() for a in ARCHITECTURES for name in names
    }


@pytest.mark.parametrize('name', SETS)
def test_recipes_of_fgvc(name: str) -> None:
    cfg = leaf('fgvc', 'vit-b16', name)
    gps, ema = cfg.custom_hooks
    recipe = (cfg.optim_wrapper.optimizer.lr, cfg.train_dataloader.batch_size, gps.k, cfg.model.backbone.drop_path_rate)
    assert (*recipe, 1 - ema.momentum) == pytest.approx(RECIPES[name])
    wanted = FGVC[SETS[name]]
    assert cfg.model.head.num_classes == cfg.model.data_preprocessor.num_classes == wanted.classes
    assert cfg.train_dataloader.dataset.type == cfg.val_dataloader.dataset.type == wanted.splits[0].dataset['type']
    assert cfg.train_dataloader.dataset.data_root == f'data/{wanted.name.replace("-", "_")}'
    assert (cfg.train_dataloader.dataset.split, cfg.val_dataloader.dataset.split) == (
        'trainval' if name == 'flowers' else 'train',
        'test',
    )
    assert [augment.type for augment in cfg.model.train_cfg.augments] == ['Mixup', 'CutMix']
    _assert_schedule(cfg)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_recipes_of_vtab(task) -> None:
    cfg = leaf('vtab', 'vit-b16', task.name)
    [gps] = cfg.custom_hooks
    data = cfg.train_dataloader.dataset
    assert (data.task, data.split, cfg.val_dataloader.dataset.split) == (task.name, 'train800val200', 'test')
    assert cfg.model.head.num_classes == task.classes
    assert gps.k == (2 if task.name == 'patch_camelyon' else 1)
    at = TASKS.index(task)
    recipe = cfg.optim_wrapper.optimizer.lr, cfg.train_dataloader.batch_size, cfg.model.backbone.drop_path_rate
    assert recipe == (RATES[at], BATCHES[at], DROPPED[at])
    assert 'train_cfg' not in cfg.model
    assert [step.type for step in data.pipeline] == ['LoadImageFromFile', 'Resize', 'PackInputs']
    _assert_schedule(cfg)


def _assert_schedule(cfg: Config) -> None:
    warm_up, cosine = cfg.param_scheduler
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay, cfg.train_cfg.max_epochs) == ('Adam', 0.0, 100)
    assert warm_up.start_factor * optimizer.lr == pytest.approx(1e-7)
    assert (warm_up.end, cosine.begin, cosine.end, cosine.T_max, cosine.eta_min) == (10, 10, 100, 90, 1e-8)


def test_weights_are_those_that_mmpretrain_publishes() -> None:
    """Except for ViT's, which its list leaves out and only its documentation names."""
    zoo = Path(mmpretrain.__file__).parent / '.mim/configs'
    published = ''.join((zoo / name / 'metafile.yml').read_text() for name in ('swin_transformer', 'convnext'))
    for architecture in ARCHITECTURES:
        url = leaf('fgvc', architecture, 'cub').model.backbone.init_cfg.checkpoint
        assert url.startswith('https://download.openmmlab.com/mmclassification/v0/')
        assert architecture == 'vit-b16' or url.partition('/mmclassification/')[2] in published
