"""What the gate weighs: versions' answers to today's test split, and which of its images each had seen before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from calotype.console import say
from calotype.data import dataset
from calotype.errors import DataError
from calotype.evaluation import scoring
from calotype.learning import bundle as bundles
from calotype.learning import engine_choice
from calotype.learning.device import choose_device
from calotype.params import Params
from calotype.releases import gate, golden, versions
from calotype.releases.local_bundles import Champion
from calotype.releases.versions import SPLITS, Registry


@dataclass
class Challenge:
    """A contender against whoever is champion; every version is scored once, the contender load-checked once.

    Parameters
    ----------
    registry
        The project's.
    params
        Rules, and how to classify.
    contender
        The version that wants the title.
    process
        The fresh process that was sent the contender.
    """

    registry: Registry
    params: Params
    contender: Champion
    process: golden.Fresh
    _notes: dict[int, str] = field(default_factory=dict)
    _scored: dict[int, gate.Predictions] = field(default_factory=dict)

    def decide(self, head: int | None) -> gate.Decision:
        """What the gate says of the contender against a champion; what is unknown of either is among the reasons.

        Raises
        ------
        DataError
            If there is no test split, an image of it cannot be read, or the gate cannot compare the two.
        UsageError
            If the champion is no version of the model any more.
        """
        rival = None
        if head is not None:
            version = versions.require(self.registry, self.params.name, head)
            rival = self._predictions(versions.local(self.registry, version))
        ours = self._predictions(self.contender)
        answer = self.answer
        check = gate.LoadCheck(answer.images, answer.largest_difference, answer.tolerance, answer.problem)
        decision = gate.decide(ours, rival, gate.Rules.of(self.params.promote), check)
        notes = [self._notes[number] for number in (self.contender.version, head) if number in self._notes]
        return replace(decision, reasons=(*decision.reasons, *notes))

    @cached_property
    def answer(self) -> golden.Answer:
        """What the fresh process found of the contender."""
        return golden.receive(self.process)

    def _predictions(self, version: Champion) -> gate.Predictions:
        if version.version not in self._scored:
            self._scored[version.version] = self._score(version)
        return self._scored[version.version]

    @cached_property
    def test(self) -> pl.DataFrame:
        """image_id and label of today's test images, in the order of image_id."""
        project = self.registry.project
        test = scoring.of_test_split(project, dataset.read_manifest(project.dataset)).select("image_id", "label")
        if test.is_empty():
            raise DataError(
                f"{project.relative(project.splits)}: no image is in the test split. Run `dvc repro split`."
            )
        return test

    @cached_property
    def split_digest(self) -> str:
        """What stands for the test images and their labels."""
        return gate.split_digest(self.test["image_id"].to_list(), self.test["label"].to_list())

    def _score(self, version: Champion) -> gate.Predictions:
        bundle = bundles.load(version.bundle_folder)
        ids = self.test["image_id"].to_list()
        engine = self._engine(version)
        answers = scoring.classify(self.params, self.registry.project, bundle, ids, prefix="promote", engine=engine)
        return gate.Predictions(
            model=version.title,
            split_digest=self.split_digest,
            labels=tuple(self.test["label"].to_list()),
            classes=bundle.classes,
            probabilities=answers,
            seen=self._seen(version),
            evaluated_on=version.split_digest,
        )

    def _engine(self, version: Champion) -> str:
        """The engine that predicts with the version here."""
        device = choose_device(self.params.train.device).type
        choice, note = engine_choice.read(self.registry.project.engines, version.bundle_digest, device)
        if note:
            say("promote", note)
        return engine_choice.engine_of(choice)

    def _seen(self, version: Champion) -> np.ndarray:
        """Which of the test images the version trained or validated on, by the splits kept with its run."""
        with versions.artifact(self.registry, version, SPLITS) as path:
            if path is None:
                self._notes[version.version] = (
                    f"{version.title}: its run keeps no {SPLITS}, so no test image is left out as seen by it"
                )
                return np.zeros(self.test.height, dtype=bool)
            known = pl.read_parquet(path, columns=["image_id", "split"])
        seen = known.filter(pl.col("split").is_in(["train", "val"]))["image_id"]
        return self.test["image_id"].is_in(seen.to_list()).to_numpy()
