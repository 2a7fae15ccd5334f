"""Where everything lives: the layout of a project's folder, and the places that the environment may move."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from calotype.databases import without_password
from calotype.errors import UsageError

ALMOST_URL = re.compile(r"(s3|s3a|gs|gcs|az|abfs|abfss|file|ftp|sftp|https?|hdfs|memory):")


@dataclass(frozen=True)
class Project:
    """A project's folder and the names inside it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Find the project: ``CALOTYPE_ROOT``, or the nearest folder upwards that holds params.yaml and dvc.yaml.

        Raises
        ------
        UsageError
            If no such folder exists.
        """
        named = os.environ.get("CALOTYPE_ROOT")
        start = Path(named) if named else (start or Path.cwd())
        for folder in [start.absolute(), *start.absolute().parents]:
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
            if named:
                break
        if (start / "dvc.yaml").is_file():
            raise UsageError(f"{start}: params.yaml is missing. Restore it, say by `git checkout params.yaml`.")
        where = "CALOTYPE_ROOT names" if named else "no folder upwards of"
        raise UsageError(
            f"{where} {start}: expected a folder that holds params.yaml and dvc.yaml. Change into the project's folder."
        )

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_yaml(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def raw(self) -> Path:
        """Public sets that `calotype fetch` brought."""
        return self.root / "data" / "raw"

    @property
    def source_digest(self) -> Path:
        return self.root / "data" / "source.json"

    @property
    def dataset(self) -> Path:
        return self.root / "data" / "dataset"

    @property
    def splits(self) -> Path:
        return self.root / "data" / "splits.parquet"

    @property
    def bundle(self) -> Path:
        return self.root / "models" / "model"

    @property
    def run_json(self) -> Path:
        return self.root / "models" / "run.json"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    @property
    def cache(self) -> Path:
        """Checkpoints, downloaded bundles, locks: safe to delete when nothing runs."""
        return self.root / ".cache"

    @property
    def mounts(self) -> Path:
        """On which mount each inbox of this machine lay when a batch last found files in it."""
        return self.cache / "mounts.json"

    @property
    def engines(self) -> Path:
        """What `calotype tune` chose on this machine, a file for each bundle."""
        return self.cache / "engines"

    @property
    def services(self) -> Path:
        """State of `make up`: configuration, sockets, process ids."""
        return self.root / ".services"

    @property
    def inbox(self) -> str:
        """Folder or fsspec URL that the scheduled batch prediction reads (``CALOTYPE_PREDICT_INBOX``)."""
        return self._place("CALOTYPE_PREDICT_INBOX")

    @property
    def predictions(self) -> str:
        """Folder or URL below which the Delta tables of production lie (``CALOTYPE_PREDICT_OUTPUT``)."""
        return self._place("CALOTYPE_PREDICT_OUTPUT")

    @property
    def ledger(self) -> str:
        """The Delta table of promotions, a folder or a URL (``CALOTYPE_LEDGER``)."""
        return self._place("CALOTYPE_LEDGER")

    def table(self, name: str) -> str:
        """A table of production by its name: ``predictions``, ``files``, ``labels``, ``windows``."""
        return f"{self.predictions.rstrip('/')}/{name}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: of a server or a store (``MLFLOW_TRACKING_URI``), or else `mlflow_store`."""
        return os.environ.get("MLFLOW_TRACKING_URI") or self.mlflow_store

    @property
    def tracking_shown(self) -> str:
        """MLflow's address without a password, for messages."""
        return without_password(self.tracking_uri)

    @property
    def mlflow_store(self) -> str:
        """The database of MLflow (``CALOTYPE_MLFLOW_STORE``), SQLite under mlruns/ if none is named."""
        return os.environ.get("CALOTYPE_MLFLOW_STORE") or f"sqlite:///{self.mlruns / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> str:
        """URL below which each experiment keeps its artifacts (``CALOTYPE_MLFLOW_ARTIFACTS``)."""
        return os.environ.get("CALOTYPE_MLFLOW_ARTIFACTS", "").rstrip("/") or (self.mlruns / "artifacts").as_uri()

    def resolve(self, path: str | Path) -> Path:
        """Make a path of params.yaml absolute: relative ones start at the project's folder."""
        return self.root / Path(path).expanduser()

    def relative(self, path: Path | str) -> str:
        """Show a path the way a person in the project's folder would type it; a URL as it is."""
        if "://" in str(path):
            return str(path)
        path = Path(path)
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def place(self, named: str, variable: str) -> str:
        """A folder's absolute path, or a URL as it is.

        Parameters
        ----------
        named
            The folder, from the project's own if it is relative, or the URL.
        variable
            What named it, for the message.

        Raises
        ------
        UsageError
            If it begins like a URL and is none.
        """
        if "://" in named:
            return named
        if ALMOST_URL.match(named):
            raise UsageError(
                f"{variable}: found {named!r}; expected a folder's path, or a URL with two slashes such as "
                "s3://bucket/folder. Correct it."
            )
        return str(self.resolve(named))

    def _place(self, variable: str) -> str:
        return self.place(os.environ.get(variable) or PLACES[variable], variable)


PLACES = {
    "CALOTYPE_PREDICT_INBOX": "data/inbox",
    "CALOTYPE_PREDICT_OUTPUT": "data/predictions",
    "CALOTYPE_LEDGER": "mlruns/ledger",
    "MLFLOW_TRACKING_URI": "sqlite under mlruns/",
    "CALOTYPE_MLFLOW_STORE": "sqlite under mlruns/",
    "CALOTYPE_MLFLOW_ARTIFACTS": "mlruns/artifacts",
    "PREFECT_API_URL": "a temporary server for each flow run",
}
"""Places of operation that the environment may move, with what holds when it does not."""
