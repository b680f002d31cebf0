"""Full fine-tuning."""

from mmgps.selection import Parameter

from .base import WholeParameters


class FullTuning(WholeParameters):
    """Train every parameter of the backbone."""

    name = 'full'

    def trains(self, parameter: Parameter) -> bool:
        return True
