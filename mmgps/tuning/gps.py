"""Gradient-based parameter selection."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from mmgps.selection import (
    Accumulation,
    ConnectionChoice,
    Connections,
    GradientScore,
    Parameter,
    PerNeuron,
    Role,
    Score,
    Selection,
    architecture_fingerprint,
)

from .base import trainable


class GPS:
    """Train the ``k`` input connections with the largest gradient of every neuron (CVPR 2024, section 3).

    Args:
        k: Connections per neuron, at least 1; clamped to the fan-in of a neuron.
        score: Rates the connections.
        choice: Decides which connections compete with each other.
        full_roles: Roles of the parameters that are trained in full, one or several. The paper's code trains biases,
            layer scales and relative-position bias tables, and freezes norms, tokens and position embeddings.

    Raises:
        ValueError: For a ``k`` below 1 or an unknown role.
    """

    name = 'gps'

    def __init__(
        self,
        k: int = 1,
        score: Score | None = None,
        choice: ConnectionChoice | None = None,
        full_roles: str | Sequence[Role | str] = (Role.BIAS, Role.SCALE, Role.POSITION_BIAS),
    ) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(
                f'k is the number of connections per neuron and must be an integer of at least 1, got {k!r}'
            )
        full_roles = [full_roles] if isinstance(full_roles, str) else list(full_roles)
        allowed = [role.value for role in Role if role is not Role.CONNECTION]
        unknown = [role for role in full_roles if role not in allowed]
        if unknown:
            raise ValueError(f'full_roles names the roles that are trained in full, got {unknown}; allowed: {allowed}')
        self.k = k
        self.score = score or GradientScore()
        self.choice = choice or PerNeuron()
        self.full_roles = tuple(Role(role) for role in full_roles)

    @property
    def needs_gradient(self) -> bool:
        return self.score.needs_gradient

    @property
    def accumulation(self) -> Accumulation:
        return self.score.accumulation

    def candidates(self, backbone: nn.Module) -> dict[str, Parameter]:
        return trainable(backbone, (Role.CONNECTION,))

    def select(self, backbone: nn.Module, gradients: Mapping[str, Tensor] | None = None) -> Selection:
        candidates = self.candidates(backbone)
        self._report_clamping(candidates)
        chosen = self.choice.choose(_Rows(candidates, self.score, gradients), self.k)
        connections = {
            name: Connections(chosen[name].cpu(), entry.neurons.neurons, entry.neurons.fan_in)
            for name, entry in candidates.items()
        }
        whole = tuple(trainable(backbone, self.full_roles))
        return Selection(self.name, connections, whole, architecture_fingerprint(backbone), self.settings())

    def inject_selected(self, backbone: nn.Module, selection: Selection) -> dict[nn.Parameter, list[nn.Parameter]]:
        return {}

    def settings(self) -> dict[str, object]:
        return {
            'k': self.k,
            'score': _described(self.score),
            'choice': _described(self.choice),
            'full_roles': [role.value for role in self.full_roles],
        }

    def _report_clamping(self, candidates: Mapping[str, Parameter]) -> None:
        narrow = [name for name, entry in candidates.items() if entry.neurons.fan_in < self.k]
        if narrow:
            least = min(candidates[name].neurons.fan_in for name in narrow)
            warnings.warn(
                f'k={self.k} exceeds the fan-in of the neurons of {len(narrow)} layers (first {narrow[0]!r}, least '
                f'fan-in {least}): every connection of those neurons is trained',
                stacklevel=3,
            )


def _described(component: Score | ConnectionChoice) -> str:
    """The class and the arguments of a component, such as ``RandomScore(seed=0)``."""
    arguments = ', '.join(f'{name}={value!r}' for name, value in vars(component).items())
    return type(component).__name__ + (f'({arguments})' if arguments else '')


class _Rows(Mapping[str, Tensor]):
    """Scores ``[neurons, fan_in]`` by layer, computed on access and not kept."""

    def __init__(
        self, candidates: Mapping[str, Parameter], score: Score, gradients: Mapping[str, Tensor] | None
    ) -> None:
        self._candidates, self._score, self._gradients = candidates, score, gradients

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._candidates[name]
        gradient = None if self._gradients is None else self._gradients[name]
        return parameter.neurons.to_rows(self._score(parameter, gradient))

    def __iter__(self) -> Iterator[str]:
        return iter(self._candidates)

    def __len__(self) -> int:
        return len(self._candidates)
