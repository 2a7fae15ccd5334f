"""What the project's Delta tables share: they are told from other files, and appended to by compare-and-swap.

An append carries its table's application id with a rising number and is committed through the very snapshot that was
read. Of several writers that read the same snapshot one commits; the others read again, and decide anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from calotype.errors import DataError

FORMAT_KEY = "calotype.format_version"


@dataclass(frozen=True)
class Kind:
    """One of the tables.

    Parameters
    ----------
    title
        What messages call it.
    variable
        The environment's variable that names its place.
    application
        Under which its appends are numbered.
    schema
        Its columns.
    """

    title: str
    variable: str
    application: str
    schema: pa.Schema

    def refusal(self, place: Path | str, table: DeltaTable) -> DataError:
        """The error for a table of other columns."""
        found = ", ".join(field.name for field in table.schema().fields)
        return DataError(
            f"{place}: found a table with the columns {found}; expected {self.title} "
            f"({', '.join(self.schema.names)}). Set {self.variable} to another place."
        )


def open_table(place: Path | str, kind: Kind) -> DeltaTable | None:
    """Open whatever table is there, or None where there is nothing yet.

    Raises
    ------
    DataError
        If other files are there.
    DeltaError, OSError
        If the place cannot be reached.
    """
    try:
        return DeltaTable(place)
    except TableNotFoundError as error:
        if "Unknown scheme" in str(error):
            raise
        if "://" not in str(place) and _holds_something_else(Path(place)):
            raise DataError(
                f"{place}: found files that are no Delta table; expected {kind.title} or nothing. "
                f"Move them away, or set {kind.variable}."
            ) from error
        return None


def format_version(place: Path | str, table: DeltaTable, newest: int) -> str | None:
    """The version of its format as the table tells it, or None.

    Raises
    ------
    DataError
        If it is newer than the newest known.
    """
    found = table.metadata().configuration.get(FORMAT_KEY)
    if found is not None and found.isdigit() and int(found) > newest:
        raise DataError(f"{place}: format_version is {found}; this calotype writes {newest}. Upgrade it.")
    return found


def create(
    place: Path | str,
    kind: Kind,
    name: str,
    description: str,
    configuration: dict[str, str],
    *,
    partition_by: Sequence[str] = (),
) -> None:
    """Make a table, unless another process makes it at this moment: then it is there all the same."""
    with contextlib.suppress(DeltaError):
        DeltaTable.create(
            place,
            schema=DeltaSchema.from_arrow(kind.schema),
            mode="ignore",
            partition_by=list(partition_by),
            name=name,
            description=description,
            configuration=configuration,
            raise_if_key_not_exists=False,
        )


def next_number(table: DeltaTable, kind: Kind) -> int:
    """The number that the next append to this snapshot carries."""
    return (table.transaction_version(kind.application) or 0) + 1


def append(table: DeltaTable, kind: Kind, rows: pa.Table | pa.RecordBatchReader) -> bool:
    """Commit rows through the snapshot that was read; False if another writer was first."""
    transaction = CommitProperties(app_transactions=[Transaction(kind.application, next_number(table, kind))])
    try:
        write_deltalake(table, rows, mode="append", commit_properties=transaction)
    except CommitFailedError:
        return False
    return True


def _holds_something_else(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "_delta_log").is_dir())
