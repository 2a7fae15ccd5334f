"""Write a digest of the source's paths, sizes and times: data/source.json.

DVC runs this stage every time, so it imports next to nothing; ingest depends on its output alone.
"""

from __future__ import annotations

from calotype.console import say
from calotype.files import write_json
from calotype.fingerprint import fingerprint
from calotype.params import Params
from calotype.project import Project

PREFIX = "scan"


def run(params: Params, project: Project) -> None:
    """Digest the source's listing.

    Raises
    ------
    DataError
        If there is no source at ``ingest.source``.
    """
    found = fingerprint(project.resolve(params.ingest.source), params.ingest.source)
    write_json(project.source_digest, found)
    say(PREFIX, f"{params.ingest.source}: {found['files']:,} files, {int(found['bytes']) / 1e6:,.1f} MB")
