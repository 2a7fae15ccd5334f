"""Which rows of a table of labels can be used; each kind of fault is one line that names its rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from calotype.errors import DataError
from calotype.production.labels_file import Images, Label, Row, read, usable

NOW = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)
IMAGES = Images({"b.png": "b" * 64}, {"a" * 64, "b" * 64}, ["cat", "dog"])


def row(number: int = 2, image_id: str = "a" * 64, path: str = "", label: str = "cat", date: str = "") -> Row:
    return Row(number, image_id, path, label, date)


def only(*rows: Row) -> tuple[list[Label], str]:
    labels, problems = usable(rows, IMAGES, NOW)
    assert len(problems) <= 1
    return labels, "".join(problems)


def test_an_image_is_named_by_digest_or_by_path() -> None:
    labels, problem = only(row(), row(image_id="", path="b.png", label="dog"))
    assert [(one.image_id, one.label) for one in labels] == [("a" * 64, "cat"), ("b" * 64, "dog")]
    assert problem == ""


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("", date(2026, 11, 23)),
        ("2026-11-01", date(2026, 11, 1)),
        ("2026-11-01T23:30:00-02:00", date(2026, 11, 2)),
        ("2026-11-01 08:00:00", date(2026, 11, 1)),
        ("2026-11-24", date(2026, 11, 24)),  # has begun in the east
    ],
)
def test_dates_are_days(text: str, day: date) -> None:
    labels, _ = only(row(date=text))
    assert labels[0].labelled_on == day


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (row(image_id=""), "1 row (2) name no image: left out. Fill image_id or path."),
        (row(label=""), "1 row (2) have no label: left out. Fill the column label."),
        (row(date="24.12.2026"), "1 row (2: '24.12.2026') have a date that is none: left out. Write it as 2026-11-23."),
        (row(date="2026-11-26"), "1 row (2: '2026-11-26') have a date in the future: left out. Correct it."),
        (row(label="cta"), "1 row (2) have the label 'cta', no class of the champion: left out. Did you mean 'cat'?"),
        (
            row(label="zebra"),
            "1 row (2) have the label 'zebra', no class of the champion: left out. Known are cat, dog.",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_the_others_stay(wrong: Row, line: str) -> None:
    labels, problem = only(wrong, row(3, "b" * 64))
    assert [one.row.number for one in labels] == [3]
    assert problem == line


def test_images_never_predicted_are_counted_and_the_first_few_named() -> None:
    strangers = [row(number, image_id="", path=f"x{number}.png") for number in range(2, 9)]
    labels, problem = only(*strangers, row(9))
    assert [one.row.number for one in labels] == [9]
    assert problem.startswith("7 rows (2: 'x2.png', 3: 'x3.png', 4: 'x4.png', 5: 'x5.png', 6: 'x6.png', …) name images")


def test_labels_that_contradict_one_another_are_all_left_out() -> None:
    torn = [row(2, "", "b.png", "cat"), row(3, "b" * 64, "", "dog", "2026-11-01")]
    labels, problem = only(*torn, row(4), row(5))
    assert [one.row.number for one in labels] == [4, 5]
    assert problem == (
        "2 rows (2: 'b.png', 3: 'bbbbbbbbbbbb…') contradict one another about 1 image: none of them is added. "
        "Keep one row for each image."
    )


def test_csv_and_parquet_read_the_same(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"path": ["./a.png", "b.png"], "label": [3, 4], "date": [date(2026, 11, 1), None], "note": ["x", "y"]}
    )
    frame.write_csv(tmp_path / "labels.csv")
    frame.write_parquet(tmp_path / "labels.parquet")
    rows = read(tmp_path / "labels.parquet")
    assert rows == [Row(1, "", "a.png", "3", "2026-11-01"), Row(2, "", "b.png", "4", "")]
    assert [one._replace(number=one.number - 1) for one in read(tmp_path / "labels.csv")] == rows


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.csv", b"path,class\na.png,cat\n", "found the columns path, class; expected label, and image_id or path"),
        ("a.csv", b"label\ncat\n", "found the columns label; expected label, and image_id or path. Add them."),
        ("a.csv", b"path,label\n", "no rows; expected one for each label. Fill the table."),
        ("a.csv", b"path,label\n\xff\xfe", "is not UTF-8"),
        ("a.parquet", b"PAR1 and no more", "damaged Parquet file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_whole(tmp_path: Path, name: str, data: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        read(tmp_path / "none.csv")
