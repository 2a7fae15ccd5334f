"""Every content of the inbox gets its row in the table of predictions, every file its row in that of files."""

from __future__ import annotations

from prefect import flow

from calotype.predictions.batch_summary import BatchSummary
from tasks.prediction import predict_inbox
from tasks.schedules import cancel_late_runs


@flow(name="batch-prediction")
def batch_prediction(inbox: str | None = None, dry_run: bool = False) -> BatchSummary:
    """Classify what is new in the inbox with the champion and append it to the Delta tables, exactly once.

    Args:
        inbox: Folder or URL of images; none is CALOTYPE_PREDICT_INBOX, or data/inbox.
        dry_run: Say what would be classified, and write nothing.
    """
    cancel_late_runs()
    return predict_inbox(inbox, dry_run)


if __name__ == "__main__":
    batch_prediction()
