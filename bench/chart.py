"""Draw ``bench/results/train.png`` and ``predict.png`` from the JSON beside them.

Run ``python -m bench.chart`` from the project's folder. A bar is a median in images per CPU-second, from 0, with every
single run as a dot; under the title stands the machine that gave the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.harness import RESULTS, ROOT
from calotype.files import read_json

OURS, PEER, INK, QUIET = "#1f5f8b", "#b9c2ca", "#22282d", "#6b757d"
BAR, PANEL_GAP, WIDTH_IN = 0.34, 0.95, 9.4
"""Inches of one bar with its gap, of the space for a panel's title and foot, and of the whole width."""

Rates = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """One comparison: its title, and the rates of each side in images per CPU-second."""

    title: str
    rates: Rates


def main() -> None:
    """Draw every chart whose figures are there."""
    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 10, "text.color": INK})
    for name, panels_of in (("train", train_panels), ("predict", predict_panels)):
        source = RESULTS / f"{name}.json"
        if source.exists():
            measured = read_json(source)
            draw(panels_of(measured), measured, RESULTS / f"{name}.png")
            print((RESULTS / f"{name}.png").relative_to(ROOT))


def train_panels(measured: Mapping[str, Any]) -> list[Panel]:
    """What ``bench.train`` keeps: the epoch of each network, whole runs, photographs."""
    mmacs = measured["mmacs"]
    panels = []
    for network, found in measured["epoch"].items():
        millions = f", {mmacs[f'plain/{network}']} MMAC" if mmacs else ""
        panels.append(Panel(f"Training within the epoch: {network}{millions}", found["images_per_cpu_s"]))
    whole = {_with_macs(side, mmacs): found["images_per_cpu_s"] for side, found in measured["whole_run"].items()}
    panels.append(Panel("One whole run of one epoch, from process start to end", whole))
    if "photographs" in measured:
        title = "Photographs at 128 px: input pipeline, second epoch"
        panels.append(Panel(title, measured["photographs"]["images_per_cpu_s"]))
    return panels


def predict_panels(measured: Mapping[str, Any]) -> list[Panel]:
    """What ``bench.predict`` keeps: whole commands and loops."""
    whole = {side: found["images_per_cpu_s"] for side, found in measured["whole_process"].items()}
    files = measured["files"]
    named = {
        f"{side} ({files[side]:,} files)" if files[side] < 10_000 else side: rates for side, rates in whole.items()
    }
    loops = {side.removesuffix(", loop"): rates for side, rates in measured["loop"].items()}
    return [Panel("Prediction, folder to table: whole process", named), Panel("Prediction: the loop alone", loops)]


def draw(panels: Sequence[Panel], measured: Mapping[str, Any], path: Path) -> None:
    """Draw panels of horizontal bars under one another, bars equally thick everywhere."""
    heights = [BAR * len(panel.rates) for panel in panels]
    total = sum(heights) + PANEL_GAP * len(panels) + 0.45
    figure = Figure(figsize=(WIDTH_IN, total), facecolor="white")
    top = total - 0.45
    for panel, height in zip(panels, heights, strict=True):
        axes = figure.add_axes((0.36, (top - height) / total, 0.61, height / total))
        _bars(axes, panel)
        top -= height + PANEL_GAP
    figure.text(0.03, 0.1 / total, _facts(measured), fontsize=8, color=QUIET, va="bottom")
    figure.savefig(path, dpi=160)


def _bars(axes: Axes, panel: Panel) -> None:
    order = sorted(panel.rates, key=lambda side: statistics.median(panel.rates[side]))
    best_peer = max((statistics.median(panel.rates[side]) for side in order if not _is_ours(side)), default=None)
    widest = max(max(values) for values in panel.rates.values())
    for place, side in enumerate(order):
        values = panel.rates[side]
        median = statistics.median(values)
        axes.barh(place, median, height=0.68, color=OURS if _is_ours(side) else PEER)
        axes.plot(values, [place] * len(values), "o", markersize=3, color=INK, alpha=0.7, clip_on=False)
        times = f"   {median / best_peer:.2f} × the best peer" if best_peer and _is_ours(side) else ""
        axes.text(max(values) + widest * 0.015, place, f"{median:,.0f}{times}", va="center", fontsize=9)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlim(0, widest * 1.45)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", x=-0.55)
    axes.set_xlabel("images per CPU-second", fontsize=8.5, color=QUIET)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="x", labelsize=8, colors=QUIET, length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6eaed", linewidth=0.8)
    axes.set_axisbelow(True)
    for edge in axes.spines.values():
        edge.set_visible(False)


def _is_ours(side: str) -> bool:
    return side.startswith("calotype")


def _with_macs(side: str, mmacs: Mapping[str, float]) -> str:
    """``fastai, cnn`` with its multiply-adds, which decide how fair a comparison is."""
    model = side.rpartition(", ")[2] if ", " in side else "cnn"
    millions = next((value for name, value in mmacs.items() if name.endswith(f"/{model}")), None)
    return f"{side} ({millions} MMAC)" if millions else side


def _facts(measured: Mapping[str, Any]) -> str:
    machine, settings = measured["machine"], measured["settings"]
    return (
        f"{measured['data']}; bars are medians, dots single runs; {settings['threads']} thread, "
        f"batch {settings['batch']}\n{machine['processor']}, {machine['cores']} cores, torch "
        f"{machine['versions']['torch']}, {machine['date']}"
    )


if __name__ == "__main__":
    main()
