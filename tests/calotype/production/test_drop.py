"""Labelled images join the dataset's source: copied whole, never overwritten, moved by a correction."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import polars as pl
import pytest

from calotype import params
from calotype.errors import UsageError
from calotype.params import Params
from calotype.production.labelling import Added, add
from calotype.project import Project
from tests.conftest import run
from tests.production_tables import answer, file, write


@pytest.fixture
def with_inbox(in_production: Project) -> Project:
    """Three new digits lie in the inbox, and were answered."""
    inbox = Path(in_production.inbox)
    (inbox / "line-1").mkdir(parents=True)
    answers, files = [], []
    for number in range(3):
        path = f"line-1/{number}.PGM"
        data = b"P5\n8 8\n255\n" + bytes([number * 40 + place for place in range(64)])
        (inbox / path).write_bytes(data)
        image_id = hashlib.sha256(data).hexdigest()
        answers.append(answer(path, "7", image_id=image_id))
        files.append(file(path, image_id=image_id))
    write(in_production, answers=answers, files=files)
    return in_production


def give(project: Project, values: Params, text: str, **options: bool) -> Added:
    (project.root / "labels.csv").write_text("path,label,date\n" + text, encoding="utf-8")
    return add(project, values, project.root / "labels.csv", ingest=True, **options)


def copies(project: Project) -> list[str]:
    source = project.root / "data" / "raw" / "digits"
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*production*"))


def test_images_are_copied_under_their_label_and_only_once(with_inbox: Project, values_of: Params) -> None:
    text = "line-1/0.PGM,3,2026-11-10\nline-1/1.PGM,4,2026-11-10\n"
    added = give(with_inbox, values_of, text)
    assert added.drop is not None
    assert added.summary().splitlines()[1:] == ["data/raw/digits: 2 images copied as a new drop", "Next: dvc repro"]
    data = (Path(with_inbox.inbox) / "line-1" / "0.PGM").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    name = f"3/production-2026-11-10-{digest[:12]}.pgm"
    assert copies(with_inbox)[0] == name
    assert (with_inbox.root / "data" / "raw" / "digits" / name).read_bytes() == data
    again = give(with_inbox, values_of, text)
    assert again.drop is not None
    assert again.drop.counts == {"there": 2}
    assert len(copies(with_inbox)) == 2


def test_a_correction_moves_the_copy(with_inbox: Project, values_of: Params) -> None:
    give(with_inbox, values_of, "line-1/0.PGM,3,2026-11-10\n")
    (before,) = copies(with_inbox)
    added = give(with_inbox, values_of, "line-1/0.PGM,5,2026-11-12\n")
    assert added.drop is not None
    assert added.drop.counts == {"moved": 1}
    assert copies(with_inbox) == [before.replace("3/", "5/")]


def test_images_gone_or_changed_in_the_inbox_are_named(with_inbox: Project, values_of: Params) -> None:
    inbox = Path(with_inbox.inbox)
    (inbox / "line-1" / "0.PGM").unlink()
    (inbox / "line-1" / "1.PGM").write_bytes(b"another picture by now")
    added = give(with_inbox, values_of, "".join(f"line-1/{n}.PGM,3,2026-11-10\n" for n in range(3)))
    assert added.added == 3
    assert added.drop is not None
    assert set(added.drop.gone) == {"line-1/0.PGM", "line-1/1.PGM"}
    assert "2 images no longer in the inbox: " in added.summary()
    assert len(copies(with_inbox)) == 1


def test_a_source_of_another_kind_is_refused_before_any_label_is_added(with_inbox: Project, values_of: Params) -> None:
    source = with_inbox.root / "data" / "raw" / "digits"
    with zipfile.ZipFile(source.with_suffix(".zip"), "w") as archive:
        for path in source.rglob("*.pgm"):
            archive.write(path, path.relative_to(source))
    values = values_of.model_copy(
        update={"ingest": values_of.ingest.model_copy(update={"source": "data/raw/digits.zip"})}
    )
    with pytest.raises(UsageError, match=r"is a source of the kind zip:folder; .* Unpack the archive into a folder"):
        give(with_inbox, values, "line-1/0.PGM,3,2026-11-10\n")
    assert not Path(with_inbox.table("labels")).exists()


@pytest.mark.slow
def test_dvc_takes_the_drop_and_no_image_changes_its_split(trained_project: Project) -> None:
    """From the inbox into the dataset: the model that DVC made is champion, and answered a new image."""
    from calotype.learning import bundle
    from calotype.releases import local_bundles
    from tests.calotype.production.conftest import crown

    project = trained_project
    values_of = params.load(project.params)
    digest = bundle.digest(project.bundle)
    shutil.copytree(project.bundle, local_bundles.folder_of(project, digest))
    crown(project, values_of, 1, digest)
    before = pl.read_parquet(project.splits)
    Path(project.inbox).mkdir(parents=True)
    data = b"P5\n8 8\n255\n" + bytes(range(100, 164))
    (Path(project.inbox) / "new.pgm").write_bytes(data)
    image_id = hashlib.sha256(data).hexdigest()
    write(project, answers=[answer("new.pgm", "7", image_id=image_id)], files=[file("new.pgm", image_id=image_id)])
    added = give(project, values_of, "new.pgm,7,2026-11-10\n")
    assert added.drop is not None
    assert added.drop.counts == {"copied": 1}
    done = run(project, "dvc", "repro", "split")
    assert done.returncode == 0, done.stdout + done.stderr
    after = pl.read_parquet(project.splits)
    assert after.height == before.height + 1
    old = after.filter(pl.col("image_id") != image_id).select("image_id", "split").sort("image_id")
    assert old.equals(before.select("image_id", "split").sort("image_id"))
