"""Each content of the inbox gets one answer, each version of a file one row, for ever."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from calotype import exactly_once, params
from calotype.errors import CalotypeError, DataError
from calotype.learning import bundle as bundles
from calotype.learning.run_record import RunRecord
from calotype.params import Params
from calotype.predictions.inbox import LocalPlace, mount_of
from calotype.predictions.incoming import Waiting
from calotype.predictions.reading import open_tables
from calotype.predictions.scheduled import predict_inbox
from calotype.project import Project
from calotype.releases import promotion, registry
from calotype.stages import evaluate

pytestmark = pytest.mark.slow

SHARED_MEMORY = Path("/dev/shm")

NIGHT = """
import sys
from pathlib import Path
from calotype import params
from calotype.predictions import scheduled
from calotype.project import Project
project = Project(Path(sys.argv[1]))
print(scheduled.predict_inbox(project, params.load(project.params), inbox=sys.argv[2]).appended)
"""


@pytest.fixture(scope="module")
def challenged(champion_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the champion's project with a second version, the challenger."""
    root = tmp_path_factory.mktemp("challenged") / "project"
    project = Project(shutil.copytree(champion_project.root, root, symlinks=True))
    altered = bundles.load(project.bundle)
    # Another colour of answers: less sure of everything.
    bundles.save(replace(altered, temperature=altered.temperature * 3), project.bundle)
    digest = bundles.digest(project.bundle)
    record = RunRecord.read(project.run_json)
    record.model_copy(update={"key": digest[:32], "bundle_digest": digest}).write(project.run_json)
    values = params.load(project.params)
    evaluate.run(values, project)
    registered = registry.register(project, values)
    assert (registered.version, registered.alias) == (2, registry.CHALLENGER)
    return project


@pytest.fixture
def rivals(challenged: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same, with tables of this test's own."""
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", str(tmp_path / "tables"))
    return challenged


@pytest.fixture
def at(champion_project: Project) -> Params:
    values = params.load(champion_project.params)
    return values.model_copy(update={"predict": values.predict.model_copy(update={"settle_s": 0.0})})


@pytest.fixture
def inbox(fifteen_files: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fifteen_files, tmp_path / "inbox", symlinks=True)


@pytest.fixture
def night(champion_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with tables of this test's own."""
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", str(tmp_path / "tables"))
    return champion_project


def answers(project: Project) -> pl.DataFrame:
    return pl.read_delta(project.table("predictions"))


def files(project: Project) -> pl.DataFrame:
    return pl.read_delta(project.table("files"))


def shadowing(at: Params) -> Params:
    return at.model_copy(update={"predict": at.predict.model_copy(update={"shadow": True})})


def test_ten_good_and_five_bad_files_give_ten_answers_and_fifteen_versions(
    night: Project, at: Params, inbox: Path
) -> None:
    done = predict_inbox(night, at, inbox=str(inbox))
    assert (done.files, done.new, done.predicted, done.appended) == (15, 15, 10, 10)
    assert done.summary().splitlines()[0] == (
        f"{inbox}: 15 files, 15 new: 10 predicted, 5 rejected (1 bad-name, 1 broken-link, 1 corrupt, 1 empty, "
        f"1 unsupported-format) by digits version 1 → {night.predictions}, 10 rows as batch {done.batch_id}"
    )
    seen = files(night).sort("path")
    assert seen["path"].to_list() == sorted(seen["path"])
    assert dict(seen["status"].value_counts().iter_rows()) == {"predicted": 10, "rejected": 5}
    assert set(seen["batch_id"]) == {done.batch_id}
    joined = seen.filter(pl.col("status") == "predicted").join(answers(night), on="image_id", how="left")
    assert joined["label"].null_count() == 0
    assert joined["path"].to_list() == joined["path_right"].to_list()


def test_an_answer_carries_the_images_statistics_and_its_embedding(night: Project, at: Params, inbox: Path) -> None:
    predict_inbox(night, at, inbox=str(inbox))
    found = answers(night)
    assert found["role"].unique().to_list() == ["champion"]
    assert found["mean"].is_between(0.1, 0.9).all()
    assert (found["contrast"] > 0).all()
    assert (found["sharpness"] > 0).all()
    widths = {len(row) for row in found["embedding"]}
    assert len(widths) == 1
    assert 0 < widths.pop() <= 64
    assert found["embedding"].n_unique() == 10


def test_a_second_night_appends_only_what_is_new(night: Project, at: Params, inbox: Path) -> None:
    first = predict_inbox(night, at, inbox=str(inbox))
    second = predict_inbox(night, at, inbox=str(inbox))
    assert second.summary() == f"{inbox}: 15 files, 0 new: nothing to predict"
    (inbox / "bad-empty.png").write_bytes((inbox / "digit-7.png").read_bytes())
    shutil.copy(inbox / "digit-1.png", inbox / "late.png")
    (inbox / "new.png").write_bytes(other_digit(night))
    third = predict_inbox(night, at, inbox=str(inbox))
    assert (third.new, third.answered_before, third.predicted, third.appended) == (3, 2, 1, 1)
    assert "files hold contents that were answered before: 2" in third.summary()
    assert answers(night)["image_id"].n_unique() == answers(night).height == 11
    assert files(night).height == 18
    assert set(answers(night)["batch_id"]) == {first.batch_id, third.batch_id}
    by_path = dict(files(night).filter(pl.col("path") == "bad-empty.png").select("status", "image_id").iter_rows())
    assert set(by_path) == {"rejected", "predicted"}


def test_the_same_picture_in_two_folders_has_one_answer_and_two_files(night: Project, at: Params, inbox: Path) -> None:
    shutil.copytree(inbox, inbox / "again", symlinks=True)
    done = predict_inbox(night, at, inbox=str(inbox))
    assert (done.new, done.appended) == (30, 10)
    assert answers(night).height == 10
    predicted = files(night).filter(pl.col("status") == "predicted")
    assert predicted["image_id"].value_counts()["count"].to_list() == [2] * 10


def test_what_could_not_be_read_is_tried_again_when_it_changes(night: Project, at: Params, inbox: Path) -> None:
    predict_inbox(night, at, inbox=str(inbox))
    (inbox / "bad-corrupt.png").write_bytes(other_digit(night))
    done = predict_inbox(night, at, inbox=str(inbox))
    assert (done.new, done.predicted) == (1, 1)
    rows = files(night).filter(pl.col("path") == "bad-corrupt.png").sort("seen_at")
    assert rows["status"].to_list() == ["rejected", "predicted"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(night: Project, at: Params, inbox: Path) -> None:
    done = predict_inbox(night, at, inbox=str(inbox), dry_run=True)
    assert (done.new, done.predicted, done.appended, done.page) == (15, 10, 0, "")
    assert done.summary().endswith(f"; dry run, nothing is written to {night.predictions}")
    assert not Path(night.predictions).exists()


def test_an_empty_or_absent_inbox_is_a_quiet_night(night: Project, at: Params, tmp_path: Path) -> None:
    absent = predict_inbox(night, at, inbox=str(tmp_path / "absent"))
    assert absent.summary() == f"{tmp_path / 'absent'}: 0 files, 0 new (no such folder): nothing to predict"
    (tmp_path / "empty").mkdir()
    empty = predict_inbox(night, at, inbox=str(tmp_path / "empty"))
    assert empty.summary() == f"{tmp_path / 'empty'}: 0 files, 0 new (no files): nothing to predict"


def test_an_inbox_that_held_files_and_is_gone_is_an_error(night: Project, at: Params, inbox: Path) -> None:
    predict_inbox(night, at, inbox=str(inbox))
    shutil.rmtree(inbox)
    with pytest.raises(DataError, match=r"inbox: no such folder; it held files on 20.* UTC\. Mount it"):
        predict_inbox(night, at, inbox=str(inbox))


def test_an_inbox_that_was_emptied_is_a_quiet_night_that_says_so(night: Project, at: Params, inbox: Path) -> None:
    predict_inbox(night, at, inbox=str(inbox))
    for file in inbox.iterdir():
        file.unlink()
    quiet = predict_inbox(night, at, inbox=str(inbox)).summary()
    said = rf"{inbox}: 0 files, 0 new \(empty; the last new files were seen on 20.* UTC\): nothing to predict"
    assert re.fullmatch(said, quiet)


@pytest.mark.skipif(not SHARED_MEMORY.is_mount(), reason=f"needs a second file system: {SHARED_MEMORY}")
def test_an_inbox_whose_disk_is_not_mounted_any_more_is_an_error(
    night: Project, at: Params, fifteen_files: Path, tmp_path: Path
) -> None:
    inbox = tmp_path / "mounted"
    with TemporaryDirectory(dir=SHARED_MEMORY) as disk:
        inbox.symlink_to(shutil.copytree(fifteen_files, Path(disk) / "inbox", symlinks=True))
        predict_inbox(night, at, inbox=str(inbox))
        for file in inbox.iterdir():
            file.unlink()
        assert "(empty; the last new" in predict_inbox(night, at, inbox=str(inbox)).summary()
    inbox.unlink()
    inbox.mkdir()
    now, before = mount_of(inbox), SHARED_MEMORY
    said = rf"mounted: empty, and on {now} now; it held files on 20.* UTC and was on {before}\. Mount that again"
    with pytest.raises(DataError, match=said):
        predict_inbox(night, at, inbox=str(inbox))
    (inbox / "moved.png").write_bytes((fifteen_files / "digit-1.png").read_bytes())
    predict_inbox(night, at, inbox=str(inbox))
    (inbox / "moved.png").unlink()
    assert "(empty; the last new" in predict_inbox(night, at, inbox=str(inbox)).summary()


@pytest.mark.parametrize("command", [predict_inbox, lambda project, _: open_tables(project)])
def test_a_file_where_the_tables_should_be_is_one_line(
    night: Project, at: Params, inbox: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., object]
) -> None:
    monkeypatch.setenv("CALOTYPE_PREDICT_INBOX", str(inbox))
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", str(inbox / "digit-1.png"))
    with pytest.raises(DataError, match=r"digit-1.png: found a file; expected a folder for the table of files\. Move "):
        command(night, at)


def test_an_inbox_that_goes_during_the_batch_keeps_what_was_read(
    night: Project, at: Params, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = LocalPlace.__iter__
    walks = []

    def unmounted(place: LocalPlace) -> object:
        walks.append(place)
        yield from walk(place)
        if len(walks) == 2:
            yield Waiting(".", None, "unreadable: the folder cannot be listed (No such file or directory)")

    monkeypatch.setattr(LocalPlace, "__iter__", unmounted)
    with pytest.raises(CalotypeError, match=r"the inbox went during the batch; 15 files read, now in the tab"):
        predict_inbox(night, at, inbox=str(inbox))
    assert answers(night).height == 10


def test_the_one_table_of_an_earlier_version_is_refused_and_left_alone(night: Project, at: Params, inbox: Path) -> None:
    pl.DataFrame({"path": ["a.png"]}).write_delta(night.predictions)
    with pytest.raises(DataError, match=r"found the one table that calotype 0\.1 kept there.*Move it away"):
        predict_inbox(night, at, inbox=str(inbox))
    assert pl.read_delta(night.predictions)["path"].to_list() == ["a.png"]


def test_answers_that_another_batch_appended_meanwhile_are_left_to_it(
    night: Project, at: Params, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = exactly_once.append

    def late(*arguments: object) -> object:
        monkeypatch.setattr(exactly_once, "append", append)
        predict_inbox(night, at, inbox=str(inbox))
        return append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exactly_once, "append", late)
    done = predict_inbox(night, at, inbox=str(inbox))
    assert (done.new, done.appended, done.by_others) == (15, 0, 10)
    assert "answers were appended by another batch meanwhile: 10" in done.summary()
    assert (answers(night).height, files(night).height) == (10, 15)


def test_killed_between_the_two_commits_the_next_batch_adds_the_files_alone(
    night: Project, at: Params, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = exactly_once.append

    def cut(place: str, *arguments: object) -> object:
        if place == night.table("files"):
            raise KeyboardInterrupt
        return append(place, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as killed:
        killed.setattr(exactly_once, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            predict_inbox(night, at, inbox=str(inbox))
    done = predict_inbox(night, at, inbox=str(inbox))
    assert (done.new, done.answered_before, done.predicted, done.appended) == (15, 10, 0, 0)
    assert (answers(night).height, files(night).height) == (10, 15)


def test_two_processes_on_one_inbox_append_each_content_once(night: Project, inbox: Path) -> None:
    command = [sys.executable, "-c", NIGHT, str(night.root), str(inbox)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    appended = [int(racer.communicate(timeout=200)[0]) for racer in racers]
    assert sum(appended) == 10
    assert answers(night)["image_id"].n_unique() == answers(night).height == 10
    assert files(night).height == 15


def test_the_challenger_answers_in_the_shadow_and_is_compared(rivals: Project, at: Params, inbox: Path) -> None:
    done = predict_inbox(rivals, shadowing(at), inbox=str(inbox))
    assert done.shadow is not None
    assert (done.shadow.model_version, done.shadow.compared, done.shadow.equal) == (2, 10, 10)
    assert "version 2 in the shadow: 10 of 10 labels are the champion's" in done.summary()
    rows = answers(rivals)
    assert (done.predicted, rows.height) == (10, 20)
    by_role = {role: set(part["model_version"]) for (role,), part in rows.group_by("role")}
    assert by_role == {"champion": {1}, "shadow": {2}}
    assert rows.select("image_id", "role").n_unique() == 20
    confidence = rows.pivot("role", index="image_id", values="confidence")
    assert (confidence["champion"] > confidence["shadow"]).all()


def test_without_a_challenger_the_champion_answers_alone(
    night: Project, at: Params, inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = predict_inbox(night, shadowing(at), inbox=str(inbox))
    assert "predict.shadow: there is no challenger; the champion answers alone" in capsys.readouterr().err
    assert (done.shadow, answers(night).height) == (None, 10)


def test_a_new_champion_answers_old_contents_only_when_asked_to(rivals: Project, at: Params, inbox: Path) -> None:
    predict_inbox(rivals, at, inbox=str(inbox))
    (inbox / "digit-9.png").unlink()
    promotion.promote(rivals, at, 2, force=True, reason="a test")
    assert predict_inbox(rivals, at, inbox=str(inbox)).new == 0
    done = predict_inbox(rivals, at, inbox=str(inbox), rescore=True)
    assert (done.appended, done.left_behind, done.model_version) == (9, 1, 2)
    assert "no longer in the inbox and keep their answers: 1" in done.summary()
    again = predict_inbox(rivals, at, inbox=str(inbox), rescore=True)
    assert (again.appended, again.answered_before) == (0, 9)
    rows = answers(rivals)
    assert rows.height == 19
    assert files(rivals).height == 15
    assert rows.select("image_id", "role", "model_version").n_unique() == 19


def test_the_page_shows_the_least_confident_answers_with_their_pictures(
    night: Project, at: Params, inbox: Path
) -> None:
    done = predict_inbox(night, at, inbox=str(inbox))
    text = (night.root / done.page).read_text(encoding="utf-8")
    least = answers(night).sort("confidence")["path"].to_list()
    places = [text.index(f">{path}<") for path in least]
    assert places == sorted(places)
    assert text.count("data:image/png;base64,") == 10
    assert "1 broken-link" in text


def test_progress_is_told(night: Project, at: Params, inbox: Path) -> None:
    told: list[tuple[int, int]] = []
    predict_inbox(night, at, inbox=str(inbox), watch=lambda done, total: told.append((done, total)))
    assert told == [(15, 15)]


def other_digit(project: Project) -> bytes:
    """An image that is not in the inbox."""
    source = project.root / "data" / "raw" / "digits"
    return sorted(source.rglob("*.pgm"))[7].read_bytes()
