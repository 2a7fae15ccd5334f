"""The history as a person reads it, and as a machine does."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import UTC, datetime

import pytest
from rich.console import Console

from calotype import params
from calotype.errors import UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import history, ledger
from calotype.releases.ledger import Draft, Entry

MOMENT = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
FIRST = Entry(1, "digits", 1, None, 1, "promote", "a" * 64, "first", "amber-otter", MOMENT)
HELD = Entry(2, "digits", 2, 1, 1, "hold", "b" * 64, "not ahead", "ann@desk", MOMENT)
FORCED = Entry(3, "digits", 2, 1, 2, "forced", "c" * 64, "a [bold] step", "ann@desk", MOMENT)


def shown(values: Params, *entries: Entry, width: int = 120) -> list[str]:
    text = io.StringIO()
    history.show(entries, values, Console(file=text, width=width))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_each_entry_says_who_was_champion_before_and_after_and_why(values: Params) -> None:
    lines = shown(values, FORCED, HELD, FIRST)
    assert lines[0] == "Champions of digits"
    assert lines[2].split() == ["3", "2026-11-22", "18:30", "2", "forced", "1", "→", "2", "ann@desk"]
    assert lines[3].split() == ["a", "[bold]", "step"]
    assert lines[4].split() == ["2", "2026-11-22", "18:30", "2", "hold", "1", "ann@desk"]
    assert lines[6].split() == ["1", "2026-11-22", "18:30", "1", "promote", "none", "→", "1", "amber-otter"]
    assert lines[7].split() == ["first"]


def test_on_a_narrow_terminal_long_reasons_wrap_below_their_entry(values: Params) -> None:
    reason = "digits version 2 is shown to be ahead of the champion on every image that neither of the two has seen"
    lines = shown(values, dataclasses.replace(FORCED, reason=reason), width=80)
    assert max(map(len, lines)) <= 80
    assert lines[2].split()[:3] == ["3", "2026-11-22", "18:30"]
    assert " ".join(" ".join(lines[3:]).split()) == reason


def test_without_an_entry_it_says_what_to_do(values: Params) -> None:
    assert shown(values) == ["nothing was decided about digits yet: run `calotype promote`"]


def test_machines_get_every_field_and_an_iso_time() -> None:
    (told,) = json.loads(history.as_json([FORCED]))
    assert told == {
        "sequence": 3,
        "model": "digits",
        "version": 2,
        "from_version": 1,
        "to_version": 2,
        "verdict": "forced",
        "evidence_digest": "c" * 64,
        "reason": "a [bold] step",
        "who": "ann@desk",
        "at": "2026-11-22T18:30:00+00:00",
        "bundle_digest": None,
        "run_id": None,
    }


def test_the_ledger_tells_alone_where_the_registry_cannot_be_reached(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    values = params.load(project.params)
    ledger.commit(project.ledger, values.name, "ann", lambda _: Draft(1, 1, "promote", "first"))
    ledger.commit(project.ledger, values.name, "ann", lambda _: Draft(2, 2, "promote", "better"))
    assert [entry.version for entry in history.history(project, values)] == [2, 1]
    said = capsys.readouterr().err
    assert said.startswith("history: the alias was not compared with the ledger: mlflow: no answer from")
    assert said.count("\n") == 1


def test_a_ledger_that_does_not_govern_the_model_is_not_shown(registry_project: Project, named: Params) -> None:
    from calotype.releases import projection, versions

    with versions.connected(registry_project) as registry:
        registry.client.create_registered_model(named.name)
        registry.tag_model(named.name, {projection.LEDGER: "another"})
    with pytest.raises(UsageError, match="Set CALOTYPE_LEDGER"):
        history.history(registry_project, named)
