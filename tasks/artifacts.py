"""What a run's page shows in Prefect: counts, metrics, the confusion matrix as a picture, links to MLflow."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from calotype import servers
from calotype.files import read_json
from calotype.monitoring.monitor import Monitored
from calotype.monitoring.windows import Tested
from calotype.predictions.batch_summary import BatchSummary
from calotype.project import Project
from calotype.releases.promotion import Promotion

ROWS = 200
"""Most rows of a table that a page shows."""


def publish(stage: str, project: Project) -> None:
    """Publish what a stage found; a stage without figures publishes nothing."""
    publisher = {"ingest": _ingest, "split": _split, "train": _train, "evaluate": _evaluate}.get(stage)
    if publisher:
        publisher(project)


def publish_schema_failures(stage: str, project: Project, *, since: float) -> None:
    """Publish the rows that broke a schema, if the stage wrote them after the time ``since`` (seconds)."""
    path = project.reports / "schema_failures.parquet"
    if not path.exists() or path.stat().st_mtime < since:
        return
    rows = _rows(path)
    create_table_artifact(
        key=f"{stage}-schema-failures",
        table=rows[:ROWS],
        description=f"**{stage}**: {len(rows):,} cases break the schema; all are in `{project.relative(path)}`.",
    )


def publish_text(key: str, text: str) -> None:
    """Publish a paragraph of Markdown under a key that the Artifacts page lists."""
    create_markdown_artifact(key=key, markdown=text)


def publish_batch(summary: BatchSummary) -> None:
    """Publish what a scheduled batch did: counts by class, what was rejected and why, rate, page."""
    line = summary.summary().splitlines()[0]
    parts = [f"## Batch {summary.batch_id}", line] if summary.predicted else [f"## {line}"]
    if remarks := summary.remarks():
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    if summary.predicted:
        share = f"{summary.abstained:,} ({summary.abstained / summary.predicted:.1%})"
        parts.append(
            table(
                ["new files", "predicted", "abstained", "rejected", "files/s"],
                [(summary.new, summary.predicted, share, sum(summary.rejected.values()), round(summary.rate, 1))],
            )
        )
        labels = sorted(summary.labels.items(), key=lambda pair: (-pair[1], pair[0]))[:ROWS]
        rows = [(name, count, f"{count / summary.predicted:.1%}") for name, count in labels]
        parts.append(table(["label", "images", "share"], rows))
    if summary.rejected:
        parts.append(table(["rejected", "files"], sorted(summary.rejected.items())))
    publish_text("predictions", "\n\n".join(parts))


def publish_windows(project: Project, monitored: Monitored, runs: Mapping[str, str]) -> None:
    """Publish the verdict on each window with its tests, and a link to its MLflow run (``runs``, by window key)."""
    parts = []
    for window in monitored.windows:
        parts.append(f"## {window.model}: {window.verdict}\n\n{window.images:,} predictions, {window.span}")
        if window.reason:
            parts.append(f"**{window.reason}**")
        rows = [(test.title, test.p_holm, test.p, test.statistic, _shown_difference(test)) for test in window.tests]
        parts.append(table(["test", "p (Holm)", "p", "statistic", "difference of the means"], rows))
        parts.append(f"MLflow run: {mlflow_link(project, runs[window.key])}")
    if monitored.page:
        parts.append(f"Plots and the most unusual images: `{monitored.page}`")
    publish_text("monitoring", "\n\n".join([*parts, *monitored.notes]))


def publish_promotion(promotion: Promotion) -> None:
    """Publish a verdict with its reasons, its evidence as a table, and recalls by class as another."""
    first, *reasons = promotion.ruling.reasons
    heading = f"{promotion.verdict}: {first}" if promotion.entry is not None else first
    parts = [f"## {heading}", "\n".join(f"- {reason}" for reason in reasons)]
    if promotion.entry is not None:
        parts.append(f"Ledger entry {promotion.entry.sequence}, evidence `{promotion.entry.evidence_digest}`")
    evidence = dict(promotion.ruling.evidence.get("evidence") or {})
    classes = evidence.pop("classes", [])
    if evidence:
        parts.append(table(["evidence", "value"], list(flattened(evidence))[:ROWS]))
    if classes:
        parts.append(
            table(["class", "images", "recall", "change", "p (Holm)"], [_recall(row) for row in classes][:ROWS])
        )
    publish_text("promotion", "\n\n".join(part for part in parts if part))


def flattened(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Go through nested plain values, each with its path: ``("challenger.accuracy", "0.98 (0.97 – 0.99)")``."""
    if isinstance(values, Mapping) and values.keys() != {"value", "low", "high"}:
        for key, inner in values.items():
            yield from flattened(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _figure(values)


def _recall(row: Mapping[str, Any]) -> tuple[Any, ...]:
    against = row["against"] or {"change": None, "p_holm": None}
    return row["name"], row["images"], _figure(row["recall"]), _figure(against["change"]), _figure(against["p_holm"])


def _shown_difference(test: Tested) -> str:
    if test.difference is None:
        return ""
    return f"{_cell(test.difference)} ({_cell(test.low)} – {_cell(test.high)})"


def _figure(value: Any) -> Any:
    """A figure as a cell: with its interval, if it has one."""
    if isinstance(value, Mapping):
        return f"{_cell(value['value'])} ({_cell(value['low'])} – {_cell(value['high'])})"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else value


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a Markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _ingest(project: Project) -> None:
    import polars as pl

    manifest = pl.scan_parquet(project.dataset / "manifest.parquet")
    counts = manifest.group_by("label").len().sort("label").collect().rows()
    rejects = pl.read_parquet(project.dataset / "rejects.parquet").group_by("code").len().sort("code").rows()
    total = sum(count for _, count in counts)
    parts = [f"## Ingested {total:,} images of {len(counts):,} classes", table(["class", "images"], counts[:ROWS])]
    rejected = table(["reject code", "files"], rejects) if rejects else "No file was rejected."
    publish_text("ingest-counts", "\n\n".join([*parts, rejected]))


def _split(project: Project) -> None:
    import polars as pl

    counts = pl.read_csv(project.root / "data" / "split_counts.csv")
    publish_text("split-counts", "## Images per class and split\n\n" + table(counts.columns, counts.rows()[:ROWS]))


def _train(project: Project) -> None:
    run = read_json(project.run_json)
    history, best = run["history"], run["best_epoch"]
    shown = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "images_per_second"]
    rows = [[epoch.get(name, "") for name in shown] for epoch in history]
    text = f"## Best epoch: {best} of {len(history)}\n\nMLflow run: {mlflow_link(project, run['mlflow_run_id'])}\n\n"
    publish_text("training", text + table(shown, rows[-ROWS:]))


def _evaluate(project: Project) -> None:
    metrics = with_intervals(read_json(project.reports / "metrics.json"))
    picture = base64.b64encode((project.reports / "plots" / "confusion.png").read_bytes()).decode()
    publish_text("metrics", "## Test metrics\n\n" + table(["metric", "value", "95 % interval"], metrics[:ROWS]))
    publish_text(
        "confusion-matrix",
        f"## Confusion matrix on the test split\n\n![Confusion matrix](data:image/png;base64,{picture})",
    )


def mlflow_link(project: Project, run_id: str) -> str:
    """Link to a run's page where a server shows it; else name the run and the command that shows it."""
    from calotype import tracking

    address = servers.mlflow_address(project)
    if not address:
        return f"`{run_id}` (`calotype ui` shows it)"
    experiment = tracking.connect(project).get_run(run_id).info.experiment_id
    return f"[{run_id}]({address}/#/experiments/{experiment}/runs/{run_id})"


def with_intervals(metrics: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Pair each figure with its interval: name, value, and ``"0.97 – 0.99"`` where one is known."""
    rows = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            continue
        interval = metrics.get(f"{name}_interval")
        rows.append((name, value, f"{_cell(interval['low'])} – {_cell(interval['high'])}" if interval else ""))
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    import polars as pl

    return [{name: str(value) for name, value in row.items()} for row in pl.read_parquet(path).to_dicts()]
