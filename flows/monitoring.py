"""Does production still look like what the champion was measured on, and is it still right? Else a training is due."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from calotype.monitoring.monitor import Monitored
from tasks.monitoring import announce_drift, judge_windows
from tasks.production import announce_accuracy
from tasks.schedules import cancel_late_runs


@dataclass(frozen=True)
class MonitoringReport:
    """What was judged, and why a training was asked for: by drift, by labels; empty where it was not."""

    monitored: Monitored
    drift: str
    accuracy: str


@flow(name="monitoring")
def monitoring() -> MonitoringReport:
    """Judge the predictions since the last window, and the labels; emit an event where a training is due."""
    cancel_late_runs()
    monitored = judge_windows()
    return MonitoringReport(monitored, drift=announce_drift(), accuracy=announce_accuracy())


if __name__ == "__main__":
    monitoring()
