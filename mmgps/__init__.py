"""Gradient-based parameter selection (GPS) for mmengine, mmsegmentation and mmpretrain.

Importing this package imports neither torch nor mmengine. The parts that need only torch are
``mmgps.selection``, ``mmgps.sparse``, ``mmgps.tuning`` and ``mmgps.delta``; configs reach everything else through the
``mmgps.`` scope, for example ``type='mmgps.GPSHook'``.
"""

__version__ = '0.1.0'
