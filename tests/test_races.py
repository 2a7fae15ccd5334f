"""Real processes that promote at the same moment: the best is champion, whoever came first."""

from __future__ import annotations

import pytest

from bench import races


@pytest.mark.slow
def test_of_four_processes_that_promote_at_once_the_best_is_champion_and_all_are_in_the_ledger() -> None:
    results = races.hold(4, most=4)
    assert [result.is_won for result in results] == [True] * 4
    assert max(len(result.finishes) for result in results) == 4
    assert all(result.alias == result.champion for result in results)
