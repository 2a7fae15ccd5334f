"""Addresses of notifications: separated as people separate them, and secret."""

from __future__ import annotations

import pytest

from calotype.errors import UsageError
from calotype.project import Project
from calotype.servers import environment_for
from calotype.services.notifications import addresses


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", []),
        ("json://127.0.0.1:1/x", ["json://127.0.0.1:1/x"]),
        ("json://a, json://b  json://c,json://d\njson://e", [f"json://{host}" for host in "abcde"]),
        ("mailto://u:p@h.org?to=a@b.org,c@d.org json://a", ["mailto://u:p@h.org?to=a@b.org,c@d.org", "json://a"]),
    ],
)
def test_addresses_are_separated_by_commas_or_spaces(given: str, found: list[str]) -> None:
    assert addresses({"CALOTYPE_NOTIFY_URLS": given}) == found


@pytest.mark.parametrize("wrong", ["nonsense://hunter2", "hunter2"])
def test_an_address_that_apprise_does_not_know_is_counted_and_never_shown(wrong: str) -> None:
    with pytest.raises(UsageError, match="CALOTYPE_NOTIFY_URLS: address 2 of 2 is none that Apprise knows") as caught:
        addresses({"CALOTYPE_NOTIFY_URLS": f"json://user:hunter2@a {wrong}"})
    assert "hunter2" not in str(caught.value)


def test_servers_worker_and_flows_never_see_the_addresses(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_NOTIFY_URLS", "json://user:hunter2@a")
    assert "hunter2" not in str(environment_for(project))
