"""Miniatures of the published classification sets in their true layouts on disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from polyp_files import encode, frame

CUB_CLASSES = ('001.Black_footed_Albatross', '002.Laysan_Albatross')
NABIRDS_IDS = ('0000139e-21dc-4d0c-bfe1-4cae3c85c829', '0000d9fc-4e02-4c06-a0af-a55cfb16b12b',
               '00019306-9d83-4334-b255-a447742edce3', '0001afd4-99a1-4a67-b940-d419413e23b3')  # fmt: skip


def picture(seed: int) -> bytes:
    return encode(frame(seed, (24, 20)), '.jpg')


def mat(**values) -> bytes:
    """Return a MATLAB file, compressed like the published ones."""
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, values, do_compression=True)
    return file.getvalue()


def cells(values) -> np.ndarray:
    """Return a column of MATLAB cells."""
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def cub() -> dict[str, bytes]:
    """Members of ``CUB_200_2011.tgz``: two classes with a training and a test image each."""
    paths = [f'{name}/Bird_{at:04}_{at}.jpg' for name in CUB_CLASSES for at in (1, 2)]
    top = 'CUB_200_2011/'
    lists = {
        'images.txt': paths,
        'image_class_labels.txt': [1, 1, 2, 2],
        'train_test_split.txt': [0, 1, 1, 0],
    }
    members = {f'{top}{name}': _numbered(values) for name, values in lists.items()}
    members[f'{top}classes.txt'] = _numbered(CUB_CLASSES)
    members['attributes.txt'] = b'1 has_bill_shape::curved\n'
    members[f'{top}README'] = b'The Caltech-UCSD Birds\n'
    return members | {f'{top}images/{path}': picture(seed) for seed, path in enumerate(paths)}


def nabirds() -> dict[str, bytes]:
    """Members of ``nabirds.tar.gz``: categories 817 and 1010 of a larger hierarchy."""
    categories = (817, 1010, 817, 1010)
    paths = [f'{category:04}/{key.replace("-", "")}.jpg' for key, category in zip(NABIRDS_IDS, categories, strict=True)]
    lists = {'images.txt': paths, 'image_class_labels.txt': categories, 'train_test_split.txt': (1, 1, 1, 0)}
    members = {
        f'nabirds/{name}': ''.join(f'{key} {value}\n' for key, value in zip(NABIRDS_IDS, values, strict=True)).encode()
        for name, values in lists.items()
    }
    members['nabirds/classes.txt'] = b'0 Birds\n817 Oak Titmouse\n1010 Dark-eyed Junco (Slate-colored)\n'
    return members | {f'nabirds/images/{path}': picture(seed) for seed, path in enumerate(paths)}


def flowers102() -> dict[str, dict[str, bytes] | bytes]:
    """Six flowers of two classes: members of the archive, and the two separate MATLAB files."""
    return {
        '102flowers.tgz': {f'jpg/image_{at:05}.jpg': picture(at) for at in range(1, 7)},
        'imagelabels.mat': mat(labels=np.array([[1, 1, 1, 2, 2, 2]], np.uint8)),
        'setid.mat': mat(
            trnid=np.array([[1, 4]], np.uint16),
            valid=np.array([[2, 5]], np.uint16),
            tstid=np.array([[3, 6]], np.uint16),
        ),
    }


def dogs() -> dict[str, dict[str, bytes]]:
    """Two breeds of two images: the members of both archives."""
    paths = {
        'train': ('n02085620-Chihuahua/n02085620_5927.jpg', 'n02085782-Japanese_spaniel/n02085782_2.jpg'),
        'test': ('n02085620-Chihuahua/n02085620_2650.jpg', 'n02085782-Japanese_spaniel/n02085782_7.jpg'),
    }
    lists = {
        f'{split}_list.mat': mat(
            file_list=cells(names),
            annotation_list=cells([name.removesuffix('.jpg') for name in names]),
            labels=np.array([[1], [2]], np.uint8),
        )
        for split, names in paths.items()
    }
    images = [name for names in paths.values() for name in names]
    return {'images.tar': {f'Images/{name}': picture(at) for at, name in enumerate(images)}, 'lists.tar': lists}


def cars() -> dict[str, dict[str, bytes] | bytes]:
    """Two training and two test images of cars: three archives, and the labels of the test images."""
    kind = [('bbox_x1', 'O'), ('bbox_y1', 'O'), ('bbox_x2', 'O'), ('bbox_y2', 'O'), ('class', 'O'), ('fname', 'O')]
    notes = np.zeros((1, 2), kind)
    for at in range(2):
        notes[0, at] = (np.uint8(1), np.uint8(2), np.uint8(9), np.uint8(8), np.uint8(14 + at), f'{at + 1:05}.jpg')
    images = {at: picture(at) for at in (1, 2)}
    return {
        'cars_train.tgz': {f'cars_train/{at:05}.jpg': data for at, data in images.items()},
        'cars_test.tgz': {f'cars_test/{at:05}.jpg': data for at, data in images.items()},
        'car_devkit.tgz': {'devkit/cars_train_annos.mat': mat(annotations=notes), 'devkit/README.txt': b'.'},
        'cars_test_annos_withlabels.mat': mat(annotations=notes),
    }


def vtab(task: str = 'dtd', top: str = 'vtab-1k/') -> dict[str, bytes]:
    """One task with two training images, one validation image and two test images."""
    lists = {'train800': [(0, 3), (1, 46)], 'val200': [(2, 0)], 'test': [(3, 5), (4, 6)]}
    lists['train800val200'] = lists['train800'] + lists['val200']
    members = {
        f'{top}{task}/{split}.txt': ''.join(f'{_vtab_image(at)} {label}\n' for at, label in entries).encode()
        for split, entries in lists.items()
    }
    return members | {f'{top}{task}/{_vtab_image(at)}': picture(at) for at in range(5)}


def _vtab_image(at: int) -> str:
    return f'images/{"test" if at > 2 else "train800val200"}/{at:06}.jpg'


def _numbered(values) -> bytes:
    return ''.join(f'{at} {value}\n' for at, value in enumerate(values, 1)).encode()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar archive, compressed if its suffix says so."""
    with tarfile.open(path, 'w:gz' if path.suffix in {'.tgz', '.gz'} else 'w') as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_parts(folder: Path, parts: dict[str, dict[str, bytes] | bytes]) -> Path:
    """Write the published files of a set: an archive for each dict of members, a plain file for bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in parts.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            write_tar(folder / name, content)
    return folder
