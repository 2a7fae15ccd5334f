"""A CSV or Parquet table of images: columns path and label, optionally group and split.

What other columns say goes along as attributes of the image: texts, numbers, dates; nothing nested, no bytes.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.errors import DataError
from calotype.sources.contract import SPLIT_WORDS, Source, SourceImage, Tree, Unreadable
from calotype.sources.folders import wrappers
from calotype.sources.listing import TABLE_SUFFIXES
from calotype.sources.trees import level, read_file

REQUIRED = ("path", "label")
PREDICTED = ("image_id", "confidence")
"""Columns that tell `calotype predict`'s own table, left in a folder of images, from one of true labels."""
COLUMNS = (*REQUIRED, "group", "split")
REPEATED = "repeated row"
PARQUET = b"PAR1"
DELIMITERS = ",;\t"
MAX_TABLE_BYTES = 2**30

Columns = dict[str, Sequence[Any]]


def table_on_disk(path: Path) -> Source:
    """Make a source of a table file; its paths are relative to its folder, or absolute.

    Raises
    ------
    DataError
        Naming the rows, if the table cannot be read or says something that cannot be.
    """
    try:
        rows = _rows(read_file(path, MAX_TABLE_BYTES), str(path))
    except Unreadable as error:
        raise DataError(f"{path}: cannot be read ({error}). Mend its permissions.") from error
    images, ignored = _images(rows, str(path))
    return Source("table", images, ignored, (), lambda image: read_file(path.parent / image.path))


def recognise(tree: Tree, folder: Path | None) -> Source | None:
    """Make a source of the one table that lies at the root of a folder or archive; None if there is none.

    Raises
    ------
    DataError
        If there are several, or if the table is faulty.
    """
    for base in wrappers(tree):
        candidates = [path for path in level(tree, base).files if path.lower().endswith(TABLE_SUFFIXES)]
        name = only_table(tree.name, candidates, tree.read)
        if name and folder:
            return table_on_disk(folder / name)
        if name:
            return _table_in_archive(tree, name)
    return None


def only_table(where: str, candidates: Sequence[str], read: Callable[[str], bytes]) -> str | None:
    """The one file among ``candidates`` that has the columns path and label; None if there is none.

    Raises
    ------
    DataError
        If several have them.
    """
    tables = [name for name in candidates if _is_table(read, name)]
    if len(tables) > 1:
        raise DataError(
            f"{where}: {', '.join(tables)} all have the columns path and label. "
            f"Name the one that is meant as the source, or put them together with a column split."
        )
    return tables[0] if tables else None


def paths_of(data: bytes, name: str) -> set[str]:
    """The paths that a table names, as its images are called."""
    return {row.path for row in _rows(data, name, attributes=False)}


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # as an editor counts lines, or 1 for the first row of a Parquet table
    path: str
    label: str
    group: str | None
    split: str | None
    attributes: str | None


def _is_table(read: Callable[[str], bytes], name: str) -> bool:
    try:
        data = read(name)
        names = _parquet(data, name, []).keys() if data[:4] == PARQUET else _header(_text(data, name))
    except (DataError, Unreadable, OSError):
        return False
    return set(REQUIRED) <= set(names) and not set(PREDICTED) <= set(names)


def read_csv(data: bytes, name: str) -> tuple[Columns, list[int]]:
    """Read a CSV table: its columns as texts, and the number of each row as an editor counts lines.

    Raises
    ------
    DataError
        If it is not UTF-8, or if a row has more cells than the header.
    """
    return _csv(_text(data, name), name)


def normal_path(path: str) -> str:
    """One spelling for one file; backslashes are a Windows table's slashes."""
    if "\\" in path and "/" not in path:
        path = path.replace("\\", "/")
    return posixpath.normpath(path) if path else ""


def _rows(data: bytes, name: str, *, attributes: bool = True) -> list[_Row]:
    columns, numbers = (_parquet(data, name, None), None) if data[:4] == PARQUET else read_csv(data, name)
    _require_columns(columns, name)
    count = len(columns["path"])
    cells = [_cells(columns.get(column), count) for column in COLUMNS]
    further = _attributes(columns, count) if attributes else [None] * count
    rows = [
        _Row(number, normal_path(path), label, group or None, split.lower() or None, more)
        for number, path, label, group, split, more in zip(numbers or range(1, count + 1), *cells, further, strict=True)
    ]
    _check(rows, name)
    return rows


def _attributes(columns: Columns, count: int) -> list[str | None]:
    """JSON of what each row says beyond the known columns; empty cells are left out."""
    names = [name for name in columns if name and name not in COLUMNS]
    cells = [_cells(columns[name], count) for name in names]
    found: list[str | None] = []
    for row in zip(*cells, strict=True) if names else [()] * count:
        texts = {name: cell for name, cell in zip(names, row, strict=True) if cell}
        found.append(json.dumps(texts, ensure_ascii=False) if texts else None)
    return found


def _check(rows: list[_Row], name: str) -> None:
    if not rows:
        raise DataError(f"{name}: no rows; expected one per image. Fill the table.")
    _refuse(name, [row for row in rows if row.path in ("", ".")], "no path", "Fill the column path.")
    _refuse(name, [row for row in rows if not row.label], "no label", "Fill the column label, or drop the rows.")
    unknown = [row for row in rows if row.split is not None and row.split not in SPLIT_WORDS]
    words = ", ".join(sorted({repr(row.split) for row in unknown})[:5])
    _refuse(name, unknown, f"the split {words}", "Expected train, val or test, or nothing.")


def _refuse(name: str, rows: list[_Row], what: str, remedy: str) -> None:
    if rows:
        numbers = ", ".join(str(row.number) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
        raise DataError(f"{name}: {len(rows):,} rows have {what} (rows {numbers}). {remedy}")


def _images(rows: Iterable[_Row], name: str) -> tuple[tuple[SourceImage, ...], dict[str, int]]:
    """One image per path; a row that only repeats another is counted, one that contradicts it is an error."""
    images: dict[str, SourceImage] = {}
    ignored: Counter[str] = Counter()
    for row in rows:
        split = SPLIT_WORDS[row.split] if row.split else None
        image = SourceImage(row.path, row.label, split, row.group, row.attributes)
        if images.setdefault(row.path, image) != image:
            raise DataError(
                f"{name}: row {row.number} gives {row.path} another label, split or group than a row before it. "
                f"Keep one of them."
            )
        ignored[REPEATED] += images[row.path] is not image
    ordered = tuple(images[path] for path in sorted(images))
    return ordered, dict(+ignored)


def _table_in_archive(tree: Tree, name: str) -> Source:
    base = name[: name.rfind("/") + 1]
    images, ignored = _images(_rows(tree.read(name), f"{tree.name}: {name}"), f"{tree.name}: {name}")
    present = set(tree.files)

    def load(image: SourceImage) -> bytes:
        path = posixpath.normpath(base + image.path)
        if path not in present:
            raise Unreadable("not in the archive")
        return tree.read(path)

    return Source("table", images, tree.ignored | ignored, (), load)


def _csv(text: str, name: str) -> tuple[Columns, list[int]]:
    header = _header(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        next(reader, None)
        for row in reader:
            if len(row) > len(header):
                raise DataError(
                    f"{name}: row {reader.line_num} has {len(row)} cells; expected {len(header)}. "
                    f"Put quotation marks around cells that hold the delimiter."
                )
            if any(row):
                rows.append(row + [""] * (len(header) - len(row)))
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{name}: row {reader.line_num}: {error}. Mend the table.") from error
    return {column: [row[index] for row in rows] for index, column in enumerate(header)}, numbers


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: byte {error.start:,} is not UTF-8; expected a CSV or Parquet table, a zip or a tar. "
            f"Save a table as UTF-8; unpack an archive of another kind into a folder."
        ) from error


def _header(text: str) -> list[str]:
    line = text[: text.find("\n")] if "\n" in text else text
    try:
        return [cell.strip() for cell in next(csv.reader([line.strip("\r")], delimiter=_delimiter(text)), [])]
    except csv.Error:
        return []


def _delimiter(text: str) -> str:
    line = text[: text.find("\n")] if "\n" in text else text
    return max(DELIMITERS, key=line.count)


def _parquet(data: bytes, name: str, columns: list[str] | None) -> Columns:
    """Read the columns that count; with ``columns=[]`` only their names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        there = file.schema_arrow.names
        if columns == []:
            return dict.fromkeys(there, ())
        names = [field.name for field in file.schema_arrow if there.count(field.name) == 1 and _counts(field)]
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{name}: damaged Parquet file ({' '.join(str(error).split())[:120]}). Write it anew."
        ) from error
    if not set(REQUIRED) <= set(names):
        return dict.fromkeys(names, ())
    return {column: _values(table[column], column, name) for column in table.column_names}


def _counts(field: Any) -> bool:
    """Whether a Parquet column is read: the known ones, and those of plain values."""
    import pyarrow.types as kinds

    kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
    texts = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    numbers = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind)
    return field.name in COLUMNS or texts or numbers or kinds.is_temporal(kind)


def _values(column: Any, name: str, table: str) -> list[Any]:
    import pyarrow as pa

    if name not in COLUMNS:
        return [None if cell != cell else cell for cell in column.to_pylist()]  # not a number is an empty cell
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_whole = pa.types.is_integer(kind) and name != "path"
    if not (is_text or is_whole or pa.types.is_null(kind)):
        raise DataError(f"{table}: the column {name} is {column.type}; expected text. Convert it.")
    return list(column.to_pylist())


def _require_columns(columns: Columns, name: str) -> None:
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        found = ", ".join(list(columns)[:8]) or "none"
        raise DataError(
            f"{name}: no column {' and no column '.join(missing)}; found {found[:200]}. "
            f"Expected the columns path and label, optionally group and split."
        )


def _cells(column: Sequence[Any] | None, count: int) -> list[str]:
    if column is None:
        return [""] * count
    return ["" if cell is None else str(cell).strip() for cell in column]
