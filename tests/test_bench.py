"""The harness of the benchmarks, and what makes a comparison with the peers fair."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from bench import cases, chart, harness
from bench.peers import plain
from calotype.learning import network
from calotype.params import ImageParams, NetworkParams

BURN = "import time; start = time.process_time()\nwhile time.process_time() - start < 0.5: pass"
ROOT = Path(__file__).parents[1]


def python(code: str, tmp_path: Path) -> harness.Run:
    return harness.run([sys.executable, "-c", code], cwd=tmp_path, threads=1)


def test_the_cpu_seconds_of_a_child_count(tmp_path: Path) -> None:
    by_a_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    assert 0.5 <= python(by_a_child, tmp_path).cpu_s < 2


def test_the_memory_of_a_child_counts(tmp_path: Path) -> None:
    held = "import time; held = b'1' * 200_000_000; time.sleep(1.5)"
    by_a_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    assert 200e6 <= python(by_a_child, tmp_path).peak_pss_bytes < 300e6


def test_threads_are_pinned_and_bytecode_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    told = "import json, os, sys; print(json.dumps([os.environ['OMP_NUM_THREADS'], sys.dont_write_bytecode]))"
    assert python(told, tmp_path).result == ["1", False]


def test_a_failed_command_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(harness.CommandError, match=r"exit code 1\n(.|\n)*ValueError: no such luck"):
        python("raise ValueError('no such luck')", tmp_path)


def test_sides_run_in_turn(tmp_path: Path) -> None:
    order: list[str] = []

    def side(name: str) -> harness.Run:
        order.append(name)
        return python("", tmp_path)

    runs = harness.interleave({name: lambda name=name: side(name) for name in "ab"}, 2)  # type: ignore[misc]
    assert order == ["a", "b", "a", "b"]
    assert {name: len(found) for name, found in runs.items()} == {"a": 2, "b": 2}


def test_ratios_are_taken_turn_by_turn() -> None:
    # A slow second half of the machine's day halves both sides: the ratio does not see it.
    assert harness.ratio([300, 150], [100, 50]) == harness.Summary(2, 3, 3, 3)


def test_a_result_names_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    kept = json.loads(harness.save("answer", {"answer": 42}).read_text())
    assert kept["answer"] == 42
    assert {"processor", "cores", "versions", "date"} <= kept["machine"].keys()


def test_the_peers_network_is_ours_weight_for_weight() -> None:
    values = {
        name.removeprefix("network."): value for name, value in cases.RECIPE.items() if name.startswith("network.")
    }
    ours = network.build(
        NetworkParams(**values, weights="random"), ImageParams(size=32, channels=3, resize="stretch"), classes=10
    ).eval()
    theirs = plain.build("cnn", 10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(theirs(images), ours(images))


def test_the_peers_have_our_versions_of_torch_and_mlflow() -> None:
    ours, theirs = (
        dict(re.findall(r"^(torch|torchvision|mlflow)==(\S+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("requirements.lock", "bench/requirements.lock")
    )
    assert theirs == ours
    assert len(ours) == 3


def test_absent_scripts_are_named_with_the_command_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "PEERS", Path(sys.executable))
    monkeypatch.setattr(cases, "TIMM", ROOT / ".cache" / "bench" / "nothing")
    assert cases.absent_peer() is None
    assert "git clone" in (cases.absent_peer(needs_timm=True) or "")
    monkeypatch.setattr(cases, "PEERS", tmp_path / "nothing")
    assert "make bench-peers" in (cases.absent_peer() or "")


def test_a_part_has_all_classes_alike_and_no_image_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(10):
                (folder / f"{number}.jpg").write_text(f"{split}{label}{number}")
    part = cases.part_of(tmp_path / "images", train=8, val=4, test=6)
    found = [path.read_text() for path in part.glob("*/*/*.jpg")]
    assert len(found) == len(set(found)) == 18
    assert {split: len(list((part / split / "cat").iterdir())) for split in ("train", "val", "test")} == {
        "train": 4,
        "val": 2,
        "test": 3,
    }


def test_a_chart_is_drawn_from_rates(tmp_path: Path) -> None:
    measured = {
        "machine": harness.machine(),
        "data": "ten images",
        "settings": {"threads": 1, "batch": 128},
    }
    panel = chart.Panel("Training", {"calotype": [1300.0, 1250.0], "ImageFolder loop": [430.0, 440.0]})
    chart.draw([panel], measured, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
