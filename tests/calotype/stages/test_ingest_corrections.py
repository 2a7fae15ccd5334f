"""Corrections are a versioned input of ingest: applied, listed, and seen by scan."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from calotype import params as parameters
from calotype.data import dataset
from calotype.errors import CalotypeError, DataError
from calotype.files import read_json, sha256_of
from calotype.project import Project
from calotype.stages import ingest, scan


def corrected(project: Project, text: str, **changes: object) -> pl.DataFrame:
    (project.root / "fixes.csv").write_text(text)
    return run(project, corrections="fixes.csv", **changes)


def run(project: Project, **changes: object) -> pl.DataFrame:
    ingest.run(with_changes(project, changes), project)
    return dataset.read_manifest(project.dataset)


def with_changes(project: Project, changes: dict[str, object]) -> parameters.Params:
    params = parameters.load(project.params)
    return params.model_copy(update={"ingest": params.ingest.model_copy(update=changes)})


def applied(project: Project) -> list[tuple[str, ...]]:
    return dataset.read_table(project.dataset, dataset.CORRECTIONS).rows()


def label_of(manifest: pl.DataFrame, path: str) -> str:
    return str(manifest.filter(path=path)["label"].item())


def test_a_corrected_label_reaches_the_manifest_and_is_listed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(project)
    image_id = before.filter(path="3/0004.pgm")["image_id"].item()
    manifest = corrected(project, f"image_id,corrected\n{image_id},8\n{before['image_id'][0]},\n")
    assert label_of(manifest, "3/0004.pgm") == "8"
    assert manifest.drop("label").equals(before.drop("label"))
    assert applied(project) == [(image_id, "3/0004.pgm", "3", "8")]
    assert dataset.CORRECTIONS in dataset.read_digests(project.dataset)
    assert "ingest: corrected by fixes.csv: 1 label" in capsys.readouterr().err


def test_without_corrections_the_labels_are_those_of_the_source(project: Project) -> None:
    first = run(project)
    corrected(project, "path,corrected\n3/0004.pgm,8\n")
    assert run(project).equals(first)
    assert applied(project) == []


def test_a_correction_settles_an_image_under_two_labels(project: Project) -> None:
    shutil.copy(project.raw / "digits" / "1" / "0000.pgm", project.raw / "digits" / "2" / "one.pgm")
    with pytest.raises(DataError, match="1 image under two labels"):
        run(project)
    manifest = corrected(project, "path,corrected\n2/one.pgm,1\n")
    assert label_of(manifest, "1/0000.pgm") == "1"


def test_a_bad_table_leaves_the_dataset_as_it_was(project: Project) -> None:
    before = run(project)
    with pytest.raises(DataError, match=r"fixes\.csv: row 2 has the label 'eight', which is no class"):
        corrected(project, "path,corrected\n3/0004.pgm,eight\n")
    assert dataset.read_manifest(project.dataset).equals(before)


def test_a_class_from_which_every_image_is_corrected_away_is_named(project: Project) -> None:
    rows = [f"9/{number:04}.pgm,8" for number in range(30)]
    with pytest.raises(DataError, match="1 class without images: 9"):
        corrected(project, "\n".join(["path,corrected", *rows, ""]))


def test_a_missing_table_is_refused_by_scan_and_ingest(project: Project) -> None:
    for stage in (scan, ingest):
        with pytest.raises(DataError, match=r"gone\.csv: No such file.*ingest\.corrections.*`none` leaves the labels"):
            stage.run(with_changes(project, {"corrections": "gone.csv"}), project)


def test_scan_digests_the_corrections_by_their_content(project: Project) -> None:
    fixes = project.root / "fixes.csv"
    fixes.write_text("path,corrected\n")
    params = with_changes(project, {"corrections": "fixes.csv"})
    assert scanned(project, parameters.load(project.params))["corrections"] == "none"
    first = scanned(project, params)
    assert first["corrections"] == sha256_of(fixes)
    fixes.write_text("path,corrected\n3/0004.pgm,8\n")
    assert scanned(project, params) != first


def test_corrections_that_changed_since_scan_are_refused(project: Project) -> None:
    fixes = project.root / "fixes.csv"
    fixes.write_text("path,corrected\n")
    scanned(project, with_changes(project, {"corrections": "fixes.csv"}))
    with pytest.raises(CalotypeError, match=r"ingest: fixes\.csv changed since it was scanned"):
        corrected(project, "path,corrected\n3/0004.pgm,8\n")


def scanned(project: Project, params: parameters.Params) -> dict[str, object]:
    scan.run(params, project)
    found: dict[str, object] = read_json(project.source_digest)
    return found


def test_the_table_may_lie_anywhere(project: Project, tmp_path: Path) -> None:
    (tmp_path / "fixes.csv").write_text("path,corrected\n3/0004.pgm,8\n")
    assert label_of(run(project, corrections=str(tmp_path / "fixes.csv")), "3/0004.pgm") == "8"
