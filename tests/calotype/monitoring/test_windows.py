"""The table of windows: what goes in comes out, a window is judged once, and drift holds when it was asked to."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from calotype.errors import DataError
from calotype.monitoring import windows
from calotype.monitoring.windows import Tested, Window
from calotype.project import Project

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


def window(day: int = 0, **changes: object) -> Window:
    made = Window(
        model_name="digits",
        model_version=3,
        window_start=NOON + timedelta(days=day),
        window_end=NOON + timedelta(days=day + 1),
        images=500,
        sampled=500,
        reference=1000,
        alpha=0.01,
        tests=(
            Tested("classes", 4.2, 0.3, 0.6, None, None, None),
            Tested("mean", 0.4, 0.0001, 0.0006, -0.1, -0.12, -0.08),
            Tested("contrast", 0.4, 0.0001, 0.0006, -0.1, -0.12, -0.08),
        ),
        is_drift=True,
        drift_holds=False,
        reason="",
        seconds=1.5,
        judged_at=NOON + timedelta(days=day + 1, hours=2),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def days(pattern: str) -> list[Window]:
    """A window a day: ``d`` drift, ``.`` none, ``!`` drift that held."""
    return [window(day, is_drift=mark != ".", drift_holds=mark == "!") for day, mark in enumerate(pattern)]


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    place = Project(tmp_path)
    view = windows.writable(place)
    assert view.windows == ()
    assert windows.append(view, [window(1), window(0)])
    assert windows.writable(place).windows == (window(0), window(1))


def test_a_window_says_what_it_found() -> None:
    assert window().verdict == "drift in brightness and contrast"
    assert replace(window(), is_drift=False).verdict == "no drift"
    assert window().span == "2026-03-29 12:00 to 2026-03-30 12:00 UTC"


def test_of_several_that_read_the_same_windows_one_appends(tmp_path: Path) -> None:
    place = Project(tmp_path)
    windows.append(windows.writable(place), [window()])
    views = [windows.writable(place) for _ in range(6)]
    won: list[bool] = []
    threads = [
        threading.Thread(target=lambda view=view: won.append(windows.append(view, [window(1)]))) for view in views
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 5 + [True]
    assert len(windows.writable(place).windows) == 2


def test_another_table_in_its_place_is_refused(tmp_path: Path) -> None:
    write_deltalake(Project(tmp_path).table("windows"), pa.table({"wind": [1]}))
    with pytest.raises(DataError, match=r"found a table with the columns wind; expected the table of windows \("):
        windows.read(Project(tmp_path))


@pytest.mark.parametrize(
    ("before", "is_drift", "expected"),
    [
        ("", True, 0),
        ("d", True, 2),
        ("d", False, 0),  # the newest shows none
        ("d.", True, 2),
        ("d..", True, 0),  # of the last three one
        ("dd!", True, 0),  # told already: the count begins anew
        ("!d", True, 2),
        ("!.d", True, 2),
        ("..d.", True, 2),
    ],
)
def test_drift_holds_in_two_of_three(before: str, is_drift: bool, expected: int) -> None:
    assert windows.holds(days(before), is_drift, windows=2, of_last=3) == expected


def test_a_single_window_is_enough_where_one_was_asked_for() -> None:
    assert windows.holds([], True, windows=1, of_last=1) == 1
    assert windows.holds(days("!!"), True, windows=1, of_last=1) == 1


def test_a_version_counts_its_own_windows_alone(tmp_path: Path) -> None:
    view = windows.writable(Project(tmp_path))
    windows.append(view, [window(), window(1, model_version=4)])
    view = windows.writable(Project(tmp_path))
    assert view.of("digits", 4) == (window(1, model_version=4),)
