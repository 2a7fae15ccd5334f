"""What becomes of a run that the servers' end cut off."""

from __future__ import annotations

import pytest

from calotype.services import settle


@pytest.mark.parametrize(
    ("state", "run_count", "then"),
    [
        ("RUNNING", 1, "AwaitingRetry"),
        ("RUNNING", 2, "AwaitingRetry"),
        ("RUNNING", 3, "Crashed"),
        ("PENDING", 0, "AwaitingRetry"),
        ("CANCELLING", 1, "Cancelled"),
    ],
)
def test_a_run_goes_on_twice_and_one_that_was_being_cancelled_never(state: str, run_count: int, then: str) -> None:
    assert settle._next({"state_type": state, "run_count": run_count})[1] == then
