"""Published classification sets: five fine-grained sets of the paper, Oxford-17 Flowers and VTAB-1k."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgps.utils.download import Checksum
from mmgps.vtab_tasks import TASKS, get_task

from ..classes import VTAB
from .errors import LayoutError

HELD_OUT = 20
"""Test images of each class of flowers, and as many validation images, as in the three published splits."""
FEW = 5
FLOWER_LISTS = ('train.txt', 'val.txt', 'test.txt', f'train{FEW}.txt')
FLOWER_NAMES = (
    'bluebell', 'buttercup', 'coltsfoot', 'cowslip', 'crocus', 'daffodil', 'daisy', 'dandelion', 'fritillary', 'iris',
    'lily_valley', 'pansy', 'snowdrop', 'sunflower', 'tigerlily', 'tulip', 'windflower',
)  # fmt: skip
FLOWERS = 'https://www.robots.ox.ac.uk/~vgg/data/flowers/102'
DOGS = 'http://vision.stanford.edu/aditya86/ImageNetDogs'
BIRDS = frozenset({'images', 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'})
VTAB_IMAGES = {'train800': 800, 'val200': 200, 'train800val200': 1000}


@dataclass(frozen=True)
class SourceFile:
    """One published file of a set.

    Args:
        name: Name of the file.
        root: Folder within an archive whose content is taken; empty for everything.
        into: Folder of the set that receives the content; empty for its top.
        url: Stable public address, or None.
        checksum: Checksum of the file at ``url``, if known.
        plain: Copy the file instead of unpacking it.
    """

    name: str
    root: str = ''
    into: str = ''
    url: str | None = None
    checksum: Checksum | None = None
    plain: bool = False


@dataclass(frozen=True)
class Split:
    """Part of a set that one data set reads.

    Args:
        name: Name of the split.
        images: Published number of images.
        dataset: Config of the data set, without ``data_root``.
    """

    name: str
    images: int
    dataset: Mapping[str, Any]


def _splits(dataset: str, **images: int) -> tuple[Split, ...]:
    """Make the splits that the class ``dataset`` reads by name, with their numbers of images."""
    return tuple(Split(name, number, dict(type=dataset, split=name)) for name, number in images.items())


@dataclass(frozen=True)
class ClassSet:
    """A published classification set.

    Args:
        name: Its name on the command line.
        title: Its published name.
        holds: Names at the top of the finished folder; nothing else is unpacked.
        parts: Its files. Any of them may be missing if a folder has its content unpacked.
        splits: Splits to count at the end.
        where: Description of its origin.
        cite: The publication to cite.
        classes: Number of classes, all of which the first split must have; None if no single number is published.
        written: Names in ``holds`` that ``finish`` writes.
        finish: Called with the folder before the count, to write files that the archives lack.
    """

    name: str
    title: str
    holds: frozenset[str]
    parts: tuple[SourceFile, ...]
    splits: tuple[Split, ...]
    where: str
    cite: str
    classes: int | None = None
    written: tuple[str, ...] = ()
    finish: Callable[[Path], None] | None = field(default=None, compare=False)


def write_lists(folder: Path) -> None:
    """Write :data:`FLOWER_LISTS`, whose lines are the path of an image and its class, counted from 0.

    The images of a class are sorted by the SHA-256 of their paths, which is independent of the order of publication.
    The first 20 are for testing, the next 20 for validation, and the rest for training. ``train5.txt`` has the first
    five of the rest.

    Args:
        folder: Folder with ``labels.csv``, whose lines are the path of an image and its class.

    Raises:
        LayoutError: If a line has another form.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for row in csv.reader((folder / 'labels.csv').read_text().splitlines()):
        if len(row) != 2:
            raise LayoutError(f'labels.csv has the line {",".join(row)!r}, expected the path of an image and its class')
        members[row[1]].append(row[0])
    lists: dict[str, str] = dict.fromkeys(FLOWER_LISTS, '')
    for label, name in enumerate(sorted(members)):
        paths = sorted(members[name], key=lambda path: hashlib.sha256(path.encode()).hexdigest())
        test, val, train = paths[:HELD_OUT], paths[HELD_OUT : 2 * HELD_OUT], paths[2 * HELD_OUT :]
        for file, listed in zip(FLOWER_LISTS, (train, val, test, train[:FEW]), strict=True):
            lists[file] += ''.join(f'{path} {label}\n' for path in listed)
    for file, text in lists.items():
        (folder / file).write_text(text)


SETS = (
    ClassSet(
        name='cub',
        title='CUB-200-2011',
        holds=BIRDS,
        parts=(
            SourceFile(
                'CUB_200_2011.tgz',
                root='CUB_200_2011',
                url='https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz',
                # Published by CaltechDATA at https://data.caltech.edu/records/65de6-vp158.
                checksum=Checksum('md5', '97eceeb196236b17998738112f37df78'),
            ),
        ),
        splits=_splits('CUB', train=5994, test=5794),
        where='https://www.vision.caltech.edu/datasets/cub_200_2011 (research and education only)',
        cite='Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001',
        classes=200,
    ),
    ClassSet(
        name='nabirds',
        title='NABirds',
        holds=BIRDS,
        parts=(SourceFile('nabirds.tar.gz', root='nabirds'),),
        splits=_splits('mmgps.NABirds', train=23_929, test=24_633),
        where='https://dl.allaboutbirds.org/nabirds, after agreeing to its terms',
        cite='Van Horn et al., Building a bird recognition app and large scale dataset with citizen scientists, '
        'CVPR 2015',
        classes=555,
    ),
    ClassSet(
        name='oxford-flowers',
        title='Oxford-102 Flowers',
        holds=frozenset({'jpg', 'imagelabels.mat', 'setid.mat'}),
        # The digests come from torchvision.datasets.Flowers102.
        parts=tuple(
            SourceFile(name, url=f'{FLOWERS}/{name}', checksum=Checksum('md5', digest), plain=name.endswith('.mat'))
            for name, digest in (
                ('102flowers.tgz', '52808999861908f626f3c1f4e79d11fa'),
                ('imagelabels.mat', 'e0620be6f572b9609742df49c70aed4d'),
                ('setid.mat', 'a5357ecc9cb78c4bef273ce3793fc85c'),
            )
        ),
        splits=_splits('Flowers102', train=1020, val=1020, test=6149),
        where=FLOWERS,
        cite='Nilsback and Zisserman, Automated flower classification over a large number of classes, ICVGIP 2008',
        classes=102,
    ),
    ClassSet(
        name='stanford-dogs',
        title='Stanford Dogs',
        holds=frozenset({'Images', 'train_list.mat', 'test_list.mat'}),
        parts=tuple(SourceFile(name, url=f'{DOGS}/{name}') for name in ('images.tar', 'lists.tar')),
        splits=_splits('mmgps.StanfordDogs', train=12_000, test=8580),
        where=DOGS,
        cite='Khosla et al., Novel dataset for fine-grained image categorization, FGVC workshop at CVPR 2011',
        classes=120,
    ),
    ClassSet(
        name='stanford-cars',
        title='Stanford Cars',
        holds=frozenset({'cars_train', 'cars_test', 'devkit'}),
        parts=(
            SourceFile('cars_train.tgz'),
            SourceFile('cars_test.tgz'),
            SourceFile('car_devkit.tgz'),
            SourceFile('cars_test_annos_withlabels.mat', into='devkit', plain=True),
        ),
        splits=_splits('StanfordCars', train=8144, test=8041),
        where='copies of the page that was https://ai.stanford.edu/~jkrause/cars/car_dataset.html, which is no longer '
        'there; torchvision says the same',
        cite='Krause et al., 3D object representations for fine-grained categorization, 3dRR workshop at ICCV 2013',
        classes=196,
    ),
    ClassSet(
        name='oxford-flowers17',
        title='Oxford-17 Flowers',
        holds=frozenset({*FLOWER_NAMES, 'labels.csv', *FLOWER_LISTS}),
        parts=(SourceFile('flowers17.zip'),),
        splits=tuple(
            Split(file.removesuffix('.txt'), images, dict(type='CustomDataset', ann_file=file, data_prefix=''))
            for file, images in zip(FLOWER_LISTS, (680, 340, 340, 17 * FEW), strict=True)
        ),
        where='https://www.robots.ox.ac.uk/~vgg/data/flowers/17; a folder of images for each class, and labels.csv '
        'with the path and the class of an image on each line',
        cite='Nilsback and Zisserman, A visual vocabulary for flower classification, CVPR 2006',
        classes=17,
        written=FLOWER_LISTS,
        finish=write_lists,
    ),
)

FGVC = {entry.name: entry for entry in SETS}
"""Sets by their names on the command line."""


def vtab_set(names: Sequence[str] = ()) -> ClassSet:
    """Return VTAB-1k with the named tasks, or with all 19 if none is named.

    Raises:
        ValueError: If a task is unknown.
    """
    tasks = [get_task(name) for name in names] or TASKS
    return ClassSet(
        name='vtab-1k',
        title='VTAB-1k',
        holds=frozenset(task.name for task in tasks),
        parts=(SourceFile('vtab-1k.zip', root='vtab-1k'),),
        splits=tuple(
            Split(
                f'{task.name}/{split}',
                {**VTAB_IMAGES, 'test': task.test}[split],
                dict(type='mmgps.VTAB', task=task.name, split=split),
            )
            for task in tasks
            for split in VTAB.SPLITS
        ),
        where='the links in https://github.com/ZhangYuanhan-AI/NOAH and https://github.com/luogen1996/RepAdapter, '
        'whose vtab-1k.zip holds a folder with images and lists for each task',
        cite='Zhai et al., A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark, '
        'arXiv 1910.04867, and the publication of each task',
    )
