"""The Delta tables of production, and what they hold: ``predictions`` by content, ``files`` by version of a file."""

from __future__ import annotations

import pyarrow as pa

from calotype.delta import Kind
from calotype.exactly_once import Keyed

CHAMPION, SHADOW = "champion", "shadow"
"""Roles of the model that answered: whose answers count, and whose are taken beside them for comparison."""

_MOMENT = pa.timestamp("us", tz="UTC")
_VARIABLE = "CALOTYPE_PREDICT_OUTPUT"

PREDICTIONS = Kind(
    "the table of predictions",
    _VARIABLE,
    "calotype.predictions",
    pa.schema(
        [
            # SHA-256 of the file's bytes.
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("role", pa.string(), nullable=False),
            # Where this content was first seen, below the inbox.
            pa.field("path", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("confidence", pa.float32(), nullable=False),
            pa.field("abstained", pa.bool_(), nullable=False),
            # A map, so that models with other classes share one table.
            pa.field("probabilities", pa.map_(pa.string(), pa.float32()), nullable=False),
            pa.field("model_name", pa.string(), nullable=False),
            pa.field("model_version", pa.int64(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("engine", pa.string(), nullable=False),
            # float16 numbers, which Delta has no type for; null where the model's bundle has no projection.
            pa.field("embedding", pa.list_(pa.float32())),
            # Of the image as the network sees it: mean and standard deviation of its luminance between 0 and 1, and the
            # standard deviation of its Laplacian.
            pa.field("mean", pa.float32(), nullable=False),
            pa.field("contrast", pa.float32(), nullable=False),
            pa.field("sharpness", pa.float32(), nullable=False),
            pa.field("batch_id", pa.string(), nullable=False),
            # Of the commit; rises from each to the next, so that windows lose and repeat nothing.
            pa.field("predicted_at", _MOMENT, nullable=False),
        ]
    ),
    format_version=4,
    lacking={},
)
"""One row for each readable content and role; one more for each version that `calotype predict --rescore` asked."""

FILES = Kind(
    "the table of files",
    _VARIABLE,
    "calotype.files",
    pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            # Null for what is no file.
            pa.field("size", pa.int64()),
            # Null also for what may not be read: once it may, that is another version.
            pa.field("mtime", _MOMENT),
            # Null for what could not be read.
            pa.field("image_id", pa.string()),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reason", pa.string()),
            pa.field("batch_id", pa.string(), nullable=False),
            pa.field("seen_at", _MOMENT, nullable=False),
        ]
    ),
    format_version=1,
    lacking={},
)
"""One row for each version of a file that was seen: path, size and time of change."""


BY_CONTENT = Keyed(PREDICTIONS, "One row for each content and role", ("image_id", "role"), "predicted_at")
BY_CONTENT_AND_VERSION = Keyed(
    PREDICTIONS, BY_CONTENT.description, ("image_id", "role", "model_version"), BY_CONTENT.moment
)
"""For rescoring: each version may answer once."""

BY_FILE = Keyed(FILES, "One row for each version of a file that was seen", ("path", "size", "mtime"), "seen_at")
