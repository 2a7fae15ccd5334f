import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calotype.errors import DataError
from calotype.sources import stat_listing

Plant = Callable[..., Path]


def test_a_folder_lists_its_files_sorted_with_sizes_and_times(plant: Plant) -> None:
    folder = plant("b/1.jpg", "a/1.jpg", "a/.hidden")
    os.utime(folder / "a/1.jpg", ns=(5, 7))
    listed = list(stat_listing(folder))
    assert listed[0] == ("a/1.jpg", 7, 7)
    assert [path for path, _, _ in listed] == ["a/1.jpg", "b/1.jpg"]


def test_a_table_lists_itself_and_the_files_it_names(plant: Plant) -> None:
    folder = plant("images/1.jpg", "other.jpg")
    table = folder / "labels.csv"
    table.write_text("path,label\nimages/1.jpg,cat\nimages/gone.jpg,dog\n")
    listed = {path: size for path, size, _ in stat_listing(table)}
    assert listed == {"images/1.jpg": 12, "images/gone.jpg": -1, "labels.csv": table.stat().st_size}
    assert list(stat_listing(folder)) == list(stat_listing(table))


def test_an_archive_lists_itself(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert [(path, size) for path, size, _ in stat_listing(tmp_path / "a.zip")] == [("a.zip", 2)]


def test_a_missing_source_names_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file.*calotype fetch digits.*calotype use PATH"):
        list(stat_listing(tmp_path / "nothing"))


def test_listing_imports_the_standard_library_alone(plant: Plant) -> None:
    folder = plant("a/1.jpg", "b/1.jpg", "labels.csv")
    program = (
        "import sys, pathlib; from calotype.sources import stat_listing; "
        f"list(stat_listing(pathlib.Path({str(folder)!r}))); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) <= {"calotype", "__main__", "_distutils_hack"}


ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_sixty_thousand_files_are_listed_in_half_a_second(tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for index in range(6_000):
            (tmp_path / str(label) / f"{index:05d}.jpg").touch()
    spent = []
    for _ in range(3):
        start = time.process_time()
        assert sum(1 for _ in stat_listing(tmp_path)) == 60_000
        spent.append(time.process_time() - start)
    assert min(spent) < 0.5
