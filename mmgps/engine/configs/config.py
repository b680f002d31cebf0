"""Changes to a config: fine-tuning method, precision, learning rate, data root, and options of a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

from mmgps.registry import METHODS
from mmgps.tuning import InjectionMethod

from .components import METHOD_NAMES, check_method_name

SELECTIVE = {
    'OptimWrapper': 'mmgps.GPSOptimWrapper',
    'AmpOptimWrapper': 'mmgps.GPSAmpOptimWrapper',
}
AMP_FORM = {'OptimWrapper': 'AmpOptimWrapper', 'mmgps.GPSOptimWrapper': 'mmgps.GPSAmpOptimWrapper'}
TUNE_HOOKS = ('mmgps.GPSHook', 'mmgps.TuneHook')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
RESUME_HOOK = 'mmgps.ExactResumeHook'
TUNED = 'mmgps.TunedBackbone'
TUNED_FUNCTION = {'tuned_backbone': 'TunedBackbone'}
"""The builder function, which a pure-Python config names instead of the registered name."""


def tune_config(
    cfg: Config, method: str, options: Mapping[str, Any] | None = None, target: str | None = None
) -> Config:
    """Make ``cfg`` fine-tune its backbone by ``method``, in place.

    It replaces a method that the config has already, but keeps its target, its lean options and the settings of its
    selection pass. A method that adds modules goes into the config of the backbone, any other into a hook. Optimizer
    wrappers become the selective ones of the same kind, and :class:`mmgps.engine.ExactResumeHook` is added.

    Args:
        cfg: Any config of an mm library.
        method: Short name of a method in ``METHOD_NAMES``.
        options: Arguments of the method, such as ``k`` of ``gps``.
        target: Path of the part of the model to tune; None keeps the target of the config's method, else ``backbone``.

    Returns:
        The same config.

    Raises:
        ValueError: For an unknown method; names the nearest.
    """
    check_method_name(method)
    hooks = list(cfg.get('custom_hooks') or [])
    defaults = cfg.get('default_hooks') or {}
    kept = {
        key: hook[key]
        for hook in [*defaults.values(), *hooks]
        if _is(hook, TUNE_HOOKS)
        for key in ('target', 'num_batches', 'loss', 'lean', 'micro_batches', 'allow_random_base')
        if key in hook
    }
    if target is not None:
        kept['target'] = target
        cfg.model = without_method(cfg.model)
    hooks = [hook for hook in hooks if not _is(hook, TUNE_HOOKS)]
    for name in [name for name, hook in defaults.items() if _is(hook, TUNE_HOOKS)]:
        defaults.pop(name)
    chosen = {**METHOD_NAMES[method], **(options or {})}
    in_place = put_in_place(cfg, chosen, kept.get('target', 'backbone'))
    hooks.append(dict(type='mmgps.TuneHook', **({} if in_place else {'method': chosen}), **kept))
    if not any(_is(hook, (RESUME_HOOK,)) for hook in [*hooks, *defaults.values()]):
        hooks.append(dict(type=RESUME_HOOK))
    cfg.custom_hooks = hooks
    if cfg.get('optim_wrapper'):
        _make_selective(cfg.optim_wrapper)
    return cfg


def put_in_place(cfg: Config, method: Mapping[str, Any], target: str) -> bool:
    """Put the config ``method`` into that of the backbone at ``target``, if the method adds modules to a backbone.

    The method that the backbone has already is removed in either case.

    Returns:
        True if the method was put in place.

    Raises:
        ValueError: If the config names no backbone at ``target``.
    """
    kind = method['type']
    injects = issubclass(METHODS.get(kind) if isinstance(kind, str) else kind, InjectionMethod)
    *path, last = target.split('.')
    part: Any = cfg.model
    for key in path:
        part = part.get(key) if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(part.get(last), dict):
        if not injects:
            return False
        raise ValueError(f'the config has no model.{target} to put {method["type"]} into; set target of the hook')
    base = part[last]
    while type_name(base) == TUNED:
        base = base['backbone']
    part[last] = dict(type=TUNED, backbone=base, method=dict(method)) if injects else base
    return injects


def without_method(part: Any) -> Any:
    """Copy the config of a model without the methods of its backbones."""
    if isinstance(part, dict):
        if type_name(part) == TUNED:
            return without_method(part['backbone'])
        return type(part)({key: without_method(value) for key, value in part.items()})
    if isinstance(part, list | tuple):
        return type(part)(map(without_method, part))
    return part


def type_name(part: Any) -> Any:
    """Return the type in the config of a component, in the spelling of mmgps's configs, such as ``'mmgps.TuneHook'``.

    Pure-Python configs give the class itself, and are dumped with the path of its module.

    Returns:
        Short name of a type of mmengine or mmgps; any other type unchanged; None without a type.
    """
    kind = part.get('type') if isinstance(part, Mapping) else None
    if kind is None:
        return None
    path = kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__qualname__}'
    library, _, rest = path.partition('.')
    if library not in ('mmengine', 'mmgps') or not rest:
        return kind
    name = rest.rpartition('.')[2]
    short = TUNED_FUNCTION.get(name, name)
    return f'mmgps.{short}' if library == 'mmgps' else short


def _is(hook: Any, types: tuple[str, ...]) -> bool:
    return type_name(hook) in types


def _make_selective(wrapper: ConfigDict) -> None:
    kind = type_name(wrapper) or 'OptimWrapper'
    if kind in SELECTIVE:
        wrapper['type'] = SELECTIVE[kind]
    for part in _parts(wrapper):
        _make_selective(part)


def _parts(wrapper: ConfigDict) -> list[ConfigDict]:
    """Configs of the single wrappers, if a constructor makes several."""
    return [part for part in wrapper.values() if isinstance(part, Mapping) and 'optimizer' in part]


def enable_amp(cfg: Config) -> None:
    """Train in automatic mixed precision.

    Raises:
        ValueError: Without CUDA, which mmengine's wrapper needs, or for a wrapper without a mixed-precision form.
    """
    if not torch.cuda.is_available():
        raise ValueError('--amp needs a CUDA device and none is available; leave it out to train in float32')
    for wrapper in _parts(cfg.optim_wrapper) or [cfg.optim_wrapper]:
        kind = type_name(wrapper) or 'OptimWrapper'
        if kind in AMP_FORM.values():
            continue
        if kind not in AMP_FORM:
            raise ValueError(f'--amp does not know optim_wrapper.type {kind!r}; it knows {", ".join(AMP_FORM)}')
        wrapper.type = AMP_FORM[kind]
        wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the total batch size.

    Raises:
        ValueError: If the config does not name the batch size of its learning rate.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr needs to know the total batch size that the learning rate was chosen for; '
            'add auto_scale_lr = dict(base_batch_size=16) with your number to the config'
        )
    cfg.auto_scale_lr.enable = True


def set_data_root(cfg: Config, root: str) -> None:
    """Read every data set of the config from ``root``.

    Raises:
        ValueError: If no data set of the config has a ``data_root``.
    """
    datasets = rooted_datasets(cfg)
    if not datasets:
        raise ValueError('--data-root needs a data set with a data_root, and the config has none')
    for dataset in datasets:
        dataset['data_root'] = root


def rooted_datasets(cfg: Config) -> list[Any]:
    """List the configs of all data sets of ``cfg`` that have a ``data_root``, also within wrappers."""
    loaders = [cfg[name] for name in LOADERS if isinstance(cfg.get(name), Mapping)]
    return [data for loader in loaders for data in _with_root(loader.get('dataset'))]


def _with_root(dataset: Any) -> list[Any]:
    """Look into wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if isinstance(dataset, list | tuple):
        return [found for part in dataset for found in _with_root(part)]
    if not isinstance(dataset, Mapping):
        return []
    inner = [*_with_root(dataset.get('dataset')), *_with_root(dataset.get('datasets'))]
    return [dataset, *inner] if 'data_root' in dataset else inner


def augment_test(cfg: Config) -> None:
    """Average predictions over views of each image, as mmseg's tools do; changes ``cfg`` in place.

    Raises:
        ValueError: If the config does not define the views or the model that merges them.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if not cfg.get(key)]
    if missing:
        raise ValueError(
            f"--tta needs {' and '.join(missing)} in the config; add tta_model = dict(type='mmgps.SegTTAModel') and a "
            'tta_pipeline with TestTimeAug, as in configs/_base_/datasets/kvasir_seg.py'
        )
    _test_set(cfg).pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, 'module': cfg.model}


def follow_method(cfg: Config) -> None:
    """Let the tested network follow its checkpoint: add the hooks that inject the modules of the checkpoint."""
    hooks = list(cfg.get('custom_hooks') or [])
    named = {type_name(hook) for hook in [*hooks, *(cfg.get('default_hooks') or {}).values()]}
    if not named & {*TUNE_HOOKS}:
        hooks.append(dict(type='mmgps.TuneHook'))
    if 'mmgps.DeltaHook' not in named:
        hooks.append(dict(type='mmgps.DeltaHook'))
    cfg.custom_hooks = hooks


def keep_training_config(cfg: Config) -> None:
    """Keep the config that training wrote to the work dir; the test writes its own under the time of its start.

    The two configs differ, and users load a checkpoint with the config in the same folder.
    """
    object.__setattr__(cfg, '_filename', None)  # mmengine sets it this way, and the Runner names the file by it


def _test_set(cfg: Config) -> Any:
    """Config of the test set inside its wrappers."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def show_predictions(cfg: Config, folder: str) -> None:
    """Draw the predictions for every image of the test set into ``folder``; changes ``cfg`` in place.

    ``mmgps.OverlayHook`` draws a set of two classes, with truth and prediction in one picture, also for frames without
    a file of their own. mmseg draws other sets.
    """
    cfg.setdefault('default_hooks', {})
    if _classes(cfg) == 2:
        hook: dict[str, Any] = dict(type='mmgps.OverlayHook', num_images=None, out_dir=str(Path(folder).absolute()))
    else:
        hook = dict(type='SegVisualizationHook', draw=True, interval=1)
        cfg.visualizer = {**cfg.get('visualizer', dict(type='SegLocalVisualizer')), 'save_dir': folder}
        cfg.visualizer['vis_backends'] = [dict(type='LocalVisBackend')]
    cfg.default_hooks['visualization'] = hook


def _classes(cfg: Config) -> int:
    """Count the classes that the test set names."""
    dataset = _test_set(cfg)
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = dataset.type
        known = getattr(registry.get(kind) if isinstance(kind, str) else kind, 'METAINFO', {})
    return len({**known, **dataset.get('metainfo', {})}.get('classes', ()))
