import numpy as np
import pytest

from mmgps.visualization import draw_overlay
from mmgps.visualization.overlay import FILL, PREDICTION, TRUTH

GREY = np.full((120, 160, 3), 100, np.uint8)


def box(top, bottom, left, right):
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top:bottom, left:right] = True
    return mask


def tinted(colour):
    return np.round((1 - FILL) * 100 + FILL * np.array(colour)).tolist()


def count(image, colour):
    return int((image == np.array(colour)).all(-1).sum())


def test_errors_are_filled_and_correct_regions_are_unchanged():
    drawn = draw_overlay(GREY, box(20, 100, 20, 100), box(20, 100, 60, 140))
    assert drawn[60, 40].tolist() == tinted(TRUTH)
    assert drawn[60, 120].tolist() == tinted(PREDICTION)
    assert drawn[60, 80].tolist() == [100, 100, 100]
    assert drawn[5, 5].tolist() == [100, 100, 100]


def test_both_outlines_are_visible_where_they_coincide():
    mask = box(20, 100, 20, 100)
    drawn = draw_overlay(GREY, mask, mask)
    assert count(drawn, PREDICTION) >= 4 * 78
    assert count(drawn, TRUTH) >= 4 * 78


def test_lines_grow_with_the_image():
    image = np.zeros((960, 1280, 3), np.uint8)
    mask = np.zeros((960, 1280), bool)
    mask[200:700, 300:900] = True
    row = draw_overlay(image, None, mask)[450]
    assert 2 * 5 <= (row == PREDICTION).all(-1).sum() <= 2 * 9


def test_holes_are_outlined():
    ring = box(20, 100, 20, 100) & ~box(50, 70, 50, 70)
    drawn = draw_overlay(GREY, None, ring)
    assert count(drawn[40:80, 40:80], PREDICTION) >= 60


def test_without_truth_only_the_prediction_is_drawn():
    drawn = draw_overlay(GREY, None, box(20, 100, 20, 100))
    assert count(drawn, PREDICTION)
    assert not count(drawn, TRUTH)
    assert drawn[60, 60].tolist() == [100, 100, 100]


def test_empty_masks_leave_the_image_and_the_input_stays():
    nothing = np.zeros(GREY.shape[:2], np.int64)
    before = GREY.copy()
    np.testing.assert_array_equal(draw_overlay(GREY, nothing, nothing), GREY)
    draw_overlay(GREY, box(1, 9, 1, 9), box(5, 60, 5, 60))
    np.testing.assert_array_equal(GREY, before)


def test_fill_can_be_left_out():
    drawn = draw_overlay(GREY, box(20, 100, 20, 60), np.zeros(GREY.shape[:2]), fill=0)
    assert drawn[60, 40].tolist() == [100, 100, 100]
    assert count(drawn, TRUTH) > 100


@pytest.mark.parametrize(
    ('image', 'target', 'prediction', 'fill', 'message'),
    [
        (GREY / 255, None, box(1, 2, 1, 2), 0.3, 'float64; expected'),
        (GREY[..., 0], None, box(1, 2, 1, 2), 0.3, r'shape \(120, 160\)'),
        (GREY, None, np.zeros((4, 4)), 0.3, r'prediction is \(4, 4\) and the image \(120, 160\)'),
        (GREY, np.zeros((4, 4)), box(1, 2, 1, 2), 0.3, r'target is \(4, 4\)'),
        (GREY, np.full((120, 160), 255), box(1, 2, 1, 2), 0.3, 'target holds 255'),
        (GREY, None, box(1, 2, 1, 2), 1.5, 'fill=1.5'),
    ],
)
def test_wrong_input_is_named(image, target, prediction, fill, message):
    with pytest.raises(ValueError, match=message):
        draw_overlay(image, target, prediction, fill)
