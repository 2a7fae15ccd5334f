"""`calotype labels add`: exactly once, corrections by date, nothing lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from calotype.errors import DataError, UsageError
from calotype.params import Params
from calotype.production import labels_table
from calotype.production.labelling import Added, add
from calotype.project import Project
from tests.conftest import make_project, run
from tests.production_tables import NIGHT, answer, digest_of, file, write


@pytest.fixture
def predicted(in_production: Project) -> Project:
    """Twenty digits were answered, all as '7'."""
    paths = [f"{number}.png" for number in range(20)]
    write(in_production, answers=[answer(path, "7") for path in paths], files=map(file, paths))
    return in_production


def give(project: Project, values: Params, text: str, **options: bool) -> Added:
    (project.root / "labels.csv").write_text(text, encoding="utf-8")
    return add(project, values, project.root / "labels.csv", **options)


def held(project: Project) -> dict[str, str]:
    rows = labels_table.holding(labels_table.read(project))
    return dict(rows.select("image_id", "label").iter_rows())


def test_labels_join_by_path_and_by_digest_and_only_once(predicted: Project, values_of: Params) -> None:
    text = f"path,image_id,label,date\n0.png,,7,2026-11-10\n,{digest_of('1.png').upper()},3,2026-11-10\n"
    first = give(predicted, values_of, text)
    assert (first.rows, first.added, first.known, first.refused, first.notes) == (2, 2, 0, 0, ())
    again = give(predicted, values_of, text + "0.png,,7,2026-11-12\n")
    assert (again.added, again.known) == (0, 3)
    rows = labels_table.read(predicted)
    assert held(predicted) == {digest_of("0.png"): "7", digest_of("1.png"): "3"}
    assert rows["path"].to_list().count("0.png") == 1
    assert set(rows["labelled_on"]) == {date(2026, 11, 10)}
    assert set(rows["source"]) == {str(predicted.root / "labels.csv")}


@pytest.mark.parametrize("naming", ["0.png", "data/inbox/0.png", "{inbox}/0.png"])
def test_a_path_may_be_named_from_anywhere(
    predicted: Project, values_of: Params, naming: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(predicted.root)
    text = f"path,label\n{naming.format(inbox=predicted.inbox)},7\n"
    assert give(predicted, values_of, text).added == 1
    assert held(predicted) == {digest_of("0.png"): "7"}


def test_a_path_means_the_content_last_seen_there_and_says_so(predicted: Project, values_of: Params) -> None:
    newer = file("0.png", image_id=digest_of("new"), seen_at=NIGHT + timedelta(days=3))
    write(predicted, answers=[answer("new", "3")], files=[newer])
    added = give(predicted, values_of, "path,label\n0.png,3\n")
    assert held(predicted) == {digest_of("new"): "3"}
    assert added.notes == ("1 path (0.png) had several contents in turn: the label is that of the last one.",)


def test_a_later_date_corrects_and_an_earlier_one_does_not(predicted: Project, values_of: Params) -> None:
    give(predicted, values_of, "path,label,date\n0.png,7,2026-11-10\n1.png,7,2026-11-10\n")
    text = "path,label,date\n0.png,3,2026-11-12\n1.png,3,2026-11-08\n"
    added = give(predicted, values_of, text)
    assert (added.added, added.corrections, added.refused) == (1, 1, 1)
    assert added.notes == (
        "1 row (2: '0.png') correct an earlier label: the later one holds from now on.",
        "1 row (3: '1.png') are older than another label of the same image, which holds: left out.",
    )
    assert held(predicted) == {digest_of("0.png"): "3", digest_of("1.png"): "7"}


def test_equal_dates_are_refused_unless_the_correction_is_meant(predicted: Project, values_of: Params) -> None:
    give(predicted, values_of, "path,label,date\n0.png,7,2026-11-10\n")
    text = "path,label,date\n0.png,3,2026-11-10\n"
    with pytest.raises(DataError, match=r"1 row \(2: '0.png'\) contradict a label of the same date: left out\. Give a"):
        give(predicted, values_of, text)
    assert held(predicted) == {digest_of("0.png"): "7"}
    assert give(predicted, values_of, text, correct=True).corrections == 1
    assert held(predicted) == {digest_of("0.png"): "3"}
    # What was said before the correction is known, and changes nothing.
    assert give(predicted, values_of, "path,label,date\n0.png,7,2026-11-10\n").known == 1
    assert held(predicted) == {digest_of("0.png"): "3"}


def test_a_table_of_rows_that_are_all_left_out_is_an_error(predicted: Project, values_of: Params) -> None:
    give(predicted, values_of, "path,label,date\n0.png,7,2026-11-20\n")
    with pytest.raises(DataError, match=r"1 row \(2: '0\.png'\) are older than another label .*: left out"):
        give(predicted, values_of, "path,label,date\n0.png,3,2026-11-10\n")
    assert held(predicted) == {digest_of("0.png"): "7"}


def test_rows_that_fit_are_added_beside_those_that_do_not(predicted: Project, values_of: Params) -> None:
    added = give(predicted, values_of, "path,label\n0.png,7\nunseen.png,7\n1.png,seven\n")
    assert (added.added, added.refused, len(added.notes)) == (1, 2, 2)
    assert added.summary().splitlines()[0] == (
        f"{predicted.root / 'labels.csv'}: 3 rows: 1 added, 0 known already, 2 left out → data/predictions/labels"
    )


def test_the_command_says_what_it_left_out_and_exits_3_if_that_is_all(predicted: Project) -> None:
    (predicted.root / "labels.csv").write_text("path,label\n0.png,7\nunseen.png,7\n", encoding="utf-8")
    done = run(predicted, "calotype", "labels", "add", "labels.csv")
    assert done.returncode == 0
    assert done.stdout.startswith(
        "labels.csv: 2 rows: 1 added, 0 known already, 1 left out → data/predictions/labels\n"
    )
    assert done.stderr.startswith("labels: 1 row (3: 'unseen.png') name images that were never predicted: left out.")
    (predicted.root / "labels.csv").write_text("path,label\nunseen.png,7\n", encoding="utf-8")
    done = run(predicted, "calotype", "labels", "add", "labels.csv")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("calotype: labels.csv: 1 row (2: 'unseen.png') name images that were never predicted")


def test_several_at_once_add_each_label_once(predicted: Project, values_of: Params) -> None:
    """Eight overlapping tables at the same time: each image has one row in the end."""

    def give_some(start: int) -> int:
        path = predicted.root / f"labels-{start}.csv"
        path.write_text("path,label,date\n" + "".join(f"{n}.png,7,2026-11-10\n" for n in range(start, start + 8)))
        return add(predicted, values_of, path).added

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(give_some, range(8)))
    rows = labels_table.read(predicted)
    assert sum(added) == rows.height == rows["image_id"].n_unique() == 15
    moments = rows.sort("added_at").group_by("added_at", maintain_order=True).len()
    assert moments.height == sum(one > 0 for one in added)


def test_without_a_champion_there_is_nothing_to_check_labels_against(tmp_path: Path, values_of: Params) -> None:
    project = make_project(tmp_path / "empty", per_class=1)
    write(project, answers=[answer("0.png", "7")], files=[file("0.png")])
    with pytest.raises(UsageError, match=r"no version of .digits. is the champion"):
        give(project, values_of, "path,label\n0.png,7\n")
    assert labels_table.read(project).is_empty()


def test_the_table_is_read_by_other_engines_by_its_names(predicted: Project, values_of: Params) -> None:
    give(predicted, values_of, "path,label\n0.png,7\n")
    frame = pl.read_delta(predicted.table("labels"))
    assert frame.columns == ["image_id", "label", "labelled_on", "added_at", "path", "source"]
