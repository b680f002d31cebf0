"""Which way the gradient of a layer's values is made, and what it costs.

Costs are counted per output position in multiply-adds of a matrix product, the unit in which the device is fast:

* ``columns``: keep the ``U`` distinct inputs that some neuron selects; product of the output's gradient with them,
  then pick: ``neurons * (U + NARROW)``, since narrow products do not reach full speed.
* ``gather``: for each chosen connection, multiply its neuron's gradient with its input and add up:
  ``chosen * ENTRY``, bound by memory.
* ``dense``: the layer's whole gradient, picked from at once and freed: ``neurons * fan_in``, times ``GROUPED`` for a
  grouped convolution, whose products are narrow. It keeps all inputs, which counts ``KEPT`` for each.

Those of the CPU lie between measurements on two machines (README). On an H200 a connection of the gather is worth 265
multiply-adds in float32 and 4000 in bfloat16, and which of the two it will be is not known before the first forward.
They are fixed, not measured at the start: another route would round differently after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NARROW = 15
ENTRY = {'cpu': 60, 'cuda': 1000}
KEPT = 20
GROUPED = 4
MOSTLY = 0.75
"""The share of inputs from which on keeping all of them, by reference, beats a copy of the selected ones."""


class Kind(StrEnum):
    """A way to make the gradient of the values."""

    COLUMNS = 'columns'
    GATHER = 'gather'
    DENSE = 'dense'
    FALLBACK = 'fallback'
    """The operation's own gradient, for an owner of which nothing is known."""


@dataclass(frozen=True)
class Route:
    """The way of one layer.

    Args:
        kind: How its gradient is made.
        kept: Numbers kept for backward per position, at most.
        inputs: Numbers that the layer reads per position.
        chosen: Trained numbers.
    """

    kind: Kind
    kept: int
    inputs: int
    chosen: int

    def __str__(self) -> str:
        return f'{self.kind.value} ({self.kept}/{self.inputs} inputs kept)'


@dataclass(frozen=True)
class Work:
    """What decides a route.

    Args:
        neurons: Outputs.
        fan_in: Connections of each.
        distinct: Selected inputs, which is what a product with them is wide.
        chosen: Trained connections.
        kept: Numbers to keep per position for them.
        inputs: Numbers to keep per position for all inputs.
        device: Type of the device.
        grouped: Whether it is a grouped convolution.
    """

    neurons: int
    fan_in: int
    distinct: int
    chosen: int
    kept: int
    inputs: int
    device: str
    grouped: bool = False

    def costs(self) -> dict[Kind, float]:
        """Kind to cost per position."""
        whole = self.neurons * self.fan_in * (GROUPED if self.grouped else 1)
        return {
            Kind.COLUMNS: self.neurons * (self.distinct + NARROW) + KEPT * self.kept,
            Kind.GATHER: self.chosen * ENTRY.get(self.device, ENTRY['cuda']) + KEPT * self.kept,
            Kind.DENSE: whole + KEPT * self.inputs,
        }

    def route(self) -> Route:
        """The cheapest."""
        costs = self.costs()
        kind = min(costs, key=lambda kind: costs[kind])
        return Route(kind, self.inputs if kind is Kind.DENSE else self.kept, self.inputs, self.chosen)
