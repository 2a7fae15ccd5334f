"""How well and how fast near-duplicates are found, on real images and on a million hashes.

Run ``python -m bench.duplicates --cifar10 cifar10.zip --photographs photographs.tar`` from the project's folder.
Fashion-MNIST comes from Debian's package ``dataset-fashion-mnist``; archives that are not given are left out. Sheets
of merged pairs are written to ``bench/results/``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import platform
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from calotype.data.duplicates import VIEWS, candidates, find_twins, gather, sketch
from calotype.fetch import DEBIAN_FOLDER

RESULTS = Path(__file__).parent / "results"
PLANTED = 100
ORIGINALS = 1_000
SHOWN = 50
MILLION = 1_000_000
REPEATS = 3

Picture = Image.Image
Change = Callable[[Picture, np.random.Generator], Picture]
NO_HASHES = np.empty(0, np.uint64)


def jpeg(picture: Picture, _: np.random.Generator) -> Picture:
    """Compress at quality 70."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return Image.open(buffer).convert(picture.mode)


def scaled(picture: Picture, _: np.random.Generator) -> Picture:
    """Resize by 0.8."""
    return picture.resize((round(picture.width * 0.8), round(picture.height * 0.8)), Image.Resampling.BILINEAR)


def brightened(picture: Picture, rng: np.random.Generator) -> Picture:
    """Change the brightness by 2 %, up or down."""
    factor = rng.choice([0.98, 1.02])
    return picture.point([min(255, round(value * factor)) for value in range(256)] * len(picture.getbands()))


def cropped(picture: Picture, rng: np.random.Generator) -> Picture:
    """Cut off one row or column of pixels, at one edge."""
    edge = int(rng.integers(4))
    left, top, right, bottom = (int(edge == place) for place in range(4))
    return picture.crop((left, top, picture.width - right, picture.height - bottom))


def cropped_all_round(picture: Picture, _: np.random.Generator) -> Picture:
    """Cut off one row or column of pixels at every edge."""
    return picture.crop((1, 1, picture.width - 1, picture.height - 1))


CHANGES: dict[str, Change] = {"jpeg 70": jpeg, "resize 0.8": scaled, "brightness 2 %": brightened, "crop": cropped}


def fashion_mnist() -> list[Picture]:
    """The 60,000 training images, in the order of the file."""
    packed = (DEBIAN_FOLDER / "train-images-idx3-ubyte.gz").read_bytes()
    pixels = np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(-1, 28, 28)
    return [Image.fromarray(image) for image in pixels]


def from_archive(path: Path) -> list[Picture]:
    """Every JPEG of a zip or tar, in the order of their names."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")]
    else:
        with tarfile.open(path) as archive:
            members = sorted((m for m in archive if m.isfile() and m.name.endswith(".jpg")), key=lambda m: m.name)
            data = [file.read() for member in members if (file := archive.extractfile(member))]
    return [Image.open(io.BytesIO(encoded)).convert("RGB") for encoded in data]


def twins_of(pictures: Sequence[Picture]) -> tuple[list[set[int]], dict[str, float]]:
    """For each picture the earlier leaders it matches; and CPU-seconds of hashing and of finding."""
    start = time.process_time()
    sketches = np.stack([sketch(picture) for picture in pictures])
    hashed = time.process_time()

    def asked(wanted: NDArray[np.int64]) -> Iterable[tuple[int, Picture]]:
        return ((number, pictures[number]) for number in wanted.tolist())

    member, leader = find_twins(NO_HASHES, sketches, asked)
    seconds = {"hash": hashed - start, "find": time.process_time() - hashed}
    found: list[set[int]] = [set() for _ in pictures]
    for one, other in zip(member.tolist(), leader.tolist(), strict=True):
        found[one].add(other)
    return found, seconds


def plant(pictures: Sequence[Picture], seed: int, changes: dict[str, Change]) -> tuple[Counter[str], int]:
    """Plant changed copies among real images; count the pairs that are found, and other images that are merged."""
    rng = np.random.default_rng(seed)
    originals = [pictures[place] for place in rng.permutation(len(pictures))[:ORIGINALS]]
    kinds = [list(changes)[copy % len(changes)] for copy in range(PLANTED)]
    sources = rng.permutation(ORIGINALS)[:PLANTED]
    copies = [changes[kind](originals[source], rng) for kind, source in zip(kinds, sources, strict=True)]
    order = rng.permutation(ORIGINALS + PLANTED)
    twins, _ = twins_of([[*originals, *copies][place] for place in order])
    groups: dict[int, set[int]] = {}
    for place, leaders in zip(order.tolist(), twins, strict=True):
        groups[place] = {int(order[leader]) for leader in leaders} or {place}
    found = Counter(
        kind
        for copy, (kind, source) in enumerate(zip(kinds, sources.tolist(), strict=True))
        if groups[source] & groups[ORIGINALS + copy]
    )
    planted = {*sources.tolist(), *range(ORIGINALS, ORIGINALS + PLANTED)}
    return found, sum(place not in planted and groups[place] != {place} for place in groups)


def report_planted(name: str, pictures: Sequence[Picture]) -> None:
    """Print how many planted pairs are found, in three draws."""
    for crop, change in (("one edge", cropped), ("every edge", cropped_all_round)):
        draws = [plant(pictures, seed, CHANGES | {"crop": change}) for seed in range(REPEATS)]
        totals = [found.total() for found, _ in draws]
        kinds = ", ".join(f"{kind} {sum(found[kind] for found, _ in draws)}" for kind in CHANGES)
        others = [others for _, others in draws]
        print(
            f"planted  {name:14} crop at {crop:10} n={REPEATS}×{PLANTED} in {ORIGINALS:,}  found {totals}  "
            f"of {PLANTED * REPEATS // len(CHANGES)} each: {kinds}; other images merged {others}",
            flush=True,
        )


def report_untouched(name: str, pictures: Sequence[Picture]) -> None:
    """Print how many untouched images are merged and what it takes; draw a sheet of them."""
    twins, seconds = twins_of(pictures)
    pairs = [(place, min(leaders)) for place, leaders in enumerate(twins) if leaders]
    share = 100 * len(pairs) / len(pictures)
    print(
        f"merged   {name:14} n={len(pictures):,}  {len(pairs)} images ({share:.2f} %)  "
        f"hash {seconds['hash']:.1f} CPU-s, find and confirm {seconds['find']:.1f} CPU-s",
        flush=True,
    )
    shown = sorted(np.random.default_rng(0).permutation(len(pairs))[:SHOWN].tolist())
    sheet([(pictures[pairs[k][0]], pictures[pairs[k][1]]) for k in shown], RESULTS / f"duplicates-{name}.png")


def sheet(pairs: Sequence[tuple[Picture, Picture]], path: Path, *, columns: int = 5, size: int = 96) -> None:
    """Draw numbered pairs side by side."""
    rows = -(-len(pairs) // columns)
    canvas = Image.new("RGB", (columns * (2 * size + 40), rows * (size + 8)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, pair in enumerate(pairs):
        left, top = number % columns * (2 * size + 40), number // columns * (size + 8)
        draw.text((left + 4, top + 4), str(number + 1), fill="black")
        for place, picture in enumerate(pair):
            enlarged = picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
            canvas.paste(enlarged, (left + 24 + place * (size + 4), top + 4))
    path.parent.mkdir(exist_ok=True)
    canvas.save(path)


def noisy(hashes: NDArray[np.uint64], count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Hashes drawn from some, with up to four random bits flipped in each."""
    drawn = rng.choice(hashes, count)
    for _ in range(4):
        flipped = np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
        drawn = np.where(rng.random(count) < 0.5, drawn ^ flipped, drawn)
    return drawn


def million(kind: str, real: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A million hashes: real ones with noise and random ones; or with 100,000 equal ones; or random alone."""
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2**64, MILLION, dtype=np.uint64)
    if kind == "random":
        return random
    hashes = np.concatenate([real, noisy(real, MILLION // 2 - len(real), rng), random[: MILLION // 2]])
    if kind == "with 100,000 equal":
        hashes[:100_000] = hashes[0]
    return rng.permutation(hashes)


def group_million(kind: str, says: bool, path: Path) -> None:
    """Group a million hashes: all near ones are twins, or none is, so that every image stays a leader."""
    hashes = million(kind, np.load(path))
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = candidates(NO_HASHES, np.broadcast_to(hashes[:, None], (len(hashes), VIEWS)))
    indexed = time.process_time() - cpu
    member, _ = gather(*pairs, 0, len(hashes), lambda one, _: np.full(len(one), says))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(
        f"million  {kind:18} near ones {'are' if says else 'are not'} twins  {len(pairs[0]):,} pairs, "
        f"{len(np.unique(member)):,} members  wall {wall:.1f} s, CPU {cpu:.1f} s (index {indexed:.1f}), "
        f"peak {int(peak) / 2**20:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--million", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.million:
        kind, says, path = options.million
        group_million(kind, says == "twins", Path(path))
        return
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pillow"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}")
    sets = {"fashion-mnist": fashion_mnist()} if DEBIAN_FOLDER.is_dir() else {}
    if not sets:
        print(f"left out: fashion-mnist: no {DEBIAN_FOLDER}; install the Debian package dataset-fashion-mnist")
    for name, path in (("cifar10", options.cifar10), ("photographs", options.photographs)):
        if path is None:
            print(f"left out: {name}: no archive was given (--{name})")
        else:
            sets[name] = from_archive(path)
    for name, pictures in sets.items():
        report_planted(name, pictures)
        report_untouched(name, pictures)
    report_millions([picture for name, pictures in sets.items() if name != "photographs" for picture in pictures])


def report_millions(pictures: Sequence[Picture]) -> None:
    """Hash pictures, and group a million hashes made of them, each in a process of its own."""
    if not pictures:
        print("left out: a million hashes with real ones; no small images were given")
        return
    path = RESULTS / "hashes.npy"
    np.save(path, np.array([sketch(picture)[0] for picture in pictures], np.uint64))
    try:
        for kind in ("random", "real with noise", "with 100,000 equal"):
            for says in ("twins", "strangers"):
                command = [sys.executable, "-m", "bench.duplicates", "--million", kind, says, str(path)]
                subprocess.run(command, check=True)
    finally:
        path.unlink()


if __name__ == "__main__":
    main()
