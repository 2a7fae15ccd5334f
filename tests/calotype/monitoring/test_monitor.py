"""`calotype monitor` on a real champion: a window is judged once, by its own version's reference, and shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calotype import params, tracking
from calotype.monitoring import monitor, runs, windows
from calotype.monitoring.monitor import Monitored
from calotype.project import Project
from tests.watched import WINDOW, predict, watch

pytestmark = pytest.mark.slow

MONITOR = """
import sys
from pathlib import Path
from calotype import params
from calotype.monitoring import monitor
from calotype.project import Project
project = Project(Path(sys.argv[1]))
print(len(monitor.monitor(project, params.load(project.params)).windows))
"""


@pytest.fixture
def watched(trained_project: Project) -> Project:
    return watch(trained_project)


def judge(project: Project) -> Monitored:
    return monitor.monitor(project, params.load(project.params))


def test_without_predictions_there_is_nothing_to_judge(project: Project) -> None:
    assert judge(project).summary().startswith("data/predictions: no predictions yet. Put images into the inbox")
    assert not Path(project.predictions).exists()


def test_windows_follow_one_another_and_each_is_judged_once(watched: Project) -> None:
    predict(watched, 0, 30)
    assert judge(watched).summary() == f"digits version 1: 30 predictions wait until there are {WINDOW}"
    predict(watched, 100, 62)
    first = judge(watched)
    assert first.summary().startswith("digits version 1, 20")
    assert first.summary().endswith("→ reports/monitoring.html")
    predict(watched, 200, 62, factor=0.3)
    second = judge(watched)
    assert judge(watched).summary() == "no new predictions: each is in a window already"
    (one,), (other,) = first.windows, second.windows
    assert one.window_end == other.window_start
    assert not one.is_drift
    assert "brightness" in other.verdict
    assert (other.images, other.sampled, other.drift_holds) == (62, 62, False)
    view = windows.read(watched)
    assert view
    assert view.windows == (one, other)


def test_two_monitors_at_once_judge_a_window_once(watched: Project) -> None:
    predict(watched, 0, 62)
    command = [sys.executable, "-c", MONITOR, str(watched.root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(int(process.communicate()[0]) for process in both) == [0, 1]
    view = windows.read(watched)
    assert view
    assert len(view.windows) == 1


def test_a_window_is_an_mlflow_run_once(watched: Project) -> None:
    values = params.load(watched.params)
    predict(watched, 0, 62)
    (window,) = judge(watched).windows
    for _ in range(2):
        written = runs.record(watched, values, watched.reports / "monitoring.html")
    assert list(written) == [window.key]
    client = tracking.connect(watched)
    run = client.get_run(written[window.key])
    assert client.get_experiment(run.info.experiment_id).name == "digits-monitoring"
    assert run.info.end_time == int(window.window_end.timestamp() * 1000)
    assert run.data.metrics["p/mean"] == pytest.approx(next(t.p_holm for t in window.tests if t.test == "mean"))
    assert run.data.metrics["images"] == 62
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["monitoring.html"]


def test_a_bundle_without_reference_is_named_in_a_line(watched: Project) -> None:
    from calotype.learning import bundle
    from calotype.learning.run_record import RunRecord
    from calotype.releases import promotion, registry
    from calotype.stages import evaluate

    bundle.save(bundle.load(watched.bundle), watched.bundle)
    digest = bundle.digest(watched.bundle)
    record = RunRecord.read(watched.run_json)
    record.model_copy(update={"key": digest[:32], "bundle_digest": digest}).write(watched.run_json)
    values = params.load(watched.params)
    evaluate.run(values, watched)
    registry.register(watched, values)
    promotion.promote(watched, values, force=True, reason="a test")
    predict(watched, 0, 62)
    found = judge(watched)
    assert found.windows == ()
    assert "digits version 2: 62 predictions are not judged, its bundle is of an older format" in found.summary()


def test_the_page_shows_the_verdict_and_pictures_of_the_inbox(watched: Project) -> None:
    predict(watched, 0, 62, factor=0.3)
    judge(watched)
    page = (watched.reports / "monitoring.html").read_text()
    assert "Drift in" in page
    assert page.count('<img src="data:image/png;base64,') == 12
    for path in Path(watched.inbox).rglob("*.png"):
        path.unlink()
    predict(watched, 100, 62, factor=0.3)
    for path in Path(watched.inbox).rglob("*.png"):
        path.write_bytes(b"another image by now")
    judge(watched)
    page = (watched.reports / "monitoring.html").read_text()
    assert "<img" not in page
    assert page.count("the inbox holds it no more") == 12


def test_the_command_prints_a_line_and_drift_is_no_failure(watched: Project) -> None:
    predict(watched, 0, 62, factor=0.3)
    environment = {"CALOTYPE_ROOT": str(watched.root), "PATH": os.environ["PATH"], "HOME": str(watched.root)}
    done = subprocess.run(
        [sys.executable, "-m", "calotype", "monitor"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "62 predictions, drift in" in done.stdout
    again = subprocess.run(
        [sys.executable, "-m", "calotype", "monitor"], env=environment, capture_output=True, text=True
    )
    assert again.stdout == "no new predictions: each is in a window already\n"
