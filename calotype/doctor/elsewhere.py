"""What lies on Postgres and S3: does it let us in?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from calotype import databases, object_store
from calotype.doctor.check import Check, ok, problem
from calotype.errors import CalotypeError
from calotype.project import Project


def checks(project: Project) -> Iterator[Check]:
    """Ask each database and each place on S3 that the environment names."""
    for variable in ("MLFLOW_TRACKING_URI", "CALOTYPE_MLFLOW_STORE", *databases.PREFECT):
        url = os.environ.get(variable, "")
        if databases.is_postgres(url):
            yield _asked("Postgres", databases.without_password(url), partial(databases.require, url, variable))
    places = {
        "CALOTYPE_MLFLOW_ARTIFACTS": ("MLflow's artifacts", project.mlflow_artifacts),
        "CALOTYPE_LEDGER": ("the ledger", project.ledger),
        "CALOTYPE_PREDICT_OUTPUT": ("the tables of production", project.predictions),
        "CALOTYPE_PREDICT_INBOX": ("the inbox", project.inbox),
    }
    for variable, (what, url) in places.items():
        if object_store.is_s3(url):
            yield _asked("S3", url, partial(object_store.require, url, what, variable))


def _asked(name: str, shown: str, ask: Callable[[], None]) -> Check:
    try:
        ask()
    except CalotypeError as error:
        # It says what to do, too.
        return problem(name, str(error), "")
    return ok(name, f"{shown} lets us in")
