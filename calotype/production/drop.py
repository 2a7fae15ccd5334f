"""Labelled images of production join the dataset's source as a new drop: `calotype labels add --ingest`.

The source is a folder per class. An image is copied from the inbox, its digest compared, to
``<class>/production-<date>-<digest>.<ext>``; nothing is overwritten, and a copy appears whole or not at all. Where a
later label corrects an earlier one, the copy moves to the other class.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath

import polars as pl
import pyarrow.dataset as ds

from calotype.counted import counted
from calotype.data import dataset
from calotype.delta import batches
from calotype.errors import DataError, UsageError
from calotype.params import Params
from calotype.predictions import incoming
from calotype.predictions.reading import Tables
from calotype.predictions.remote import RemoteFolder
from calotype.predictions.tables import FILES
from calotype.production import labels_table
from calotype.production.labels_file import Label
from calotype.project import Project
from calotype.sources import open_source
from calotype.sources.contract import MAX_FILE_BYTES, Unreadable
from calotype.sources.folders import class_folders
from calotype.sources.trees import folder_tree, looks_like_image, read_file

PREFIX = "production"
DIGITS = 12
"""Of the digest, in the name of a copy."""

SHOWN = 5

REMEDIES = {
    "split-folders": "Copy the images into the class folders of train/ yourself",
    "table": "Copy the images beside the table and add a row for each (path, label)",
    "idx": "IDX files take no more images: write them out as a folder per class",
}
ARCHIVE = "Unpack the archive into a folder, and run `calotype use FOLDER`"


@dataclass(frozen=True)
class Target:
    """A source of class folders: where it is, and the folder of each class."""

    root: Path
    shown: str
    folders: Mapping[str, Path]

    def copies(self) -> dict[str, Path]:
        """What was copied here before, by the first digits of its digest."""
        pattern = f"{PREFIX}-*-{'[0-9a-f]' * DIGITS}*"
        files = (file for folder in self.folders.values() for file in folder.glob(pattern))
        return {file.stem[-DIGITS:]: file for file in files}


@dataclass(frozen=True)
class Drop:
    """What became of the labelled images; each is counted under one heading."""

    source: str
    counts: Mapping[str, int]
    gone: tuple[str, ...]
    contested: tuple[str, ...]
    homeless: tuple[str, ...]

    def summary(self) -> str:
        """What was copied, what was not and why, and what to run next."""
        lines = [f"{self.source}: {counted(self.counts.get('copied', 0), 'image')} copied as a new drop"]
        if self.counts.get("moved"):
            lines[0] += f", {self.counts['moved']:,} moved to the class that a correction names"
        if self.counts.get("there"):
            lines[0] += f", {self.counts['there']:,} in the dataset or the source already"
        if self.gone:
            lines.append(f"{counted(len(self.gone), 'image')} no longer in the inbox: {_listed(self.gone)}")
        if self.contested:
            lines.append(
                f"{counted(len(self.contested), 'image')} in the dataset with another label: "
                f"{_listed(self.contested)}. Correct them by ingest.corrections."
            )
        if self.homeless:
            lines.append(f"no class folder for {_listed(self.homeless)}: make it in {self.source}, and run again")
        return "\n".join([*lines, "Next: dvc repro"])


@dataclass(frozen=True)
class _Wanted:
    image_id: str
    label: str
    labelled_on: date
    paths: Sequence[str]

    @property
    def shown(self) -> str:
        return self.paths[0] if self.paths else f"{self.image_id[:DIGITS]}…"


def open_target(project: Project, params: Params) -> Target:
    """The source, if it can take images in.

    Raises
    ------
    UsageError
        If it is of another kind than a folder per class; it says what to do instead.
    """
    root = project.resolve(params.ingest.source)
    source = open_source(root, cache=project.cache / "sources")
    if source.kind != "folder":
        remedy = REMEDIES.get(source.kind, ARCHIVE)
        raise UsageError(
            f"labels add --ingest: {params.ingest.source} is a source of the kind {source.kind}; images can be copied "
            f"into a folder per class alone. {remedy}; or run the command without --ingest."
        )
    folders = {label: root / path for label, path in class_folders(folder_tree(root)).items()}
    return Target(root, params.ingest.source, folders)


def put(project: Project, tables: Tables, target: Target, labels: Sequence[Label]) -> Drop:
    """Copy the images that labels name, each under the label that holds for it."""
    wanted = _wanted(project, tables, {one.image_id for one in labels})
    read = _reader(project.inbox)
    in_dataset, copies = _in_dataset(project), target.copies()
    counts: Counter[str] = Counter()
    gone: list[str] = []
    contested: list[str] = []
    homeless = [one.label for one in wanted if one.label not in target.folders]
    for one in (one for one in wanted if one.label in target.folders):
        copy = copies.get(one.image_id[:DIGITS])
        if copy is None and one.image_id in in_dataset:
            is_same = in_dataset[one.image_id] == one.label
            counts["there"] += is_same
            contested.extend([] if is_same else [one.shown])
        elif copy is None:
            data = _from_inbox(read, one)
            counts["copied"] += data is not None and _place(data, _name(target, one))
            gone.extend([one.shown] if data is None else [])
        elif copy.parent == target.folders[one.label]:
            counts["there"] += 1
        else:
            _link(copy, target.folders[one.label] / copy.name)
            copy.unlink()
            counts["moved"] += 1
    return Drop(target.shown, dict(counts), tuple(gone), tuple(contested), tuple(dict.fromkeys(homeless)))


def _wanted(project: Project, tables: Tables, image_ids: set[str]) -> list[_Wanted]:
    held = labels_table.holding(labels_table.read(project)).filter(pl.col("image_id").is_in(list(image_ids)))
    paths: dict[str, list[str]] = {image_id: [] for image_id in image_ids}
    where = ds.field("image_id").isin(sorted(image_ids))
    for batch in batches(tables.files, FILES, ["image_id", "path"], where):
        for image_id, path in zip(batch["image_id"].to_pylist(), batch["path"].to_pylist(), strict=True):
            paths[image_id].append(path)
    rows = held.sort("image_id").select("image_id", "label", "labelled_on").iter_rows()
    return [_Wanted(image_id, label, day, paths[image_id]) for image_id, label, day in rows]


def _in_dataset(project: Project) -> dict[str, str]:
    try:
        manifest = dataset.read_manifest(project.dataset)
    except DataError:
        return {}
    return dict(manifest.select("image_id", "label").iter_rows())


def _reader(inbox: str) -> Callable[[str], bytes]:
    if "://" not in inbox:
        return lambda path: read_file(Path(inbox) / path)
    folder = RemoteFolder(inbox)
    return lambda path: folder.read(folder.at(path), MAX_FILE_BYTES)


def _from_inbox(read: Callable[[str], bytes], wanted: _Wanted) -> bytes | None:
    """The image's bytes from wherever in the inbox they were seen; None where they are there no more."""
    for path in wanted.paths:
        try:
            data = read(path)
        except (Unreadable, incoming.Unreadable):
            continue
        if hashlib.sha256(data).hexdigest() == wanted.image_id:
            return data
    return None


def _name(target: Target, wanted: _Wanted) -> Path:
    path = wanted.paths[0]
    suffix = PurePosixPath(path).suffix.lower() if looks_like_image(path) else ""
    name = f"{PREFIX}-{wanted.labelled_on.isoformat()}-{wanted.image_id[:DIGITS]}{suffix}"
    return target.folders[wanted.label] / name


def _place(data: bytes, to: Path) -> bool:
    # Hidden names are no part of a source.
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _link(temporary, to)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _link(file: Path, to: Path) -> None:
    """Give a file a second name unless that name is taken; a rename would overwrite."""
    with contextlib.suppress(FileExistsError):
        os.link(file, to)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
