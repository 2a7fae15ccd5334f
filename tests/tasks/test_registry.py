"""Verbs as tasks: what is tried again, and what is not."""

from __future__ import annotations

import pytest
from prefect.states import Failed

from calotype.errors import CalotypeError, DataError, ParamsError, UsageError
from tasks.registry import may_pass, promote_model, register_model
from tasks.schedules import cancel_late_runs


@pytest.mark.parametrize(
    "error", [CalotypeError("a server"), ConnectionError(), TimeoutError(), OSError(28, "no space")]
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert may_pass(None, None, Failed(data=error))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [UsageError("2"), ParamsError("2"), DataError("3"), TypeError("a bug"), KeyError("a bug")]
)
def test_bad_usage_bad_data_and_mistakes_in_code_are_not(error: Exception) -> None:
    assert not may_pass(None, None, Failed(data=error))  # type: ignore[arg-type]


def test_every_verb_asks_whether_a_failure_may_pass() -> None:
    for verb in (register_model, promote_model, cancel_late_runs):
        assert verb.retry_condition_fn is may_pass
