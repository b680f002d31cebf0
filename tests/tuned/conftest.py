"""A model with a backbone and a head, and what it is trained on."""

from __future__ import annotations

import pytest
import torch
from small_model import SmallModel, batches


@pytest.fixture
def model() -> SmallModel:
    torch.manual_seed(0)
    return SmallModel()


@pytest.fixture
def loader() -> list[torch.Tensor]:
    return batches()
