"""prefect.yaml as it is read before anything starts: what cannot work is one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calotype.errors import UsageError
from calotype.project import Project
from calotype.services import deployments

REPOSITORY = Path(__file__).parents[3]
ONE = """\
deployments:
  - name: nightly
    entrypoint: flows.prediction.batch_prediction
    schedules:
      - {schedule}
"""


def test_the_shipped_file_is_valid(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "prefect.yaml", tmp_path)
    found = deployments.read(Project(tmp_path))
    assert deployments.Deployment("local", "flows.training.training") in found


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            '{cron: "0 2 * * *", timezone: Europe/Atlantis}',
            r"nightly: found the time zone 'Europe/Atlantis', which does",
        ),
        ('{cron: "0 2 * * *", timezone: ../../etc/passwd}', r"time zone '\.\./\.\./etc/passwd', which does not exist"),
        ('{cron: "0 2 * * *", timezone: 3}', "time zone 3, which does not exist"),
        ('{cron: "99 2 * * *"}', r"nightly: found the cron '99 2 \* \* \*' \(bad minute\); expected five fields"),
        ("{cron: every night}", r"found the cron 'every night' \(wrong number of fields\)"),
        ("{cron: 5}", r"found the cron 5 \(no text\)"),
        ("{interval: -20}", "found the interval -20; expected seconds, more than 0"),
        ("{timezone: UTC}", "expected a mapping with one of cron, interval and rrule"),
        ("nightly", "found the schedule 'nightly'; expected a mapping"),
    ],
)
def test_a_schedule_that_cannot_work_is_one_line(tmp_path: Path, schedule: str, message: str) -> None:
    (tmp_path / "prefect.yaml").write_text(ONE.format(schedule=schedule))
    with pytest.raises(UsageError, match=message) as caught:
        deployments.read(Project(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("prefect.yaml: ")


@pytest.mark.parametrize("schedule", ['{cron: "*/5 * * * MON-FRI"}', '{cron: "@daily"}', "{interval: 20}"])
def test_a_schedule_that_works_is_read(tmp_path: Path, schedule: str) -> None:
    (tmp_path / "prefect.yaml").write_text(ONE.format(schedule=schedule))
    assert [found.name for found in deployments.read(Project(tmp_path))] == ["nightly"]


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    text = ONE.format(schedule='{cron: "99 2 * * *", timezone: Mars}')
    (tmp_path / "prefect.yaml").write_text(text.replace("    entrypoint", "    point"))
    with pytest.raises(UsageError) as caught:
        deployments.read(Project(tmp_path))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deployments: [", r"prefect\.yaml:\d+: no YAML"),
        ("", "expected a list `deployments`"),
        ("deployments: {name: x}", "expected a list `deployments`"),
        ("- a", "expected a list `deployments`"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prefect.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        deployments.read(Project(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"prefect\.yaml: not found"):
        deployments.read(Project(tmp_path))
