"""Change values of params.yaml and nothing else: comments, order, quotes and columns stay as they are."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from calotype.errors import ParamsError


def edit(text: str, values: dict[str, Any]) -> str:
    """Give keys of a YAML text other values; a value that is there already is not touched.

    Parameters
    ----------
    text
        YAML of two levels, as params.yaml is.
    values
        By full key: ``{"train.lr": 0.003}``.

    Raises
    ------
    ParamsError
        If a key is absent, or if the text is written in a way (anchors, say) that cannot be edited in place.
    """
    before = _parse(text)
    expected = {key: value for key, value in values.items() if _get(before, key) != value}
    nodes = _nodes(YAML().compose(text))
    missing = [key for key in expected if key not in nodes]
    if missing:
        raise ParamsError(f"params.yaml: {', '.join(missing)}: missing. Add what `calotype params` prints.")
    after = text
    for key in sorted(expected, key=lambda key: nodes[key][1].start_mark.index, reverse=True):
        after = _replace(after, *nodes[key], expected[key])
    for key, value in expected.items():
        _set(before, key, value)
    if not _reads_as(after, before):
        raise ParamsError("params.yaml: cannot be edited in place. Write each value out, without anchors and aliases.")
    return after


def _replace(text: str, key: Node, node: Node, value: Any) -> str:
    start, end = node.start_mark.index, _end(node)
    new = _yaml(value)
    rest, newline, below = text[end:].partition("\n")
    between = text[key.end_mark.index + 1 : start]
    if "\n" in between:
        # A block list, as `dvc exp run -S` writes one: it goes back behind its key, where its comment still stands.
        start, new = key.end_mark.index + 1, f" {new}"
        rest = "  ".join(filter(None, [between.partition("\n")[0].strip(), rest.strip()]))
    if rest.lstrip().startswith("#"):
        line = text[:start].rpartition("\n")[2] + new
        rest = " " * max(_comment_column(text) - len(line), 2) + rest.lstrip()
    return text[:start] + new + rest + newline + below


def _comment_column(text: str) -> int:
    """The column in which most comments behind values stand."""
    found = (re.match(r"[^#]*\S[^#]* (?=#)", line) for line in text.splitlines())
    columns = Counter(match.end() for match in found if match)
    return columns.most_common(1)[0][0] if columns else 0


def _end(node: Node) -> int:
    """Where a value ends; a block list's own mark stands behind the comments below it."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _nodes(root: Any) -> dict[str, tuple[Node, Node]]:
    """Full key → the nodes of its key and of its value."""
    nodes: dict[str, tuple[Node, Node]] = {}
    for key, value in root.value:
        nodes[key.value] = (key, value)
        if isinstance(value, MappingNode):
            nodes |= {
                f"{key.value}.{inner.value}": (inner, node)
                for inner, node in value.value
                if isinstance(inner, ScalarNode)
            }
    return nodes


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _reads_plain(value) else json.dumps(value, ensure_ascii=False)


def _reads_plain(text: str) -> bool:
    """Whether YAML reads ``key: text`` back as the same text, without quotation marks."""
    return "\n" not in text and _reads_as(f"key: {text}  # comment", {"key": text})


def _parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _reads_as(text: str, values: Any) -> bool:
    try:
        return bool(_parse(text) == values)
    except YAMLError:
        return False


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _set(values: Any, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for part in sections:
        values = values[part]
    values[last] = value
