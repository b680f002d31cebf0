"""Linear probing."""

from mmgps.selection import Parameter

from .base import WholeParameters


class LinearProbe(WholeParameters):
    """Train only the head or decoder, and nothing of the backbone."""

    name = 'linear'

    def trains(self, parameter: Parameter) -> bool:
        return False
