import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from architectures import build
from mmengine.visualization import Visualizer
from tiny import tiny_config, train

from mmgps.delta import BaseFingerprint, extract, save_delta
from mmgps.engine import build_plain
from mmgps.report import SelectionReport, in_all, overlaps, report_of_file, selection_facts
from mmgps.report.charts import STYLES, _cells, _rows
from mmgps.selection import (
    PROBABILITIES,
    Connections,
    Quantiles,
    RandomScore,
    Selection,
    SelectionMismatchError,
    architecture_fingerprint,
    gradient_quantiles,
    load_selection,
    save_selection,
)
from mmgps.tuning import GPS, BiasTuning, LoRA
from mmgps.tuning.sites import LayerPart


def chain() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 4), nn.GELU(), nn.Linear(4, 3))


def selection_of(net: nn.Module, **positions: list[int]) -> Selection:
    """Make a selection with positions by the number of the layer: ``_0=[...]``."""
    layers = {f'{name[1:]}.weight': net[int(name[1:])] for name in positions}
    connections = {
        name: Connections(torch.tensor(places), *layer.weight.shape)
        for (name, layer), places in zip(layers.items(), positions.values(), strict=True)
    }
    return Selection('gps', connections, ('0.bias',), architecture_fingerprint(net), {'k': 1})


def test_facts_counted_by_hand() -> None:
    net = chain()
    selection = selection_of(net, _2=[0, 4, 9], _0=[3, 23, 43, 65])  # inputs 0 0 1 and 3 3 3 5
    facts = selection_facts(net, selection)
    assert [layer.name for layer in facts.layers] == ['0.weight', '2.weight']
    first = facts.layers[0]
    assert (first.neurons, first.fan_in, first.chosen, first.columns) == (4, 20, 4, 2)
    assert (first.share, first.column_share, first.busiest) == (4 / 80, 2 / 20, 1.0)
    assert first.bytes_saved == 3 * 4 * (80 - 4)
    assert (first.route, first.kept_inputs) == ('columns', 2 / 20)
    assert (facts.trained, facts.total) == (3 + 4 + 4, 80 + 4 + 12 + 3)
    assert 'gps, K=1: 11 of 99 parameters' in facts.title
    spread = selection_facts(net, selection_of(net, _0=[0, 21, 42, 63, 64, 65, 66]))
    assert spread.layers[0].busiest == 5 / 7
    assert all(value.requires_grad for value in net.parameters())


def test_quantiles_of_gradients() -> None:
    net = chain()
    gradient = torch.arange(80.0).view(4, 20) - 40
    found = gradient_quantiles(net, selection_of(net, _0=[0, 45]), {'0.weight': gradient})
    assert found.keys() == {'0.weight'}
    expected = gradient.abs().flatten().quantile(torch.tensor(PROBABILITIES))
    assert found['0.weight'].of_all == pytest.approx(expected.tolist())
    assert found['0.weight'].of_chosen == pytest.approx([6.75, 13.75, 22.5, 31.25, 38.25])


def test_overlap_counted_by_hand() -> None:
    net = chain()
    first, second = selection_of(net, _0=[3, 23, 43, 65], _2=[0]), selection_of(net, _0=[3, 22, 43, 64])
    [part] = overlaps(first, second)
    assert (part.first, part.second, part.shared, part.by_chance) == (4, 4, 2, 4 / 20)
    assert part.share == 2 / 6
    assert part.chance_share == 0.2 / 7.8
    assert in_all([part, part]).share == part.share
    with pytest.raises(SelectionMismatchError, match='different architectures'):
        overlaps(first, selection_of(nn.Sequential(nn.Linear(20, 5)), _0=[0]))


def test_two_random_choices_share_what_is_expected_by_chance() -> None:
    net = nn.Sequential(nn.Linear(50, 4000))
    first, second = (GPS(5, score=RandomScore(seed)).select(net) for seed in (1, 2))
    [part] = overlaps(first, second)
    assert part.shared == pytest.approx(part.by_chance, rel=0.1)


def test_the_map_has_a_row_for_each_block_and_a_cell_for_each_input() -> None:
    vit = build('vit')
    selection = GPS(1, score=RandomScore(0)).select(vit)
    rows = _rows(vit, selection, LayerPart.FC2)
    assert [len(item) for item in rows] == [16, 16]
    cells = _cells(rows)
    assert cells.shape == (2, 32)
    assert cells.sum(1) == pytest.approx([100, 100])
    column = int(rows[1].columns[0])
    assert cells[1, column] == 100 * int((rows[1].columns == column).sum()) / 16
    assert _rows(build('resnet'), GPS(1, score=RandomScore(0)).select(build('resnet')), LayerPart.QKV) == []


@pytest.mark.parametrize('kind', ['vit', 'swin', 'convnext', 'resnet'])
def test_a_report_is_written_for_every_kind_of_network(kind: str, tmp_path: Path) -> None:
    if kind == 'convnext':
        pytest.importorskip('mmpretrain')
    net = build(kind)
    first, second = (GPS(1, score=RandomScore(seed)).select(net) for seed in (1, 2))
    known = {name: Quantiles((0.0, 1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0, 5.0)) for name in first.connections}
    report = SelectionReport(net, first, known, other=second, names=('a<b', 'c'))
    assert report.write(tmp_path) == tmp_path / 'index.html'
    pictures = {'layers', 'overlap', *(['map'] if kind in ('vit', 'swin', 'convnext') else [])}
    assert {path.stem for path in tmp_path.glob('*.png')} == pictures
    page = (tmp_path / 'index.html').read_text()
    assert page.count('data:image/png;base64,') == len(pictures)
    facts = json.loads((tmp_path / 'selection.json').read_text())
    assert [layer['name'] for layer in facts['layers']] == [
        n for n, _ in net.named_parameters() if n in first.connections
    ]
    assert all(f'<td>{layer["name"]}</td>' in page for layer in facts['layers'])
    assert facts['overlap'][0]['name'] == 'all'


def test_overlaps_follow_the_network_and_names_are_escaped(tmp_path: Path) -> None:
    """A selection read from a file lists its layers in another order."""
    net = nn.ModuleDict({name: nn.Linear(4, 3) for name in ('b', 'a<i>')})
    made = GPS(1, score=RandomScore(0)).select(net)
    turned = replace(made, connections=dict(reversed(made.connections.items())))
    report = SelectionReport(net, turned, other=turned)
    assert [part.name for part in report.overlaps] == ['b.weight', 'a<i>.weight']
    page = report.write(tmp_path).read_text()
    assert 'a&lt;i&gt;.weight' in page
    assert '<i>' not in page


def test_a_method_without_connections_has_a_page_too(tmp_path: Path) -> None:
    net = build('vit')
    page = SelectionReport(net, BiasTuning().select(net)).write(tmp_path)
    assert [path.name for path in tmp_path.glob('*.png')] == []
    assert 'bias: ' in page.read_text()


def test_the_pictures_show_the_facts() -> None:
    net = build('vit')
    first, second = (GPS(1, score=RandomScore(seed)).select(net) for seed in (1, 2))
    known = {name: Quantiles((0.1, 1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0, 5.0)) for name in first.connections}
    report = SelectionReport(net, first, known, other=second, names=('polyps', 'stars'))
    *shares, gradients = report.figures['layers'].axes
    for axes, value in zip(shares, ('column_share', 'busiest', 'share'), strict=True):
        drawn = {int(x): y for line in axes.lines for x, y in line.get_xydata()}
        expected = {at: 100 * getattr(layer, value) for at, layer in enumerate(report.facts.layers, 1)}
        assert drawn == pytest.approx(expected)
        for line in axes.lines:
            parts = {report.facts.layers[int(x) - 1].part for x in line.get_xdata()}
            assert {STYLES[part]['label'] for part in parts} == {line.get_label()}
        assert axes.get_ylim()[1] > max(expected.values())
    assert [set(line.get_ydata()) for line in gradients.lines] == [{2.0}, {3.0}]
    panels = [axes for axes in report.figures['map'].axes if axes.images]
    kinds = [axes.get_title(loc='left').partition(':')[0] for axes in panels]
    assert kinds == ['into query, key and value', 'into the MLP', 'out of the attention', 'out of the MLP']
    [chart] = report.figures['overlap'].axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in chart.patches}
    assert bars == pytest.approx({at: 100 * part.share for at, part in enumerate(report.overlaps, 1)})
    assert list(chart.lines[0].get_ydata()) == pytest.approx([100 * part.chance_share for part in report.overlaps])
    assert '"polyps" or "stars"' in chart.get_title(loc='left')


def test_parts_have_colours_and_labels_of_their_own() -> None:
    kinds = {*LayerPart, 'other'} - {LayerPart.NORM, LayerPart.BLOCK}
    assert STYLES.keys() == kinds
    for key in ('color', 'label'):
        assert len({style[key] for style in STYLES.values()}) == len(kinds)


def test_the_page_shows_the_facts(tmp_path: Path) -> None:
    net = chain()
    known = {'0.weight': Quantiles((0.0, 1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.5, 4.0, 5.0))}
    selection = selection_of(net, _0=[3, 23, 43, 65], _2=[0])
    page = SelectionReport(net, selection, known).write(tmp_path).read_text()
    cells = [re.findall('<td>(.*?)</td>', row) for row in re.findall('<tr>(.*?)</tr>', page)]
    numbers = ['0.weight', '4', '20', '4', '5.000%', '2 (10%)', '100%', '3.5 / 2', 'columns', '10%', '0.00']
    assert cells[1] == numbers
    assert cells[2][7] == 'unknown'
    assert 'Trained: connection 5, bias 4.' in page


def test_a_run_without_connections_or_from_a_checkpoint_writes_no_report(tmp_path: Path) -> None:
    report = dict(type='mmgps.SelectionReportHook')
    bias = dict(type='mmgps.TuneHook', method=dict(type='mmgps.BiasTuning'))
    train(tiny_config(tmp_path / 'bias', max_iters=1, custom_hooks=[bias, report]))
    assert not (tmp_path / 'bias/selection_report').exists()
    hooks = [dict(type='mmgps.GPSHook', k=1), dict(type='mmgps.ExactResumeHook')]
    train(tiny_config(tmp_path / 'gps', max_iters=2, custom_hooks=hooks))
    other = dict(report, other=str(tmp_path / 'gps/selection.safetensors'), names=('a', 'b'))
    cfg = tiny_config(tmp_path / 'gps', max_iters=3, custom_hooks=[*hooks, other])
    cfg.resume = True
    train(cfg)
    assert not (tmp_path / 'gps/selection_report').exists()
    train(tiny_config(tmp_path / 'again', max_iters=1, custom_hooks=[*hooks, other]))
    facts = json.loads((tmp_path / 'again/selection_report/selection.json').read_text())
    assert facts['overlap'][0]['share'] == 1


def test_tensorboard_shows_the_report(tmp_path: Path) -> None:
    pytest.importorskip('tensorboard', reason='TensorBoard is not installed')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cfg = tiny_config(tmp_path, max_iters=1)
    cfg.custom_hooks = [dict(type='mmgps.GPSHook', k=1), dict(type='mmgps.SelectionReportHook')]
    cfg.visualizer = dict(
        type='SegLocalVisualizer', vis_backends=[dict(type='TensorboardVisBackend')], name=str(tmp_path)
    )
    train(cfg).visualizer.close()
    [events] = tmp_path.rglob('events.out.tfevents.*')
    found = EventAccumulator(str(events))
    found.Reload()
    facts = json.loads((tmp_path / 'selection_report/selection.json').read_text())
    for name in ('layers', 'map'):
        [image] = found.Images(f'selection_{name}')
        png = (tmp_path / f'selection_report/{name}.png').read_bytes()
        assert image.encoded_image_string[16:24] == png[16:24]  # width and height
    [trained] = found.Scalars('selection/trained')
    assert trained.value == facts['trained']
    for layer in facts['layers']:
        [share] = found.Scalars(f'selection/column_share/{layer["name"]}')
        assert share.value == pytest.approx(layer['column_share'])


def test_a_run_writes_its_report_and_logs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, scalars = {}, {}
    monkeypatch.setattr(Visualizer, 'add_image', lambda self, name, image, step=0: images.update({name: image}))
    monkeypatch.setattr(Visualizer, 'add_scalars', lambda self, found, *a, **k: scalars.update(found))
    hooks = [dict(type='mmgps.GPSHook', k=1), dict(type='mmgps.SelectionReportHook')]
    runner = train(tiny_config(tmp_path, max_iters=1, custom_hooks=hooks))
    facts = json.loads((tmp_path / 'selection_report/selection.json').read_text())
    assert {layer['route'] for layer in facts['layers']} <= {'columns', 'gather', 'dense'}
    assert all(len(layer['gradients']['of_all']) == len(PROBABILITIES) for layer in facts['layers'])
    # Compact training has replaced the forward of the attention by now, but its layers are still known.
    assert {layer['part'] for layer in facts['layers']} == {'conv', 'qkv', 'proj', 'fc1', 'fc2'}
    assert images.keys() == {'selection_layers', 'selection_map'}
    assert all(image.ndim == 3 and image.shape[2] == 3 for image in images.values())
    assert scalars['selection/trained'] == facts['trained']
    assert runner.iter == 1


def test_from_a_file_of_a_selection_or_a_delta(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    model = build_plain(cfg)
    selection = GPS(1, score=RandomScore(1)).select(model.backbone)
    save_selection(selection, tmp_path / 's')
    save_delta(extract(model, selection, BaseFingerprint.of(model.backbone, selection)), tmp_path / 'd')
    expected = selection_facts(model.backbone, load_selection(tmp_path / 's'))
    for name in ('s', 'd'):
        report = report_of_file(cfg, tmp_path / name, other=tmp_path / 'd')
        assert report.facts == expected
        assert in_all(report.overlaps).share == 1
    method = LoRA(2)
    method.inject(model.backbone)
    added = method.select(model.backbone)
    save_delta(extract(model, added, BaseFingerprint.of(model.backbone, added)), tmp_path / 'lora')
    assert report_of_file(cfg, tmp_path / 'lora').facts.trained == sum(
        value.numel() for name, value in model.backbone.named_parameters() if name in added.whole
    )
    (tmp_path / 'text').write_text('hello')
    with pytest.raises(ValueError, match='expected a selection or a delta'):
        report_of_file(cfg, tmp_path / 'text')


def test_a_report_that_cannot_be_written_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, f'No space left on device: {path} was not written')

    monkeypatch.setattr('mmgps.report.selection_report.write_atomically', full)
    hooks = [dict(type='mmgps.GPSHook', k=1), dict(type='mmgps.SelectionReportHook')]
    runner = train(tiny_config(tmp_path, max_iters=2, custom_hooks=hooks, log_level='WARNING'))
    assert runner.iter == 2
    assert any('png was not written; going on without it' in path.read_text() for path in tmp_path.rglob('*.log'))


@pytest.mark.parametrize(
    'name', ['$x$', '$\\frac{1$', 'costs $5', 'a|b', '\x1b[31mred', 'line\nbreak', '\udcff', '<b>']
)
def test_names_are_drawn_literally(name: str, tmp_path: Path) -> None:
    net = chain()
    first, second = (selection_of(net, _0=places, _2=[0, 4, 9]) for places in ([3, 23, 43, 65], [3, 24, 43, 66]))
    report = SelectionReport(net, replace(first, method=name), other=second, names=(name, name))
    page = report.write(tmp_path).read_text()
    assert (tmp_path / 'overlap.png').stat().st_size > 1000
    assert '<b>' not in page
    [title] = {axes.get_title(loc='left') for axes in report.figures['overlap'].axes}
    assert '\x1b' not in title
    assert title.count('$') == 2 * name.count('$')
