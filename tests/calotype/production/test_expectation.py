"""Production beside what the gate had expected."""

from __future__ import annotations

from typing import Any

import pytest

from calotype import params
from calotype.evaluation.metrics import Estimate
from calotype.params import Params
from calotype.production import expectation
from calotype.production.accuracy import measure
from calotype.production.expectation import Expected
from calotype.project import Project
from calotype.releases import ledger
from tests.calotype.production.test_accuracy import label
from tests.conftest import run
from tests.production_tables import answer, file, write


def score(project: Project, values: Params, right: int, images: int) -> Any:
    paths = [f"{number}.png" for number in range(images)]
    write(project, answers=[answer(path, "3") for path in paths], files=map(file, paths))
    label(project, {path: "3" if place < right else "4" for place, path in enumerate(paths)})
    return measure(project, values).versions[1]


@pytest.mark.parametrize(
    ("right", "sentence"),
    [
        (20, "Production is shown to be worse than the gate expected: 45.0 points below the 95.0 % (92.6–96.6) on 500"),
        (38, "Production agrees with the 95.0 % (92.6–96.6) on 500 test images that the gate saw: no difference is"),
    ],
)
def test_the_difference_to_the_gate_is_said_in_a_sentence(
    project: Project, values_of: Params, right: int, sentence: str
) -> None:
    expected = Expected(500, 475, Estimate(0.95, 0.926, 0.966))
    found = score(project, values_of, right, 40)
    assert expectation.agreement(found, expected).startswith(sentence)
    assert expectation.agreement(found, None) == "The ledger holds no figures of the gate for this version."


def test_it_is_said_how_many_answers_are_labelled(project: Project, values_of: Params) -> None:
    write(project, answers=[answer(f"other {number}.png", confidence=0.5) for number in range(60)])
    found = score(project, values_of, 20, 20)
    assert expectation.selection(found) == (
        "20 of 80 answers (25.0 %) are labelled; their mean confidence is 0.900, that of all 0.600"
    )


def test_where_the_ledger_has_no_evidence_nothing_is_expected(project: Project, values_of: Params) -> None:
    assert expectation.read(project, values_of, [1]).by_version == {}


@pytest.mark.slow
def test_the_evidence_of_the_gate_is_found_again(champion_project: Project) -> None:
    """A model that the gate really judged: its figures come back from the run that the ledger's entry names."""
    values = params.load(champion_project.params)
    version = ledger.read(champion_project.ledger, values.name).head
    assert version is not None
    found = expectation.read(champion_project, values, [version])
    assert found.note == ""
    expected = found.by_version[version]
    assert 0 < expected.right <= expected.images
    assert expected.accuracy.low <= expected.right / expected.images <= expected.accuracy.high


@pytest.mark.slow
def test_the_command_prints_figures_and_writes_the_page(project: Project, values_of: Params) -> None:
    assert run(project, "calotype", "labels", "report").stdout.startswith("no labels yet: add those of predicted")
    score(project, values_of, 15, 20)
    done = run(project, "calotype", "labels", "report", "--by", "month")
    assert done.returncode == 0, done.stderr
    assert "  digits/1  20 of 20  75.0 % (50.9–91.3)" in done.stdout
    assert "2026-11-01 to 2026-12-01" in done.stdout
    page = (project.reports / "production.html").read_text(encoding="utf-8")
    assert "<title>digits in production: 75.0 % of 20 labelled answers right</title>" in page
