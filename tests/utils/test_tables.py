"""Tables, and names from outside within them."""

import re

from mmgps.utils.text import markdown_table, text_table


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
