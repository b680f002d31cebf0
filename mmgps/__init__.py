"""Gradient-based parameter selection (GPS) for any PyTorch model, and for mmengine, mmsegmentation and mmpretrain.

``mmgps.tune`` and ``mmgps.load`` need only torch, as do ``mmgps.selection``, ``mmgps.sparse``, ``mmgps.tuning`` and
``mmgps.delta``; configs reach everything else through the ``mmgps.`` scope, for example ``type='mmgps.GPSHook'``.
Importing this package imports neither torch nor mmengine.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmgps.tuned import Tuned, load, tune

__version__ = '0.1.0'
__all__ = ['Tuned', 'load', 'tune']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from mmgps import tuned

    return getattr(tuned, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
