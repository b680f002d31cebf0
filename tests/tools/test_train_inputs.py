"""tools/train.py on a machine that lacks the images or weights of the config."""

import dataclasses
import hashlib
import io
import re
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import Config
from support.file_server import FileServer
from support.polyp_files import kvasir, write_zip
from tiny_sam import TINY, build_sam

import mmgps.datasets.polyp as polyp
import mmgps.models.sam.weights as weights
from mmgps.datasets.prepare import conversion, get_source
from mmgps.engine import MissingInputsError, provide_inputs
from mmgps.models.sam import FILES
from mmgps.models.sam.weights import PARTS
from mmgps.registry import INPUTS
from mmgps.utils.download import Checksum

ROOT = Path(__file__).resolve().parents[2]
FLAGSHIP = ROOT / 'configs/gps_polyp.py'
IDS = ['a', 'b', 'c', sorted(get_source('kvasir-seg').official_val())[0]]
FILE = FILES['vit_b']
#: A small version of the flagship, which trains two iterations in a second.
SMALL = f"""
_base_ = [{str(FLAGSHIP)!r}]
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY}), img_size=64))
load, resize = dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=False)
labels, pack = dict(type='LoadAnnotations'), dict(type='PackSegInputs')
alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[load, labels, resize, pack]), **alone)
val_dataloader = dict(dataset=dict(pipeline=[load, resize, labels, pack]), **alone)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(overlays=dict(num_images=1))
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('no_proxy', '127.0.0.1')


def train(monkeypatch: pytest.MonkeyPatch, config: Path = FLAGSHIP) -> None:
    arguments = ['train.py', str(config), '--cfg-options', f'experiment_name=x{time.time_ns()}']
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')


@pytest.fixture(scope='module')
def published() -> bytes:
    """Weights of a tiny SAM in the format that the authors publish."""
    torch.manual_seed(1)
    state = {}
    for name, value in build_sam(TINY, 64).state_dict().items():
        theirs, ours = next(pair for pair in PARTS.items() if name.startswith(pair[1]))
        state[theirs + name.removeprefix(ours)] = value
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.fixture
def servers(published: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Serve a miniature of the images and the weights at the URLs of the config, with configurable faults."""
    zipped = write_zip(tmp_path_factory.mktemp('served') / 'made.zip', kvasir(IDS)).read_bytes()
    with FileServer(zipped) as first, FileServer(published) as second:
        redirect(monkeypatch, first.url('kvasir-seg.zip'), zipped, second.url(FILE.name), published)
        yield first, second


def redirect(monkeypatch, zip_url: str, zipped: bytes, weights_url: str, content: bytes) -> None:
    checksum = Checksum('sha256', hashlib.sha256(zipped).hexdigest())
    [layout] = get_source('kvasir-seg').layouts
    layout = dataclasses.replace(layout, count=len(IDS))
    changes = dict(url=zip_url, checksum=checksum, layouts=(layout,))
    source = dataclasses.replace(get_source('kvasir-seg'), **changes)
    source = type('Small', (type(source),), {'official_val': lambda self: frozenset(IDS[3:])})(**vars(source))
    for module in (polyp, conversion):
        monkeypatch.setattr(module, 'get_source', lambda name: source)
    own = dataclasses.replace(FILE, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(weights, 'HOST', weights_url.removesuffix(FILE.name))
    monkeypatch.setitem(weights.PUBLISHED, FILE.name, own)


def test_without_network_it_stops_within_seconds_with_one_paragraph(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    start = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        train(monkeypatch)
    assert time.monotonic() - start < 10
    text = str(ended.value)
    assert '\n' not in text
    for part in (
        'gps_polyp.py: two inputs are missing. ',
        'images of Kvasir-SEG are missing from data/kvasir_seg: https://datasets.simula.no/downloads/kvasir-seg.zip ',
        'put the zip at data/kvasir-seg.zip and run this again',
        'weights sam_vit_b_01ec64.pth are missing and were not downloaded: ',
        'They come from https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth',
        'put them at pretrain/sam_vit_b_01ec64.pth',
        'python tools/train.py configs/gps_polyp_demo.py',
    ):
        assert part in text
    assert re.findall(r'\.\.|;\.| {2}', text) == []
    assert not list(tmp_path.rglob('*.part'))


@pytest.mark.parametrize('tool', ['benchmark', 'compare'])
def test_other_tools_that_train_provide_the_inputs_too(tool: str, monkeypatch) -> None:
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', str(FLAGSHIP), '--methods', 'bias'])
    with pytest.raises(SystemExit, match=r'two inputs are missing\. .*put the zip at data/kvasir-seg.zip'):
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')


def test_both_are_fetched_and_it_trains(servers, monkeypatch, tmp_path: Path, capsys) -> None:
    """Each transfer breaks off once and then resumes."""
    for server in servers:
        server.cut_after, server.cuts = len(server.content) // 2, 1
    monkeypatch.setattr(weights.download, '__kwdefaults__', {**weights.download.__kwdefaults__, 'wait': 0.01})
    (tmp_path / 'small.py').write_text(SMALL)
    train(monkeypatch, tmp_path / 'small.py')
    assert sorted(path.name for path in (tmp_path / 'data/kvasir_seg/images/train').iterdir()) == [
        'a.jpg', 'b.jpg', 'c.jpg',
    ]  # fmt: skip
    assert hashlib.sha256((tmp_path / 'pretrain' / FILE.name).read_bytes()).hexdigest() == (
        hashlib.sha256(servers[1].content).hexdigest()
    )
    assert (tmp_path / 'work_dirs/small/epoch_1.pth').is_file()
    assert all([request.get('Range') for request in server.requests][1] for server in servers)
    printed = capsys.readouterr().err
    assert 'downloading Kvasir-SEG' in printed
    assert f'downloading {FILE.name}' in printed


def test_a_server_that_truncates_leaves_what_it_sent(servers, monkeypatch, tmp_path: Path) -> None:
    images_server, weights_server = servers
    weights_server.cut_after, weights_server.ranges = 100_000, False
    options = {**weights.download.__kwdefaults__, 'wait': 0.0, 'attempts': 2}
    monkeypatch.setattr(weights.download, '__kwdefaults__', options)
    cfg = Config.fromfile(FLAGSHIP)
    with pytest.raises(MissingInputsError, match=r'^an input is missing\. The weights .* stopped at 100000 bytes'):
        provide_inputs(cfg)
    assert (tmp_path / f'pretrain/{FILE.name}.part').stat().st_size == 100_000
    weights_server.cut_after, weights_server.ranges = None, True
    provide_inputs(cfg)
    assert weights_server.requests[-1]['Range'] == 'bytes=100000-'
    assert len(images_server.requests) == 1


def test_a_slow_server(servers, monkeypatch, tmp_path: Path) -> None:
    images_server, _ = servers
    images_server.pause = 0.01
    provide_inputs(Config.fromfile(FLAGSHIP))
    assert (tmp_path / 'data/kvasir_seg/train.txt').is_file()


def test_content_that_differs_from_the_published_file(servers, tmp_path: Path) -> None:
    servers[1].content = b'an error page'
    with pytest.raises(MissingInputsError, match=r'an input is missing\. .* sha256 .* expected .* it is damaged'):
        provide_inputs(Config.fromfile(FLAGSHIP))
    assert not list((tmp_path / 'pretrain').glob('sam*'))


def test_existing_inputs_are_not_fetched(servers, tmp_path: Path, monkeypatch) -> None:
    cfg = Config.fromfile(FLAGSHIP)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/anything').touch()
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[loader].dataset.data_root = 'mine'
    cfg.model.init_cfg = None
    provide_inputs(cfg)
    assert [server.requests for server in servers] == [[], []]
    assert not (tmp_path / 'data').exists()


def test_a_config_without_inputs() -> None:
    provide_inputs(Config(dict(model=dict())))


def test_a_wrong_name_of_a_set() -> None:
    with pytest.raises(ValueError, match=r"no polyp set is called 'kvasir'; nearest: kvasir-seg"):
        INPUTS.build(dict(type='PolypImages', name='kvasir'))
