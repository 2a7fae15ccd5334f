"""The ledger: an append-only Delta table of every decision about who is champion.

A model's *head* is what its last entry says the champion is, and MLflow's alias only follows it. An append is a
compare-and-swap (`calotype.delta`): of several writers that read the same head one commits; the others read again, and
judge again if the head has changed.

A row costs a file of 2 kB: 400 rows were read in 0.2 s, so nothing is ever compacted.
"""

from __future__ import annotations

import getpass
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from calotype import delta
from calotype.delta import Kind
from calotype.errors import CalotypeError

Verdict = Literal["promote", "hold", "reject", "forced", "rollback", "manual"]

ATTEMPTS = 200

SCHEMA = pa.schema(
    [
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.int32()),
        pa.field("from_version", pa.int32()),
        pa.field("to_version", pa.int32()),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("evidence_digest", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("who", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        # Of the champion that the entry makes: with its bundle at hand, nobody need be asked for it.
        pa.field("bundle_digest", pa.string()),
        pa.field("run_id", pa.string()),
    ]
)

KIND = Kind(
    "the ledger of promotions",
    "CALOTYPE_LEDGER",
    "calotype.ledger",
    SCHEMA,
    format_version=2,
    lacking={"1": ("bundle_digest", "run_id")},
)


@dataclass(frozen=True)
class Draft:
    """What an entry will say, before it has its number.

    Parameters
    ----------
    version
        The contender; None where there is none.
    to_version
        The champion afterwards.
    verdict
        ``promote | hold | reject`` by the gate, else ``forced | rollback | manual``.
    reason
        One line.
    evidence_digest
        SHA-256 of the evidence that the contender's run holds, or empty.
    bundle_digest, run_id
        Of the champion afterwards, where the title changes hands.
    """

    version: int | None
    to_version: int | None
    verdict: Verdict
    reason: str
    evidence_digest: str = ""
    bundle_digest: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Entry:
    """One row; ``from_version`` and ``to_version`` are the champion before and after."""

    sequence: int
    model: str
    version: int | None
    from_version: int | None
    to_version: int | None
    verdict: Verdict
    evidence_digest: str
    reason: str
    who: str
    at: datetime
    bundle_digest: str | None = None
    run_id: str | None = None

    @property
    def moves(self) -> bool:
        """Whether the title changed hands."""
        return self.from_version != self.to_version

    def as_json(self) -> dict[str, Any]:
        """The entry as plain values, its time as ISO 8601."""
        return asdict(self) | {"at": self.at.isoformat(timespec="seconds")}


@dataclass(frozen=True)
class View:
    """One model's entries, oldest first, as they stood in one snapshot of the table."""

    model: str
    entries: tuple[Entry, ...] = ()
    table: DeltaTable | None = field(default=None, repr=False, compare=False)

    @property
    def head(self) -> int | None:
        """The champion's version."""
        return self.entries[-1].to_version if self.entries else None

    @property
    def title(self) -> Entry | None:
        """The entry that made the head what it is."""
        return next((entry for entry in reversed(self.entries) if entry.moves), None)

    @property
    def ledger_id(self) -> str | None:
        """The table's own id; None where there is no table."""
        return None if self.table is None else str(self.table.metadata().id)


def read(place: str, model: str) -> View:
    """Read one model's entries; no table is no entries.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    CalotypeError
        If the place cannot be reached.
    """
    table = delta.open_checked(place, KIND)
    return View(model) if table is None else _view(table, model)


def commit(place: str, model: str, who: str, propose: Callable[[View], Draft | None]) -> Entry | None:
    """Append what ``propose`` makes of the entries, if the head is still the one it saw; else ask it again.

    Parameters
    ----------
    place
        Folder or URL of the table; made if absent.
    model
        Whose entry. Entries of other models in the same table never make it propose again.
    who
        By whom.
    propose
        Called with the entries; called again whenever the head has changed. None: there is nothing to append.

    Raises
    ------
    CalotypeError
        If other writers came first ``ATTEMPTS`` times.
    """
    draft: Draft | None = None
    judged: View | None = None
    for attempt in range(ATTEMPTS):
        view = _view(_writable(place), model)
        if judged is None or judged.head != view.head:
            draft, judged = propose(view), view
        if draft is None:
            return None
        entry = _append(view, draft, who)
        if entry is not None:
            return entry
        time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))
    raise CalotypeError(
        f"{place}: {ATTEMPTS} attempts to append met other writers, each ahead of this one. Nothing was appended; "
        "run the command again when they have ended."
    )


def author() -> str:
    """Who acts: the Prefect flow run (``CALOTYPE_FLOW_RUN_NAME``), or ``user@host``."""
    flow_run = os.environ.get("CALOTYPE_FLOW_RUN_NAME")
    if flow_run:
        return flow_run
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have a number and no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _append(view: View, draft: Draft, who: str) -> Entry | None:
    """Commit through the snapshot that was read; None if another writer was first."""
    assert view.table is not None
    entry = Entry(
        sequence=delta.next_number(view.table, KIND),
        model=view.model,
        from_version=view.head,
        who=who,
        at=datetime.now(UTC),
        **asdict(draft),
    )
    is_first = delta.append(view.table, KIND, pa.Table.from_pylist([asdict(entry)], SCHEMA))
    return entry if is_first else None


def _view(table: DeltaTable, model: str) -> View:
    rows = delta.whole(table, KIND, pc.field("model") == model).to_pylist()
    entries = sorted((Entry(**row) for row in rows), key=lambda entry: entry.sequence)
    return View(model, tuple(entries), table)


def _writable(place: str) -> DeltaTable:
    """The table, made if absent and brought to this version."""
    options: dict[str, Any] = {"properties": {"delta.appendOnly": "true"}, "partition_by": ["model"]}
    table = delta.made(place, KIND, "ledger", "One row for each decision about a model's champion", **options)
    if delta.is_up_to_date(table, KIND):
        return table
    delta.upgrade(table, KIND)
    return delta.open_checked(place, KIND) or table
