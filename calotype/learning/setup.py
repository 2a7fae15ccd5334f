"""What a training starts from: which images are for what, their pixels, and the trainer that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from ruamel.yaml import YAML

from calotype.console import say
from calotype.data import dataset
from calotype.data.decoded import decoded
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.evaluation import columns
from calotype.files import sha256_of
from calotype.learning import network
from calotype.learning.device import uses_bf16
from calotype.learning.ranks import ALONE, Ranks
from calotype.learning.training import Labelled, Statistics, Trainer, pixel_statistics
from calotype.params import ImageParams, Params
from calotype.project import Project

MARGIN, LARGEST_SMALL = 1.15, 64
"""Training images above so many pixels are stored larger by this factor: crops of them lose less detail."""


@dataclass(frozen=True)
class Plan:
    """Which images are for what (image_id, label), the classes in order, and the digests that name the data."""

    training: pl.DataFrame
    validation: pl.DataFrame
    classes: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What a training reads."""

    training: Labelled
    validation: Labelled
    statistics: Statistics


def read_plan(params: Params, project: Project) -> Plan:
    """Read which images are for what.

    Raises
    ------
    DataError
        If dataset and splits do not belong together.
    ParamsError
        If ``evaluate.slices`` names a column that the data do not have.
    """
    manifest = dataset.read_manifest(project.dataset)
    splits = read_splits(project.splits)
    rows = manifest.select("image_id", "label").join(splits.select("image_id", "split"), on="image_id")
    # Left out by split (its `split` is null), an image is in no list below.
    if not len(rows) == len(manifest) == len(splits):
        raise DataError(f"{project.relative(project.splits)}: not the split of this dataset. Run `dvc repro split`.")
    # Order by image_id, never by shard: the same images train the same network however they arrived.
    chosen = {name: rows.filter(pl.col("split") == name).sort("image_id") for name in ("train", "val", "test")}
    if len(chosen["test"]):
        # evaluate would say it, too, but only when the training is over.
        columns.check(manifest.join(chosen["test"], on="image_id", how="semi"), params.evaluate.slices)
    say("train", f"{len(chosen['train']):,} training and {len(chosen['val']):,} validation images")
    facts = {
        "digest": dataset.digest(project.dataset),
        "splits_sha256": sha256_of(project.splits),
        "dvc_md5": _dvc_md5(project),
    } | {name: len(frame) for name, frame in chosen.items()}
    return Plan(chosen["train"], chosen["val"], tuple(sorted(rows["label"].unique().to_list())), facts)


def labelled(
    params: Params, project: Project, plan: Plan, rows: pl.DataFrame, image: ImageParams, group: Ranks = ALONE
) -> Labelled:
    """Decode the images of rows (image_id, label) in a form, in their order."""
    images = decoded(
        project.dataset,
        rows["image_id"].to_list(),
        image,
        max_megapixels=params.ingest.max_megapixels,
        # Several processes map one file, which the first of them writes.
        memory_gb=params.train.memory_gb if group.size == 1 else 0,
        cache=project.cache / "decoded",
        prefix="train",
    )
    index = {label: number for number, label in enumerate(plan.classes)}
    labels = torch.tensor([index[label] for label in rows["label"]], dtype=torch.int64)
    return Labelled(torch.from_numpy(images), labels)


def load(params: Params, project: Project, plan: Plan, group: Ranks = ALONE) -> Data:
    """Decode the training and validation images."""
    training = labelled(params, project, plan, plan.training, _stored(params), group)
    validation = labelled(params, project, plan, plan.validation, params.image, group)
    return Data(training, validation, pixel_statistics(training.images))


def _stored(params: Params) -> ImageParams:
    """The form in which training images are kept: photographs that are cropped at random, a little larger."""
    image = params.image
    if params.augment.crop_scale < 1 and image.size > LARGEST_SMALL:
        return image.model_copy(update={"size": round(MARGIN * image.size)})
    return image


def make_trainer(
    params: Params, project: Project, plan: Plan, data: Data, device: torch.device, group: Ranks = ALONE
) -> Trainer:
    """Build the network with its first weights, and say what will train it.

    Raises
    ------
    ParamsError
        If the weights to start from are absent or fit another network.
    """
    torch.manual_seed(params.train.seed)
    model = network.build(params.network, params.image, len(plan.classes))
    loaded = network.load_initial_weights(model, params.network, project.root)
    precision = "bf16" if uses_bf16(params.train.precision, device) else "float32"
    say(
        "train",
        f"{params.network.name} with {network.count_parameters(model):,} parameters, {loaded}; "
        f"{device.type}, {precision}, {params.train.threads} threads{_each_of(group)}",
    )
    return Trainer(
        model,
        data.training,
        data.validation,
        data.statistics,
        train=params.train,
        augmentation=params.augment,
        device=device,
        classes=len(plan.classes),
        ranks=group,
    )


def _each_of(group: Ranks) -> str:
    return f" in each of {group.size} processes" if group.size > 1 else ""


def _dvc_md5(project: Project) -> str:
    """DVC's hash of the dataset, as dvc.lock holds it since ingest ended; empty where DVC has not run."""
    lock = project.root / "dvc.lock"
    stages = YAML(typ="safe").load(lock).get("stages", {}) if lock.is_file() else {}
    outs = stages.get("ingest", {}).get("outs", [])
    return next((out["md5"] for out in outs if out["path"] == "data/dataset"), "")
