"""By which batches ``mmgps.tune`` chooses."""

from __future__ import annotations

import torch
from small_model import SmallModel
from torch import Tensor

import mmgps


class Endless(list):
    """Starts again at its end, as the loaders of mm libraries do."""

    def __iter__(self):
        for at in range(1000):
            yield self[at % len(self)]
        raise AssertionError('the loader was read for ever')


def test_a_loader_without_an_end_is_read_once(loader: list[Tensor]) -> None:
    selections = []
    for batches, count in ((loader, None), (Endless(loader), None), (Endless(loader), 2), (loader[:2], None)):
        torch.manual_seed(0)
        model = SmallModel()
        options = dict(batches=batches, loss=lambda batch, model=model: model(batch).loss, num_batches=count)
        selections.append(mmgps.tune(model, 'gps', **options).selection)
    assert selections[0].equals(selections[1])
    assert selections[2].equals(selections[3])
