"""Tables on stdout: drawn on a terminal, plain aligned text in a file or pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

NUMBERS = "0123456789–-+.,%( "


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table under its title; columns of numbers stand to the right.

    Parameters
    ----------
    title
        One line above.
    header
        Names of the columns.
    rows
        Texts, as many in each row as there are columns.
    """
    right = [all(_is_number(row[place]) for row in rows) and bool(rows) for place in range(len(header))]
    if sys.stdout.isatty():
        _draw(title, header, rows, right)
    else:
        print("\n".join(plain(title, header, rows, right)))


def plain(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """The lines of a table without any drawing."""
    cells = [list(header), *([_one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [title]
    for row in cells:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        lines.append("  " + "  ".join(padded).rstrip())
    return lines


def _draw(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", header_style="dim")
    for name, to_right in zip(header, right, strict=True):
        table.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in rows:
        # Names are a person's words: brackets in them are no markup.
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    Console().print(table)


def _is_number(cell: str) -> bool:
    return all(letter in NUMBERS for letter in cell.replace(" to ", "").replace(")", ""))


def _one_line(cell: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in cell)
