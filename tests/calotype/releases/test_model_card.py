"""The model card: what it says, how long it may be, and that no name in it is taken for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.evaluation import abstention, metrics, slices
from calotype.learning.run_record import RunRecord
from calotype.params import Params
from calotype.releases import model_card
from calotype.releases.model_card import Card

if TYPE_CHECKING:
    from calotype.learning.bundle import Bundle

RECORD = RunRecord(
    key="k" * 32,
    mlflow_run_id="0123456789abcdef0123456789abcdef",
    experiment="digits",
    started_at=0.0,
    ended_at=86_400.0,
    best_epoch=2,
    history=[{"epoch": 1}, {"epoch": 2}, {"epoch": 3}],
    params={"train.seed": 7, "ingest.source": "data/raw/digits"},
    bundle_digest="b" * 64,
    dataset={
        "digest": "d" * 64,
        "dvc_md5": "0" * 32 + ".dir",
        "splits_sha256": "",
        "train": 1078,
        "val": 180,
        "test": 6,
    },
    environment={"git_commit": "c" * 40, "git_dirty": True, "versions": {"calotype": "0.1.0", "torch": "2.15.0"}},
)
LABELS = np.array([0, 0, 1, 1, 2, 2])
ANSWERS = np.array([0, 0, 1, 0, 0, 1])


def a_card(
    values: Params, bundle: Bundle, *, names: Sequence[str] = ("ant", "bee", "cat"), threshold: float = 0.5
) -> Card:
    """The card of a model that knows ants, confuses bees and never sees a cat."""
    sure = np.eye(3)[ANSWERS] * 0.85 + 0.05
    images = pl.DataFrame({"width": [8] * 6, "height": [8] * 6, "drop": [1, 1, 1, 2, 2, 2]})
    correct = LABELS == ANSWERS
    return model_card.of(
        values,
        replace(bundle, classes=tuple(names)),
        RECORD,
        metrics.measure(LABELS, sure, names, top_k=2, resamples=100),
        drops={1: 1500, 2: 297},
        slicing=slices.measure(images, np.arange(6.0), correct, ["drop"]),
        abstention=abstention.judge(sure.max(axis=1), correct, threshold=threshold, target=0.99),
    )


def test_the_card_names_use_data_figures_limits_lineage_and_commands(values: Params, tiny_bundle: Bundle) -> None:
    text = a_card(values, tiny_bundle).markdown("3")
    assert text.startswith("# Model card: digits version 3\n\n**Intended use.** Tell 0, 1, 2, 3 and 6 more apart")
    assert "1,078 images for training, 180 for validation, 6 for the test." in text
    assert "Images of the dataset by drop: drop 2: 297, drop 1: 1,500." in text
    assert "3 classes: ant, bee, cat." in text
    assert "| Accuracy | 50.0 % (" in text
    assert "Below a confidence of 0.500 the model abstains: it answers 100.0 % (" in text
    assert "99.0 % were asked for." in text
    assert f"| Git commit | {'c' * 40} with changes |" in text
    assert "| Trained | 1970-01-02 00:00 UTC, 3 epochs, best epoch 2, seed 7 |" in text
    assert text.endswith("- where it comes from: `calotype trace digits/3`\n- make it again: `calotype reproduce 3`\n")


def test_the_weakest_class_and_slice_come_first(values: Params, tiny_bundle: Bundle) -> None:
    card = a_card(values, tiny_bundle)
    assert [limit.what for limit in card.classes_at_risk] == ["cat", "bee", "ant"]
    assert card.slices_at_risk[0].figure.value <= card.slices_at_risk[-1].figure.value
    assert "drop: 2 (too few to say)" in card.markdown()


def test_a_number_filled_in_later_gives_the_same_card(values: Params, tiny_bundle: Bundle) -> None:
    card = a_card(values, tiny_bundle)
    assert "calotype reproduce VERSION" in card.markdown()
    assert model_card.with_version(card.markdown(), "digits", "12") == card.markdown("12")


def test_a_name_is_no_markdown(values: Params, tiny_bundle: Bundle) -> None:
    card = a_card(values, tiny_bundle, names=("a|b", "<script>alert(1)</script>", "[x](http://y)\n# z"))
    text = card.markdown("1")
    assert r"a\|b" in text
    assert "<script>" not in text
    assert r"\[x\](http://y) \# z" in text
    assert not any(line.startswith("# z") for line in text.splitlines())


@settings(max_examples=25)
@given(names=st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=400, unique=True))
def test_a_card_is_never_longer_than_a_description_may_be(names: list[str]) -> None:
    estimate = metrics.Estimate(0.5, 0.25, 0.75)
    limits = tuple(model_card.Limit(name, 10_000, estimate, False) for name in names)
    card = Card(
        name="n" * 100,
        intended_use="|" * 500,
        classes=tuple(names),
        counts={"train": 10**7, "val": 10**7, "test": 10**7},
        drops=dict.fromkeys(range(300), 1000),
        figures={"Accuracy": estimate.percent},
        majority=0.1,
        classes_at_risk=limits,
        slices_at_risk=limits,
        fewest=200,
        abstention="It answers.",
        lineage={"Source": "/" + "x" * 4000, "MLflow run": "r" * 32},
    )
    text = card.markdown("1000")
    assert len(text) <= model_card.LONGEST
    assert text.endswith("`calotype reproduce 1000`\n")


def test_without_slices_and_abstention_the_card_says_nothing_of_them(values: Params, tiny_bundle: Bundle) -> None:
    card = replace(a_card(values, tiny_bundle), slices_at_risk=(), fewest=None, abstention="")
    text = card.markdown()
    assert "slice" not in text
    assert "Abstention" not in text


def test_a_target_that_was_not_reached_is_said(values: Params, tiny_bundle: Bundle) -> None:
    text = a_card(values, tiny_bundle, threshold=abstention.NEVER).markdown()
    assert "No confidence reached the precision of 99.0 %" in text


def test_the_longest_card_is_what_mlflows_database_holds() -> None:
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

    assert SqlModelVersion.__table__.c.description.type.length == model_card.LONGEST
