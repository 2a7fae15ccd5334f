"""Does production look like what the champion was measured on, and is it answered well? If not, a training is due."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from calotype.monitoring.monitor import Monitored
from tasks.monitoring import announce_drift, judge_windows
from tasks.production import announce_accuracy
from tasks.schedules import cancel_late_runs


@dataclass(frozen=True)
class MonitoringReport:
    """What was judged, and why a training was asked for, by drift or by labels; empty where none was."""

    monitored: Monitored
    reason: str
    accuracy: str


@flow(name="monitoring")
def monitoring() -> MonitoringReport:
    """Judge the predictions since the last window, and the labels; tell of drift that holds, and of accuracy lost."""
    cancel_late_runs()
    monitored = judge_windows()
    reason = announce_drift()
    accuracy = announce_accuracy()
    return MonitoringReport(monitored, reason, accuracy)


if __name__ == "__main__":
    monitoring()
