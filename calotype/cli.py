"""The command `calotype`: one verb per stage and per act. Imports nothing heavy before a verb needs it."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from calotype import __version__
from calotype.errors import CalotypeError, UsageError
from calotype.predictions import commands as predictions_commands
from calotype.production import commands as labels_commands
from calotype.services import commands as services_commands


class _Sections(TyperGroup):
    """Commands under the headings of their panels, as plain text: rich would take longer to import than all else."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            sections.setdefault(command.rich_help_panel, []).append((name, command.get_short_help_str(limit=100)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=_Sections,
    rich_markup_mode=None,
    help="From a folder of labelled images to scheduled predictions that anyone can trace back and print again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

GARBAGE_AFTER = 100_000
"""Objects made, and not freed, before Python looks for cycles among the youngest; its own setting is 700."""

SPINS = "10000"
"""Turns for which a thread of torch waits for the others before it sleeps; the library's own number is 300,000.

Where another program holds a core that is nearly twice as fast, and where none does 3 % slower.
"""

START = "Start"
STAGES = "Stages (DVC calls these)"
MODELS = "Models and predictions"
TRUST = "Trust"

app.add_typer(predictions_commands.app, name="predictions", rich_help_panel=MODELS)
app.add_typer(labels_commands.app, name="labels", rich_help_panel=MODELS)


def main() -> None:
    """Run the command; an error of ours is its message on stderr and its exit code, never a traceback."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # Imports make a million objects that stay: looking through them again and again costs a fifth of a short command.
    gc.set_threshold(GARBAGE_AFTER, *gc.get_threshold()[1:])
    try:
        app()
    except CalotypeError as error:
        print(f"calotype: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"calotype: {error}. Check the path, its permissions and the free disk space.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("calotype: interrupted", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False) -> None:
    if version:
        typer.echo(f"calotype {__version__}")
        raise typer.Exit


@app.command(rich_help_panel=START)
def use(
    source: Annotated[str, typer.Argument(help="digits, fashion-mnist, or the path of labelled images")],
) -> None:
    """Fit params.yaml to a source; show the difference"""
    from calotype.project import Project
    from calotype.use import use as use_source

    use_source(Project.find(), source)


@app.command(rich_help_panel=START)
def fetch(
    name: Annotated[str, typer.Argument(help="digits or fashion-mnist")],
    origin: Annotated[Path | None, typer.Option("--from", help="A folder that holds the files already")] = None,
) -> None:
    """Bring a public set to data/raw/"""
    from calotype.fetch import fetch as fetch_set
    from calotype.project import Project

    fetch_set(Project.find(), name, origin)


@app.command(rich_help_panel=START)
def params() -> None:
    """Print the values in force and where each comes from"""
    from calotype.parameters_table import show
    from calotype.project import Project

    show(Project.find())


@app.command(rich_help_panel=START)
def demo(
    source: Annotated[str, typer.Argument(help="digits, fashion-mnist, or the path of labelled images")] = "digits",
) -> None:
    """Run the whole line on a source, from images to predictions"""
    from calotype import demo as demonstration
    from calotype.project import Project

    typer.echo(demonstration.run(Project.find(), source))


@app.command(rich_help_panel=STAGES)
def scan() -> None:
    """Write a digest of the source's paths, sizes and times"""
    _run_stage("scan")


@app.command(rich_help_panel=STAGES)
def ingest() -> None:
    """Read each image of the source once, check it, and pack it"""
    _run_stage("ingest")


@app.command(rich_help_panel=STAGES)
def split() -> None:
    """Send each image to train, val or test, for good"""
    _run_stage("split")


@app.command(rich_help_panel=STAGES)
def train() -> None:
    """Train the network; resume where a killed training stopped"""
    _run_stage("train")


@app.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Score the model on the test split and write the report"""
    _run_stage("evaluate")


@app.command(rich_help_panel=STAGES)
def audit() -> None:
    """Rank the images whose label is in doubt (dvc repro audit/dvc.yaml)"""
    _run_stage("audit")


@app.command(rich_help_panel=MODELS)
def register() -> None:
    """Make the trained model a version: the challenger"""
    from calotype.releases import registry

    project, values = _project_and_params()
    typer.echo(registry.register(project, values).summary())


@app.command(rich_help_panel=MODELS)
def promote(
    version: Annotated[int | None, typer.Argument(min=1, help="The contender; without one, the challenger")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it whatever the gate says; recorded as forced")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why it is forced; kept in the ledger")] = "",
) -> None:
    """Make the challenger champion, if it earns it"""
    from calotype.releases import promotion

    project, values = _project_and_params()
    typer.echo(promotion.promote(project, values, version, force=force, reason=reason).summary())


@app.command(rich_help_panel=MODELS)
def rollback(
    to: Annotated[int | None, typer.Option(min=1, help="A version; without one, the champion before this one")] = None,
) -> None:
    """Make an earlier champion champion again, once it has answered"""
    from calotype.releases import golden

    # It imports torch while MLflow is imported here.
    with golden.fresh_process() as fresh:
        from calotype.releases import promotion

        project, values = _project_and_params()
        typer.echo(promotion.rollback(project, values, to, fresh=fresh).summary())


@app.command(rich_help_panel=MODELS)
def history(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array")] = False,
) -> None:
    """Show every decision about the champion, newest first"""
    from calotype.releases import history as decisions

    project, values = _project_and_params()
    entries = decisions.history(project, values)
    if as_json:
        typer.echo(decisions.as_json(entries))
    else:
        decisions.show(entries, values)


@app.command(rich_help_panel=MODELS)
def predict(
    source: Annotated[
        Path | None, typer.Argument(help="A folder of images, or a CSV or Parquet table with a column path")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Where the rows go: a .parquet, .csv or .jsonl file")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; train.device if not given")] = None,
    batch_size: Annotated[str, typer.Option(help="Images of one forward pass; auto: as tuned")] = "auto",
    workers: Annotated[str, typer.Option(help="Threads that read, decode and classify; auto: one a core")] = "auto",
    rescore: Annotated[
        bool, typer.Option("--rescore", help="The inbox: answer again what an earlier version answered")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The inbox: say what would be, and write nothing")] = False,
) -> None:
    """Classify the inbox, or SOURCE --to FILE: a row for each file"""
    from calotype import lean

    if (source is None) != (to is None):
        given, lacking = ("SOURCE", "--to FILE") if to is None else ("--to", "SOURCE")
        raise UsageError(f"found {given} without {lacking}; expected both, or neither for the inbox and its tables.")
    means = (device, _number("--batch-size", batch_size), _number("--workers", workers))
    if source is None or to is None:
        if any(means):
            raise UsageError(
                "--device, --batch-size and --workers go with SOURCE --to FILE; the inbox takes params.yaml's."
            )
        from calotype.predictions import scheduled

        typer.echo(scheduled.predict_inbox(*_project_and_params(), dry_run=dry_run, rescore=rescore).summary())
        return
    if rescore or dry_run:
        raise UsageError("--rescore and --dry-run are for the inbox; found SOURCE. Leave out one or the other.")
    lean.spare_pandas()
    from calotype.predictions import answering, prediction

    summary = prediction.predict_to_file(*_project_and_params(), source, to, answering.Means(*means))
    typer.echo(summary.summary())


@app.command(rich_help_panel=MODELS)
def tune(
    champion: Annotated[
        bool, typer.Option("--champion", help="For the registered champion; without it, for the model in models/")
    ] = False,
) -> None:
    """Measure the engines on this machine; predict with the fastest"""
    from calotype.predictions import tuning

    project, values = _project_and_params()
    typer.echo(tuning.tune(project, values, champion=champion))


@app.command(rich_help_panel=MODELS)
def monitor() -> None:
    """Judge the predictions since the last window: do they drift?"""
    from calotype.monitoring import monitor as monitoring

    project, values = _project_and_params()
    monitored = monitoring.monitor(project, values)
    typer.echo(monitored.summary())
    if monitored.windows:
        from calotype.monitoring import runs

        runs.record(project, values, project.resolve(monitored.page))


@app.command(rich_help_panel=MODELS)
def sample(
    count: Annotated[int, typer.Argument(min=1, help="How many images")],
    to: Annotated[Path, typer.Option(help="The folder that receives them")],
) -> None:
    """Copy images of the test split into a folder"""
    from calotype.project import Project
    from calotype.sample import sample as sample_images

    typer.echo(sample_images(Project.find(), count, to))


@app.command(rich_help_panel=TRUST)
def trace(
    what: Annotated[str, typer.Argument(help="A batch, an image file, a version (3 or digits/3), or an MLflow run")],
    path: Annotated[str | None, typer.Argument(help="With a batch: the path of one of its rows")] = None,
    images: Annotated[bool, typer.Option("--images", help="List the images that the model learned from")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Print the chain from a prediction back to its source"""
    from calotype.provenance import trace as tracing
    from calotype.provenance import trace_text

    project, values = _project_and_params()
    found = tracing.trace(project, values, what, path, images=images)
    _print_json(found.as_json()) if json else trace_text.show(found)
    raise typer.Exit(0 if found.is_whole else 1)


@app.command(rich_help_panel=TRUST)
def reproduce(
    version: Annotated[str, typer.Argument(help="A version: 3 or digits/3")],
) -> None:
    """Train a version again from its records and compare"""
    from calotype.provenance import reproduce as reproduction

    project, values = _project_and_params()
    verdict = reproduction.reproduce(project, values, version)
    typer.echo(verdict.summary())
    raise typer.Exit(0 if verdict.agrees else 1)


@app.command(rich_help_panel=TRUST)
def verify() -> None:
    """Hash data, models, cache and registry again; name what differs"""
    from calotype.provenance import verify as verification

    project, values = _project_and_params()
    found = verification.verify(project, values)
    typer.echo(found.summary())
    raise typer.Exit(0 if found.is_sound else 3)


app.registered_commands += services_commands.app.registered_commands


def _number(option: str, text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"{option}: found {text!r}; expected auto or a number from 1.")


def _run_stage(name: str) -> None:
    from calotype.project import Project
    from calotype.provenance import lineage

    project = Project.find()
    with lineage.stage(name, project):
        importlib.import_module(f"calotype.stages.{name}").run(_load(project), project)


def _project_and_params() -> tuple[Any, Any]:
    from calotype.project import Project

    project = Project.find()
    return project, _load(project)


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _load(project: Any) -> Any:
    from calotype import params as parameters

    return parameters.load(project.params)
