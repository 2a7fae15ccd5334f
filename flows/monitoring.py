"""Does production still look like what the champion was measured on? If it does not for long, a new training is due."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from calotype.monitoring.monitor import Monitored
from tasks.monitoring import announce_drift, judge_windows


@dataclass(frozen=True)
class MonitoringReport:
    """What was judged, and why a training was asked for; empty where none was."""

    monitored: Monitored
    reason: str


@flow(name="monitoring")
def monitoring() -> MonitoringReport:
    """Judge the predictions since the last window; emit `calotype.drift.detected` when drift holds."""
    monitored = judge_windows()
    reason = announce_drift()
    return MonitoringReport(monitored, reason)


if __name__ == "__main__":
    monitoring()
