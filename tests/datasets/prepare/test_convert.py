"""Conversion of the published layouts, and the error for each fault in them."""

import dataclasses
import os
import zipfile

import cv2
import numpy as np
import pytest
from support.polyp_files import blob, encode, frame, kvasir, tree, write_folder, write_zip

from mmgps.datasets.prepare import SOURCES, convert, get_source
from mmgps.datasets.prepare import errors as e
from mmgps.datasets.prepare.target import MARKER

KVASIR = get_source('kvasir-seg')
VAL = sorted(KVASIR.official_val())[:2]
IDS = ['cju0qkwl35piu0993l0dewei2', 'cju0qoxqj9q6s0835b43399p4', 'cju0qx73cjw570799j4n5cjze', *VAL]


def files(folder):
    found = (path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())
    return sorted(name for name in found if name != MARKER)


def mini(source, count):
    """Return the same source with another published number of images."""
    layouts = tuple(dataclasses.replace(layout, count=count) for layout in source.layouts)
    return dataclasses.replace(source, layouts=layouts)


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'work' / 'set'


@pytest.fixture
def refused(tmp_path, out):
    """Run a conversion that must fail, and check that nothing is left."""

    def run(error, match, members, source=KVASIR, packed=True, **options):
        at = write_zip(tmp_path / 'set.zip', members) if packed else write_folder(tmp_path / 'raw', members)
        with pytest.raises(error, match=match):
            convert(source, at, out, **{'allow_partial': True, **options})
        assert not out.parent.exists() or list(out.parent.iterdir()) == []

    return run


@pytest.mark.parametrize('packed', [True, False])
def test_kvasir_seg(tmp_path, out, packed):
    members = kvasir(IDS)
    at = write_zip(tmp_path / 'a.zip', members) if packed else write_folder(tmp_path / 'a', members)
    seen = []
    summary = convert(KVASIR, at, out, allow_partial=True, progress=lambda done, total: seen.append((done, total)))
    assert files(out) == sorted(
        [f'images/train/{name}.jpg' for name in IDS[:3]]
        + [f'images/val/{name}.jpg' for name in VAL]
        + [f'annotations/train/{name}.png' for name in IDS[:3]]
        + [f'annotations/val/{name}.png' for name in VAL]
        + ['train.txt', 'val.txt']
    )
    assert (out / 'train.txt').read_text().split() == IDS[:3]
    assert (out / 'val.txt').read_text().split() == VAL
    assert (out / f'images/val/{VAL[0]}.jpg').read_bytes() == members[f'Kvasir-SEG/images/{VAL[0]}.jpg']
    assert seen == [(i, 5) for i in range(1, 6)]
    assert summary.counts == {'train': 3, 'val': 2}
    assert list(out.parent.iterdir()) == [out]


def test_grey_edges_of_jpeg_masks_become_0_and_1(tmp_path, out):
    members = kvasir(IDS)
    raw = cv2.imdecode(np.frombuffer(members[f'Kvasir-SEG/masks/{VAL[0]}.jpg'], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert len(np.unique(raw)) > 10  # the fault is there
    convert(KVASIR, write_zip(tmp_path / 'a.zip', members), out, allow_partial=True)
    mask = cv2.imread(str(out / f'annotations/val/{VAL[0]}.png'), cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.shape) == (np.uint8, (48, 60))
    np.testing.assert_array_equal(mask, blob((60, 48)) // 255)


def test_the_threshold_is_above_127(tmp_path, out):
    ramp = np.array([[0, 126, 127, 128, 255]], np.uint8).repeat(4, axis=0)
    members = {'images/a.png': encode(frame(0, (5, 4)), '.png'), 'masks/a.png': encode(ramp, '.png')}
    convert(get_source('cvc-300'), write_folder(tmp_path / 'a', members), out, allow_partial=True)
    mask = cv2.imread(str(out / 'annotations/val/a.png'), cv2.IMREAD_UNCHANGED)
    assert mask[0].tolist() == [0, 0, 0, 1, 1]


def test_summary_says_counts_sizes_and_foreground(tmp_path, out):
    members = kvasir(IDS[:2]) | {
        f'Kvasir-SEG/{kind}/{VAL[0]}.jpg': encode(image, '.jpg')
        for kind, image in [('images', frame(0, (20, 10))), ('masks', np.full((10, 20), 255, np.uint8))]
    }
    text = str(convert(KVASIR, write_zip(tmp_path / 'a.zip', members), out, allow_partial=True))
    share = (blob((60, 48)) > 0).mean()
    assert '2 train, 1 val' in text
    assert '20x10 to 60x48 pixels, 2 different' in text
    assert f'foreground: {(2 * share + 1) / 3:.1%} of an image on average, {share:.1%} to 100.0%, 0 masks empty' in text
    assert 'Jha et al.' in text


PRANET = ('CVC-300', 'CVC-ClinicDB', 'CVC-ColonDB', 'ETIS-LaribPolypDB', 'Kvasir')
IN_PRANET = [('cvc-clinicdb', PRANET[1]), ('cvc-colondb', PRANET[2]), ('etis-larib', PRANET[3]), ('cvc-300', PRANET[0])]
TRUE_LAYOUTS = [
    ('cvc-clinicdb', 'CVC-ClinicDB/Original', 'CVC-ClinicDB/Ground Truth', '.tif', ''),
    ('cvc-clinicdb', 'PNG/Original', 'PNG/Ground Truth', '.png', ''),
    ('cvc-colondb', 'CVC-ColonDB/CVC-ColonDB', 'CVC-ColonDB/CVC-ColonDB', '.tiff', 'p'),
    ('etis-larib', 'ETIS-LaribPolypDB/ETIS-LaribPolypDB', 'ETIS-LaribPolypDB/Ground Truth', '.tif', 'p'),
]


def check_three(summary, out):
    assert summary.counts == {'val': 3}
    assert (out / 'val.txt').read_text().split() == ['1', '10', '2']
    assert files(out / 'images') == ['val/1.png', 'val/10.png', 'val/2.png']
    np.testing.assert_array_equal(cv2.imread(str(out / 'images/val/10.png')), frame(2, (40, 30)))
    mask = cv2.imread(str(out / 'annotations/val/10.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, blob((40, 30)) // 255)


@pytest.mark.parametrize(('name', 'images', 'masks', 'suffix', 'prefix'), TRUE_LAYOUTS)
def test_first_publications_of_the_test_sets(tmp_path, out, name, images, masks, suffix, prefix):
    members = tree(images, masks, ['1', '2', '10'], suffix, prefix)
    if images == masks:  # the contour and the uninformative region that CVC-ColonDB has beside each mask
        members |= {f'{masks}/{kind}1{suffix}': b'not looked at' for kind in 'cs'}
    check_three(convert(mini(get_source(name), 3), write_zip(tmp_path / 'a.zip', members), out), out)


@pytest.mark.parametrize(('name', 'folder'), IN_PRANET)
def test_test_sets_in_the_archive_of_pranet(tmp_path, out, name, folder):
    members = tree(f'TestDataset/{folder}/images', f'TestDataset/{folder}/masks', ['1', '2', '10'], '.png')
    for other in {*PRANET} - {folder}:
        members |= tree(f'TestDataset/{other}/images', f'TestDataset/{other}/masks', ['7'], '.png')
    check_three(convert(mini(get_source(name), 3), write_zip(tmp_path / 'a.zip', members), out), out)


def test_a_flat_folder_given_itself(tmp_path, out):
    at = write_folder(tmp_path / 'renamed', tree('.', '.', ['1', '2'], '.bmp', 'p'))
    assert convert(mini(get_source('cvc-colondb'), 2), at, out).counts == {'val': 2}


def test_mixed_images_all_become_png(tmp_path, out):
    members = tree('images', 'masks', ['1'], '.png') | {
        'images/2.JPG': encode(frame(5, (40, 30)), '.jpg'),
        'masks/2.bmp': encode(blob((40, 30)), '.bmp'),
    }
    convert(mini(get_source('cvc-300'), 2), write_zip(tmp_path / 'a.zip', members), out)
    assert files(out / 'images') == ['val/1.png', 'val/2.png']
    assert (out / 'images/val/1.png').read_bytes() == members['images/1.png']
    jpeg = cv2.imdecode(np.frombuffer(members['images/2.JPG'], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.imread(str(out / 'images/val/2.png')), jpeg)


def test_published_counts_and_the_official_split():
    assert {source.name: source.layouts[0].count for source in SOURCES} == {
        'kvasir-seg': 1000,
        'cvc-clinicdb': 612,
        'cvc-colondb': 380,
        'etis-larib': 196,
        'cvc-300': 60,
    }
    assert len(KVASIR.official_val()) == 120
    assert all(source.official_val() is None for source in SOURCES[1:])


def test_official_split_is_that_of_the_real_copy(real_data):
    assert set((real_data / 'kvasir_seg_352/val.txt').read_text().split()) == KVASIR.official_val()


def test_split_file(tmp_path, out):
    (tmp_path / 'val.txt').write_text('images/2.png\n\n10\n', encoding='utf-8-sig')
    at = write_zip(tmp_path / 'a.zip', tree('images', 'masks', ['1', '2', '10', '11'], '.png'))
    summary = convert(mini(get_source('cvc-clinicdb'), 4), at, out, split_file=tmp_path / 'val.txt')
    assert summary.counts == {'train': 2, 'val': 2}
    assert (out / 'val.txt').read_text().split() == ['10', '2']


@pytest.mark.parametrize('partial', [False, True])
@pytest.mark.parametrize(
    ('content', 'match'),
    [('1\n77\n', '1 of the 2 validation ids .* 77'), ('\n', 'is empty'), (None, 'val.txt does not exist')],
)
def test_split_file_that_does_not_fit(tmp_path, refused, content, match, partial):
    if content is not None:
        (tmp_path / 'val.txt').write_text(content)
    members = tree('images', 'masks', ['1', '2'], '.png')
    source = mini(get_source('cvc-300'), 2)
    refused(e.SplitError, match, members, source, split_file=tmp_path / 'val.txt', allow_partial=partial)


def test_own_images_need_a_split_file(refused):
    match = r'120 of the 120 validation ids in .* Give a list for this copy with --split-file'
    refused(e.SplitError, match, tree('images', 'masks', ['1', '2'], '.jpg'), KVASIR, allow_partial=True)


def test_wrong_count(refused):
    message = r'holds 5 images of Kvasir-SEG \(images/ with masks in masks/\), expected 1000: .*--allow-partial'
    refused(e.CountError, message, kvasir(IDS), allow_partial=False)


def test_unpaired_names_are_listed_and_capped(refused):
    members = kvasir([f'x{i:02}' for i in range(12)])
    for i in range(10):
        del members[f'Kvasir-SEG/masks/x{i:02}.jpg']
    del members['Kvasir-SEG/images/x11.jpg']
    match = r'10 images have no mask: .*x00\.jpg.*x07\.jpg and 2 more; 1 masks have no image: .*masks/x11\.jpg'
    refused(e.UnpairedError, match, members)


def test_two_files_of_one_id(refused):
    members = kvasir(IDS)
    members[f'Kvasir-SEG/images/{IDS[0]}.png'] = encode(frame(0, (60, 48)), '.png')
    refused(e.UnpairedError, 'claim the same id', members)


def test_size_mismatch(refused):
    members = kvasir(IDS)
    members[f'Kvasir-SEG/masks/{IDS[1]}.jpg'] = encode(blob((48, 60)), '.jpg')
    refused(e.SizeMismatchError, rf'images/{IDS[1]}.jpg is 60x48 and its mask .* is 48x60', members)


def test_missing_folder(refused):
    members = {name.replace('/masks/', '/labels/'): data for name, data in kvasir(IDS).items()}
    match = 'expected images/ with masks in masks/; found Kvasir-SEG/images/, Kvasir-SEG/labels/'
    refused(e.LayoutError, match, members)


def test_no_images_at_all(refused):
    refused(e.LayoutError, 'found no folder with images', {'readme.txt': b'hello'})


def test_a_set_that_is_present_twice(refused):
    twice = {f'copy/{name}': data for name, data in kvasir(IDS).items()} | kvasir(IDS)
    refused(e.LayoutError, 'more than once, in Kvasir-SEG, copy/Kvasir-SEG: give the folder', twice)


@pytest.mark.parametrize('kind', ['images', 'masks'])
@pytest.mark.parametrize('keep', [0, 10, 600])
def test_images_that_are_cut_off(refused, kind, keep):
    members = kvasir(IDS)
    name = f'Kvasir-SEG/{kind}/{IDS[2]}.jpg'
    members[name] = members[name][:keep]
    refused(e.UnreadableImageError, rf'{kind}/{IDS[2]}.jpg \({keep} bytes\)', members, packed=False)


def test_png_that_is_cut_off(refused):
    members = tree('images', 'masks', ['1', '2'], '.png')
    members['images/2.png'] = members['images/2.png'][:-20]
    refused(e.UnreadableImageError, r'images/2\.png', members, get_source('cvc-300'))


def test_masks_without_foreground(refused):
    members = kvasir(IDS)
    for name in IDS:
        members[f'Kvasir-SEG/masks/{name}.jpg'] = encode(blob((60, 48)) // 255, '.jpg')
    refused(e.EmptyMasksError, 'grey level above 127', members)


@pytest.mark.parametrize('keep', [0.3, 0.97])
def test_truncated_zip(tmp_path, out, keep):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    at.write_bytes(at.read_bytes()[: int(keep * at.stat().st_size)])
    with pytest.raises(e.CorruptArchiveError, match=r'a\.zip .* is cut off: fetch it again'):
        convert(KVASIR, at, out, allow_partial=True)
    assert not out.exists()


def test_damaged_member(tmp_path, out):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    with zipfile.ZipFile(at) as archive:
        info = archive.getinfo(f'Kvasir-SEG/masks/{VAL[1]}.jpg')
    data = bytearray(at.read_bytes())
    data[info.header_offset + 150] ^= 0xFF
    at.write_bytes(data)
    with pytest.raises(e.CorruptArchiveError, match=f'masks/{VAL[1]}.jpg in .* cannot be read'):
        convert(KVASIR, at, out, allow_partial=True)
    assert list(out.parent.iterdir()) == []


def test_another_kind_of_archive(tmp_path, out):
    (tmp_path / 'a.rar').write_bytes(b'Rar!\x1a\x07\x00' + bytes(100))
    with pytest.raises(e.CorruptArchiveError, match='unpack other archives yourself and give the folder'):
        convert(KVASIR, tmp_path / 'a.rar', out)


def test_nothing_at_the_source(tmp_path, out):
    with pytest.raises(e.SourceUnavailableError, match=r'nowhere\.zip does not exist'):
        convert(KVASIR, tmp_path / 'nowhere.zip', out)


@pytest.mark.parametrize('name', ['../evil.jpg', 'images/../../evil.jpg', '/etc/evil.jpg', 'images\\..\\evil.jpg'])
def test_names_that_lead_outside(tmp_path, refused, name):
    refused(e.UnsafeArchiveError, 'which leads outside', kvasir(IDS) | {name: b'evil'})
    assert not list(tmp_path.rglob('evil*'))


def test_a_finished_set_is_kept_unless_forced(tmp_path, out):
    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    convert(KVASIR, at, out, allow_partial=True)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    with pytest.raises(e.TargetError, match='left unchanged: add --force'):
        convert(KVASIR, at, out, allow_partial=True)
    broken = write_zip(tmp_path / 'b.zip', {**kvasir(IDS), f'Kvasir-SEG/masks/{IDS[2]}.jpg': b''})
    with pytest.raises(e.UnreadableImageError):
        convert(KVASIR, broken, out, allow_partial=True, force=True)
    assert {name: (out / name).stat().st_mtime_ns for name in files(out)} == before
    convert(KVASIR, write_zip(tmp_path / 'c.zip', kvasir(IDS[:4])), out, allow_partial=True, force=True)
    assert len(files(out / 'images')) == 4
    assert list(out.parent.iterdir()) == [out]


def test_an_interrupt_leaves_nothing(tmp_path, out):
    def interrupt(done, total):
        raise KeyboardInterrupt

    at = write_zip(tmp_path / 'a.zip', kvasir(IDS))
    with pytest.raises(KeyboardInterrupt):
        convert(KVASIR, at, out, allow_partial=True, progress=interrupt)
    assert list(out.parent.iterdir()) == []


def test_the_set_is_readable_for_others(tmp_path, out):
    convert(KVASIR, write_zip(tmp_path / 'a.zip', kvasir(IDS)), out, allow_partial=True)
    mask = os.umask(0)
    os.umask(mask)
    assert out.stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(ValueError, match="called 'kvasir'; nearest: kvasir-seg; there are"):
        get_source('kvasir')
