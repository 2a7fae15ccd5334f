"""Zip and tar files, read where they lie: nothing is extracted under a name that the archive chose."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from calotype.errors import DataError
from calotype.sources.contract import MAX_FILE_BYTES, Tree, Unreadable
from calotype.sources.listing import SPECIAL, litter_reason, shown

UNSAFE = "unsafe name"
REPEATED = "repeated name"

BOMB_BYTES = 2**30
BOMB_RATIO = 200
"""An archive that unpacks to more than both, in bytes and as a multiple of its own size, is refused."""

CHUNK = 2**20
BLOCK = 512
OPENERS: dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)

Item = tuple[str, Any, str]
"""A member's name, what reads it, and why it is left out (or nothing)."""


def is_archive(path: Path) -> bool:
    """Whether a file is a zip, a tar or a compressed file, by its first bytes."""
    return _kind(path) is not None


def open_archive(path: Path, cache: Path | None) -> tuple[str, Tree]:
    """List an archive's regular files as a tree; say whether it is a ``zip`` or a ``tar``.

    A compressed tar is unpacked once, into a nameless file under ``cache`` that vanishes with the process.

    Raises
    ------
    DataError
        If it is damaged, encrypted, of a kind that cannot be read, or unpacks beyond all proportion.
    """
    kind = _kind(path)
    try:
        if kind == "zip":
            return "zip", _zip_tree(path)
        if kind == "tar":
            return "tar", _tar_tree(path, path.open("rb"))
        if kind in OPENERS:
            return "tar", _tar_tree(path, _unpack(path, kind, cache))
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged archive ({reason}). Copy or download it again.") from error
    raise DataError(f"{path}: a {kind} file; expected a zip or a tar. Unpack it into a folder and name that.")


def _kind(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(BLOCK)
    named = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    return named or ("tar" if _is_tar_header(head) else None)


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(block) == BLOCK and not any(block)  # an empty tar
    return True


def safe_name(name: str) -> str | None:
    """A member's name as a relative POSIX path, or None if it points elsewhere.

    >>> safe_name("./cat/1.jpg"), safe_name("../cat/1.jpg"), safe_name("/etc/passwd")
    ('cat/1.jpg', None, None)
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    has_drive = bool(parts) and parts[0][1:2] == ":"
    is_elsewhere = name.startswith("/") or has_drive or ".." in parts or "\0" in name
    return None if is_elsewhere or not parts else "/".join(parts)


def _collect(name: str, items: Iterable[Item], read: Callable[[Any], bytes]) -> Tree:
    """Sort an archive's members into files, folders and what is left out; of a repeated name the last one counts."""
    members: dict[str, Any] = {}
    folders: set[str] = set()
    ignored: Counter[str] = Counter()
    for raw, member, reason in items:
        path = safe_name(raw)
        litter = path and next(filter(None, map(litter_reason, path.split("/"))), None)
        if path is None:
            ignored[UNSAFE] += raw.strip("./") != "" or ".." in raw
        elif litter:
            ignored[litter] += member is not None
        elif reason:
            ignored[reason] += 1
        elif member is None:
            folders.add(path)
        else:
            ignored[REPEATED] += path in members
            members[path] = member
    return Tree(name, tuple(sorted(members)), tuple(sorted(folders)), dict(+ignored), lambda path: read(members[path]))


def _zip_tree(path: Path) -> Tree:
    archive = zipfile.ZipFile(path)
    infos = archive.infolist()
    if any(info.flag_bits & 1 for info in infos):
        raise DataError(f"{path}: the archive is encrypted. Unpack it into a folder and name that.")
    _refuse_bomb(path, sum(info.file_size for info in infos))
    return _collect(str(path), map(_zip_item, infos), lambda info: _read_zip(archive, info))


def _zip_item(info: zipfile.ZipInfo) -> Item:
    name = info.filename.replace("\\", "/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    return name, None if name.endswith("/") else info, SPECIAL if is_special else ""


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _refuse_large(info.file_size)
    try:
        with archive.open(info) as file:
            return file.read(MAX_FILE_BYTES)
    except (*DAMAGE, RuntimeError) as error:
        raise Unreadable(f"damaged in the archive: {error}") from error


def _tar_tree(path: Path, file: IO[bytes]) -> Tree:
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - no resource of its own
    infos = archive.getmembers()
    _refuse_early_end(path, file, archive.offset)
    return _collect(str(path), map(_tar_item, infos), lambda info: _read_tar(file, info))


def _refuse_early_end(path: Path, file: IO[bytes], offset: int) -> None:
    """A true end is a block of zeros, or no block: tarfile takes a damaged header for the end as well, in silence."""
    file.seek(offset)
    if any(file.read(BLOCK)):
        raise DataError(f"{path}: damaged archive (no valid header at byte {offset:,}). Copy or download it again.")


def _tar_item(info: tarfile.TarInfo) -> Item:
    is_plain = info.isdir() or (info.isreg() and not info.issparse())
    return shown(info.name), None if info.isdir() else info, "" if is_plain else SPECIAL


def _read_tar(file: IO[bytes], info: tarfile.TarInfo) -> bytes:
    _refuse_large(info.size)
    data = os.pread(file.fileno(), info.size, info.offset_data)
    if len(data) < info.size:
        raise Unreadable("damaged in the archive: it ends early")
    return data


def _unpack(path: Path, kind: str, cache: Path | None) -> IO[bytes]:
    """Unpack a compressed tar into a file without a name: listing it costs a full pass, reading it none."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    spool = tempfile.TemporaryFile(dir=cache)  # noqa: SIM115 - lives as long as the tree
    with OPENERS[kind](path) as packed:
        first = packed.read(BLOCK)
        if not _is_tar_header(first):
            raise DataError(f"{path}: a {kind} file that holds no tar. Unpack it, and name what was in it.")
        spool.write(first)
        while chunk := packed.read(CHUNK):
            spool.write(chunk)
            _refuse_bomb(path, spool.tell())
    spool.seek(0)
    return spool


def _refuse_large(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise Unreadable(f"larger than {MAX_FILE_BYTES // 2**20} MiB")


def _refuse_bomb(path: Path, unpacked: int) -> None:
    packed = path.stat().st_size
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise DataError(
            f"{path}: unpacks to more than {BOMB_RATIO} times its {packed:,} bytes; images do not. "
            f"If you trust it, unpack it into a folder and name that."
        )
