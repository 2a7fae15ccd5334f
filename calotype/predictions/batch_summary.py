"""What a scheduled batch did, as a value that a flow may return."""

from __future__ import annotations

from dataclasses import dataclass, field

from calotype.counted import counted


@dataclass(frozen=True)
class Shadow:
    """How the challenger's answers compare with the champion's."""

    model_version: int
    compared: int
    equal: int

    def summary(self) -> str:
        """``version 4 in the shadow: 97 of 100 labels are the champion's``."""
        return (
            f"version {self.model_version} in the shadow: {self.equal:,} of {self.compared:,} labels are the champion's"
        )


@dataclass(frozen=True)
class BatchSummary:
    """What one scheduled batch did.

    Attributes
    ----------
    batch_id, inbox, table
        Its name, what it read, where it wrote.
    files, new
        Files of the inbox, and versions of files that the tables did not know.
    answered_before
        New files whose content had an answer.
    appended, by_others
        Rows of predictions that were appended, and answers that another batch appended first.
    predicted, abstained, rejected, labels, counts
        Of the new files.
    model_name, model_version
        Who answered.
    still_written, gone
        Files that were left for the next batch: still being written, or changed while they were read.
    unlisted
        Folders whose files could not be listed.
    shadow
        The challenger's answers, where `predict.shadow` asks for them.
    left_behind
        With ``rescore``: contents that have no answer by this version, because no file in the inbox holds them.
    seconds
        From start to end.
    page
        The least confident answers as pictures.
    dry_run, rescore
        How it was asked for.
    note
        Why there was nothing to do.
    """

    batch_id: str
    inbox: str
    table: str
    files: int = 0
    new: int = 0
    answered_before: int = 0
    appended: int = 0
    by_others: int = 0
    predicted: int = 0
    abstained: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    counts: str = ""
    model_name: str = ""
    model_version: int | None = None
    still_written: int = 0
    gone: int = 0
    unlisted: tuple[str, ...] = ()
    shadow: Shadow | None = None
    left_behind: int = 0
    seconds: float = 0.0
    page: str = ""
    dry_run: bool = False
    rescore: bool = False
    note: str = ""

    @property
    def rate(self) -> float:
        """New files a second."""
        return self.new / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """A line for a person, and one for each thing that is worth knowing."""
        return "\n".join([self._first_line(), *(f"  {line}" for line in self.remarks())])

    def remarks(self) -> list[str]:
        """What is worth knowing besides the counts."""
        answered = "answered by this version before" if self.rescore else "answered before"
        found = [
            (self.answered_before, f"files hold contents that were {answered}"),
            (self.by_others, "answers were appended by another batch meanwhile"),
            (self.still_written, "files are still being written (predict.settle_s): left for the next batch"),
            (self.gone, "files changed or went while they were read: left for the next batch"),
            (self.left_behind, "contents answered earlier are no longer in the inbox and keep their answers"),
        ]
        lines = [f"{text}: {count:,}" for count, text in found if count]
        lines += [f"the folder {path} cannot be listed" for path in self.unlisted]
        lines += [self.shadow.summary()] if self.shadow else []
        return lines + ([f"the least confident answers, as pictures: {self.page}"] if self.page else [])

    def _first_line(self) -> str:
        new = "looked at again" if self.rescore else "new"
        head = f"{self.inbox}: {counted(self.files, 'file')}, {self.new:,} {new}"
        if not self.new:
            return f"{head}{f' ({self.note})' if self.note else ''}: nothing to predict"
        by = f"{self.counts} by {self.model_name} version {self.model_version}"
        if self.dry_run:
            return f"{head}: {by}; dry run, nothing is written to {self.table}"
        return f"{head}: {by} → {self.table}, {counted(self.appended, 'row')} as batch {self.batch_id}"
