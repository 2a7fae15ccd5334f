"""When a crashed run is surely dead. That it goes on, once, is claimed in tests/test_services_end_to_end.py."""

from __future__ import annotations

from typing import Any

import pytest

from calotype.services.resumption import EXECUTED, SUBMITTED, all_ended


def started(number: int) -> dict[str, Any]:
    return {"id": f"start {number}", "event": SUBMITTED, "follows": None}


def over(number: int) -> dict[str, Any]:
    return {"id": f"end {number}", "event": EXECUTED, "follows": f"start {number}"}


@pytest.mark.parametrize(
    ("events", "is_over"),
    [
        ([], False),
        ([started(1)], False),
        ([over(1), started(1)], True),
        # The worker's word on the first start came late, while the second is at work.
        ([over(1), started(2), started(1)], False),
        ([over(2), over(1), started(2), started(1)], True),
    ],
)
def test_a_run_is_over_when_its_workers_said_so_of_each_start(events: list[dict[str, Any]], is_over: bool) -> None:
    assert all_ended(events) is is_over
