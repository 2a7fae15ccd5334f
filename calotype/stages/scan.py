"""Write a digest of the source's paths, sizes and times, and of the corrections: data/source.json.

DVC runs this stage every time, so it imports next to nothing; ingest depends on its output alone.
"""

from __future__ import annotations

from calotype.console import say
from calotype.data import fingerprint
from calotype.files import write_json
from calotype.params import Params
from calotype.project import Project

PREFIX = "scan"


def run(params: Params, project: Project) -> None:
    """Digest the source's listing.

    Raises
    ------
    DataError
        If there is no source at ``ingest.source``, or no table at ``ingest.corrections``.
    """
    found = fingerprint.take(params.ingest, project)
    write_json(project.source_digest, found)
    files = f"{found['files']:,} {'file' if found['files'] == 1 else 'files'}"
    say(PREFIX, f"{params.ingest.source}: {files}, {int(found['bytes']) / 1e6:,.1f} MB")
