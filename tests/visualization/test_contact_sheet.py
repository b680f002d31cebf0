import cv2
import numpy as np
import pytest

from mmgps.visualization import contact_sheet, write_png
from mmgps.visualization.contact_sheet import BAR, GAP, _shortened, _text_width


def flat(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


def centre(sheet, row, column, tile):
    return sheet[GAP + row * (tile + BAR + GAP) + tile // 2, GAP + column * (tile + GAP) + tile // 2].tolist()


def test_tiles_stand_in_reading_order_in_their_colours():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0), (0, 90, 90)]
    images = [flat(50 + 40 * i, 90, colour) for i, colour in enumerate(colours)]
    sheet = contact_sheet(images, list('abcde'), columns=3, tile=64)
    assert sheet.shape == (2 * (64 + BAR + GAP) + GAP, 3 * (64 + GAP) + GAP, 3)
    for index, colour in enumerate(colours):
        assert centre(sheet, *divmod(index, 3), 64) == list(colour)


def test_proportions_are_kept():
    sheet = contact_sheet([flat(300, 600, (255, 0, 0))], ['wide'], tile=100)
    red = (sheet == (255, 0, 0)).all(-1)
    assert (red.any(1).sum(), red.any(0).sum()) == (50, 100)


def test_captions_and_legend_are_written():
    images = [flat(80, 80, 0)] * 2
    plain = contact_sheet(images, ['', ''], tile=100)
    named = contact_sheet(images, ['Dice 91.2', ''], tile=100)
    changed = np.argwhere((plain != named).any(-1))
    assert len(changed) > 50
    assert changed[:, 0].min() >= GAP + 100
    assert changed[:, 1].max() < GAP + 100
    keyed = contact_sheet(images, ['', ''], legend=[('truth', (1, 250, 3)), ('prediction', (1, 2, 250))], tile=200)
    bottom = keyed[-BAR - GAP :]
    assert (bottom == (1, 250, 3)).all(-1).sum() >= 100
    assert (bottom == (1, 2, 250)).all(-1).sum() >= 100
    assert (bottom.min(-1) > 128).any()


def test_long_captions_lose_their_middle():
    short = _shortened('Dice 12.3  ' + 'x' * 90 + 'end', 200)
    assert _text_width(short) <= 200
    assert short.startswith('Dice 12.3')
    assert '...' in short
    assert short.endswith('end')


def test_png_comes_back_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    path = tmp_path / 'new folder' / 'sheet.png'
    for _ in range(2):
        write_png(path, image)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], image)
    assert [entry.name for entry in path.parent.iterdir()] == ['sheet.png']


@pytest.mark.parametrize(
    ('count', 'captions', 'arguments', 'message'),
    [
        (0, 0, {}, '0 images and 0 captions'),
        (2, 1, {}, '2 images and 1 captions'),
        (1, 1, {'columns': 0}, 'columns=0'),
        (1, 1, {'tile': 10}, 'tile=10'),
    ],
)
def test_wrong_input_is_named(count, captions, arguments, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet([flat(9, 9, 0)] * count, ['x'] * captions, **arguments)


def test_a_legend_of_many_classes_shows_those_that_fit():
    """Each shown class has its whole name; dots stand for the others."""
    legend = [(f'class {at}', (at, 255 - at, 255)) for at in range(150)]
    bar, two = (contact_sheet([flat(90, 90, 0)], [''], tile=300, legend=legend[:count])[-BAR:] for count in (150, 2))
    assert [colour for _, colour in legend if (bar == colour).all(-1).any()] == [colour for _, colour in legend[:2]]
    dots = np.argwhere((bar != two).any(-1))
    assert 0 < len(dots) < 40
    assert dots[:, 1].min() >= 2 * (32 + 24) + _text_width('class 0') + _text_width('class 1')
