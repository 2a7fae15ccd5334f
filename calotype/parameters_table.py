"""Print the values in force and where each comes from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator

from calotype import params as parameters
from calotype.databases import without_password
from calotype.project import PLACES, Project

PIPE_WIDTH = 400
"""Columns where no terminal sets a width: nothing is cut in a file or a pipe."""

Row = tuple[str, str, str]


def show(project: Project) -> None:
    """Print params.yaml's values with their lines, then the places that the environment may move.

    Raises
    ------
    ParamsError
        If a value cannot work; a torchvision network is built once, without weights, to see that it runs at the
        image size.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    values = parameters.load(project.params)
    rows = [*_values(project, values), ("", "", ""), *_places(project)]
    table = Table("key", "in force", "from", box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    table.columns[1].overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    console = console if console.is_terminal else Console(width=PIPE_WIDTH)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
    _check_network(values)


def _values(project: Project, values: parameters.Params) -> Iterator[Row]:
    origins = parameters.origins(project.params)
    for key, value in parameters.flatten(values).items():
        yield key, str(value), origins[key]


def _places(project: Project) -> Iterator[Row]:
    for variable, default in PLACES.items():
        named = os.environ.get(variable)
        if named:
            yield variable, without_password(named), "environment"
        elif variable == "PREFECT_API_URL" and (url := _url_of_make_up(project)):
            yield variable, url, "prefect.toml (make up)"
        else:
            yield variable, default, "default"


def _url_of_make_up(project: Project) -> str | None:
    """Prefect's address while `make up` holds: Prefect reads it from prefect.toml, not from the environment."""
    try:
        settings = tomllib.loads((project.root / "prefect.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    url = settings.get("api", {}).get("url")
    return str(url) if url else None


def _check_network(values: parameters.Params) -> None:
    """Importing torch costs seconds: only a network whose sizes are not ours to know is built."""
    if values.network.name != "cnn":
        from calotype.learning.network import check

        check(values.network, values.image)
