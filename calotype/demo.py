"""`make demo`: the whole line on one source, each command shown as a person would type it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from calotype import params as parameters
from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.files import read_json
from calotype.project import Project

Result = TypeVar("Result")

INBOX_IMAGES = 100
"""Images of the test split that the demo lays in the inbox: none of them was trained on."""


def run(project: Project, source: str) -> str:
    """Fit params.yaml to a source, reproduce the line, register, promote and predict.

    Returns
    -------
    str
        The closing lines: accuracy, version promoted, predictions, and what to try next.

    Raises
    ------
    UsageError
        If the inbox is no folder.
    CalotypeError
        If a step fails; what it printed stands above.
    """
    from calotype.use import use

    if "://" in project.inbox:
        raise UsageError(
            f"CALOTYPE_PREDICT_INBOX is {project.inbox}: the demo lays images into a folder. Unset it, or name one."
        )
    _step(f"calotype use {source}", lambda: use(project, source))
    _step("dvc repro", lambda: _reproduce(project))
    params = parameters.load(project.params)

    from calotype.predictions import scheduled
    from calotype.releases import promotion, registry
    from calotype.sample import sample

    registered = _step("calotype register", lambda: registry.register(project, params))
    say("demo", registered.summary())
    title = f"{registered.name} version {registered.version} is the champion already"
    if registered.alias != registry.CHAMPION:
        title = _step("calotype promote", lambda: promotion.promote(project, params)).summary()
    inbox = project.relative(project.inbox)
    _step(f"calotype sample {INBOX_IMAGES} --to {inbox}", lambda: sample(project, INBOX_IMAGES, Path(project.inbox)))
    batch = _step("calotype predict", lambda: scheduled.predict_inbox(project, params))
    return "\n".join(["", _accuracy(project), title, batch.summary(), "", _next_commands(project)])


def _step(command: str, act: Callable[[], Result]) -> Result:
    print(f"\n$ {command}", file=sys.stderr, flush=True)
    return act()


def _reproduce(project: Project) -> None:
    dvc = [sys.executable, "-m", "dvc", "repro"]
    if subprocess.run(dvc, cwd=project.root, check=False).returncode:
        raise CalotypeError("demo: `dvc repro` failed; its last lines above say why. Mend that, then run it again.")


def _accuracy(project: Project) -> str:
    metrics = read_json(project.reports / "metrics.json")
    interval = metrics["accuracy_interval"]
    return (
        f"Test accuracy {metrics['accuracy']:.1%} (95 % interval {interval['low']:.1%} to {interval['high']:.1%}, "
        f"{metrics['images']:,} images)"
    )


def _next_commands(project: Project) -> str:
    report = project.relative(project.reports / "report.html")
    return "\n".join(
        [
            f"The report is {report}: every figure, and the mistakes as pictures. Next:",
            "  make ui            compare runs in MLflow",
            "  make up            both servers, and the schedules",
            f"  .venv/bin/calotype predict {project.relative(project.inbox)} --to predictions.csv",
        ]
    )
