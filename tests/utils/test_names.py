"""Names that were misspelled."""

import pytest

from mmgps.utils.names import nearest


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
