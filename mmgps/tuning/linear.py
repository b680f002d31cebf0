"""Linear probing."""

from mmgps.selection import Parameter

from .base import WholeParameters


class LinearProbe(WholeParameters):
    """Train nothing of the backbone: only what lies outside it, the head or decoder."""

    name = 'linear'

    def trains(self, parameter: Parameter) -> bool:
        return False
