"""prefect.yaml against the flows that it deploys."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from calotype.services.automations import SILENCE_S
from tasks.monitoring import DRIFT
from tasks.production import DROPPED

PREFECT_YAML = Path(__file__).parents[2] / "prefect.yaml"


@pytest.fixture(scope="module")
def deployments() -> dict[str, dict[str, Any]]:
    listed = YAML(typ="safe").load(PREFECT_YAML)["deployments"]
    return {f"{flow_of(deployment).name}/{deployment['name']}": deployment for deployment in listed}


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, function = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), function)


def test_the_flows_are_deployed_under_their_names(deployments: dict[str, dict[str, Any]]) -> None:
    assert sorted(deployments) == ["batch-prediction/nightly", "monitoring/daily", "training/local"]


def test_a_second_training_waits_and_other_seconds_are_skipped(deployments: dict[str, dict[str, Any]]) -> None:
    limits = {name: deployment["concurrency_limit"] for name, deployment in deployments.items()}
    assert limits == {
        "training/local": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "batch-prediction/nightly": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
        "monitoring/daily": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
    }


def test_batch_and_monitoring_are_scheduled_every_night_by_utc(deployments: dict[str, dict[str, Any]]) -> None:
    schedules = {name: deployment.get("schedules") for name, deployment in deployments.items()}
    assert schedules == {
        "training/local": None,
        "batch-prediction/nightly": [{"cron": "0 2 * * *", "timezone": "UTC"}],
        "monitoring/daily": [{"cron": "0 4 * * *", "timezone": "UTC"}],
    }


def test_the_parameters_deployed_are_those_of_the_flows_with_their_defaults(
    deployments: dict[str, dict[str, Any]],
) -> None:
    for deployment in deployments.values():
        properties = flow_of(deployment).parameters.properties
        assert deployment["parameters"] == {name: value["default"] for name, value in properties.items()}
        assert all(value.get("description") for value in properties.values())


def test_what_production_emits_starts_a_training_with_its_reason(deployments: dict[str, dict[str, Any]]) -> None:
    (trigger,) = deployments["training/local"]["triggers"]
    assert sorted(trigger["expect"]) == sorted([DRIFT, DROPPED])
    assert trigger["parameters"] == {"promote": True, "reason": "{{ event.payload.reason }}"}
    assert not any("triggers" in deployment for name, deployment in deployments.items() if name != "training/local")


def test_every_run_beats_twice_before_its_silence_counts_as_death(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        frequency = deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
        assert 2 * int(frequency) < SILENCE_S


def test_no_path_of_a_machine_is_deployed() -> None:
    document = YAML(typ="safe").load(PREFECT_YAML)
    assert document["pull"] == []
    assert not [word for word in PREFECT_YAML.read_text().split() if word.startswith("/")]
