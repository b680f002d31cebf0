import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgps.selection import NetworkWide, PerLayer, PerNeuron, SharedColumns, top_per_row


def slow_top(rows: list[list[float]], k: int) -> list[int]:
    """Row by row, the best columns first; among equals, the lower column first."""
    found = []
    for at, row in enumerate(rows):
        order = sorted(range(len(row)), key=lambda column: (-row[column], column))[:k]
        found += [at * len(row) + column for column in sorted(order)]
    return found


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 6), st.integers(1, 9), st.integers(1, 12))
def test_top_per_row_equals_a_slow_sort_with_ties(data: st.DataObject, height: int, width: int, k: int) -> None:
    values = st.sampled_from([0.0, 1.0, 2.0, float(data.draw(st.integers(0, 5)))])
    rows = [[data.draw(values) for _ in range(width)] for _ in range(height)]
    assert top_per_row(torch.tensor(rows), k).tolist() == slow_top(rows, k)


def test_a_row_of_zeros_gives_its_first_columns() -> None:
    assert top_per_row(torch.zeros(2, 4), 2).tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize('k', [1, 2, 3])
def test_ablation_rules_spend_the_budget_of_gps(k: int) -> None:
    scores = {'a': torch.rand(4, 5).round(decimals=1), 'b': torch.rand(7, 3).round(decimals=1)}
    budget = k * (4 + 7)
    per_layer, wide = PerLayer().choose(scores, k), NetworkWide().choose(scores, k)
    assert [len(per_layer['a']), len(per_layer['b'])] == [k * 4, k * 7]
    assert sum(map(len, wide.values())) == min(budget, 41) == sum(map(len, PerNeuron().choose(scores, k).values()))
    for name, rows in scores.items():
        flat = rows.flatten()
        assert per_layer[name].tolist() == slow_top([flat.tolist()], k * len(rows))
        assert wide[name].tolist() == sorted(wide[name].tolist())
    joined = torch.cat([scores['a'].flatten(), scores['b'].flatten()]).tolist()
    expected = slow_top([joined], budget)
    assert [*wide['a'].tolist(), *(20 + wide['b']).tolist()] == expected


@pytest.mark.parametrize(('columns', 'k'), [(1, 1), (2, 1), (2, 3), (4, 2), (9, 2)])
def test_shared_columns_are_those_that_most_neurons_would_choose(columns: int, k: int) -> None:
    rows = torch.rand(12, 6, generator=torch.Generator().manual_seed(20 * columns + k)).round(decimals=1)
    votes = [0] * 6
    for place in slow_top(rows.tolist(), k):
        votes[place % 6] += 1
    shared = sorted(range(6), key=lambda column: (-votes[column], column))[: max(columns, k)]
    allowed = [[value if at in shared else -1.0 for at, value in enumerate(row)] for row in rows.tolist()]
    chosen = SharedColumns(columns).choose({'a': rows}, k)['a'].tolist()
    assert chosen == slow_top(allowed, k)
    assert len({place % 6 for place in chosen}) <= max(columns, k)


def test_no_shared_columns_is_an_error() -> None:
    with pytest.raises(ValueError, match='at least 1; got 0'):
        SharedColumns(0)
