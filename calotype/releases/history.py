"""`calotype history`: what was decided about the champion, by whom and why, newest first."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import ledger
from calotype.releases.ledger import Entry


def history(project: Project, params: Params) -> list[Entry]:
    """A model's entries in the ledger, newest first, after the alias was compared with its head.

    The ledger answers alone where the registry cannot be reached; a line on stderr says so then.
    """
    from calotype.releases import projection, versions

    try:
        with versions.connected(project) as registry:
            return list(reversed(projection.reconcile(registry, params, prefix="history").view.entries))
    except UsageError:
        raise
    except CalotypeError as error:
        say("history", f"the alias was not compared with the ledger: {error}")
    return list(reversed(ledger.read(project.ledger, params.name).entries))


def as_json(entries: Sequence[Entry]) -> str:
    """The entries as a JSON array."""
    return json.dumps([entry.as_json() for entry in entries], indent=2, ensure_ascii=False)


def show(entries: Sequence[Entry], params: Params, console: Console | None = None) -> None:
    """Print the entries as a table."""
    console = console or Console()
    if not entries:
        console.print(f"nothing was decided about {params.name} yet: run `calotype promote`", highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD, title=f"Champions of {params.name}", title_justify="left")
    table.add_column("no.", justify="right")
    for name in ("when (UTC)", "version", "verdict", "champion"):
        table.add_column(name, no_wrap=True)
    for name in ("by", "reason"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(*_cells(entry))
    console.print(table)


def _cells(entry: Entry) -> list[Text]:
    version = "" if entry.version is None else str(entry.version)
    cells = [str(entry.sequence), f"{entry.at:%Y-%m-%d %H:%M}", version, entry.verdict, _move(entry)]
    # Names and reasons are a person's words: brackets in them are no markup.
    return [Text(cell) for cell in [*cells, entry.who, entry.reason]]


def _move(entry: Entry) -> str:
    before = "none" if entry.from_version is None else str(entry.from_version)
    after = "none" if entry.to_version is None else str(entry.to_version)
    return f"{before} → {after}" if entry.moves else after
