"""Miniatures of the published polyp sets in their true layouts on disk."""

import zipfile

import cv2
import numpy as np


def frame(seed, size):
    """Return an image ``(H, W, 3)`` for ``size`` = (width, height)."""
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def blob(size):
    """Return a mask ``(H, W)`` of 0 and 255 with a disc whose radius is a fifth of the height."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    return cv2.circle(mask, (size[0] // 2, size[1] // 2), size[1] // 5, 255, -1)


def encode(image, suffix):
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def kvasir(ids, size=(60, 48)):
    """Members of ``kvasir-seg.zip``: JPEG images and three-channel JPEG masks, whose edges are grey."""
    members = {'Kvasir-SEG/kavsir_bboxes.json': b'{}'}
    members |= {f'__MACOSX/Kvasir-SEG/{kind}/._x.jpg': b'junk' for kind in ('images', 'masks')}
    for seed, name in enumerate(ids):
        members[f'Kvasir-SEG/images/{name}.jpg'] = encode(frame(seed, size), '.jpg')
        members[f'Kvasir-SEG/masks/{name}.jpg'] = encode(cv2.merge([blob(size)] * 3), '.jpg')
    return members


def tree(images, masks, ids, suffix, prefix='', size=(40, 30)):
    """Members of a set of lossless images, with masks named ``prefix`` + id."""
    members = {}
    for seed, name in enumerate(ids):
        members[f'{images}/{name}{suffix}'] = encode(frame(seed, size), suffix)
        members[f'{masks}/{prefix}{name}{suffix}'] = encode(blob(size), suffix)
    return members


def write_zip(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_folder(path, members):
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_pictures(folder, part, count, size=(96, 72)):
    """Write a prepared set of ``count`` images with dark discs, the polyps, on noise, and their masks of 0 and 1."""
    for number in range(count):
        rng = np.random.default_rng(number)
        centre, radius = (int(rng.integers(24, 72)), int(rng.integers(24, 48))), int(rng.integers(10, 20))
        image = cv2.circle(frame(number, size) // 2 + 120, centre, radius, (20, 20, 60), -1)
        mask = cv2.circle(np.zeros(size[::-1], np.uint8), centre, radius, 1, -1)
        for kind, content in (('images', image), ('annotations', mask)):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / part / f'{number}.png'), content)
