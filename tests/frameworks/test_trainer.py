"""``mmgps.tune`` under the Trainer of transformers, with the optimizer that it builds itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import check_moved, parameters, total
from torch import Tensor, nn
from whole_models import CLASSES, TRANSFORMERS, images, labels

import mmgps
from mmgps.sparse import CompactTraining, MaskedTraining

pytestmark = pytest.mark.filterwarnings('ignore')  # those of transformers
IMAGES = [dict(pixel_values=images(count=1, seed=at)[0], labels=int(labels(1, seed=at))) for at in range(24)]


@pytest.fixture(autouse=True)
def _no_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder tests/datasets, which pytest makes importable, is not the package of that name."""
    import transformers.trainer

    monkeypatch.setattr(transformers.trainer, 'is_datasets_available', lambda: False)


def batches() -> Iterator[dict[str, Tensor]]:
    for at in range(0, len(IMAGES), 4):
        some = IMAGES[at : at + 4]
        yield dict(
            pixel_values=torch.stack([one['pixel_values'] for one in some]),  # type: ignore[misc]
            labels=torch.tensor([one['labels'] for one in some]),
        )


def model() -> nn.Module:
    torch.manual_seed(0)
    return TRANSFORMERS['Swin']().model


def with_own_names(model: nn.Module) -> nn.Module:
    """Let checkpoints have the names of the model's state dict, where the Trainer looks for them when it resumes."""
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    return model


def trainer(model: nn.Module, folder: Path, **options: Any):
    from transformers import Trainer, TrainingArguments

    options = dict(
        max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.1,
        learning_rate=1e-2, weight_decay=0.1, save_steps=3, logging_steps=1,
    ) | options  # fmt: skip
    arguments = TrainingArguments(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **options)
    return Trainer(model, arguments, train_dataset=IMAGES)  # type: ignore[arg-type]


def test_its_own_optimizer_accumulates_and_clips(tmp_path: Path) -> None:
    states = []
    for training in (CompactTraining, MaskedTraining):
        network = model()
        before = parameters(network)
        tuned = mmgps.tune(network, 'gps', batches=batches(), training=training)
        trainer(network, tmp_path / training.__name__, save_strategy='no').train()
        assert total(tuned) < 2000
        check_moved(tuned, before)
        states.append(network.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('method', ['gps', 'lora'])
def test_its_checkpoint_resumes(method: str, tmp_path: Path) -> None:
    whole, resumed = with_own_names(model()), model()
    tuned = mmgps.tune(whole, method, batches=batches())
    trainer(whole, tmp_path).train()
    mmgps.tune(resumed, method, selection=tuned.selection)
    trainer(resumed, tmp_path, save_strategy='no').train(resume_from_checkpoint=str(tmp_path / 'checkpoint-3'))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_the_page_says_why_names_matter(tmp_path: Path) -> None:
    """A plain Swin, without mmgps, does not resume either: its checkpoint has the names of older versions."""
    network = model()
    trainer(network, tmp_path, max_steps=3).train()
    again = trainer(model(), tmp_path, max_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / 'checkpoint-3'))
    key = 'swin.encoder.layers.0.blocks.0.attention.q_proj.weight'
    assert not torch.equal(again.model.state_dict()[key], network.state_dict()[key])


@pytest.mark.parametrize('own_names', [False, True])
def test_a_saved_model_loads_without_mmgps(own_names: bool, tmp_path: Path) -> None:
    from transformers import SwinForImageClassification

    network = with_own_names(model()) if own_names else model()
    mmgps.tune(network, 'gps', batches=batches())
    run = trainer(network, tmp_path / 'run', max_steps=2, save_strategy='no')
    run.train()
    run.save_model(str(tmp_path / 'saved'))
    plain = SwinForImageClassification.from_pretrained(tmp_path / 'saved', dtype=torch.float64)
    assert plain.config.num_labels == CLASSES
    x = IMAGES[0]['pixel_values'][None]  # type: ignore[index]
    torch.testing.assert_close(plain.eval()(x).logits, network.eval()(x).logits, rtol=0, atol=0)


def test_gradient_checkpointing(tmp_path: Path) -> None:
    """Recomputed blocks give the gradients of those that are not."""
    states = []
    for recomputed in (False, True):
        network = model()
        before = parameters(network)
        tuned = mmgps.tune(network, 'gps', batches=batches())
        trainer(network, tmp_path, save_strategy='no', gradient_checkpointing=recomputed).train()
        check_moved(tuned, before)
        states.append(network.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=1e-12, atol=1e-12)


def test_an_optimizer_that_weighs_whole_tensors_is_refused(tmp_path: Path) -> None:
    network = model()
    mmgps.tune(network, 'gps', batches=batches())
    with pytest.raises(ValueError, match='Adafactor is not known to step each number by itself'):
        trainer(network, tmp_path, optim='adafactor', save_strategy='no').train()
