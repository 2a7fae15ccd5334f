"""The commands that start, end and examine what runs beside the line; nothing heavy is imported before it is needed."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()

PANEL = "Servers"


@app.command(rich_help_panel=PANEL)
def up() -> None:
    """Start both servers and a worker; deploy the flows"""
    from calotype import servers
    from calotype.project import Project

    servers.up(Project.find())


@app.command(rich_help_panel=PANEL)
def down() -> None:
    """End what `calotype up` started"""
    from calotype import servers
    from calotype.project import Project

    servers.down(Project.find())


@app.command(rich_help_panel=PANEL)
def status() -> None:
    """Say how servers, worker and deployments are; exit code 0 if well"""
    from calotype.project import Project
    from calotype.services import status as services
    from calotype.services import status_text

    found = services.read(Project.find())
    typer.echo(status_text.text(found))
    raise typer.Exit(0 if found.is_well else 1)


@app.command(rich_help_panel=PANEL)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array")] = False,
) -> None:
    """Check versions, servers, disk, git, DVC and state; say what to do"""
    import json

    from calotype.doctor import diagnosis
    from calotype.project import Project

    checks = diagnosis.diagnose(Project.find())
    typer.echo(json.dumps(diagnosis.as_json(checks), indent=2) if as_json else diagnosis.text(checks))
    raise typer.Exit(0 if diagnosis.is_well(checks) else 1)


@app.command(rich_help_panel=PANEL)
def ui() -> None:
    """Serve MLflow's pages on this project's runs"""
    from calotype import servers
    from calotype.project import Project

    servers.ui(Project.find())
