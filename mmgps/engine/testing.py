"""Changes to a config that is tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from .config import TUNE_HOOKS, type_name


def augment_test(cfg: Config) -> None:
    """Make the config average its predictions over views of each image, in place, as mmseg's tools do.

    Raises:
        ValueError: If the config does not say which views, or by what they are merged.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if not cfg.get(key)]
    if missing:
        raise ValueError(
            f"--tta needs {' and '.join(missing)} in the config; add tta_model = dict(type='mmgps.SegTTAModel') and a "
            'tta_pipeline with TestTimeAug, as configs/_base_/datasets/kvasir_seg.py has them'
        )
    _test_set(cfg).pipeline = cfg.tta_pipeline
    cfg.model = {**cfg.tta_model, 'module': cfg.model}


def follow_method(cfg: Config) -> None:
    """Make the network that is tested have what its checkpoint was trained with, whatever the config says, in place."""
    hooks = list(cfg.get('custom_hooks') or [])
    named = {type_name(hook) for hook in [*hooks, *(cfg.get('default_hooks') or {}).values()]}
    if not named & {*TUNE_HOOKS}:
        hooks.append(dict(type='mmgps.TuneHook'))
    if 'mmgps.DeltaHook' not in named:
        hooks.append(dict(type='mmgps.DeltaHook'))
    cfg.custom_hooks = hooks


def spare_config_of_training(cfg: Config) -> None:
    """Leave the config that the training wrote in the work dir as it is: the test names its own after its start.

    The two differ, in the model even where views are averaged, and a checkpoint is loaded by the config beside it.
    """
    object.__setattr__(cfg, '_filename', None)  # as mmengine sets it; the Runner names the file after it


def _test_set(cfg: Config) -> Any:
    """The config of the test set, within any wrappers."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def show_predictions(cfg: Config, folder: str) -> None:
    """Make the config draw its predictions: every picture of the test set, into ``folder``.

    A set of two classes is drawn by ``mmgps.OverlayHook``, with truth and prediction in one picture; it also draws
    frames that lie in no file. Other sets are drawn as mmseg does.
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
    """How many classes the test set names."""
    dataset = _test_set(cfg)
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = dataset.type
        known = getattr(registry.get(kind) if isinstance(kind, str) else kind, 'METAINFO', {})
    return len({**known, **dataset.get('metainfo', {})}.get('classes', ()))
