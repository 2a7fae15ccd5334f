"""Where notifications go: addresses from the environment, kept in Prefect as a block, never printed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from calotype.errors import CalotypeError, UsageError
from calotype.services import web

VARIABLE = "CALOTYPE_NOTIFY_URLS"
BLOCK = "calotype-notifications"

BLOCK_TYPE = "slack-webhook"
"""Of Prefect's blocks the one that hands any address that is not Slack's to Apprise as it is."""


def addresses(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses of ``CALOTYPE_NOTIFY_URLS``, separated by commas or spaces.

    Raises
    ------
    UsageError
        If one is none that Apprise knows. The message counts them and shows none: each may hold a password.
    """
    # A comma inside an address stays: only one before the next scheme separates.
    found = [
        url
        for url in re.split(r"[\s,]+(?=[a-zA-Z][\w+.-]*://)|\s+", environment.get(VARIABLE, "").strip(", \n\t"))
        if url
    ]
    if found:
        from apprise import Apprise

        for place, url in enumerate(found, 1):
            if not Apprise().add(url):
                raise UsageError(
                    f"{VARIABLE}: address {place} of {len(found)} is none that Apprise knows. Write it as Apprise "
                    "does, say mailto://user:password@host or slack://…, and separate addresses by spaces."
                )
    return found


def notification_block(api: str, urls: Sequence[str]) -> str | None:
    """Keep the addresses in Prefect, encrypted, or remove them where there are none; return the block's id."""
    there = _block(api)
    if there and not urls:
        web.ask(f"{api}/block_documents/{there['id']}", method="DELETE")
    if not urls:
        return None
    try:
        return _keep(api, there, {"url": " ".join(urls), "notify_type": "warning"})
    except CalotypeError:
        # The refusal repeats what was sent.
        raise CalotypeError(f"{VARIABLE}: Prefect's server refused to keep the addresses. See its log.") from None


def _keep(api: str, there: Mapping[str, Any] | None, data: dict[str, str]) -> str:
    if there:
        changed = {"data": data, "merge_existing_data": False}
        web.ask(f"{api}/block_documents/{there['id']}", changed, method="PATCH")
        return str(there["id"])
    kind = web.ask(f"{api}/block_types/slug/{BLOCK_TYPE}")["id"]
    schema = web.ask(f"{api}/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0]["id"]
    document = {"name": BLOCK, "data": data, "block_type_id": kind, "block_schema_id": schema}
    return str(web.ask(f"{api}/block_documents/", document)["id"])


def _block(api: str) -> dict[str, Any] | None:
    found = web.ask(f"{api}/block_documents/filter", {"block_documents": {"name": {"any_": [BLOCK]}}})
    return dict(found[0]) if found else None
