"""Every benchmark of speed in its short form, one after the other, then the charts: what ``make bench`` runs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from bench.harness import ROOT

PROGRAMS = {
    "train": ("data", "photographs"),
    "accuracy": (),
    "predict": ("data",),
    "line": (),
    "scale": (),
    "nights": (),
    "chart": (),
}
"""The programs in their order, and which of the given paths each takes."""


def main() -> None:
    """Run those that exist; exit with 1 if one failed, after all had their turn."""
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as JPEG files, as bench.train takes it")
    parser.add_argument("--photographs", type=Path, help="photographs, as bench.train takes them")
    given = vars(parser.parse_args())
    failed = []
    for name, paths in PROGRAMS.items():
        if find_spec(f"bench.{name}") is None:
            continue
        options = [word for path in paths if given[path] for word in (f"--{path}", given[path])]
        start = time.perf_counter()
        print(f"\n── bench.{name}", flush=True)
        ended = subprocess.run([sys.executable, "-m", f"bench.{name}", *options], cwd=ROOT, check=False)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
        if ended.returncode:
            failed.append(name)
    if failed:
        raise SystemExit(f"bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
