"""A trace for a person: a tree on a terminal, the same lines indented elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from calotype.counted import counted
from calotype.predictions.tables import SHADOW
from calotype.provenance.chain import PLACES, Chain

if TYPE_CHECKING:
    from rich.tree import Tree

    from calotype.provenance.trace import Trace

WIDTH = 100
MOST_ROWS = 20
MOST_SHARDS = 8


@dataclass
class Node:
    """A line and what hangs below it."""

    text: str
    is_missing: bool = False
    below: list[Node] = field(default_factory=list)


def show(trace: Trace) -> None:
    """Print a trace, then the images that were asked for."""
    import sys

    from rich.console import Console

    for node in _nodes(trace):
        if sys.stdout.isatty():
            Console().print(_tree(node))
        else:
            print("\n".join(_lines(node)))
    for chain in trace.chains:
        link = chain.links.get("images")
        for image in (link.value or {}).get("images", []) if link else ():
            print("  ".join((image["image_id"], image["split"], image["label"] or "?", image["path"] or "(gone)")))


def _nodes(trace: Trace) -> Iterator[Node]:
    chains = [_chain(chain) for chain in trace.chains]
    if trace.kind in ("version", "run"):
        yield from chains
        return
    yield Node(_heading(trace), below=[*_details(trace), *chains])


def _heading(trace: Trace) -> str:
    if trace.batch is not None:
        files, answers = counted(trace.batch["files"], "file"), counted(trace.batch["answers"], "answer")
        counts = f"{files} ({trace.batch['rejected']:,} rejected), {answers}"
        return f"batch {trace.batch['batch_id']}: {counts}, {trace.batch['predicted_at']}"
    return f"{trace.kind} {trace.what}"


def _details(trace: Trace) -> Iterator[Node]:
    if trace.kind == "image":
        image = trace.image
        where = f"in the {image['split'] or 'no'} split as {image['label']!r}, {image['path']}" if image else "no"
        yield Node(f"in data/dataset: {where}")
    yield from (Node(text, is_missing=True) for text in trace.missing.values())
    for row in trace.rows[-MOST_ROWS:]:
        yield Node(_row(row))
    if len(trace.rows) > MOST_ROWS:
        yield Node(f"… and {len(trace.rows) - MOST_ROWS:,} earlier rows (--json lists them)")


def _row(row: Mapping[str, Any]) -> str:
    answer = f"{row['label']!r}, confidence {row['confidence']:.4f}" if row["label"] is not None else row["status"]
    answer += f" ({row['reason']})" if row["reason"] else ""
    answer += ", abstained" if row["abstained"] else ""
    learned = f"; the model learned from this image ({row['seen']})" if row["seen"] in ("train", "val") else ""
    by = f", by {row['model_name']}/{row['model_version']} ({row['engine']})" if row["model_name"] else ""
    by += " in the shadow" if row["role"] == SHADOW else ""
    return f"{row['path']}: {answer}{by} in batch {row['batch_id']}, {row['predicted_at']}{learned}"


def _chain(chain: Chain) -> Node:
    """The links as a tree: whatever was made from something hangs above it."""
    found = {place: _link(place, chain) for place in PLACES if place != "images"}
    made = [node for place in ("commit", "data", "parameters", "flow_run") for node in found[place]]
    # A run that is no version was never up for promotion.
    promotion = found["promotion"] if chain.links["version"].value else []
    head, *rest = [*found["version"], *promotion, *found["run"], *made]
    head.below += rest
    images = chain.links.get("images")
    if images is not None and images.missing:
        head.below.append(Node(f"images: {images.missing}", is_missing=True))
    return head


def _link(place: str, chain: Chain) -> list[Node]:
    link = chain.links[place]
    nodes = [Node(text) for text in (_WORDS[place](link.value) if link.value else ())]
    if link.missing:
        missing = Node(f"{place.replace('_', ' ')}: {link.missing}", is_missing=True)
        return [Node(nodes[0].text, below=[*nodes[1:], missing])] if nodes else [missing]
    if not nodes:
        return [Node(_ABSENT[place])] if place in _ABSENT else []
    return [Node(nodes[0].text, below=nodes[1:])]


def _version(value: Mapping[str, Any]) -> Iterator[str]:
    bundle = f", bundle {value['bundle_digest'][:12]}…" if value.get("bundle_digest") else ""
    made = f", registered {value['created_at']}" if value.get("created_at") else ""
    yield f"version {value['name']}/{value['version']}{made}{bundle}"


def _promotion(value: Mapping[str, Any]) -> Iterator[str]:
    before = f", after version {value['from_version']}" if value["from_version"] else ""
    yield f"promotion: {value['verdict']}{before}, by {value['who']}, {value['at']} (ledger entry {value['sequence']})"
    yield str(value["reason"])


def _run(value: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"MLflow run {value['run_id']} ({value['name']}, experiment {value['experiment']}, {value['status']}, "
        f"{value['started_at']})"
    )


def _commit(value: Mapping[str, Any]) -> Iterator[str]:
    subject = f" {value['subject']}" if value["subject"] is not None else ""
    yield f"git commit {value['commit'][:12]}{subject}{' (with changes)' if value['dirty'] else ''}"
    yield from (f"changed: {path}" for path in value["changed_files"])


def _data(value: Mapping[str, Any]) -> Iterator[str]:
    counts = value["counts"] or {}
    shown = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    yield f"data {value['digest'][:12]}…{f': {shown} images' if shown else ''}"
    if value["dvc_md5"]:
        yield f"DVC {value['dvc_md5']}"
    shards = value["shards"]
    more = f" … and {len(shards) - MOST_SHARDS:,} more" if len(shards) > MOST_SHARDS else ""
    if shards:
        yield f"shards: {', '.join(shards[:MOST_SHARDS])}{more}"


def _parameters(value: Mapping[str, Any]) -> Iterator[str]:
    yield f"parameters ({len(value)})"
    sections: dict[str, list[str]] = {}
    for key in value:
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name}={value[key]}")
    yield from (f"{section + ': ' if section else ''}{' '.join(pairs)}" for section, pairs in sections.items())


def _flow_run(value: Mapping[str, Any]) -> Iterator[str]:
    yield f"Prefect flow run of its training: {value['name']} ({value['id']})"


_WORDS = {
    "version": _version,
    "promotion": _promotion,
    "run": _run,
    "commit": _commit,
    "data": _data,
    "parameters": _parameters,
    "flow_run": _flow_run,
}

_ABSENT = {
    "version": "no version: never registered",
    "promotion": "never promoted",
    "flow_run": "no Prefect flow run: its training was started by hand",
}


def _lines(node: Node, depth: int = 0) -> Iterator[str]:
    mark = "MISSING " if node.is_missing else ""
    yield textwrap.indent(f"{mark}{node.text}", "  " * depth)
    for child in node.below:
        yield from _lines(child, depth + 1)


def _tree(node: Node) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(f"missing: {node.text}" if node.is_missing else node.text, style="red" if node.is_missing else ""))
    for child in node.below:
        tree.children.append(_tree(child))
    return tree
