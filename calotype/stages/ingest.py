"""Read each image of the source once, check it, and pack it: data/dataset/.

What is there already stays as it is, byte for byte: new images go into new shards of a new drop, and a shard is
rewritten only when an image left the source. Everything is prepared in a folder beside the dataset, which gets its
final name when it is complete; from then on an interrupted ingest is finished by the next one. No existing file is
written into: it may be a link into DVC's cache.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from calotype import machine
from calotype.console import say
from calotype.counted import counted
from calotype.data import arrivals, corrections, curation, dataset, fingerprint, schemas, shards
from calotype.data.corrections import Corrections
from calotype.data.intake import Intake, Known, take_in
from calotype.data.tables import write_table
from calotype.errors import CalotypeError, DataError
from calotype.files import read_json, replacing, sha256_of, write_bytes, write_json
from calotype.params import Params
from calotype.project import Project
from calotype.sources import open_source
from calotype.sources.contract import Source

PREFIX = "ingest"


@dataclass(frozen=True)
class Stored:
    """The dataset as the last ingest left it.

    Attributes
    ----------
    manifest
        Images of whole shards.
    history
        Every image with its arrival, those of damaged shards and those remembered since they left too.
    last_drop
        Highest number of a drop in use, in an image's arrival or in a shard's name.
    digests
        SHA-256 of the files.
    """

    manifest: pl.DataFrame
    history: pl.DataFrame
    last_drop: int
    digests: dict[str, str]

    def known(self) -> Known:
        """What need not be read again."""
        columns = self.manifest.select("image_id", pl.col("width").cast(pl.Int64) * pl.col("height"))
        unhashed = self.manifest.filter(pl.col("phash").is_null())["image_id"]
        return Known(dict(columns.iter_rows()), frozenset(unhashed))


NOTHING_STORED = Stored(
    pl.DataFrame(schema=dataset.MANIFEST_SCHEMA), pl.DataFrame(schema=arrivals.HISTORY_SCHEMA), 0, {}
)


def run(params: Params, project: Project) -> None:
    """Bring data/dataset/ to what the source holds.

    Raises
    ------
    DataError
        If the source cannot be used, if an image has two labels, if too many files cannot be decoded, if a class is
        missing or too small, or if the corrections name what is not there.
    CalotypeError
        If the source or the corrections changed since they were scanned.
    """
    finish_interrupted(project.dataset)
    source = open_source(project.resolve(params.ingest.source), cache=project.cache / "sources")
    stored = read_stored(project.dataset)
    with replacing(_next(project.dataset)) as staging:
        staging.mkdir(parents=True)
        writer = shards.Writer(staging)
        cap = params.ingest.max_megapixels
        intake = take_in(source, stored.known(), writer, max_megapixels=cap, prefix=PREFIX, scratch=staging)
        source = source.emptied()
        kept = _judge(intake, source, stored, params, project)
        manifest = _manifest(kept, intake, stored, writer)
        changed = corrections.applied(kept)
        crossings = curation.in_two_splits(intake.entries)
        files, rejects, sketches = intake.entries.height, intake.rejects, intake.sketches
        del intake, kept  # the manifest holds all that is needed of them
        _stage_shards(project.dataset, staging, manifest, stored, writer)

        def locate(shard: str) -> Path:
            return (staging if (staging / shard).exists() else project.dataset) / shard

        manifest = arrivals.decide_twins(manifest, sketches, locate, max_megapixels=cap, scratch=staging)
        machine.trim_memory()
        _stage_tables(project, staging, manifest, rejects, changed, crossings, stored)
        _require_unchanged_source(params, project)
    finish_interrupted(project.dataset)
    _report(files, rejects, source, manifest, stored)
    _report_crossings(crossings)
    _report_changes(manifest, changed, params)


def finish_interrupted(folder: Path) -> None:
    """Put a complete prepared dataset in place, and remove incomplete ones. Safe to interrupt and to repeat."""
    staging = _next(folder)
    for left in folder.parent.glob(f".{staging.name}.*.tmp"):
        shutil.rmtree(left)
    if not staging.exists():
        return
    digests = dataset.read_digests(staging)
    folder.mkdir(parents=True, exist_ok=True)
    for prepared in sorted(staging.iterdir()):
        if prepared.name != dataset.DIGESTS and not _equal(prepared, folder / prepared.name):
            prepared.rename(folder / prepared.name)
    for path in folder.iterdir():
        if path.name not in {*digests, dataset.DIGESTS}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # The digests come last: until then the prepared folder keeps them, and this function starts again.
    if not _equal(staging / dataset.DIGESTS, folder / dataset.DIGESTS):
        write_bytes(folder / dataset.DIGESTS, (staging / dataset.DIGESTS).read_bytes())
    done = staging.with_name(f".{staging.name}.done.tmp")
    staging.rename(done)
    shutil.rmtree(done)


def read_stored(folder: Path) -> Stored:
    """Read what the last ingest left; images of missing or damaged shards count as unknown.

    Raises
    ------
    DataError
        If a newer calotype wrote it.
    """
    if not (folder / dataset.DIGESTS).exists():
        return NOTHING_STORED
    try:
        digests = dataset.read_digests(folder)
        manifest = _in_present_form(dataset.read_manifest(folder))
        history = [manifest.select(list(arrivals.HISTORY_SCHEMA))]
        if dataset.DEPARTED in digests:
            history.append(dataset.read_table(folder, dataset.DEPARTED))
    except dataset.NewerDatasetError:
        raise
    except DataError as error:
        say(PREFIX, f"starts anew, because the dataset is damaged: {error}")
        return NOTHING_STORED
    names = manifest["shard"].unique().sort().to_list()
    damaged = [name for name in names if not _is_whole(folder / name, digests[name])]
    if damaged:
        say(PREFIX, f"packs the images of damaged or missing shards again: {curation.listed(damaged)}")
    line = pl.concat(history)
    last_drop = max([0, *map(shards.drop_of, names), *line["drop"].unique()])
    return Stored(manifest.filter(~pl.col("shard").is_in(damaged)), line, last_drop, digests)


def _in_present_form(manifest: pl.DataFrame) -> pl.DataFrame:
    """Give the manifest of an older form the columns that it lacks, empty: they are filled in as for new images."""
    lacking = [pl.lit(None, kind).alias(name) for name, kind in dataset.MANIFEST_SCHEMA.items() if name not in manifest]
    return manifest.with_columns(lacking).select(list(dataset.MANIFEST_SCHEMA))


def _judge(intake: Intake, source: Source, stored: Stored, params: Params, project: Project) -> pl.DataFrame:
    """Keep one file of each image, or refuse the source with everything that is wrong with it."""
    read, rejects = intake.entries, intake.rejects
    entries = corrections.apply(_corrections(params, project), read, source.empty_classes)
    kept = curation.keep_one_of_each(entries, stored.manifest)
    classes = {*source.empty_classes, *read["label"].unique()}
    problems = curation.explain_classes(kept, tuple(sorted(classes)), intake.rejected_labels, params.ingest)
    conflicts = curation.two_labels(entries)
    if conflicts.height:
        saved = _save(conflicts, "label_conflicts.csv", project)
        problems.append(curation.explain_two_labels(conflicts, saved))
    files = entries.height + rejects.height
    if rejects.height > params.ingest.max_reject_fraction * files:
        saved = _save(rejects, "rejects.csv", project)
        problems.append(curation.explain_rejects(rejects, files, params.ingest, saved))
    if problems:
        raise DataError("\n".join(problems))
    return kept


def _corrections(params: Params, project: Project) -> Corrections:
    path = fingerprint.corrections_path(params.ingest, project)
    if path is None:
        return Corrections("", ())
    try:
        return corrections.read(path.read_bytes(), params.ingest.corrections)
    except OSError as error:
        raise fingerprint.no_corrections(path, error) from error


def _manifest(kept: pl.DataFrame, intake: Intake, stored: Stored, writer: shards.Writer) -> pl.DataFrame:
    """Join each image with its facts, old or new, and the row of its sketch.

    New images are a drop of their own. One that was there before, and whose shard is damaged or that left and comes
    back, keeps its place in the line.
    """
    facts = ["width", "height", "mode", "format", "bytes", "shard", "phash"]
    drop = 1 + (stored.last_drop if stored.history.join(kept, on="image_id", how="semi").height else 0)
    names = pl.Series([shards.name_of(drop, number) for number in range(len(writer.paths))], dtype=pl.String)
    read = intake.facts.select(pl.all().gather(kept["sketch"])).select(
        pl.col("width", "height", "bytes", "phash").name.suffix("_read"),
        pl.col("mode", "format").cast(pl.String).name.suffix("_read"),
        pl.lit(names).gather("new_shard").alias("shard_read"),
    )
    known = _of(kept, stored.manifest, facts).hstack(read)
    line = _of(kept, stored.history, ["drop", "twins"]).with_columns(pl.col("drop").fill_null(drop))
    told = known.select(pl.coalesce(fact, f"{fact}_read").alias(fact) for fact in facts)
    return kept.hstack(told).hstack(line).select(*dataset.MANIFEST_SCHEMA, "sketch")


def _of(kept: pl.DataFrame, table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """What a table says of each image, if it does; ids alone are joined, because a join copies every column."""
    ids = kept.select("image_id")
    return ids.join(table.select("image_id", *columns), on="image_id", how="left", maintain_order="left").select(
        columns
    )


def _stage_shards(folder: Path, staging: Path, manifest: pl.DataFrame, stored: Stored, writer: shards.Writer) -> None:
    """Name the new shards, and rewrite those old ones that some images have left."""
    placed, stored_ids = manifest.select("image_id", "shard"), stored.manifest.select("image_id")
    new = placed.join(stored_ids, on="image_id", how="anti")["shard"].unique()
    for path, name in zip(writer.paths, sorted(new), strict=True):
        path.rename(staging / name)
    old = placed.join(stored_ids, on="image_id", how="semi")
    for (name,), rows in old.group_by("shard", maintain_order=True):
        if rows.height < stored.manifest["shard"].eq(str(name)).sum():
            data = dataset.read_verified(folder, str(name), stored.digests)
            shards.rewrite(data, staging / str(name), rows["image_id"].to_list())


def _stage_tables(
    project: Project,
    staging: Path,
    manifest: pl.DataFrame,
    rejects: pl.DataFrame,
    changed: pl.DataFrame,
    crossings: pl.DataFrame,
    stored: Stored,
) -> None:
    failures = project.reports / "schema_failures.parquet"
    tables = {
        dataset.MANIFEST: schemas.validate("manifest", manifest, failures),
        dataset.REJECTS: schemas.validate("rejects", rejects, failures),
        dataset.CORRECTIONS: changed,
        dataset.CROSSINGS: crossings,
        dataset.DEPARTED: arrivals.departures(manifest, stored.history),
    }
    for name, table in tables.items():
        write_table(table, staging / name)
    names = [*manifest["shard"].unique(), *tables]
    digests = {name: sha256_of(staging / name) if (staging / name).exists() else stored.digests[name] for name in names}
    content = {
        "format_version": dataset.FORMAT_VERSION,
        "files": digests,
        "digest": dataset.digest_over(digests),
    }
    write_json(staging / dataset.DIGESTS, content)


def _require_unchanged_source(params: Params, project: Project) -> None:
    """Refuse a source that changed since scan: dvc.lock would name a state that was never read."""
    if not project.source_digest.exists():
        return
    now, then = fingerprint.take(params.ingest, project), read_json(project.source_digest)
    if now != then:
        is_source = {**now, "corrections": None} != {**then, "corrections": None}
        raise CalotypeError(
            f"ingest: {params.ingest.source if is_source else params.ingest.corrections} changed since it was scanned. "
            "Let it come to rest, then run `dvc repro` again."
        )


def _report(files: int, rejects: pl.DataFrame, source: Source, manifest: pl.DataFrame, stored: Stored) -> None:
    known = manifest.select("image_id").join(stored.manifest.select("image_id"), on="image_id", how="semi").height
    gone = stored.manifest.height - known
    say(
        PREFIX,
        f"{source.kind}: {counted(manifest.height, 'image')} of {counted(manifest['label'].n_unique(), 'class')} "
        f"({manifest.height - known:,} new, {known:,} known, {gone:,} gone)",
    )
    duplicates = files - manifest.height
    if duplicates:
        say(PREFIX, f"set aside as repeating the bytes of another: {counted(duplicates, 'file')}")
    if rejects.height:
        codes = curation.counts_of(rejects["code"].to_list())
        say(PREFIX, f"rejected: {counted(rejects.height, 'file')} ({codes}); see data/dataset/rejects.parquet")
    if source.ignored:
        say(PREFIX, f"ignored: {', '.join(f'{reason} {count:,}' for reason, count in sorted(source.ignored.items()))}")


def _report_changes(manifest: pl.DataFrame, changed: pl.DataFrame, params: Params) -> None:
    twins, groups = arrivals.count_twins(manifest)
    if twins:
        say(
            PREFIX,
            f"near-duplicates: {counted(twins, 'image')} resembling {counted(groups, 'earlier one')}; they share a "
            "split",
        )
    if params.ingest.corrections != fingerprint.NO_CORRECTIONS:
        say(PREFIX, f"corrected by {params.ingest.corrections}: {counted(changed.height, 'label')}")


def _report_crossings(crossings: pl.DataFrame) -> None:
    images = crossings.group_by("image_id", maintain_order=True).agg(pl.col("path").str.join(" = "))
    if images.height:
        names = "; ".join(images["path"].head(curation.SHOWN))
        more = f"; … and {images.height - curation.SHOWN:,} more" if images.height > curation.SHOWN else ""
        say(
            PREFIX,
            f"{counted(images.height, 'image')} in several declared splits, kept in test, else in val: {names}{more}",
        )


def _save(frame: pl.DataFrame, name: str, project: Project) -> str:
    path = project.reports / name
    with replacing(path) as temporary:
        frame.write_csv(temporary)
    return project.relative(path)


def _next(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.next")


def _equal(one: Path, other: Path) -> bool:
    return other.is_file() and sha256_of(one) == sha256_of(other)


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest
