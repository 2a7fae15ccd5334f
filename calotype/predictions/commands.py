"""The commands `calotype predictions …`. Imports nothing heavy before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from calotype.predictions.reading import Tables
    from calotype.predictions.summary import Summary

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Read the scheduled predictions: summary, show, export",
)

Role = Annotated[str, typer.Option(help="Whose answers: champion or shadow")]


@app.command()
def summary(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False) -> None:
    """Count contents, classes, models, rejected files and batches"""
    from calotype.predictions import summary as counting

    tables = _tables()
    found = counting.summarize(tables)
    if as_json:
        import json

        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False, default=lambda when: when.isoformat()))
    elif not _say_if_empty(tables):
        _show_summary(found)


@app.command()
def show(
    path: Annotated[str | None, typer.Option(help="A glob of paths below the inbox, such as 'line-2/*.jpg'")] = None,
    image_id: Annotated[str | None, typer.Option(help="How the SHA-256 of the bytes begins")] = None,
    label: Annotated[str | None, typer.Option(help="The answer")] = None,
    below: Annotated[float | None, typer.Option(help="Confidences below this, the least confident first")] = None,
    abstained: Annotated[bool, typer.Option("--abstained", help="Only answers that the model withholds")] = False,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only files that cannot be read, and why")] = False,
    batch: Annotated[str | None, typer.Option(help="The batch that saw the file, or that answered")] = None,
    role: Role = "champion",
    limit: Annotated[int, typer.Option(min=1, help="Rows at most")] = 20,
) -> None:
    """Show files with their answers, the newest first"""
    from calotype import text_tables
    from calotype.counted import counted
    from calotype.predictions import listing

    wanted = listing.Wanted(path, image_id, label, below, abstained, rejected, batch, role, limit)
    listing.check_role(role)
    tables = _tables()
    if _say_if_empty(tables):
        return
    rows, count = listing.find(tables, wanted)
    if not rows:
        typer.echo("no file fits; name fewer conditions")
        return
    header = ("seen (UTC)", "path", "image_id", "label", "confidence", "version", "batch")
    of = f"{len(rows):,} of " if count > len(rows) else ""
    text_tables.show(f"{of}{counted(count, 'file')}", header, [_row(row) for row in rows])


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file; CSV leaves the embedding out")],
    role: Role = "champion",
) -> None:
    """Write one row for each file version with its answer"""
    from calotype.counted import counted
    from calotype.predictions import export as exporting

    tables = _tables()
    count = exporting.export(tables, to, role)
    typer.echo(f"{counted(count, 'row')} → {to}")


def _tables() -> Tables:
    from calotype.predictions import reading
    from calotype.project import Project

    return reading.open_tables(Project.find())


def _say_if_empty(tables: Tables) -> bool:
    if tables.is_empty:
        from calotype.project import Project

        project = Project.find()
        table, inbox = project.relative(project.predictions), project.relative(project.inbox)
        typer.echo(f"{table}: nothing was predicted yet; the scheduled batch takes what lies in {inbox}")
    return tables.is_empty


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    answer = row["label"] if row["label"] is not None else (row["reason"] or "no answer")
    confidence = "" if row["confidence"] is None else f"{row['confidence']:.4f}"
    return (
        f"{row['seen_at']:%Y-%m-%d %H:%M}",
        row["path"],
        (row["image_id"] or "")[:12],
        f"({answer})" if row["abstained"] or row["label"] is None else answer,
        confidence,
        "" if row["model_version"] is None else str(row["model_version"]),
        row["answered_in"] or row["batch_id"],
    )


def _show_summary(found: Summary) -> None:
    from calotype import text_tables
    from calotype.counted import counted

    rejected = ", ".join(f"{count:,} {code}" for code, count in found.rejected.items())
    mean = "" if found.mean_confidence is None else f", mean confidence {found.mean_confidence:.3f}"
    typer.echo(f"{counted(found.contents, 'image')} answered, {found.abstained:,} of them withheld (abstained){mean}")
    seen = counted(found.files, "file version")
    typer.echo(f"{seen} seen, {sum(found.rejected.values()):,} rejected ({rejected or 'none'})\n")
    text_tables.show(
        "By version and role",
        ("model", "role", "answers", "mean confidence", "abstained", "first (UTC)", "last (UTC)"),
        [
            (
                *(f"{one.model}/{one.version}", one.role, f"{one.answers:,}", f"{one.mean_confidence:.3f}"),
                *(f"{one.abstained:,}", f"{one.first:%Y-%m-%d %H:%M}", f"{one.last:%Y-%m-%d %H:%M}"),
            )
            for one in found.models
        ],
    )
    text_tables.show(
        "\nBy class",
        ("class", "images", "share", "mean confidence", "abstained"),
        [
            (
                one.label,
                f"{one.contents:,}",
                f"{one.share * 100:.1f} %",
                f"{one.mean_confidence:.3f}",
                f"{one.abstained:,}",
            )
            for one in found.classes
        ],
    )
    text_tables.show(
        "\nLast batches",
        ("when (UTC)", "batch", "files", "rejected", "answers"),
        [
            (f"{one.when:%Y-%m-%d %H:%M}", one.batch_id, f"{one.files:,}", f"{one.rejected:,}", f"{one.answers:,}")
            for one in found.batches
        ],
    )
