"""Bias tuning, after BitFit (Ben Zaken et al., ACL 2022)."""

from mmgps.selection import Parameter

from .base import WholeParameters


class BiasTuning(WholeParameters):
    """Train every bias of the backbone, including those of norms: 102,656 numbers in SAM ViT-B."""

    name = 'bias'

    def trains(self, parameter: Parameter) -> bool:
        return parameter.is_bias
