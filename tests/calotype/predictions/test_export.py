"""The whole table in one file, and the commands as a person types them."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from calotype.errors import UsageError
from calotype.predictions.export import export
from calotype.predictions.reading import open_tables
from calotype.predictions.tables import FILES, PREDICTIONS
from calotype.project import Project
from tests.conftest import environment, run
from tests.production_tables import NIGHT, answer, append, file, rejected, write


@pytest.fixture
def filled(project: Project) -> Project:
    answers = [answer("a.png", "dog", confidence=0.75), answer("ü, b.png", abstained=True)]
    files = [file("a.png"), file("ü, b.png", mtime=NIGHT + timedelta(microseconds=5)), rejected("torn.png")]
    write(project, answers=answers, files=files)
    return project


def test_three_formats_hold_one_row_for_each_file_version(filled: Project, tmp_path: Path) -> None:
    tables = open_tables(filled)
    assert [export(tables, tmp_path / f"out.{suffix}") for suffix in ("csv", "jsonl", "parquet")] == [3, 3, 3]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as text:
        flat = {row["path"]: row for row in csv.DictReader(text)}
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    nested = {row["path"]: row for row in lines}
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert flat["a.png"]["label"] == nested["a.png"]["label"] == "dog"
    assert json.loads(flat["a.png"]["probabilities"]) == nested["a.png"]["probabilities"] == {"cat": 0.9, "dog": 0.1}
    assert flat["ü, b.png"]["mtime"] == nested["ü, b.png"]["mtime"] == "2026-11-02T02:00:00.000005Z"
    assert (flat["torn.png"]["label"], nested["torn.png"]["label"]) == ("", None)
    assert flat["torn.png"]["reason"] == "corrupt: the data end too soon"
    assert "embedding" not in flat["a.png"]
    assert nested["a.png"]["embedding"] == frame.filter(path="a.png")["embedding"].to_list()[0] == [0.5, -1.25]
    assert frame["seen_at"].dtype == pl.Datetime("us", "UTC")
    assert set(frame.columns) == set(nested["a.png"]) == {*flat["a.png"], "embedding"}


def test_the_suffix_is_looked_at_before_any_work(filled: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found the suffix '\.xlsx'"):
        export(open_tables(filled), tmp_path / "out.xlsx")


def test_summary_show_and_export_speak_plainly(filled: Project, tmp_path: Path) -> None:
    shown = run(filled, "calotype", "predictions", "summary")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[:2] == [
        "2 images answered, 1 of them withheld (abstained), mean confidence 0.825",
        "3 file versions seen, 1 rejected (1 corrupt)",
    ]
    assert "  digits/1  champion        2" in shown.stdout
    as_json = json.loads(run(filled, "calotype", "predictions", "summary", "--json").stdout)
    assert as_json["contents"] == 2
    assert as_json["batches"][0]["when"] == "2026-11-02T02:00:00+00:00"
    rows = run(filled, "calotype", "predictions", "show", "--rejected").stdout
    assert "(corrupt: the data end too soon)" in rows
    assert run(filled, "calotype", "predictions", "show", "--label", "fox").stdout.startswith("no file fits")
    done = run(filled, "calotype", "predictions", "export", "--to", str(tmp_path / "all.csv"))
    assert done.stdout == f"3 rows → {tmp_path / 'all.csv'}\n"


def test_where_nothing_was_predicted_one_line_says_so(project: Project) -> None:
    for command in ("summary", "show"):
        done = run(project, "calotype", "predictions", command)
        assert (done.returncode, done.stdout) == (
            0,
            "data/predictions: nothing was predicted yet; the scheduled batch takes what lies in data/inbox\n",
        )


def test_a_foreign_table_exits_3(project: Project) -> None:
    write_deltalake(project.table("predictions"), pl.DataFrame({"x": [1]}).to_arrow())
    done = run(project, "calotype", "predictions", "summary")
    assert done.returncode == 3
    assert done.stderr.startswith("calotype: data/predictions/predictions: found a table with the columns x; expected")
    assert len(done.stderr.splitlines()) == 1


PEAK = """
import resource, sys
from pathlib import Path
from calotype.project import Project
from calotype.predictions import export, listing, reading, summary
project = Project(Path(sys.argv[1]))
reading.SHARE_BYTES = 16 * 2**20
tables = reading.open_tables(project)
found = summary.summarize(tables)
export.export(tables, Path(sys.argv[2]))
listing.find(tables, listing.Wanted(below=0.5))
print(found.contents, found.files, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(project: Project, tmp_path: Path) -> None:
    """200,000 contents of 1 kB each, twice as many as before, take no more memory; shares are small to show it soon."""
    peaks = []
    for half in range(2):
        for number in range(half * 5, half * 5 + 5):
            _append_many(project, number, 20_000)
        command = [sys.executable, "-c", PEAK, str(project.root), str(tmp_path / "out.parquet")]
        env = environment(project, PYTHONPATH=str(Path.cwd()), ARROW_DEFAULT_MEMORY_POOL="system")
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        contents, files, peak = map(int, done.stdout.split())
        assert contents == files == 100_000 * (half + 1)
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 100, peaks


def _append_many(project: Project, number: int, rows: int) -> None:
    ids = [hashlib.sha256(f"{number} {place}".encode()).hexdigest() for place in range(rows)]
    paths = [f"{number}/{place}.png" for place in range(rows)]
    one = answer("x") | {"embedding": [0.5] * 64, "probabilities": [(f"class {place}", 0.1) for place in range(10)]}
    columns = {name: pa.repeat(pa.scalar(one[name], PREDICTIONS.schema.field(name).type), rows) for name in one}
    columns |= {"image_id": ids, "path": paths}
    append(project.table("predictions"), PREDICTIONS, pa.table(columns, schema=PREDICTIONS.schema))
    seen = file("x")
    columns = {name: pa.repeat(pa.scalar(seen[name], FILES.schema.field(name).type), rows) for name in seen}
    columns |= {"image_id": ids, "path": paths}
    append(project.table("files"), FILES, pa.table(columns, schema=FILES.schema))
