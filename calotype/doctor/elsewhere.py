"""What lies on S3: may we list it?"""

from __future__ import annotations

from collections.abc import Iterator

from calotype import object_store
from calotype.doctor.check import Check, ok, problem
from calotype.errors import CalotypeError
from calotype.project import Project


def checks(project: Project) -> Iterator[Check]:
    """Ask for each place on S3 that the environment names."""
    places = {
        "CALOTYPE_MLFLOW_ARTIFACTS": ("MLflow's artifacts", project.mlflow_artifacts),
        "CALOTYPE_LEDGER": ("the ledger", project.ledger),
        "CALOTYPE_PREDICT_OUTPUT": ("the tables of production", project.predictions),
        "CALOTYPE_PREDICT_INBOX": ("the inbox", project.inbox),
    }
    for variable, (what, url) in places.items():
        if not object_store.is_s3(url):
            continue
        try:
            object_store.require(url, what, variable)
        except CalotypeError as error:
            yield problem("S3", str(error), "Nothing that needs it works until it answers.")
        else:
            yield ok("S3", f"{url} lets us in")
