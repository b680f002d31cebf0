"""Names in messages."""

from mmgps.utils.text import listed, printable


def test_long_lists_are_cut_and_counted() -> None:
    assert listed([]) == 'nothing'
    assert listed(['a', 'b', 'c']) == "'a', 'b', 'c'"
    assert listed(['a', 'b', 'c', 'd', 'e']) == "'a', 'b', 'c' and 2 more"
    assert listed(['a', 'b'], most=1) == "'a' and 1 more"


def test_control_characters_are_escaped() -> None:
    assert printable('a\x1b[1m\nb\u202e') == 'a\\x1b[1m\\nb\\u202e'
