"""The error of a source that has no known shape: the tree found beside the trees expected."""

from __future__ import annotations

from itertools import zip_longest

from calotype.errors import DataError
from calotype.sources.contract import Tree
from calotype.sources.trees import level

LINES = 12
PER_FOLDER = 3

EXPECTED = (
    "cat/001.jpg  dog/001.jpg   a folder per class",
    "",
    "train/cat/001.jpg          the splits over",
    "val/cat/002.jpg            folders per class",
    "test/cat/003.jpg",
    "",
    "labels.csv or .parquet     with columns path, label",
    "",
    "train-images-idx3-ubyte    IDX files",
    "train-labels-idx1-ubyte",
    "",
    "or a zip or tar of these",
)


def error(tree: Tree) -> DataError:
    """Show the first lines of the tree found beside the shapes expected."""
    found = draw(tree) or ["(nothing)"]
    width = min(max(len(line) for line in found), 44)
    rows = zip_longest(["found", "", *found], ["expected one of", "", *EXPECTED], fillvalue="")
    table = "\n".join(f"  {_cut(left, width):{width}}   {right}".rstrip() for left, right in rows)
    return DataError(
        f"{tree.name}: {len(tree.files):,} files, but no labelled images in a known arrangement. "
        f"Arrange them in one of the ways below, or write a table.\n{table}"
    )


def draw(tree: Tree) -> list[str]:
    """The first lines of a tree, at most `LINES`."""
    lines = _draw(tree, "", "")
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "…"]


def _draw(tree: Tree, base: str, indent: str, depth: int = 0) -> list[str]:
    here = level(tree, base)
    lines: list[str] = []
    for name, files in list(here.folders.items())[:LINES]:
        lines.append(f"{indent}{printable(name)}/" + ("" if files else "  (empty)"))
        if depth < 2 and files:
            lines += _draw(tree, f"{base}{name}/", indent + "  ", depth + 1)
    shown = here.files[:PER_FOLDER]
    lines += [indent + printable(path[len(base) :]) for path in shown]
    if len(here.files) > len(shown):
        lines.append(f"{indent}… {len(here.files) - len(shown):,} more")
    return lines


def printable(text: str) -> str:
    """A name without characters that would move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"
