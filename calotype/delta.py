"""What the project's Delta tables share: they are told from other files, and appended to by compare-and-swap.

An append carries its table's application id with a rising number and is committed through the very snapshot that was
read. Of several writers that read the same snapshot one commits; the others read again, and decide anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import Field

from calotype import object_store
from calotype.errors import CalotypeError, DataError

if TYPE_CHECKING:
    import pyarrow.dataset as ds

FORMAT_KEY = "calotype.format_version"
ROWS_AT_ONCE = 32_768


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
    format_version
        The version of its format.
    lacking
        Columns that older versions lack, by version.
    """

    title: str
    variable: str
    application: str
    schema: pa.Schema
    format_version: int
    lacking: Mapping[str, tuple[str, ...]]


def open_table(place: Path | str, kind: Kind) -> DeltaTable | None:
    """Open whatever table is there, or None where there is nothing yet.

    Raises
    ------
    DataError
        If other files are there, or a file where a folder above it should be.
    CalotypeError
        If the place cannot be reached.
    """
    if "://" not in str(place):
        _require_folders(Path(place), kind)
    try:
        with reaching(place, kind):
            return DeltaTable(place, storage_options=object_store.delta_options(place))
    except TableNotFoundError as error:
        if "://" not in str(place) and _holds_something_else(Path(place)):
            raise DataError(
                f"{place}: found files that are no Delta table; expected {kind.title} or nothing. "
                f"Move them away, or set {kind.variable}."
            ) from error
        return None


@contextlib.contextmanager
def reaching(place: Path | str, kind: Kind) -> Iterator[None]:
    """Read or write a table, whose rows are fetched only when they are asked for.

    Raises
    ------
    CalotypeError
        If the place cannot be reached or refuses, one line for each cause. That there is no table, or that another
        writer was first, passes through as it is.
    """
    try:
        yield
    except (DeltaError, OSError) as error:
        expected = isinstance(error, CommitFailedError | TableNotFoundError)
        if expected and "Unknown scheme" not in str(error):
            raise
        raise object_store.unreachable(place, kind.title, kind.variable, error) from error


def is_table(place: Path | str) -> bool:
    """Whether a Delta table lies in this very folder."""
    return Path(place).is_dir() and bool(DeltaTable.is_deltatable(str(place)))


def check(place: Path | str, table: DeltaTable, kind: Kind) -> None:
    """Compare a table with its kind.

    Raises
    ------
    DataError
        If its format is newer than this version's, or its columns are others.
    """
    found = table.metadata().configuration.get(FORMAT_KEY)
    if found is not None and found.isdigit() and int(found) > kind.format_version:
        raise DataError(f"{place}: format_version is {found}; this calotype writes {kind.format_version}. Upgrade it.")
    # By name: a column that an upgrade adds stands last.
    fields = {field.name: field for field in table.schema().fields}
    optional = kind.lacking.get(found or "", ())
    expected = {field.name: field for field in _fields(kind) if field.name in fields or field.name not in optional}
    if fields != expected or found is None:
        raise DataError(
            f"{place}: found a table with the columns {', '.join(fields)}; expected {kind.title} "
            f"({', '.join(kind.schema.names)}). Set {kind.variable} to another place."
        )


def open_checked(place: Path | str, kind: Kind, shown: str = "") -> DeltaTable | None:
    """Open a table that is of its kind, or None where there is nothing yet.

    Parameters
    ----------
    place, kind
        Where it lies, and what it is.
    shown
        What messages call the place.

    Raises
    ------
    DataError
        If something else is there: another table, a newer format, other files.
    CalotypeError
        If the place cannot be reached.
    """
    table = open_table(place, kind)
    if table is not None:
        check(shown or place, table, kind)
    return table


def batches(
    table: DeltaTable | None, kind: Kind, columns: Iterable[str], where: ds.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """Some columns of a table's rows, a row group in memory at a time; none where there is no table."""
    if table is None:
        return
    dataset = _dataset(table)
    for fragment in dataset.get_fragments():
        with reaching(table.table_uri.rstrip("/"), kind):
            groups = fragment.split_by_row_group()
        for group in groups:
            # Read to its end before any row is given away: a scan that is left halfway waits for threads that wait for
            # it, where the file system is Python's.
            with reaching(table.table_uri.rstrip("/"), kind):
                rows = group.to_table(schema=dataset.schema, columns=list(columns), filter=where)
            yield from (batch for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE) if batch.num_rows)


def whole(table: DeltaTable, kind: Kind, where: ds.Expression | None = None) -> pa.Table:
    """All rows of a small table, or those that fit a condition.

    Raises
    ------
    CalotypeError
        If the place cannot be reached.
    """
    with reaching(table.table_uri.rstrip("/"), kind):
        return _dataset(table).to_table(filter=where)


def is_up_to_date(table: DeltaTable, kind: Kind) -> bool:
    """Whether a table has the newest format."""
    return table.metadata().configuration.get(FORMAT_KEY) == str(kind.format_version)


def upgrade(table: DeltaTable, kind: Kind) -> None:
    """Bring a table of an older version to this one, columns before version; another writer may be first.

    Old rows have no value in the columns that are added.
    """
    present = {field.name for field in table.schema().fields}
    added = [field for field in _fields(kind) if field.name not in present]
    with contextlib.suppress(CommitFailedError), reaching(table.table_uri.rstrip("/"), kind):
        if added:
            table.alter.add_columns(added)
        table.alter.set_table_properties({FORMAT_KEY: str(kind.format_version)}, raise_if_not_exists=False)


def create(
    place: Path | str,
    kind: Kind,
    name: str,
    description: str,
    *,
    properties: Mapping[str, str] | None = None,
    partition_by: Sequence[str] = (),
) -> None:
    """Make a table and the folders above it, unless another process makes it at this moment: then it is there.

    Raises
    ------
    CalotypeError
        If the place cannot be written to.
    """
    if "://" not in str(place):
        with reaching(place, kind):
            Path(place).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(CommitFailedError), reaching(place, kind):
        DeltaTable.create(
            place,
            schema=DeltaSchema.from_arrow(kind.schema),
            mode="ignore",
            partition_by=list(partition_by),
            name=name,
            description=description,
            configuration={FORMAT_KEY: str(kind.format_version)} | dict(properties or {}),
            raise_if_key_not_exists=False,
            storage_options=object_store.delta_options(place),
        )


def made(place: Path | str, kind: Kind, name: str, description: str, **options: Any) -> DeltaTable:
    """Open a table of its kind, made if absent; options are those of `create`.

    Raises
    ------
    DataError
        As for `open_checked`.
    CalotypeError
        If it cannot be made.
    """
    table = open_checked(place, kind)
    if table is None:
        create(place, kind, name, description, **options)
        table = open_checked(place, kind)
    if table is None:
        raise CalotypeError(
            f"{place}: {kind.title} cannot be made. Check the place's permissions, or set {kind.variable}."
        )
    return table


def next_number(table: DeltaTable, kind: Kind) -> int:
    """The number that the next append to this snapshot carries."""
    return (table.transaction_version(kind.application) or 0) + 1


def append(table: DeltaTable, kind: Kind, rows: pa.Table | pa.RecordBatchReader, **options: Any) -> bool:
    """Commit rows through the snapshot that was read; False if another writer was first.

    Options are those of `deltalake.write_deltalake`.

    Raises
    ------
    CalotypeError
        If the place cannot be reached.
    """
    transaction = CommitProperties(app_transactions=[Transaction(kind.application, next_number(table, kind))])
    try:
        with reaching(table.table_uri.rstrip("/"), kind):
            write_deltalake(table, rows, mode="append", commit_properties=transaction, **options)
    except CommitFailedError:
        return False
    return True


def _dataset(table: DeltaTable) -> ds.Dataset:
    return table.to_pyarrow_dataset(filesystem=object_store.arrow_files(table.table_uri))


def _fields(kind: Kind) -> list[Field]:
    return list(DeltaSchema.from_arrow(kind.schema).fields)


def _require_folders(place: Path, kind: Kind) -> None:
    """Refuse a file where the table's folder, or one above it, should be; Delta's own message is Rust's."""
    existing = next(folder for folder in [place, *place.parents] if folder.exists())
    if not existing.is_dir():
        raise DataError(
            f"{existing}: found a file; expected a folder for {kind.title}. Move it away, or set {kind.variable}."
        )


def _holds_something_else(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir()) and not (folder / "_delta_log").is_dir()
