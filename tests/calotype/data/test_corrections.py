"""Corrections change the labels that they name, and a slip in the table is named by its row."""

from __future__ import annotations

import polars as pl
import pytest

from calotype.data.corrections import Corrections, applied, apply, read
from calotype.data.intake import ENTRY_SCHEMA
from calotype.errors import DataError

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
FILES = [(A, "cat/1.png", "cat"), (A, "more/1.png", "cat"), (B, "dog/2.png", "dog"), (C, "cat/3.png", "cat")]


def entries(files: list[tuple[str, str, str]] = FILES) -> pl.DataFrame:
    return pl.DataFrame([(*file, None, None, None, None) for file in files], schema=ENTRY_SCHEMA, orient="row")


def table(text: str) -> Corrections:
    return read(text.encode(), "fixes.csv")


def labels(text: str) -> dict[str, str]:
    return dict(apply(table(text), entries()).select("path", "label").iter_rows())


def refused(text: str, empty_classes: tuple[str, ...] = ()) -> str:
    with pytest.raises(DataError) as caught:
        apply(table(text), entries(), empty_classes)
    return str(caught.value)


AS_THE_SOURCE_SAYS = {path: label for _, path, label in FILES}


def test_an_image_is_named_by_its_id_and_every_file_of_it_is_corrected() -> None:
    assert labels(f"image_id,corrected\n{A},dog\n") == {**AS_THE_SOURCE_SAYS, "cat/1.png": "dog", "more/1.png": "dog"}


def test_an_image_is_named_by_the_path_of_any_of_its_files() -> None:
    assert labels("path,corrected\nmore\\1.png,dog\n")["cat/1.png"] == "dog"


def test_the_id_counts_where_both_are_given_and_case_does_not() -> None:
    assert labels(f"corrected;path;image_id\ndog;gone.png;{C.upper()}\n")["cat/3.png"] == "dog"


def test_a_list_of_suspects_given_back_changes_what_was_filled_in_alone() -> None:
    text = "image_id,path,label,suggestion,score,rank,corrected\n"
    text += f"{'e' * 64},gone.png,cat,dog,0.9,1,\n{C},cat/3.png,cat,dog,0.8,2, dog \n{B},dog/2.png,dog,cat,0.7,3,\n"
    assert labels(text) == {**AS_THE_SOURCE_SAYS, "cat/3.png": "dog"}


def test_nothing_given_changes_nothing() -> None:
    frame = apply(Corrections("", ()), entries())
    assert frame["label"].equals(frame["source_label"].rename("label"))
    assert frame.drop("source_label").equals(entries())
    assert applied(frame).is_empty()


def test_what_was_changed_is_listed_and_what_was_right_already_is_not() -> None:
    frame = apply(table(f"image_id,corrected\n{C},dog\n{B},dog\n"), entries())
    assert applied(frame).rows() == [(C, "cat/3.png", "cat", "dog")]


def test_a_class_without_images_may_be_corrected_to() -> None:
    frame = apply(table(f"image_id,corrected\n{C},fox\n"), entries(), ["fox"])
    assert frame.filter(image_id=C)["label"].to_list() == ["fox"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,label\n", r"fixes.csv: found the columns image_id, label; expected corrected, and image_id or path"),
        ("file,corrected\n", r"found the columns file, corrected; expected corrected, and image_id or path"),
        ("", r"found the columns none; expected corrected"),
        ("path,corrected\n,dog\na,dog\n,dog\n", r"2 rows \(2, 4\) have a corrected label but no image"),
        ("path,corrected\na,dog,more\n", r"row 2 has 3 cells; expected 2"),
    ],
)
def test_a_table_of_another_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(text)


def test_a_table_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(DataError, match=r"fixes\.csv: byte 15 is not UTF-8"):
        read(b"path,corrected\n\xff,cat\n", "fixes.csv")


def test_images_that_are_not_there_are_named_and_counted() -> None:
    text = refused(f"image_id,path,corrected\n{'e' * 64},,dog\n,gone.png,dog\n{A},,dog\n")
    assert "fixes.csv: 2 rows name images that the source does not hold" in text
    assert "(row 2: eeeeeeeeeeee…, row 3: gone.png)" in text
    many = refused("path,corrected\n" + "".join(f"gone{number}.png,dog\n" for number in range(14)))
    assert "14 rows name images" in many
    assert "… and 4 more" in many


def test_a_label_that_is_no_class_is_refused_with_the_nearest() -> None:
    text = refused(f"image_id,corrected\n{A},dg\n{B},dg\n")
    assert "fixes.csv: 2 rows (2, 3) have the label 'dg', which is no class of the source; the nearest is 'dog'" in text


def test_two_labels_for_one_image_are_refused() -> None:
    text = refused(f"image_id,path,corrected\n{A},,dog\n,more/1.png,cat\n")
    assert "rows 2 and 3 correct the image more/1.png to 'dog' and to 'cat'. Keep one of them." in text
    assert labels(f"image_id,corrected\n{A},dog\n{A},dog\n")["cat/1.png"] == "dog"


def test_everything_that_is_wrong_comes_at_once() -> None:
    text = refused(f"image_id,path,corrected\n{A},,dgo\n,gone.png,dog\n{B},,cat\n{B},,dog\n")
    assert len(text.splitlines()) == 3
