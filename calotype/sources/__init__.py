"""Where labelled images come from: folders, splits over folders, tables, IDX files, and archives of any of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.sources.contract import SPLIT_WORDS, Source, SourceImage, Tree, Unreadable
from calotype.sources.listing import require, stat_listing


def open_source(path: Path, *, cache: Path | None = None) -> Source:
    """Recognise the source at ``path`` and list its images; nothing at ``path`` is ever written.

    Parameters
    ----------
    path
        A folder, a CSV or Parquet table, or a zip or tar.
    cache
        Where a compressed tar may be unpacked, nameless, while it is read; the system's temporary folder if None.

    Raises
    ------
    DataError
        If nothing is there, if it cannot be read, or if it has none of the known shapes: then the message shows the
        tree found beside the trees expected.
    """
    require(path)
    if path.is_dir():
        from calotype.sources.trees import folder_tree

        return _recognise(folder_tree(path), path)
    from calotype.sources.archive import is_archive, open_archive
    from calotype.sources.table import table_on_disk

    if not is_archive(path):
        return table_on_disk(path)
    prefix, tree = open_archive(path, cache)
    source = _recognise(tree, None)
    return replace(source, kind=f"{prefix}:{source.kind}")


def _recognise(tree: Tree, folder: Path | None) -> Source:
    from calotype.sources import folders, idx, shape, table

    source = idx.recognise(tree) or table.recognise(tree, folder) or folders.recognise(tree)
    if source is None:
        raise shape.error(tree)
    return source


__all__ = ["SPLIT_WORDS", "Source", "SourceImage", "Tree", "Unreadable", "open_source", "stat_listing"]
