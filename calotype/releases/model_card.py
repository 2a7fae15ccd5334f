"""The model card: what a model is for, what it was made of, how good it is, where it is weak, how to print it again.

Markdown, short enough for the description of a version in MLflow's registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from calotype.evaluation.abstention import Abstention
from calotype.evaluation.calibration import Calibration
from calotype.evaluation.metrics import Estimate, Evaluation
from calotype.evaluation.slices import Slicing
from calotype.learning.bundle import Bundle
from calotype.learning.run_record import RunRecord
from calotype.params import Params

LONGEST = 5000
"""Characters of a version's description in MLflow's database: SQLite takes more, other databases refuse it."""

SHOWN = 5
"""Weakest classes, weakest slices and drops that are listed."""

LONGEST_NAME = 60
"""Characters of a class's or a slice's name."""

MOST_NAMES = 20
"""Classes that are named."""

UNKNOWN_VERSION = "VERSION"
"""Stands for the version's number until there is one."""

HEADLINE = ("accuracy", "top_k_accuracy", "f1_macro", "recall_macro", "log_loss")


@dataclass(frozen=True)
class Limit:
    """A part of the test images that the model answers worse than others.

    Attributes
    ----------
    what
        Which images.
    images
        How many of them are in the test split.
    figure
        Recall of a class, accuracy of a slice.
    is_enough
        Whether they are as many as an honest statement needs.
    """

    what: str
    images: int
    figure: Estimate
    is_enough: bool


@dataclass(frozen=True)
class Card:
    """Everything on the card, as plain values.

    Attributes
    ----------
    name
        Of the registered model.
    intended_use
        The words of ``card.intended_use``.
    classes
        Names, in the model's order.
    counts
        Images of each split.
    drops
        Images of each drop.
    figures
        Title and value with interval, for a person.
    majority
        Accuracy of always answering the most frequent class.
    classes_at_risk, slices_at_risk
        The weakest, the worst first.
    fewest
        Images that a slice needs for an honest statement; None without slices.
    abstention
        What the threshold does on the test split, in words.
    lineage
        Word → value, from the network to the flow run.
    """

    name: str
    intended_use: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    drops: Mapping[int, int]
    figures: Mapping[str, str]
    majority: float
    classes_at_risk: tuple[Limit, ...]
    slices_at_risk: tuple[Limit, ...]
    fewest: int | None
    abstention: str
    lineage: Mapping[str, str]

    def commands(self, version: str | None = None) -> dict[str, str]:
        """What to type to follow the model back, and to make it again."""
        number = version or UNKNOWN_VERSION
        return {
            "where it comes from": f"calotype trace {self.name}/{number}",
            "make it again": f"calotype reproduce {number}",
        }

    def markdown(self, version: str | None = None) -> str:
        """Render the card in at most `LONGEST` characters; long lists lose their ends."""
        for shown in range(SHOWN, -1, -1):
            text = _render(self, version, shown)
            if len(text) <= LONGEST:
                return text
        return f"{text[: LONGEST - 2].rstrip()}…\n"


def of(
    params: Params,
    bundle: Bundle,
    training: RunRecord,
    evaluation: Evaluation,
    *,
    drops: Mapping[int, int],
    slicing: Slicing | None = None,
    abstention: Abstention | None = None,
    calibration: Calibration | None = None,
) -> Card:
    """Make the card of a model that was trained and scored.

    Parameters
    ----------
    params
        ``card`` is read.
    bundle
        The model.
    training
        How it was made.
    evaluation
        How well it answers the test split.
    drops
        Images of each drop of the dataset.
    slicing, abstention, calibration
        What else is known of it.
    """
    titles = [(name, evaluation.title(name)) for name in HEADLINE]
    figures = {title: _plain_or_percent(name, evaluation.headline[name]) for name, title in titles}
    if calibration is not None:
        figures["Expected calibration error"] = calibration.ece.plain
    return Card(
        name=training.experiment,
        intended_use=params.card.intended_use,
        classes=bundle.classes,
        counts={name: int(training.dataset[name]) for name in ("train", "val", "test")},
        drops=drops,
        figures=figures,
        majority=evaluation.majority_class_accuracy,
        classes_at_risk=_weakest_classes(evaluation),
        slices_at_risk=_weakest_slices(slicing) if slicing else (),
        fewest=slicing.fewest if slicing else None,
        abstention=_abstention(abstention) if abstention else "",
        lineage=_lineage(bundle, training),
    )


def with_version(markdown: str, name: str, version: str) -> str:
    """Fill a version's number into a card that was rendered before there was one."""
    known = {
        f"# Model card: {_escaped(name)}\n": f"# Model card: {_escaped(name)} version {version}\n",
        f"`calotype trace {name}/{UNKNOWN_VERSION}`": f"`calotype trace {name}/{version}`",
        f"`calotype reproduce {UNKNOWN_VERSION}`": f"`calotype reproduce {version}`",
    }
    for old, new in known.items():
        markdown = markdown.replace(old, new, 1)
    return markdown[:LONGEST]


def _weakest_classes(evaluation: Evaluation) -> tuple[Limit, ...]:
    scores = sorted(evaluation.per_class, key=lambda score: (score.recall.value, score.name))
    limits = (Limit(score.name, score.support, score.recall, True) for score in scores if score.support)
    return tuple(limits)[:SHOWN]


def _weakest_slices(slicing: Slicing) -> tuple[Limit, ...]:
    """Those that are shown to be worse than the rest first, then by accuracy; too small ones last."""
    slices = [(dimension.name, one) for dimension in slicing.dimensions for one in dimension.slices]
    slices.sort(key=lambda pair: (not pair[1].is_enough, pair[1].accuracy.value, pair[0], pair[1].value))
    return tuple(Limit(f"{name}: {one.value}", one.images, one.accuracy, one.is_enough) for name, one in slices)[:SHOWN]


def _abstention(abstention: Abstention) -> str:
    if not abstention.is_reached or abstention.precision is None:
        return (
            f"No confidence reached the precision of {_percent(abstention.target)} that was asked for on the "
            "validation images: the model abstains on every image."
        )
    answers = (
        f"it answers {abstention.coverage.percent} of the test images, and {abstention.precision.percent} of its "
        f"answers are right; {_percent(abstention.target)} were asked for."
    )
    if abstention.threshold <= 0:
        return f"The model never abstains: {answers}"
    return f"Below a confidence of {abstention.threshold:.3f} the model abstains: {answers}"


def _lineage(bundle: Bundle, training: RunRecord) -> dict[str, str]:
    environment, dataset = training.environment, training.dataset
    commit, flow_run = environment.get("git_commit"), environment.get("flow_run_name")
    epochs = f"{len(training.history)} epochs, best epoch {training.best_epoch}, seed {training.params['train.seed']}"
    packages = environment.get("versions", {})
    facts = {
        "Trained": f"{datetime.fromtimestamp(training.ended_at, UTC):%Y-%m-%d %H:%M} UTC, {epochs}",
        "Network": f"{bundle.network.name}, {bundle.image.size}×{bundle.image.size} pixels, "
        f"{'grey' if bundle.image.channels == 1 else 'colour'}",
        "Source": str(training.params.get("ingest.source", "")),
        "Data digest": dataset["digest"],
        "DVC": dataset["dvc_md5"],
        "Git commit": f"{commit}{' with changes' if environment.get('git_dirty') else ''}" if commit else "",
        "MLflow run": training.mlflow_run_id,
        "Prefect flow run": f"{flow_run} ({environment.get('flow_run_id', '')})" if flow_run else "",
        "Bundle": training.bundle_digest,
        "Packages": ", ".join(f"{name} {packages[name]}" for name in ("calotype", "torch") if packages.get(name)),
    }
    return {word: str(value) for word, value in facts.items() if value}


def _render(card: Card, version: str | None, shown: int) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calotype.pages", "."),
        autoescape=False,  # Markdown: `escaped` does what it needs
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"escaped": _escaped, "number": lambda value: f"{value:,}", "percent": _percent}
    text = environment.get_template("card.md.j2").render(
        card=card,
        version=version,
        shown=shown,
        names=", ".join(_names(card.classes, MOST_NAMES if shown == SHOWN else 4 * shown)),
        drops=", ".join(_drops(card.drops, shown)),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _names(classes: tuple[str, ...], most: int) -> Iterator[str]:
    yield from (_escaped(name, LONGEST_NAME) for name in classes[:most])
    if len(classes) > most:
        yield f"and {len(classes) - most:,} more"


def _drops(drops: Mapping[int, int], most: int) -> Iterator[str]:
    """The latest drops, of which more is to be said than of the first."""
    yield from (f"drop {drop}: {images:,}" for drop, images in sorted(drops.items(), reverse=True)[:most])
    if len(drops) > most:
        yield f"{len(drops) - most:,} earlier"


def _plain_or_percent(name: str, figure: Estimate) -> str:
    return figure.plain if name == "log_loss" else figure.percent


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _escaped(text: object, longest: int = 500) -> str:
    """A name as Markdown text: nothing in it makes a link, a column or a tag."""
    words = " ".join(str(text).split())
    short = words if len(words) <= longest else f"{words[: longest - 1]}…"
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", short)
