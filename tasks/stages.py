"""Run one stage of the line: `dvc repro --single-item STAGE`, its output in the task's log."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from calotype.errors import CalotypeError
from calotype.project import Project
from tasks import artifacts
from tasks.child import running

STAGES = ("scan", "ingest", "split", "train", "evaluate")
LAST_LINES = 15
"""How many of a failed stage's lines its error repeats."""

Outcome = Literal["ran", "unchanged", "restored"]


@dataclass(frozen=True)
class StageResult:
    """What became of a stage: it ran, was up to date, or came back from DVC's cache."""

    name: str
    outcome: Outcome
    seconds: float


class StageError(CalotypeError):
    """A stage failed; its last lines say why.

    Attributes
    ----------
    exit_code
        The stage's own: 2 bad parameters, 3 bad data, negative or above 128 ended by a signal; 1 where DVC failed.
    busy
        Whether another DVC process stood in the way.
    """

    def __init__(self, name: str, exit_code: int, lines: list[str]) -> None:
        self.exit_code = exit_code
        self.busy = any("Unable to acquire lock" in line or "is busy, it is being blocked" in line for line in lines)
        super().__init__("\n".join([f"{name}: failed with exit code {exit_code}. Its last lines:", *lines]))


def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Claim that a failure may pass: DVC was busy, or the stage was killed, and resumes. Bad data stays bad."""
    error = state.data
    return isinstance(error, StageError) and (error.busy or error.exit_code < 0 or error.exit_code > 128)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[5, 30],
    retry_condition_fn=may_pass,
)
def run_stage(name: str) -> StageResult:
    """Bring a stage's outputs up to date and publish what it found.

    Raises
    ------
    StageError
        If the stage fails; the message ends with its last lines.
    """
    project = Project.find()
    started = time.monotonic()
    try:
        outcome = reproduce(name, project)
    except StageError:
        artifacts.publish_schema_failures(name, project, since=time.time() - (time.monotonic() - started))
        raise
    artifacts.publish(name, project)
    return StageResult(name, outcome, round(time.monotonic() - started, 1))


def reproduce(name: str, project: Project) -> Outcome:
    """Call DVC for one stage and stream what it prints into the log.

    Raises
    ------
    StageError
        If DVC or the stage fails.
    """
    log = get_run_logger()
    command = [sys.executable, "-P", "-m", "dvc", "repro", "--single-item", name]
    outcome: Outcome = "ran"
    last: deque[str] = deque(maxlen=LAST_LINES)
    with running(command, folder=project.root, environment=environment()) as process:
        for line in process.stdout or ():
            if text := line.rstrip():
                log.info("%s", text)
                last.append(text)
                outcome = _outcome(name, text) or outcome
        code = process.wait()
    if code:
        raise StageError(name, _exit_code(name, list(last), code), list(last))
    return outcome


def environment() -> dict[str, str]:
    """Environment of a stage: ours, with this interpreter named, and the flow run for MLflow's tags."""
    values = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
    if sys.prefix != sys.base_prefix:
        values["VIRTUAL_ENV"] = sys.prefix
    names = {
        "CALOTYPE_FLOW_RUN_ID": flow_run.get_id(),
        "CALOTYPE_FLOW_RUN_NAME": flow_run.get_name(),
        "CALOTYPE_REASON": flow_run.get_parameters().get("reason"),
    }
    return values | {name: str(value) for name, value in names.items() if value}


@task(task_run_name="tag", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[5, 30])
def tag_run(reason: str) -> None:
    """Put the reason of a training into its flow run's tags, where the list of runs shows it."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run.get_id())))
        client.update_flow_run(run.id, tags=sorted({*run.tags, reason}))


def _outcome(name: str, line: str) -> Outcome | None:
    if line == f"Stage '{name}' didn't change, skipping":
        return "unchanged"
    return "restored" if line.startswith(f"Stage '{name}' is cached") else None


def _exit_code(name: str, lines: list[str], code: int) -> int:
    """Find the stage's own exit code: DVC's is 255 whatever happened."""
    pattern = re.compile(rf"failed to reproduce '{re.escape(name)}'.* exited with (-?\d+)")
    found = [int(match[1]) for line in lines if (match := pattern.search(line))]
    return found[-1] if found else (code if code < 0 else 1)
