"""``mmgps.tune`` under Lightning: both ways of optimization, and its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from counting import check_moved, parameters
from framework_data import adamw, batches, loader, loss_of, network, tune
from torch import Tensor

import mmgps
from mmgps.sparse import CompactTraining, MaskedTraining

pytestmark = pytest.mark.filterwarnings('ignore')  # those of Lightning
CLIPPED: dict[str, Any] = dict(accumulate_grad_batches=2, gradient_clip_val=0.01)


def lit(manual: bool = False):
    from lightning import LightningModule

    class Lit(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()
            self.automatic_optimization = not manual

        def training_step(self, batch: tuple[Tensor, Tensor], at: int) -> Tensor | None:
            loss = loss_of(self.network, batch)
            if not manual:
                return loss
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return None

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adamw(self)

    return Lit()


def trainer(folder: Path, epochs: int = 1, **options: Any):
    from lightning import Trainer

    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    return Trainer(max_epochs=epochs, accelerator='cpu', default_root_dir=folder, **quiet, **options)


@pytest.mark.parametrize('manual', [False, True], ids=['automatic', 'manual'])
def test_compact_and_masked(manual: bool, tmp_path: Path) -> None:
    states = []
    for training in (CompactTraining, MaskedTraining):
        module = lit(manual)
        before = parameters(module.network)
        tuned = tune(module.network, training=training)
        trainer(tmp_path, **({} if manual else CLIPPED)).fit(module, loader())
        check_moved(tuned, before)
        states.append(module.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('manual', [False, True], ids=['automatic', 'manual'])
def test_a_checkpoint_resumes_and_loads_without_mmgps(manual: bool, tmp_path: Path) -> None:
    half, whole, resumed = lit(manual), lit(manual), lit(manual)
    selection = tune(half.network).selection
    first = trainer(tmp_path)
    first.fit(half, loader())
    first.save_checkpoint(tmp_path / 'half.ckpt')
    for module, path in ((whole, None), (resumed, tmp_path / 'half.ckpt')):
        tune(module.network, selection=selection)
        trainer(tmp_path, 2).fit(module, loader(), ckpt_path=path)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    saved = torch.load(tmp_path / 'half.ckpt', weights_only=True)['state_dict']
    plain = lit(manual)
    plain.load_state_dict(saved, strict=True)
    x = batches()[0][0]
    torch.testing.assert_close(plain.network.eval()(x), half.network.eval()(x), rtol=0, atol=0)


def test_the_module_as_a_whole(tmp_path: Path) -> None:
    """With the network as target, whatever the module holds beside it is trained in full."""
    module = lit()
    module.beside = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    options = dict(target='network', batches=batches(), loss=lambda batch: module.training_step(batch, 0))
    tuned = mmgps.tune(module, 'gps', **options)
    before = parameters(module)
    with pytest.warns(UserWarning, match='1 tensors count as trained and take no part .*: beside'):
        trainer(tmp_path).fit(module, loader())
    assert {name for name in tuned.selection.whole if name.startswith('head.')} == {'head.weight', 'head.bias'}
    assert not torch.equal(module.network.head.weight, before['network.head.weight'])


def test_tuning_within_configure_optimizers_is_early_enough(tmp_path: Path) -> None:
    module = lit()
    before = parameters(module.network)
    made = []

    def configure() -> torch.optim.Optimizer:
        made.append(tune(module.network))
        return adamw(module)

    module.configure_optimizers = configure
    trainer(tmp_path).fit(module, loader())
    check_moved(made[0], before)
