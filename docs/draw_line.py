"""Draw docs/line.svg: the line from images to predictions, and who keeps what.

Run ``python docs/draw_line.py`` after a change; a test compares the file with what this program draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1120, 400
BOX, TALL, STEP, LEFT, TOP = 114, 84, 132, 41, 118

STYLE = """
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #2b241c; }
  .name { font-size: 17px; font-weight: 650; }
  .does, .made { font-size: 11px; fill: #6b5f52; }
  .who { font-size: 13px; font-weight: 650; }
  .what { font-size: 12px; fill: #5a5046; }
  .paper { fill: #faf7f2; stroke: #e0d5c6; }
  .box { fill: #fffdf9; stroke-width: 1.5; }
  .dvc { stroke: #1f7a82; } .verb { stroke: #9a4f1e; }
  .arrow { stroke: #8d7f6f; stroke-width: 1.6; fill: none; } .head { fill: #8d7f6f; }
  .band { stroke-width: 1.2; }
  .band.prefect { fill: #e9edf8; stroke: #7c8fc9; }
  .band.dvc { fill: #e3f1f1; stroke: #1f7a82; }
  .band.mlflow { fill: #f8ebdf; stroke: #b76a33; }
  .band.delta { fill: #f0e9f4; stroke: #8d6aa5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #ece4d9; } .does, .made { fill: #a99c8c; } .what { fill: #c4b8a9; }
    .paper { fill: #17140f; stroke: #3a332a; } .box { fill: #211c16; }
    .dvc { stroke: #62bfc7; } .verb { stroke: #e0a063; }
    .arrow { stroke: #93866f; } .head { fill: #93866f; }
    .band.prefect { fill: #1c2233; stroke: #7c8fc9; }
    .band.dvc { fill: #142829; stroke: #4fa7ae; }
    .band.mlflow { fill: #2e2117; stroke: #c98450; }
    .band.delta { fill: #271f2e; stroke: #a184b8; }
  }
"""


@dataclass(frozen=True)
class Stop:
    """One station of the line: its name, what it does, what comes out."""

    name: str
    does: tuple[str, str]
    made: str
    kind: str


@dataclass(frozen=True)
class Band:
    """One keeper: from which stop to which it is there, and what it keeps."""

    who: str
    what: str
    first: int
    last: int
    row: int
    kind: str


STOPS = (
    Stop("scan", ("digest of paths,", "sizes, times"), "source.json", "dvc"),
    Stop("ingest", ("read once, check,", "pack into shards"), "dataset/", "dvc"),
    Stop("split", ("salted hash:", "decided for good"), "splits.parquet", "dvc"),
    Stop("train", ("seeded, resumed", "after a kill"), "model/ run.json", "dvc"),
    Stop("evaluate", ("test split, with", "95 % intervals"), "report.html", "dvc"),
    Stop("register", ("a version, as", "challenger"), "version n", "verb"),
    Stop("promote", ("a gate, with", "evidence"), "champion", "verb"),
    Stop("predict", ("one row for", "each image"), "predictions", "verb"),
)

BANDS = (
    Band("DVC", "code, parameters and data of each output; runs again only what changed", 0, 4, 0, "dvc"),
    Band("MLflow", "one run for each training: curves, figures, report; versions and aliases", 3, 6, 1, "mlflow"),
    Band("Delta table", "each image once", 7, 7, 1, "delta"),
)


def draw() -> str:
    """The picture as SVG text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        '<title id="title">The line: scan, ingest, split, train, evaluate, register, promote, predict</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="16"/>',
        *_prefect(),
    ]
    for number, stop in enumerate(STOPS):
        parts += _stop(number, stop)
    for number in range(len(STOPS) - 1):
        parts += _arrow(number)
    for band in BANDS:
        parts += _band(band)
    return "\n".join([*parts, "</svg>", ""])


def _x(number: int) -> int:
    return LEFT + number * STEP


def _prefect() -> list[str]:
    words = "when and in what order: schedules, retries, logs, cancellation"
    return [
        f'<rect class="band prefect" x="{LEFT - 5}" y="24" width="{_x(7) + BOX - LEFT + 10}" height="52" rx="10"/>',
        f'<text class="who" x="{LEFT + 13}" y="46">Prefect</text>',
        f'<text class="what" x="{LEFT + 13}" y="64">{words}</text>',
        *_label("flow training", 0, 6),
        *_label("flow batch-prediction", 7, 7),
    ]


def _label(text: str, first: int, last: int) -> list[str]:
    left, right = _x(first), _x(last) + BOX
    y = 98
    return [
        f'<path class="arrow" d="M{left} {y + 8} V{y} H{right} V{y + 8}"/>',
        f'<text class="does" x="{(left + right) / 2:.0f}" y="{y - 6}" text-anchor="middle">{escape(text)}</text>',
    ]


def _stop(number: int, stop: Stop) -> list[str]:
    x, middle = _x(number), _x(number) + BOX / 2
    return [
        f'<rect class="box {stop.kind}" x="{x}" y="{TOP}" width="{BOX}" height="{TALL}" rx="12"/>',
        f'<text class="name" x="{middle:.0f}" y="{TOP + 29}" text-anchor="middle">{stop.name}</text>',
        f'<text class="does" x="{middle:.0f}" y="{TOP + 50}" text-anchor="middle">{escape(stop.does[0])}</text>',
        f'<text class="does" x="{middle:.0f}" y="{TOP + 66}" text-anchor="middle">{escape(stop.does[1])}</text>',
        f'<path class="arrow" d="M{middle:.0f} {TOP + TALL} v16"/>',
        f'<text class="made" x="{middle:.0f}" y="{TOP + TALL + 31}" text-anchor="middle">{escape(stop.made)}</text>',
    ]


def _arrow(number: int) -> list[str]:
    start, end, y = _x(number) + BOX + 2, _x(number + 1) - 3, TOP + TALL / 2
    return [
        f'<path class="arrow" d="M{start} {y:.0f} H{end - 6}"/>',
        f'<path class="head" d="M{end} {y:.0f} l-8 -4.5 v9 z"/>',
    ]


def _band(band: Band) -> list[str]:
    left, right = _x(band.first) - 5, _x(band.last) + BOX + 5
    y = 258 + band.row * 64
    return [
        f'<rect class="band {band.kind}" x="{left}" y="{y}" width="{right - left}" height="52" rx="10"/>',
        f'<text class="who" x="{left + 18}" y="{y + 22}">{escape(band.who)}</text>',
        f'<text class="what" x="{left + 18}" y="{y + 40}">{escape(band.what)}</text>',
    ]


if __name__ == "__main__":
    Path(__file__).with_name("line.svg").write_text(draw(), encoding="utf-8")
