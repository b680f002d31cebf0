"""GPS works with the features that zoo configs use in addition to a backbone and an optimizer."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, build_from_cfg
from mmseg.models import EncoderDecoder
from tiny import assert_same_bits, base_state, frozen_numbers, plain_config, resnet, state_of, tiny_config, tiny_model, train
from torch import nn

from mmgps.engine import GPSOptimWrapper, TuneHook, tune_config
from mmgps.selection import RandomScore, SelectionMismatchError, load_selection
from mmgps.sparse import MaskedTraining
from mmgps.tuned import take_over
from mmgps.tuning import GPS, count_parts

ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)


def check(runner, base: dict[str, torch.Tensor], folder: Path) -> None:
    """Check that frozen numbers kept their bits, chosen numbers moved, and no name changed."""
    state = state_of(runner)
    assert state.keys() == base.keys()
    moved = 0
    for name, mask in frozen_numbers(runner, folder).items():
        after, before = state[f'backbone.{name}'], base[f'backbone.{name}']
        assert torch.equal(after[mask], before[mask]), name
        moved += int((after[~mask] != before[~mask]).sum())
    assert moved > 0


def trained_and_checked(cfg):
    base = base_state(cfg)
    runner = train(cfg)
    check(runner, base, Path(cfg.work_dir))
    return runner, base


def groups_of_values(runner) -> dict[str, dict]:
    """Map the name of each chosen weight to the one group that holds its trained numbers."""
    [hook] = [hook for hook in runner.hooks if isinstance(hook, TuneHook)]
    found = {}
    names = {id(value): name for name, value in runner.model.named_parameters()}
    for dense, values in hook.tuned.training.replacements().items():
        [found[names[id(dense)]]] = [
            group for group in runner.optim_wrapper.param_groups if any(value is values for value in group['params'])
        ]
    return found


def test_paramwise_cfg(tmp_path: Path) -> None:
    keys = dict(custom_keys={'backbone.layers.0': dict(lr_mult=0.5, decay_mult=0.0)})
    cfg = plain_config(tmp_path, optim_wrapper=dict(type='OptimWrapper', optimizer=ADAMW, paramwise_cfg=keys))
    cfg.param_scheduler = None
    runner, _ = trained_and_checked(cfg)
    groups = groups_of_values(runner)
    assert len(groups) == 9  # the patches and four maps in each of two blocks
    for name, group in groups.items():
        first = name.startswith('backbone.layers.0')
        assert (group['lr'], group['weight_decay']) == ((0.005, 0.0) if first else (0.01, 0.05)), name


def test_a_constructor_that_decays_the_rate_by_layer(tmp_path: Path) -> None:
    beit = dict(type='BEiT', img_size=(32, 32), patch_size=8, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    model = dict(tiny_model(), backbone=dict(beit, out_indices=(1,), init_values=0.1))
    wrapper = dict(
        type='OptimWrapper',
        optimizer=ADAMW,
        constructor='LayerDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=2, layer_decay_rate=0.5),
    )
    cfg = plain_config(tmp_path, model=model, optim_wrapper=wrapper, param_scheduler=None)
    runner, _ = trained_and_checked(cfg)
    groups = groups_of_values(runner)
    # The patches are layer 0, the blocks 1 and 2, and the head is the third.
    expected = {'backbone.patch_embed': 0.125, 'backbone.layers.0': 0.25, 'backbone.layers.1': 0.5}
    for start, factor in expected.items():
        rates = {group['lr'] for name, group in groups.items() if name.startswith(start)}
        assert list(rates) == [pytest.approx(0.01 * factor)], start


@pytest.mark.parametrize('sparse', ['CompactTraining', 'MaskedTraining'])
def test_an_optimizer_that_weighs_whole_tensors(sparse: str, tmp_path: Path) -> None:
    """The first step of LARS has the length ``lr * eta * |w|``, so compact and masked training differ.

    Compact training must be allowed to use it.
    """
    pytest.importorskip('mmpretrain', reason='LARS is an optimizer of mmpretrain')
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='mmpretrain.LARS', lr=2.0, eta=0.1, eps=0.0))
    cfg = plain_config(tmp_path, optim_wrapper=wrapper, param_scheduler=None, max_iters=1)
    cfg.custom_hooks[0].sparse = dict(type=sparse, **(dict(any_optimizer=True) if sparse == 'CompactTraining' else {}))
    runner, base = trained_and_checked(cfg)
    state, chosen = state_of(runner), load_selection(tmp_path / 'selection.safetensors').connections
    assert len(chosen) == 9
    for name, connections in chosen.items():
        before, after = (values[f'backbone.{name}'].flatten() for values in (base, state))
        weighed = before[connections.positions] if sparse == 'CompactTraining' else before
        assert float((after - before).norm()) == pytest.approx(0.2 * float(weighed.norm()), rel=1e-4), name


def test_auxiliary_heads_are_trained_and_have_a_say(tmp_path: Path) -> None:
    model = tiny_model()
    weight = dict(type='CrossEntropyLoss', loss_weight=10.0)
    runners = []
    for name, head in (('one', {}), ('two', dict(auxiliary_head=dict(model['decode_head'], loss_decode=weight)))):
        runner, base = trained_and_checked(plain_config(tmp_path / name, model=dict(model, **head)))
        runners.append(runner)
    state = state_of(runner)
    trained = {name for name, _ in runner.model.auxiliary_head.named_parameters()}
    assert trained
    assert all(not torch.equal(state[f'auxiliary_head.{n}'], base[f'auxiliary_head.{n}']) for n in trained)
    selections = [load_selection(tmp_path / name / 'selection.safetensors') for name in ('one', 'two')]
    assert not selections[0].equals(selections[1])


def test_frozen_stages_stay_frozen(tmp_path: Path) -> None:
    runner, base = trained_and_checked(plain_config(tmp_path, model=resnet(frozen_stages=1)))
    selection = load_selection(tmp_path / 'selection.safetensors')
    assert selection.connections
    assert all(name.startswith('layer2') for name in [*selection.connections, *selection.whole])
    state = state_of(runner)
    frozen = [name for name in base if name.startswith(('backbone.conv1', 'backbone.bn1', 'backbone.layer1'))]
    assert frozen
    assert [name for name in frozen if not torch.equal(state[name], base[name])] == []
    [backbone] = [count for count in count_parts(runner.model, 'backbone', selection) if count.part == 'backbone']
    assert 0 < backbone.trained < 0.1 * backbone.total


def swin(**options) -> dict:
    """A narrow Swin with two stages, which freezes stages only in ``train()``."""
    shape = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), window_size=2, strides=(4, 2), out_indices=(1,))
    return dict(tiny_model(), backbone=dict(type='SwinTransformer', pretrain_img_size=32, **shape, **options))


@pytest.mark.parametrize('sparse', ['CompactTraining', 'MaskedTraining'])
def test_stages_that_are_frozen_in_training_mode_stay_frozen(sparse: str, tmp_path: Path) -> None:
    cfg = plain_config(tmp_path, model=swin(frozen_stages=1))
    cfg.custom_hooks[0].sparse = dict(type=sparse)
    runner, base = trained_and_checked(cfg)
    selection = load_selection(tmp_path / 'selection.safetensors')
    assert all(name.startswith('stages.1') for name in selection.connections)
    state = state_of(runner)
    frozen = [name for name in base if name.startswith(('backbone.patch_embed', 'backbone.stages.0'))]
    assert frozen
    assert [name for name in frozen if not torch.equal(state[name], base[name])] == []


def test_a_run_is_not_resumed_with_stages_frozen_that_it_trains(tmp_path: Path) -> None:
    train(plain_config(tmp_path, model=swin()))
    again = plain_config(tmp_path, model=swin(frozen_stages=1), resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    with pytest.raises(SelectionMismatchError, match='SwinTransformer was built with frozen: patch_embed'):
        train(again)


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    states = []
    for with_cp in (False, True):
        runner, _ = trained_and_checked(plain_config(tmp_path / str(with_cp), model=resnet(with_cp=with_cp)))
        states.append(state_of(runner))
    assert_same_bits(states[1], states[0])


@pytest.mark.parametrize('modules', [['backbone'], ['backbone.layer1', 'backbone.layer2']])
def test_convolutions_that_are_computed_with_their_norms(modules: list[str], tmp_path: Path) -> None:
    model = resnet(zero_init_residual=False)
    runner, base = trained_and_checked(plain_config(tmp_path, model=model, efficient_conv_bn_eval=modules))
    state, chosen = state_of(runner), load_selection(tmp_path / 'selection.safetensors').connections
    assert len(chosen) == 10
    for name in chosen:
        assert not torch.equal(state[f'backbone.{name}'], base[f'backbone.{name}']), name


@pytest.mark.parametrize('method', ['lora', 'ssf'])
def test_what_stands_behind_such_convolutions_is_refused(method: str, tmp_path: Path) -> None:
    wrapper = dict(type='OptimWrapper', optimizer=ADAMW)
    cfg = tiny_config(tmp_path, model=resnet(), optim_wrapper=wrapper, custom_hooks=[])
    cfg.efficient_conv_bn_eval = ['backbone']
    with pytest.raises(ValueError, match=f'skips the modules that {method} adds between them; leave it out of the config'):
        train(tune_config(cfg, method))
    cfg = tiny_config(tmp_path / 'head', model=resnet(), optim_wrapper=wrapper, custom_hooks=[], max_iters=1)
    cfg.efficient_conv_bn_eval = ['decode_head']
    assert train(tune_config(cfg, method)).iter == 1


def test_an_optimizer_that_makes_its_state_at_construction(tmp_path: Path) -> None:
    states = []
    for sparse in ('CompactTraining', 'MaskedTraining'):
        adagrad = dict(type='Adagrad', lr=1e-2, weight_decay=0.05, initial_accumulator_value=0.1)
        cfg = plain_config(tmp_path / sparse, optim_wrapper=dict(type='OptimWrapper', optimizer=adagrad))
        cfg.custom_hooks[0].sparse = dict(type=sparse)
        runner, _ = trained_and_checked(cfg)
        states.append(state_of(runner))
        resumed = cfg.copy()
        resumed.update(resume=True, load_from=str(tmp_path / sparse / 'iter_2.pth'), work_dir=str(tmp_path / 'resumed'))
        assert_same_bits(state_of(train(resumed)), states[-1])
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-5, msg=name)


class Averaging(torch.optim.SGD):
    """Optimizer that creates its state at construction, with an argument that is missing in its defaults."""

    def __init__(self, params, start: torch.Tensor, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)
        self.state.update({value: {'mean': start} for group in self.param_groups for value in group['params']})


def test_an_optimizer_that_cannot_be_built_anew() -> None:
    layer = nn.Linear(2, 2)
    optimizer = Averaging(layer.parameters(), torch.zeros(1))
    with pytest.raises(ValueError, match=r'Averaging creates its state at construction, .* such as AdamW'):
        take_over([optimizer], [layer.bias], MaskedTraining(layer, GPS(score=RandomScore()).select(layer)), {})


@MODELS.register_module(force=True)
class TwoSteps(EncoderDecoder):
    """Segmentor that passes one loss to each of two optimizers."""

    def train_step(self, data, optim_wrapper):
        with optim_wrapper['backbone'].optim_context(self):
            data = self.data_preprocessor(data, True)
            loss, log_vars = self.parse_losses(self._run_forward(data, mode='loss'))
        optim_wrapper['backbone'].backward(loss)
        for part in ('backbone', 'head'):
            optim_wrapper[part].step()
            optim_wrapper[part].zero_grad()
        return log_vars


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class OnePerPart:
    """Build a wrapper for the backbone and one for the head."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None) -> None:
        self.cfg = optim_wrapper_cfg

    def __call__(self, model):
        parts = dict(backbone=model.backbone, head=model.decode_head)
        return OptimWrapperDict(**{name: self.wrapper(name, part) for name, part in parts.items()})

    def wrapper(self, name, part):
        cfg = dict(self.cfg[name])
        optimizer = build_from_cfg(dict(cfg.pop('optimizer'), params=part.parameters()), OPTIMIZERS)
        return OPTIM_WRAPPERS.build(dict(cfg, optimizer=optimizer))


def two_optimizers(folder: Path):
    wrapper = dict(
        constructor='OnePerPart',
        backbone=dict(type='OptimWrapper', optimizer=ADAMW),
        head=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
    )
    model = dict(tiny_model(), type='TwoSteps')
    cfg = tiny_config(folder, model=model, optim_wrapper=wrapper, custom_hooks=[], param_scheduler=None)
    return tune_config(cfg, 'gps')


def test_several_optimizers(tmp_path: Path) -> None:
    runner, base = trained_and_checked(two_optimizers(tmp_path / 'run'))
    state = state_of(runner)
    assert not torch.equal(state['decode_head.conv_seg.weight'], base['decode_head.conv_seg.weight'])
    held = [len(wrapper.param_groups[0]['params']) for wrapper in runner.optim_wrapper.values()]
    assert held[0] == sum(1 for _ in groups_held(runner))
    resumed = two_optimizers(tmp_path / 'run')
    resumed.update(resume=True, load_from=str(tmp_path / 'run/iter_2.pth'), work_dir=str(tmp_path / 'resumed'))
    assert_same_bits(state_of(train(resumed)), state)


def test_several_optimizers_follow_a_longer_schedule(tmp_path: Path) -> None:
    def config(name: str, iterations: int):
        cfg = two_optimizers(tmp_path / name)
        cfg.train_cfg.max_iters = iterations
        cfg.param_scheduler = dict(
            backbone=[dict(type='CosineAnnealingLR', T_max=iterations, by_epoch=False)],
            head=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=iterations)],
        )
        return cfg

    train(config('first', 4))
    resumed = config('resumed', 9)
    resumed.update(resume=True, load_from=str(tmp_path / 'first/iter_2.pth'))
    rates = [train(cfg).optim_wrapper.get_lr() for cfg in (resumed, config('whole', 9))]
    assert rates[0] == rates[1]


def groups_held(runner):
    """Trained numbers of the backbone: one parameter for each chosen weight, and the parameters trained in full."""
    [hook] = [hook for hook in runner.hooks if isinstance(hook, TuneHook)]
    yield from hook.tuned.training.replacements().values()
    yield from hook.selection.whole


def test_modules_that_are_added_late_join_one_of_several_optimizers() -> None:
    layers, new = [nn.Linear(2, 2), nn.Linear(2, 2)], nn.Parameter(torch.zeros(3))
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in layers]
    selected = MaskedTraining(layers[0], GPS(score=RandomScore()).select(layers[0]))
    take_over(optimizers, [], selected, {layers[1].weight: [new]})
    groups = [optimizer.param_groups[0]['params'] for optimizer in optimizers]
    assert [len(group) for group in groups] == [2, 3]
    assert groups[1][1] is new


def test_mixed_precision_needs_a_gpu_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmengine.optim.optimizer.amp_optimizer_wrapper as amp

    monkeypatch.setattr(amp, 'is_cuda_available', lambda: False)
    wrapper = dict(type='AmpOptimWrapper', optimizer=ADAMW, loss_scale='dynamic', dtype='float16')
    cfg = plain_config(tmp_path, optim_wrapper=wrapper)
    assert cfg.optim_wrapper.type == 'mmgps.GPSAmpOptimWrapper'
    with pytest.raises(RuntimeError, match=r"set optim_wrapper.type to 'mmgps.GPSOptimWrapper' and leave out .*dtype"):
        train(cfg)
    assert not list(tmp_path.rglob('*.pth'))
