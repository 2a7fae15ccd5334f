"""What becomes of a run that the servers' end cut off."""

from __future__ import annotations

from typing import Any

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


def test_a_run_that_crashed_as_the_servers_ended_goes_on_unless_its_turns_are_spent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crashed = [{"id": str(count), "name": f"run {count}", "run_count": count} for count in (0, 1, 2, 3)]
    sent: list[str] = []

    def ask(url: str, body: Any = None, **_: Any) -> Any:
        if url.endswith("/filter"):
            return crashed if body["flow_runs"]["state"]["type"]["any_"] == ["CRASHED"] else []
        sent.append(url.split("/")[-2])
        return None

    monkeypatch.setattr(settle.web, "ask", ask)
    settle.settle("http://prefect/api")
    assert sent == ["1", "2"]
