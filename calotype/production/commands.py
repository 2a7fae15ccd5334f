"""The commands `calotype labels …`. Imports nothing heavy before a command needs it."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Add true labels that came later; show production accuracy",
)


class _By(str, Enum):  # noqa: UP042 - the help shows the values
    week = "week"
    month = "month"


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet: image_id or path, label, and if you like date")],
    correct: Annotated[bool, typer.Option("--correct", help="Hold against other labels of the same date")] = False,
    ingest: Annotated[bool, typer.Option("--ingest", help="Copy the images into the dataset's source, too")] = False,
) -> None:
    """Add labels that came later to the images predicted then"""
    from calotype.console import say
    from calotype.production import labelling

    added = labelling.add(*_project_and_params(), file, correct=correct, ingest=ingest)
    for note in added.notes:
        say("labels", note)
    typer.echo(added.summary())


@app.command()
def report(
    by: Annotated[_By, typer.Option(help="Calendar windows in UTC")] = _By.week,
) -> None:
    """Show production accuracy; write reports/production.html"""
    from calotype.production import report as reporting

    reporting.report(*_project_and_params(), by.value)


def _project_and_params() -> tuple[Any, Any]:
    from calotype import params
    from calotype.project import Project

    project = Project.find()
    return project, params.load(project.params)
