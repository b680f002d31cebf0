"""A tested network has the injected modules of its checkpoint, whichever method the config names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from tiny import INJECTED, tiny_config, tiny_model, train

from mmgps.engine import METHOD_NAMES, build_base, follow_method, init_bank, init_model, tune_config
from mmgps.engine.deltas.checkpoint_method import agrees
from mmgps.engine.deltas.delta_command import extract_from_checkpoint, merged_state, write_checkpoint
from mmgps.registry import METHODS
from mmgps.tuning import BiasTuning, FullTuning, LoRA

CONFIGS = ['gps', 'lora', 'ssf', 'spt-lora', 'full', None]
CHECKPOINTS = ['gps', 'lora', 'ssf', 'vpt-deep', 'spt-adapter']


def config(folder: Path, method: str | None, **changes):
    cfg = tiny_config(folder, custom_hooks=[], **changes)
    return cfg if method is None else tune_config(cfg, method, INJECTED.get(method))


def answer(model: torch.nn.Module) -> torch.Tensor:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad():
        return model(x, mode='tensor')


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, torch.Tensor]]:
    """Checkpoint and output of a run under each method, from one base."""
    folder = tmp_path_factory.mktemp('trained')
    found = {}
    for method in CHECKPOINTS:
        cfg = config(folder / method, method, max_iters=2, param_scheduler=None)
        cfg.optim_wrapper.optimizer.lr = 0.1
        cfg.default_hooks.checkpoint.save_optimizer = False
        found[method] = (folder / method / 'iter_2.pth', answer(train(cfg).model))
    return found


def loaded(cfg, checkpoint: Path | str) -> Runner:
    """Runner of ``tools/test.py`` with its model loaded."""
    follow_method(cfg)
    cfg.load_from, cfg.resume = str(checkpoint), False
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    return runner


@pytest.mark.parametrize('made', CHECKPOINTS)
@pytest.mark.parametrize('asked', CONFIGS)
def test_the_checkpoint_decides(asked: str | None, made: str, trained: dict, tmp_path: Path) -> None:
    checkpoint, expected = trained[made]
    runner = loaded(config(tmp_path, asked), checkpoint)
    assert torch.equal(answer(runner.model), expected)
    assert runner.model.state_dict().keys() == torch.load(checkpoint, weights_only=True)['state_dict'].keys()


@pytest.mark.parametrize('method', ['gps', 'lora', 'bias'])
def test_another_part_of_the_network(method: str, tmp_path: Path) -> None:
    """The checkpoint decides which part was tuned, even if the config tunes the backbone or nothing."""
    named = {**METHOD_NAMES[method], **(dict(parts=('conv',), rank=2) if method == 'lora' else {})}
    cfg = tiny_config(tmp_path, 2)
    cfg.custom_hooks = [dict(type='mmgps.TuneHook', method=named, target='decode_head.convs')]
    cfg.custom_hooks.append(dict(type='mmgps.ExactResumeHook'))
    expected = answer(train(cfg).model)
    for asked in ('ssf', 'gps', None):
        runner = loaded(config(tmp_path / f'{asked}', asked), tmp_path / 'iter_2.pth')
        assert torch.equal(answer(runner.model), expected)


def test_settings_that_change_no_shape(trained: dict, tmp_path: Path) -> None:
    """The network uses the alpha of the checkpoint."""
    checkpoint, expected = trained['lora']
    cfg = tune_config(tiny_config(tmp_path, custom_hooks=[]), 'lora', dict(rank=2, alpha=40.0))
    assert torch.equal(answer(loaded(cfg, checkpoint).model), expected)


@pytest.mark.parametrize('asked', ['ssf', 'lora', 'gps'])
def test_a_merged_network_needs_no_method(asked: str, trained: dict, tmp_path: Path) -> None:
    """The untrained modules that the config would add are removed."""
    checkpoint, expected = trained['lora']
    base = base_file(tmp_path)
    delta = extract_from_checkpoint(config(tmp_path, None), checkpoint, base)
    write_checkpoint(tmp_path / 'merged.pth', merged_state(config(tmp_path, None), delta, base), delta)
    runner = loaded(config(tmp_path / 'tested', asked), tmp_path / 'merged.pth')
    torch.testing.assert_close(answer(runner.model), expected, rtol=1e-4, atol=1e-5)


def base_file(folder: Path) -> Path:
    """Base of the runs, initialized by their seed."""
    runner = train(config(folder / 'base', None, max_iters=0, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))
    torch.save(runner.model.state_dict(), folder / 'base.pth')
    return folder / 'base.pth'


def published(checkpoint: Path, folder: Path) -> Path:
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    torch.save(dict(state_dict=state), folder / 'published.pth')
    return folder / 'published.pth'


def test_a_published_network_is_tested_by_its_own_config(trained: dict, tmp_path: Path) -> None:
    """A published checkpoint does not record its method."""
    checkpoint, expected = trained['lora']
    file = published(checkpoint, tmp_path)
    assert torch.equal(answer(loaded(config(tmp_path / 'a', 'lora'), file).model), expected)
    for at, asked in enumerate(('gps', 'ssf', None)):
        with pytest.raises(ValueError, match=r'lora\.a.* beside the base and does not name the method'):
            loaded(config(tmp_path / f'b{at}', asked), file)


def test_an_average_that_was_copied_before(trained: dict, tmp_path: Path) -> None:
    cfg = config(tmp_path, 'ssf')
    cfg.custom_hooks.append(dict(type='EMAHook'))
    follow_method(cfg)
    cfg.load_from = str(trained['gps'][0])
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    with pytest.raises(ValueError, match='EMAHook copied the model that the config builds'):
        runner.load_or_resume()


@pytest.mark.parametrize('asked', ['gps', 'ssf'])
def test_training_does_not_start_from_half_of_a_network(asked: str, trained: dict, tmp_path: Path) -> None:
    cfg = config(tmp_path, asked, load_from=str(trained['lora'][0]))
    with pytest.raises(ValueError, match=r'load_from names a network with \d+ tensors .*lora\.a.*delta.py merge'):
        train(cfg)
    assert train(config(tmp_path / 'own', 'lora', max_iters=1, load_from=str(trained['lora'][0]))).iter == 1


def test_a_thin_checkpoint_without_the_hook_that_fills_it(tmp_path: Path) -> None:
    base = base_file(tmp_path)
    cfg = config(tmp_path / 'thin', 'lora', max_iters=2, load_from=str(base), param_scheduler=None)
    cfg.custom_hooks.append(dict(type='mmgps.DeltaHook', thin_checkpoints=True))
    expected = answer(train(cfg).model)
    file = tmp_path / 'thin/iter_2.pth'
    cfg = config(tmp_path / 'thin', 'lora', resume=True)
    with pytest.raises(ValueError, match=r'is thin, .*mmgps\.DeltaHook'):
        train(cfg)
    torch.testing.assert_close(
        answer(init_model(config(tmp_path / 'model', 'gps', load_from=str(base)), file)), expected, rtol=0, atol=0
    )


@pytest.mark.parametrize('made', CHECKPOINTS)
def test_init_model(made: str, trained: dict, tmp_path: Path) -> None:
    """``init_model`` accepts a checkpoint and restores its head; a bank needs a base."""
    checkpoint, expected = trained[made]
    cfg = config(tmp_path, 'gps')
    model = init_model(cfg, checkpoint)
    assert not any(module.training for module in model.modules())
    assert model.cfg is cfg
    assert model.dataset_meta['classes'] == ('background', 'square')
    assert torch.equal(answer(model), expected)
    if made != 'gps':
        for build in (init_bank, build_base):
            with pytest.raises(ValueError, match=r'iter_2\.pth is no base: .*delta\.py extract'):
                build(config(tmp_path, 'gps'), checkpoint)


def test_a_base_has_no_method_in_place(tmp_path: Path) -> None:
    base = base_file(tmp_path)
    model = init_model(config(tmp_path, 'lora'), base)
    expected = torch.load(base, weights_only=True)
    assert model.state_dict().keys() == expected.keys()
    name = 'backbone.layers.0.attn.attn.in_proj_weight'
    assert torch.equal(model.state_dict()[name], expected[name])


def test_a_checkpoint_of_another_architecture(trained: dict, tmp_path: Path) -> None:
    cfg = config(tmp_path, 'lora', model=tiny_model(qkv_bias=False))
    with pytest.raises(ValueError, match=r'(?s)of another network than the config: .*in_proj_bias'):
        init_model(cfg, trained['gps'][0])


def test_the_hooks_that_follow_are_there_once(tmp_path: Path) -> None:
    for asked in ('gps', 'lora', None):
        cfg = config(tmp_path, asked)
        for _ in range(2):
            follow_method(cfg)
            kinds = sorted(hook['type'] for hook in cfg.custom_hooks)
            tuning = ['mmgps.GPSHook'] if asked == 'gps' and 'mmgps.GPSHook' in kinds else ['mmgps.TuneHook']
            assert [kind for kind in kinds if kind != 'mmgps.ExactResumeHook'] == sorted(['mmgps.DeltaHook', *tuning])


@pytest.mark.parametrize('made', ['lora', 'gps'])
def test_names_with_a_wrapper_in_front(made: str, trained: dict, tmp_path: Path) -> None:
    """A model saved inside ``DistributedDataParallel`` has such names."""
    whole = torch.load(trained[made][0], weights_only=True)
    whole['state_dict'] = {f'module.{name}': value for name, value in whole['state_dict'].items()}
    torch.save(whole, tmp_path / 'wrapped.pth')
    for asked in ('ssf', None):
        model = loaded(config(tmp_path / f'{asked}', asked), tmp_path / 'wrapped.pth').model
        assert torch.equal(answer(model), trained[made][1])
    if made == 'lora':
        del whole['mmgps_selection']
        torch.save(whole, tmp_path / 'published.pth')
        with pytest.raises(ValueError, match=r'lora\.a.* beside the base and does not name the method'):
            loaded(config(tmp_path / 'published', 'gps'), tmp_path / 'published.pth')


def test_a_method_agrees_with_what_it_made_itself() -> None:
    net = torch.nn.Linear(3, 2)
    assert agrees(FullTuning(), FullTuning().select(net))
    assert not agrees(FullTuning(), BiasTuning().select(net))


@METHODS.register_module(force=True)
class OwnLoRA(LoRA):
    name = 'own-lora'


def test_a_method_of_ones_own(tmp_path: Path) -> None:
    """Only the config knows which modules a user-defined method adds."""

    def tuned(folder: Path, **changes):
        hook = dict(type='mmgps.TuneHook', method=dict(type='OwnLoRA', rank=2))
        return tiny_config(folder, 2, custom_hooks=[hook], **changes)

    expected = answer(train(tuned(tmp_path)).model)
    assert torch.equal(answer(loaded(tuned(tmp_path / 'tested'), tmp_path / 'iter_2.pth').model), expected)


def test_a_base_that_does_not_fit(tmp_path: Path) -> None:
    torch.save({'blocks.0.weight': torch.zeros(3)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth gave 0\.0% of the numbers of VisionTransformer'):
        init_model(config(tmp_path, None), tmp_path / 'x.pth')
