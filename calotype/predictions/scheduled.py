"""Scheduled prediction: each content of the inbox gets one row, each version of a file another, exactly once.

Answers are spooled, and the table of predictions is committed before that of files: killed in between, the next batch
finds the contents answered and adds their files alone. Whoever loses the race for a commit reads again, subtracts, and
tries again from the spool.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from calotype import delta, exactly_once
from calotype.console import say, track
from calotype.counted import counted
from calotype.errors import CalotypeError, DataError
from calotype.exactly_once import Appended, Snapshot
from calotype.files import read_json, write_json
from calotype.known import NONE, Known
from calotype.params import Params
from calotype.predictions import answering, reading
from calotype.predictions.answering import Answering, Means, Tally
from calotype.predictions.batch_summary import BatchSummary, Shadow
from calotype.predictions.inbox import Inbox, mount_of, open_place
from calotype.predictions.inbox_rows import Answerer, Rows, rows_of
from calotype.predictions.incoming import UNLISTED, Waiting
from calotype.predictions.preparing import Form, in_order, prepare
from calotype.predictions.spool import Spool
from calotype.predictions.tables import BY_CONTENT, BY_CONTENT_AND_VERSION, BY_FILE, CHAMPION, PREDICTIONS, SHADOW
from calotype.predictions.unsure import Unsure
from calotype.project import Project
from calotype.releases.local_bundles import Champion

Watch = Callable[[int, int], None]
"""Is told how many files have passed, of how many."""


def predict_inbox(
    project: Project,
    params: Params,
    *,
    inbox: str | None = None,
    dry_run: bool = False,
    rescore: bool = False,
    watch: Watch | None = None,
) -> BatchSummary:
    """Answer what the inbox holds and the tables do not know, and append it, exactly once.

    Parameters
    ----------
    project, params
        The project and its values.
    inbox
        The folder or URL to read; None is the project's own. One that is empty, or was never there, is no error: a
        nightly batch may find nothing.
    dry_run
        Answer and count, and write nothing.
    rescore
        Let the champion answer contents, too, that an earlier version answered.
    watch
        Is told of the progress.

    Raises
    ------
    DataError
        If the place of a table holds something else, or an inbox that held files is not there any more: the folder,
        or the disk that was mounted there.
    UsageError
        If there is no champion.
    CalotypeError
        If the inbox goes during the batch; what was read is in the tables.
    """
    started = datetime.now(UTC)
    url = inbox or project.inbox
    batch = BatchSummary(
        batch_id=f"{started:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}",
        inbox=project.relative(url),
        table=project.relative(project.predictions),
        dry_run=dry_run,
        rescore=rescore,
    )
    reading.refuse_older_table(project)
    seen = exactly_once.read(project.table("files"), BY_FILE)
    place = open_place(url, batch.inbox)
    if place is None:
        return replace(batch, note=_absent(batch.inbox, seen))
    files = Inbox(place, params.predict.settle_s)
    total = sum(1 for one in place if not one.problem.startswith(UNLISTED))
    if not total:
        batch = replace(batch, note=_empty(project, url, batch.inbox, seen))
    elif not dry_run:
        _note_mount(project, url)
    return _Batch(project, params, batch, files, total).run(NONE if rescore else seen.keys, watch)


class _Batch:
    """One batch on its way from the inbox to the tables."""

    def __init__(self, project: Project, params: Params, summary: BatchSummary, files: Inbox, total: int) -> None:
        self.project, self.params, self.summary, self.files, self.total = project, params, summary, files, total
        self.keyed = BY_CONTENT_AND_VERSION if summary.rescore else BY_CONTENT
        self.tally, self.unsure, self.agreement = Tally(), Unsure(), [0, 0]
        self.new = self.answered_before = 0
        self.started = time.monotonic()

    def run(self, seen: Known, watch: Watch | None) -> BatchSummary:
        waiting = self.files.new(seen, lambda done: watch(done, self.total) if watch else None)
        first = next(waiting, None)
        if first is None:
            return self._ended(self.summary)
        champion = answering.champion(self.project, self.params)
        answerers = self._answerers(champion)
        project = self.project
        project.cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="batch-", dir=project.cache) as folder:
            spool = Spool(Path(folder))
            tracked = track(itertools.chain([first], waiting), prefix="predict", unit="images")
            self._answer(tracked, answerers, champion, spool)
            appended = Appended(0, 0)
            if not self.summary.dry_run:
                appended = exactly_once.append(project.table("predictions"), self.keyed, spool.predictions)
                exactly_once.append(project.table("files"), BY_FILE, spool.files)
        return self._ended(self._found(champion, appended, answerers))

    def _answerers(self, champion: Champion) -> list[tuple[str, Answering]]:
        """The champion, and the challenger in the shadow if it is asked for; both stay the same for the whole batch."""
        found = [(CHAMPION, answering.answering(self.project, self.params, champion, Means()))]
        if self.params.predict.shadow:
            from calotype.releases import registry

            challenger = registry.challenger(self.project, self.params)
            if challenger is None:
                say("predict", "predict.shadow: there is no challenger; the champion answers alone")
            else:
                found.append((SHADOW, answering.answering(self.project, self.params, challenger, Means())))
        return found

    def _answer(
        self, waiting: Iterator[Waiting], answerers: list[tuple[str, Answering]], champion: Champion, spool: Spool
    ) -> None:
        who = [Answerer(role, one.classifier, one.model, one.image) for role, one in answerers]
        form = Form(tuple(dict.fromkeys(one.image for one in who)), self.params.ingest.max_megapixels)
        contents = exactly_once.read(self.project.table("predictions"), self.keyed)
        answered = _Answered(contents, champion.version if self.summary.rescore else None)
        first = answerers[0][1]

        def work(batch: list[Waiting]) -> Rows:
            return rows_of(prepare(batch, form, self.files.read, answered), who, self.summary.batch_id)

        with spool:
            for rows in in_order(waiting, work, batch_size=first.batch_size, workers=first.workers):
                spool.add(rows)
                self._count(rows)

    def _count(self, rows: Rows) -> None:
        self.new += rows.files.num_rows
        self.files.gone += rows.left
        self.answered_before += rows.answered_before
        roles = rows.predictions["role"].to_pylist()
        split = roles.count(CHAMPION)
        own = rows.predictions.slice(0, split)
        self.tally.add(own, rows.files["reason"])
        self.unsure.add(own)
        shadow = rows.predictions.slice(split)
        ours = dict(zip(own["image_id"].to_pylist(), own["label"].to_pylist(), strict=True))
        pairs = zip(shadow["image_id"].to_pylist(), shadow["label"].to_pylist(), strict=True)
        same = [ours.get(image_id) == label for image_id, label in pairs]
        self.agreement[0] += len(same)
        self.agreement[1] += sum(same)

    def _found(self, champion: Champion, appended: Appended, answerers: list[tuple[str, Answering]]) -> BatchSummary:
        compared, equal = self.agreement
        shadow = [Shadow(one.model.version, compared, equal) for role, one in answerers if role == SHADOW]
        return replace(
            self.summary,
            new=self.new,
            answered_before=self.answered_before,
            appended=appended.appended,
            by_others=0 if self.summary.dry_run else appended.distinct - appended.appended,
            predicted=self.tally.predicted,
            abstained=self.tally.abstained,
            rejected=dict(self.tally.rejected),
            labels=dict(self.tally.labels),
            counts=self.tally.counts(),
            model_name=champion.name,
            model_version=champion.version,
            shadow=shadow[0] if shadow else None,
            left_behind=_left_behind(self.project, champion.version) if self.summary.rescore else 0,
        )

    def _ended(self, summary: BatchSummary) -> BatchSummary:
        summary = replace(
            summary,
            files=self.files.files,
            still_written=self.files.young,
            gone=self.files.gone,
            unlisted=tuple(self.files.unlisted),
            seconds=round(time.monotonic() - self.started, 2),
        )
        if "." in summary.unlisted:
            raise CalotypeError(
                f"{summary.inbox}: the inbox went during the batch; {counted(summary.new, 'file')} read, now in the "
                "tables. Bring it back; the next batch takes the rest."
            )
        if summary.predicted and not summary.dry_run:
            page = self.unsure.write_page(self.project, self.params, self.files, summary)
            summary = replace(summary, page=self.project.relative(page))
        return summary


class _Answered:
    """The contents that have an answer by the champion: by any version, or by one."""

    def __init__(self, contents: Snapshot, version: int | None) -> None:
        self._keys = contents.keys
        self._rest = (CHAMPION,) if version is None else (CHAMPION, version)

    def __contains__(self, image_id: object) -> bool:
        return (image_id, *self._rest) in self._keys


def _absent(inbox: str, seen: Snapshot) -> str:
    if not len(seen.keys):
        return "no such folder"
    raise DataError(
        f"{inbox}: no such folder; it held files on {_last(seen)}. Mount it or bring it back, or set "
        "CALOTYPE_PREDICT_INBOX."
    )


def _empty(project: Project, url: str, inbox: str, seen: Snapshot) -> str:
    """Tell an inbox that was emptied, which is a note, from a disk that is not mounted, whose folder stays behind."""
    if not len(seen.keys):
        return "no files"
    before = _mounts(project).get(url)
    if before is not None and before != str(now := mount_of(Path(url))):
        raise DataError(
            f"{inbox}: empty, and on {now} now; it held files on {_last(seen)} and was on {before}. Mount that again, "
            f"or set CALOTYPE_PREDICT_INBOX; if the inbox moved for good, remove {project.relative(project.mounts)}."
        )
    return f"empty; the last new files were seen on {_last(seen)}"


def _note_mount(project: Project, url: str) -> None:
    """Remember the mount on which a folder holds files."""
    mounts = _mounts(project)
    if "://" not in url and mounts.get(url) != (mount := str(mount_of(Path(url)))):
        project.cache.mkdir(parents=True, exist_ok=True)
        write_json(project.mounts, mounts | {url: mount})


def _mounts(project: Project) -> dict[str, str]:
    return read_json(project.mounts) if project.mounts.exists() else {}


def _last(seen: Snapshot) -> str:
    return f"{seen.last:%Y-%m-%d %H:%M} UTC" if seen.last else "an earlier night"


def _left_behind(project: Project, version: int) -> int:
    """How many contents have no answer by this version."""
    import pyarrow.compute as pc

    table = delta.open_checked(project.table("predictions"), PREDICTIONS)
    is_champions = pc.field("role") == CHAMPION
    ids = {
        row for batch in delta.batches(table, PREDICTIONS, ["image_id"], is_champions) for row in batch[0].to_pylist()
    }
    by_version = is_champions & (pc.field("model_version") == version)
    for batch in delta.batches(table, PREDICTIONS, ["image_id"], by_version):
        ids.difference_update(batch["image_id"].to_pylist())
    return len(ids)
