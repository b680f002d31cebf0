"""Each classification set, read from a miniature in its published layout."""

from pathlib import Path

import pytest

pytest.importorskip('mmseg')

from class_files import NABIRDS_IDS, dogs, nabirds, vtab
from polyp_files import write_folder

from mmgps.datasets import VTAB, NABirds, StanfordDogs
from mmgps.datasets.classes import ClassDataError
from mmgps.registry import DATASETS
from mmgps.vtab_tasks import TASKS


def listed(dataset) -> list[tuple[str, int]]:
    infos = [dataset.get_data_info(at) for at in range(len(dataset))]
    assert all(Path(info['img_path']).is_file() for info in infos)
    return [(Path(info['img_path']).name, info['gt_label']) for info in infos]


def test_nabirds(tmp_path: Path) -> None:
    root = write_folder(tmp_path, nabirds()) / 'nabirds'
    names = [f'{key.replace("-", "")}.jpg' for key in NABIRDS_IDS]
    train = DATASETS.build(dict(type='mmgps.NABirds', data_root=str(root), split='train'))
    assert listed(train) == list(zip(names[:3], (0, 1, 0), strict=True))
    assert listed(NABirds(str(root), 'test')) == [(names[3], 1)]
    assert train.metainfo['classes'] == ('Oak Titmouse', 'Dark-eyed Junco (Slate-colored)')
    assert train.get_cat_ids(1) == [1]


def test_stanford_dogs(tmp_path: Path) -> None:
    pytest.importorskip('mat4py')
    pytest.importorskip('scipy')
    for members in dogs().values():
        write_folder(tmp_path, members)
    assert listed(StanfordDogs(str(tmp_path), 'train')) == [('n02085620_5927.jpg', 0), ('n02085782_2.jpg', 1)]
    assert listed(StanfordDogs(str(tmp_path), 'test')) == [('n02085620_2650.jpg', 0), ('n02085782_7.jpg', 1)]


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_every_task_of_vtab(task, tmp_path: Path) -> None:
    members = {
        name: data.replace(b' 46\n', b' 1\n').replace(b' 3\n', b' 0\n') for name, data in vtab(task.name).items()
    }
    root = str(write_folder(tmp_path, members) / 'vtab-1k')
    assert listed(VTAB(root, task.name)) == [('000000.jpg', 0), ('000001.jpg', 1), ('000002.jpg', 0)]
    assert listed(VTAB(root, task.name, 'train800')) == [('000000.jpg', 0), ('000001.jpg', 1)]
    assert listed(VTAB(root, task.name, 'val200')) == [('000002.jpg', 0)]


def test_the_tasks_are_those_of_the_benchmark() -> None:
    groups = [task.group for task in TASKS]
    assert [groups.count(group) for group in ('natural', 'specialized', 'structured')] == [7, 4, 8]
    assert sum(task.test for task in TASKS) == 387_904
    assert sum(task.classes for task in TASKS) == 940


def test_a_class_that_a_task_lacks(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path, vtab('dtd')) / 'vtab-1k')
    (Path(root) / 'dtd/test.txt').write_text('images/a.jpg 47\n')
    with pytest.raises(ClassDataError, match=r"line 'images/a.jpg 47', expected a path and a class from 0 to 46"):
        VTAB(root, 'dtd', 'test')


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda root: VTAB(root, 'cifar100'), ValueError, "called 'cifar100'; nearest: cifar; there are"),
        (lambda root: VTAB(root, 'cifar', 'train'), ValueError, r"splits train800, val200, .* got 'train'"),
        (
            lambda root: VTAB(root, 'cifar'),
            ClassDataError,
            r'cifar/train800val200.txt does not exist. .*prepare_vtab.py',
        ),
        (lambda root: NABirds(root, 'train'), ClassDataError, r'images.txt does not exist. .*prepare_fgvc.py nabirds'),
        (lambda root: StanfordDogs(root, 'test'), ClassDataError, r'test_list.mat does not exist. .*stanford-dogs'),
    ],
)
def test_missing_files_are_named(make, error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        make(str(tmp_path))


def test_lists_that_contradict_each_other(tmp_path: Path) -> None:
    root = write_folder(tmp_path, nabirds()) / 'nabirds'
    (root / 'image_class_labels.txt').write_text(f'{NABIRDS_IDS[0]} 817\n')
    with pytest.raises(ClassDataError, match=r'name different images, 4, 1, 4 of them'):
        NABirds(str(root), 'train')
