"""Text for people: names in messages, misspelled names, and tables."""

import re

import pytest

from mmgps.utils.text import listed, markdown_table, nearest, printable, text_table


def test_long_lists_are_cut_and_counted() -> None:
    assert listed([]) == 'nothing'
    assert listed(['a', 'b', 'c']) == "'a', 'b', 'c'"
    assert listed(['a', 'b', 'c', 'd', 'e']) == "'a', 'b', 'c' and 2 more"


def test_control_characters_are_escaped() -> None:
    assert printable('a\x1b[1m\nb\u202e') == 'a\\x1b[1m\\nb\\u202e'


def test_the_nearest_come_first_and_no_more_than_asked_for() -> None:
    names = ['linear', 'bias', 'gps', 'full']
    assert nearest('gsp', names, 1) == 'gps'
    assert nearest('biass', names).split(', ')[0] == 'bias'
    assert len(nearest('biass', names).split(', ')) == 3
    assert len(nearest('biass', names, 9).split(', ')) == 4


def test_something_is_always_near_unless_a_likeness_is_asked_for() -> None:
    assert nearest('zzz', ['gps']) == 'gps'
    assert nearest('zzz', ['gps'], alike=0.5) == ''
    assert nearest('zzz', []) == ''


@pytest.mark.parametrize('name', [None, 3, 1.5, ('gps',)])
def test_what_is_no_text_is_compared_as_it_prints(name: object) -> None:
    assert nearest(name, ['gps', '3', 'None', '1.5'], 1) == {3: '3', None: 'None', 1.5: '1.5'}.get(name, 'gps')


def test_names_may_be_read_once_only() -> None:
    assert nearest('a', (name for name in 'ab'), 1) == 'a'


def test_cells_of_a_markdown_table_end_where_their_column_does() -> None:
    lines = markdown_table(['method', 'a|b'], [['gps:full_roles=x|y', '\x1b[1m5'], ['full', '1\n2']]).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert {len(re.findall(r'(?<!\\)\|', line)) for line in lines} == {3}
    assert '\x1b' not in ''.join(lines)


def test_a_text_table() -> None:
    assert text_table(['part', 'trained', 'total'], [['backbone', '1,234', '5'], ['a\nb', '\x1b[1m', '']]).split(
        '\n'
    ) == [
        'part      trained  total',
        'backbone    1,234      5',
        'a\\nb      \\x1b[1m',
    ]


def test_a_table_without_rows() -> None:
    assert text_table(['part', 'trained'], []) == 'part  trained'
    assert markdown_table(['part', 'all'], []).splitlines() == ['| part | all |', '| ---- | --: |']
