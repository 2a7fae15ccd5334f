from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from calotype.errors import ParamsError
from calotype.params_edit import edit

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")


def changed_lines(before: str, after: str) -> list[str]:
    return [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]


def test_only_the_value_changes_and_its_comment_keeps_its_column() -> None:
    after = edit(TEXT, {"train.lr": 0.25, "network.widths": [16, 32, 64]})
    assert changed_lines(TEXT, after) == [
        "  widths: [16, 32, 64]        # cnn, fast: channels of each block, which halves the image",
        "  lr: 0.25                    # peak learning rate",
    ]


def test_a_long_value_pushes_its_comment_aside_and_a_short_one_brings_it_back() -> None:
    long = edit(TEXT, {"ingest.source": "/a/rather/long/path/to/images.zip"})
    assert "  source: /a/rather/long/path/to/images.zip  # folder" in long
    assert edit(long, {"ingest.source": "data/raw/digits"}) == TEXT


def test_a_value_that_is_there_is_not_rewritten() -> None:
    text = "train:\n  lr:  3.0e-3   # mine\n  name: 'x'\n"
    assert edit(text, {"train.lr": 0.003, "train.name": "x"}) == text


def test_block_lists_and_quotes_are_replaced_whole() -> None:
    text = "a:\n  b:\n    - 1\n    - 2  # two\n  # below\n  c: 'old'  # why\nd: \"x\"\n"
    after = edit(text, {"a.b": [3], "a.c": "new", "d": "y"})
    assert YAML(typ="safe").load(after) == {"a": {"b": [3], "c": "new"}, "d": "y"}
    assert "# two" in after
    assert "  # below\n" in after
    assert "# why" in after


def test_an_absent_key_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"train\.speed: missing"):
        edit(TEXT, {"train.speed": 1})


def test_anchors_are_refused_rather_than_edited_elsewhere() -> None:
    with pytest.raises(ParamsError, match="without anchors"):
        edit("a:\n  b: &size 8\n  c: *size\n", {"a.c": 9})


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
    | st.sampled_from(["1999", "true", "null", "~", "1e3", "a: b", "a #b", "#", "- a", "{a}", "*a", "&a", "'", '"'])
)
def test_any_text_reads_back_as_it_was(value: str) -> None:
    after = edit(TEXT, {"ingest.source": value})
    assert YAML(typ="safe").load(after)["ingest"]["source"] == value


def test_a_block_list_goes_back_behind_its_key() -> None:
    """`dvc exp run -S` writes params.yaml anew, its lists as blocks."""
    text = (
        "network:\n  widths:                     # channels\n  - 32\n  - 64\n  convs: 2                    # each\n"
        "  hidden:\n    - 128\n  dropout: 0.2\n"
    )
    changed = edit(text, {"network.widths": [16, 64], "network.hidden": [7]})
    assert changed == (
        "network:\n  widths: [16, 64]            # channels\n  convs: 2                    # each\n"
        "  hidden: [7]\n  dropout: 0.2\n"
    )
    assert edit(text, {"network.widths": [32, 64]}) == text
