from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.errors import DataError
from calotype.sources import SourceImage, open_source

Plant = Callable[..., Path]

HEADER = "path,label,group,split\n"


def table(plant: Plant, text: str, name: str = "labels.csv") -> Path:
    folder = plant("a/1.jpg", "a/2.jpg")
    (folder / name).write_bytes(text.encode())
    return folder / name


def test_a_table_gives_label_group_and_split(plant: Plant) -> None:
    source = open_source(table(plant, HEADER + "a/2.jpg,dog,,Validation\na/1.jpg,cat,plant 7,train\n"))
    assert source.kind == "table"
    assert source.images == (
        SourceImage("a/1.jpg", "cat", "train", "plant 7"),
        SourceImage("a/2.jpg", "dog", "val", None),
    )
    assert [data for _, data, _ in source.read()] == [b"a/1.jpg", b"a/2.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,label\na/1.jpg,007\na/2.jpg,8\n",
        "path;label\r\na/1.jpg;007\r\na/2.jpg;8\r\n",
        'label\tpath\n007\t"a/1.jpg"\n8\ta/2.jpg\n\n',
        "path,label,width\na\\1.jpg,007,3\n./a/2.jpg,8\n",
    ],
    ids=["byte order mark", "semicolons", "tabs", "backslashes"],
)
def test_tables_of_other_tools_read_the_same(plant: Plant, text: str) -> None:
    source = open_source(table(plant, text))
    assert [(image.path, image.label) for image in source.images] == [("a/1.jpg", "007"), ("a/2.jpg", "8")]


def test_a_parquet_table_reads_the_same(plant: Plant) -> None:
    folder = plant("a/1.jpg", "a/2.jpg")
    columns = {"path": ["a/2.jpg", "a/1.jpg"], "label": [8, 7], "split": ["test", None], "other": [1.5, 2.5]}
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    assert open_source(folder / "labels.parquet").images == (
        SourceImage("a/1.jpg", "7"),
        SourceImage("a/2.jpg", "8", "test"),
    )


def test_dictionary_columns_are_labels_too(plant: Plant) -> None:
    folder = plant("a/1.jpg")
    label = pa.array(["cat"]).dictionary_encode()
    pq.write_table(pa.table({"path": ["a/1.jpg"], "label": label}), folder / "labels.parquet")
    assert open_source(folder / "labels.parquet").images == (SourceImage("a/1.jpg", "cat"),)


def test_a_folder_with_one_table_is_that_table(plant: Plant) -> None:
    file = table(plant, "path,label\na/1.jpg,cat\n")
    assert open_source(file.parent).images == open_source(file).images


def test_a_table_of_other_columns_in_a_folder_is_a_file_like_others(plant: Plant) -> None:
    folder = table(plant, "name,size\na/1.jpg,7\n").parent
    assert open_source(folder).kind == "folder"


def test_predictions_written_beside_the_images_are_not_taken_for_labels(plant: Plant) -> None:
    header = "path,image_id,status,reason,label,confidence\n"
    folder = table(plant, header + "a/1.jpg,0f,ok,,dog,0.5\n", "out.csv").parent
    assert {image.label for image in open_source(folder).images} == {"a"}


def test_absolute_paths_are_allowed(plant: Plant) -> None:
    folder = plant("a/1.jpg")
    (folder / "labels.csv").write_text(f"path,label\n{folder}/a/1.jpg,cat\n")
    assert [data for _, data, _ in open_source(folder / "labels.csv").read()] == [b"a/1.jpg"]


def test_missing_files_are_unreadable_images(plant: Plant) -> None:
    source = open_source(table(plant, "path,label\na/1.jpg,cat\na/gone.jpg,dog\na,dog\na/nul\0.jpg,dog\n"))
    outcome = {image.path: reason for image, _, reason in source.read()}
    assert outcome == {
        "a": "Is a directory",
        "a/1.jpg": "",
        "a/gone.jpg": "No such file or directory",
        "a/nul\0.jpg": "embedded null byte",
    }


def test_repeated_rows_count_once(plant: Plant) -> None:
    source = open_source(table(plant, "path,label\na/1.jpg,cat\n./a/1.jpg,cat\n"))
    assert source.count == 1
    assert source.ignored == {"repeated row": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n1,cat\n", r"no column path; found name, label\. Expected the columns path and label"),
        ("\n", "no column path and no column label; found none"),
        ("path,label\n", "no rows; expected one per image"),
        ("path,label\na/1.jpg,\na/2.jpg, \n", r"2 rows have no label \(rows 2, 3\)\. Fill the column label"),
        ("path,label\n,cat\n", r"1 rows have no path \(rows 2\)"),
        (HEADER + "a/1.jpg,cat,,eval\na/2.jpg,cat,,held out\n", r"the split 'eval', 'held out' \(rows 2, 3\)"),
        ("path,label\na/1.jpg,cat\na/1.jpg,dog\n", r"row 3 gives a/1\.jpg another label, split or group"),
        ("path,label\na/1.jpg,cat,and,more\n", r"row 2 has 4 cells; expected 2"),
    ],
)
def test_faulty_tables_are_refused_by_row(plant: Plant, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(table(plant, text))


def test_a_file_that_is_no_table_is_refused(plant: Plant) -> None:
    folder = plant()
    (folder / "a.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"byte 0 is not UTF-8; expected a CSV or Parquet table, a zip or a tar"):
        open_source(folder / "a.bin")


def test_a_damaged_parquet_table_is_refused(plant: Plant) -> None:
    folder = plant()
    (folder / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="damaged Parquet file"):
        open_source(folder / "a.parquet")


def test_labels_that_are_numbers_with_fractions_are_refused(plant: Plant) -> None:
    folder = plant()
    pq.write_table(pa.table({"path": ["1.jpg"], "label": [0.5]}), folder / "a.parquet")
    with pytest.raises(DataError, match="the column label is double; expected text"):
        open_source(folder / "a.parquet")


def test_two_tables_in_a_folder_are_refused_by_name(plant: Plant) -> None:
    folder = table(plant, "path,label\na/1.jpg,cat\n").parent
    (folder / "more.csv").write_text("path,label\na/2.jpg,cat\n")
    with pytest.raises(DataError, match=r"labels\.csv, more\.csv all have the columns path and label"):
        open_source(folder)


def test_further_columns_are_attributes_of_the_image(plant: Plant) -> None:
    text = "path,label,scanner,site,\na/1.jpg,cat,S-3,Ulm,7\na/2.jpg,dog,,,8\n"
    attributes = [image.attributes for image in open_source(table(plant, text)).images]
    assert attributes == ['{"scanner": "S-3", "site": "Ulm"}', None]


def test_a_table_of_known_columns_alone_gives_no_attributes(plant: Plant) -> None:
    source = open_source(table(plant, HEADER + "a/1.jpg,cat,,\n"))
    assert [image.attributes for image in source.images] == [None]


def test_rows_that_differ_in_further_columns_name_one_image(plant: Plant) -> None:
    source = open_source(table(plant, "path,label,box\na/1.jpg,cat,1 2\na/1.jpg,cat,3 4\n"))
    assert [image.attributes for image in source.images] == ['{"box": "1 2"}']
    assert source.ignored == {"repeated row": 1}


def test_plain_columns_of_parquet_are_attributes_and_nested_ones_are_not(plant: Plant) -> None:
    folder = plant("a/1.jpg", "a/2.jpg")
    columns = {
        "path": ["a/1.jpg", "a/2.jpg"],
        "label": ["x", "y"],
        "age": [3.5, float("nan")],
        "seen": [True, None],
        "taken": pa.array([0, None], pa.timestamp("s")),
        "site": pa.array(["Ulm", "Ulm"]).dictionary_encode(),
        "image": pa.array([b"\xff", b"\xff"]),
        "boxes": pa.array([[1], [2]]),
    }
    pq.write_table(pa.table(columns), folder / "labels.parquet")
    assert [image.attributes for image in open_source(folder / "labels.parquet").images] == [
        '{"age": "3.5", "seen": "True", "taken": "1970-01-01 00:00:00", "site": "Ulm"}',
        '{"site": "Ulm"}',
    ]
