"""The wrapper of distributed training, without any other process."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from tiny import tiny_config, train
from torch import nn


@MODEL_WRAPPERS.register_module(force=True)
class StubWrapper(nn.Module):
    """Hands everything on to the model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def train_step(self, data, optim_wrapper):
        return self.module.train_step(data, optim_wrapper=optim_wrapper)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list:
    """The owners of the compiled functions that ran, call by call."""
    calls: list = []

    def compile_(function, **options):
        return lambda *args, **kwargs: (calls.append(function.__self__), function(*args, **kwargs))[1]

    monkeypatch.setattr(Runner, 'wrap_model', lambda self, cfg, model: StubWrapper(model))
    monkeypatch.setattr(torch, 'compile', compile_)
    return calls


def test_the_steps_of_the_new_wrapper_are_compiled(compiled: list, tmp_path: Path) -> None:
    runner = train(tiny_config(tmp_path, compile=dict(backend='eager')))
    assert isinstance(runner.model, StubWrapper)
    assert compiled == [runner.model] * 6


def test_without_compile_nothing_is(compiled: list, tmp_path: Path) -> None:
    train(tiny_config(tmp_path))
    assert compiled == []
