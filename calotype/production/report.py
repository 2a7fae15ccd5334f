"""`calotype labels report`: production beside what the gate had expected, as lines, tables and a page."""

from __future__ import annotations

from calotype import text_tables
from calotype.files import write_text
from calotype.params import Params
from calotype.production import accuracy, expectation
from calotype.production.accuracy import By, Production, Score
from calotype.production.expectation import Expectations
from calotype.project import Project
from calotype.releases import ledger

PAGE = "production.html"


def report(project: Project, params: Params, by: By) -> None:
    """Print the figures and write reports/production.html."""
    found = accuracy.measure(project, params, by)
    if not found.labels:
        print("no labels yet: add those of predicted images by `calotype labels add labels.csv`")
        return
    expected = expectation.read(project, params, found.versions)
    _print(params, found, expected)
    from calotype.pages import production_page

    page = production_page.render(params, found, expected, ledger.read(project.ledger, params.name).head)
    write_text(project.reports / PAGE, page)
    print(f"\nThe page is {project.relative(project.reports / PAGE)}")


def _print(params: Params, found: Production, expected: Expectations) -> None:
    rows = []
    for version, score in found.versions.items():
        known = expected.by_version.get(version)
        gate = known.accuracy.percent if known else "unknown"
        rows.append((f"{params.name}/{version}", *_figures(score), gate))
    header = ("version", "labelled", "accuracy", "macro precision", "macro recall", "macro F1", "the gate expected")
    text_tables.show(f"Production accuracy of {params.name} (95 % intervals)", header, rows)
    for version, score in found.versions.items():
        if score is not None:
            known = expected.by_version.get(version)
            print(f"\n{params.name}/{version}: {expectation.agreement(score, known)}")
            print(f"  {expectation.standing(score, params.monitor.min_accuracy)}\n  {expectation.selection(score)}.")
    if expected.note:
        print(f"\n{expected.note}")
    windows = [
        (f"{one.start} to {one.end}", f"{params.name}/{one.version}", f"{one.answers:,}", *_figures(one.score)[:2])
        for one in found.windows
    ]
    text_tables.show(
        f"\nBy {found.by} (UTC, the end not included)", (found.by, "version", "answers", *header[1:3]), windows
    )
    newest = max((version for version, score in found.versions.items() if score), default=None)
    if newest is not None:
        _print_classes(f"{params.name}/{newest}", found.versions[newest])


def _print_classes(title: str, score: Score | None) -> None:
    if score is None:
        return
    rows = [
        (one.name, f"{one.support:,}", one.precision.percent, one.recall.percent, f1.percent)
        for one, f1 in zip(score.per_class, score.f1, strict=True)
    ]
    text_tables.show(f"\nBy class, {title}", ("class", "labelled", "precision", "recall", "F1"), rows)


def _figures(score: Score | None) -> tuple[str, ...]:
    if score is None:
        return ("0", *[""] * 4)
    macro = (score.macro[name].percent for name in accuracy.MACRO)
    return (f"{score.images:,} of {score.answers:,}", score.accuracy.percent, *macro)
