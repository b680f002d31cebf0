"""Text for messages and tables."""

from mmgps.utils.text import listed, markdown_table, nearest, printable


def test_long_lists_are_cut_and_counted() -> None:
    assert listed([]) == 'nothing'
    assert listed(['a', 'b', 'c']) == "'a', 'b', 'c'"
    assert listed(['a', 'b', 'c', 'd', 'e']) == "'a', 'b', 'c' and 2 more"
    assert listed(['a', 'b'], most=1) == "'a' and 1 more"


def test_the_nearest_names_come_first_however_far_they_are() -> None:
    assert nearest('head.wieght', ['stem.bias', 'head.weight', 'head.bias'], 2) == 'head.weight, head.bias'
    assert nearest('x', ['head.weight']) == 'head.weight'
    assert nearest('x', []) == ''


def test_a_table_lines_up_and_keeps_foreign_names_in_their_cells() -> None:
    assert markdown_table(['method', 'ms'], [['gps|1', '12.5'], ['full', '3']]).splitlines() == [
        '| method |   ms |',
        '| ------ | ---: |',
        '| gps\\|1 | 12.5 |',
        '| full   |    3 |',
    ]


def test_control_characters_are_escaped() -> None:
    assert printable('a\x1b[1m\nb\u202e') == 'a\\x1b[1m\\nb\\u202e'
