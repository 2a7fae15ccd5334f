"""The table of windows: each window of predictions judged once, whoever comes first; and when drift holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa
from deltalake import DeltaTable

from calotype import delta
from calotype.delta import Kind
from calotype.monitoring.shifts import TITLES
from calotype.predictions.reading import open_checked
from calotype.project import Project

NAME = "windows"
_MOMENT = pa.timestamp("us", tz="UTC")

TEST = pa.struct(
    [
        pa.field("test", pa.string(), nullable=False),
        pa.field("statistic", pa.float64(), nullable=False),
        pa.field("p", pa.float64(), nullable=False),
        # Allows for all tests of the window (Holm).
        pa.field("p_holm", pa.float64(), nullable=False),
        # Difference of the means, window less reference, with its 95 % interval; null where there is no such thing.
        pa.field("difference", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)

WINDOWS = Kind(
    "the table of windows",
    "CALOTYPE_PREDICT_OUTPUT",
    "calotype.windows",
    pa.schema(
        [
            pa.field("model_name", pa.string(), nullable=False),
            pa.field("model_version", pa.int64(), nullable=False),
            # Half-open in predicted_at: each prediction lies in one window of its version.
            pa.field("window_start", _MOMENT, nullable=False),
            pa.field("window_end", _MOMENT, nullable=False),
            pa.field("images", pa.int64(), nullable=False),
            # Images of the window and of the reference that were compared.
            pa.field("sampled", pa.int64(), nullable=False),
            pa.field("reference", pa.int64(), nullable=False),
            pa.field("alpha", pa.float64(), nullable=False),
            pa.field("tests", pa.list_(TEST), nullable=False),
            pa.field("is_drift", pa.bool_(), nullable=False),
            pa.field("drift_holds", pa.bool_(), nullable=False),
            # Why drift holds; empty where it does not.
            pa.field("reason", pa.string(), nullable=False),
            pa.field("seconds", pa.float64(), nullable=False),
            pa.field("judged_at", _MOMENT, nullable=False),
        ]
    ),
    format_version=1,
    lacking={},
)
"""One row for each window and model version."""


@dataclass(frozen=True)
class Tested:
    """One test of a window, as the table keeps it."""

    test: str
    statistic: float
    p: float
    p_holm: float
    difference: float | None
    low: float | None
    high: float | None

    @property
    def title(self) -> str:
        """What a person calls it; a test of a later version by its own name."""
        return TITLES.get(self.test, self.test)


@dataclass(frozen=True)
class Window:
    """One row of the table."""

    model_name: str
    model_version: int
    window_start: datetime
    window_end: datetime
    images: int
    sampled: int
    reference: int
    alpha: float
    tests: tuple[Tested, ...]
    is_drift: bool
    drift_holds: bool
    reason: str
    seconds: float
    judged_at: datetime

    @property
    def key(self) -> str:
        """What names the window wherever else it is written down."""
        return f"{self.model_name}/{self.model_version}/{self.window_end.isoformat()}"

    @property
    def model(self) -> str:
        """``digits version 3``."""
        return f"{self.model_name} version {self.model_version}"

    @property
    def span(self) -> str:
        """``2026-11-22 02:00 to 2026-11-23 02:00 UTC``."""
        return f"{self.window_start:%Y-%m-%d %H:%M} to {self.window_end:%Y-%m-%d %H:%M} UTC"

    @property
    def alarms(self) -> tuple[Tested, ...]:
        """The tests that found a difference."""
        return tuple(test for test in self.tests if test.p_holm <= self.alpha)

    @property
    def verdict(self) -> str:
        """``drift in brightness and sharpness``, or ``no drift``."""
        return f"drift in {self.drifted}" if self.is_drift else "no drift"

    @property
    def drifted(self) -> str:
        """``brightness and sharpness``."""
        return joined([test.title.lower() for test in self.alarms])


@dataclass(frozen=True)
class View:
    """All windows, oldest first, as they stood in one snapshot of the table."""

    table: DeltaTable
    windows: tuple[Window, ...]

    def of(self, model_name: str, model_version: int) -> tuple[Window, ...]:
        """The windows of one version."""
        return tuple(w for w in self.windows if (w.model_name, w.model_version) == (model_name, model_version))


def joined(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def holds(before: Sequence[Window], is_drift: bool, *, windows: int, of_last: int) -> int:
    """How many of the last windows showed drift, this one included, if these are enough; else 0.

    Windows that have led to an alarm already count no more: drift that lasts is told again only when as many new
    windows have shown it.

    Parameters
    ----------
    before
        Earlier windows of the same model version, oldest first.
    is_drift
        Whether the newest one shows drift.
    windows, of_last
        So many of the last so many are needed.
    """
    fresh: list[bool] = []
    for window in before:
        fresh = [] if window.drift_holds else [*fresh, window.is_drift]
    drifted = sum([*fresh, is_drift][-of_last:])
    return drifted if is_drift and drifted >= windows else 0


def read(project: Project) -> View | None:
    """Read the windows; None where there is no table yet.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    CalotypeError
        If the place cannot be reached.
    """
    table = open_checked(project, NAME, WINDOWS)
    return None if table is None else _view(table)


def writable(project: Project) -> View:
    """Read the windows, of a table that is made if absent; raises as `read`."""
    made = delta.made(project.table(NAME), WINDOWS, NAME, "One row for each judged window of predictions")
    return _view(made)


def append(view: View, windows: Sequence[Window]) -> bool:
    """Append windows through the snapshot that was read; False if another monitor was first."""
    rows = pa.Table.from_pylist([asdict(window) for window in windows], WINDOWS.schema)
    return delta.append(view.table, WINDOWS, rows)


def _view(table: DeltaTable) -> View:
    rows = delta.whole(table, WINDOWS).to_pylist()
    return View(table, tuple(sorted(map(_window, rows), key=lambda window: (window.window_end, window.judged_at))))


def _window(row: dict[str, object]) -> Window:
    tests = tuple(Tested(**test) for test in row.pop("tests"))  # type: ignore[attr-defined]
    return Window(**row, tests=tests)  # type: ignore[arg-type]
