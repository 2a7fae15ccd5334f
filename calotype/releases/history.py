"""`calotype history`: what was decided about the champion, by whom and why, newest first."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import ledger
from calotype.releases.ledger import Entry

HEADER = ("no.", "when (UTC)", "version", "verdict", "champion", "by")


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
    """Print a line for each entry, and its reason below: a column of its own would be a few letters wide."""
    console = console or Console()
    if not entries:
        console.print(f"nothing was decided about {params.name} yet: run `calotype promote`", highlight=False)
        return
    console.print(Text(f"Champions of {params.name}", style="bold"))
    rows = [HEADER, *(_cells(entry) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    console.print(Text(head.rstrip(), style="dim"), overflow="ellipsis", no_wrap=True)
    for line, entry in zip(lines, entries, strict=True):
        # Names and reasons are a person's words: brackets in them are no markup.
        console.print(Text(line.rstrip()), overflow="ellipsis", no_wrap=True)
        console.print(Padding(Text(entry.reason), (0, 0, 0, widths[0] + 2)))


def _cells(entry: Entry) -> tuple[str, ...]:
    version = "" if entry.version is None else str(entry.version)
    return str(entry.sequence), f"{entry.at:%Y-%m-%d %H:%M}", version, entry.verdict, _move(entry), entry.who


def _move(entry: Entry) -> str:
    before = "none" if entry.from_version is None else str(entry.from_version)
    after = "none" if entry.to_version is None else str(entry.to_version)
    return f"{before} → {after}" if entry.moves else after
