"""Scores that evaluators print, and their names in the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score of the validation set, in percent; more is better.

    Args:
        key: Name in the JSON file.
        printed: Name in the results of the evaluator, without the prefix that an evaluator may have.
        title: Column title.
    """

    key: str
    printed: str
    title: str

    def of(self, found: Mapping[str, float | None]) -> float | None:
        """Look up the score in the results ``found``; None if it is missing or not a number."""
        names = [name for name in found if name == self.printed or name.endswith(f'/{self.printed}')]
        return found[names[0]] if names else None


METRICS = (
    Metric('dice', 'Dice', 'Dice'),
    Metric('iou', 'IoU', 'IoU'),
    Metric('mdice', 'mDice', 'mDice'),
    Metric('miou', 'mIoU', 'mIoU'),
    Metric('top1', 'accuracy/top1', 'top-1'),
)
"""Foreground scores per image, mmseg's class means, and the accuracy of a classifier. Rates are chosen by the first
that the evaluator prints."""


def present(results: Iterable[Mapping[str, float | None]]) -> list[Metric]:
    """Metrics that occur in any of ``results``."""
    names = [found.keys() for found in results]
    return [m for m in METRICS if any(m.of(dict.fromkeys(found, 0.0)) is not None for found in names)]


def leading(results: Iterable[Mapping[str, float | None]]) -> Metric:
    """Metric that rates are chosen by.

    Raises:
        ValueError: If the evaluator prints no known metric.
    """
    results = list(results)
    found = present(results)
    if not found:
        printed = sorted({name for result in results for name in result})
        raise ValueError(
            f'the evaluator of the config prints {", ".join(printed) or "nothing"}; expected one of '
            f'{", ".join(metric.printed for metric in METRICS)}: add mmgps.PolypMetric or IoUMetric to val_evaluator'
        )
    return found[0]
