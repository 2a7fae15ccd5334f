"""Bring a public set to data/raw/: scikit-learn's digits, or Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calotype.console import say, track
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.files import replacing
from calotype.project import Project

SETS = ("digits", "fashion-mnist")

DIGITS_TOP = 16  # scikit-learn's digits count 0..16 inked pixels of each 4×4 block

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
OFFICIAL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
TIMEOUT_S = 30.0
CHUNK = 2**20

FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of what is inside: Debian packs the same files anew, so the packed bytes differ."""

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The published names, in the order of the labels."""


def fetch(project: Project, name: str, origin: Path | None = None) -> Path:
    """Bring a public set to ``data/raw/<name>``, whole or not at all; leave it alone where it is there already.

    Parameters
    ----------
    project
        The project that receives it.
    name
        ``digits`` or ``fashion-mnist``.
    origin
        A folder that holds Fashion-MNIST's files already.

    Returns
    -------
    Path
        The set's folder, which is a source.

    Raises
    ------
    UsageError
        If there is no such set, or if digits are asked from a folder.
    CalotypeError
        If the official address cannot be reached.
    DataError
        If a file is not the published one.
    """
    if name not in SETS:
        raise UsageError(
            f"fetch: no public set {name!r}; expected {' or '.join(SETS)}. Your own images need no fetching."
        )
    if name == "digits" and origin is not None:
        raise UsageError("fetch: digits come with scikit-learn; --from serves fashion-mnist. Leave it out.")
    folder = project.raw / name
    if folder.is_dir():  # whole, since it was renamed into place; images added to it since must survive
        say("fetch", f"{project.relative(folder)} is there already")
        return folder
    count, whence = _write_digits(folder) if name == "digits" else _write_fashion(folder, origin)
    say("fetch", f"{count:,} images from {whence} are in {project.relative(folder)}")
    return folder


def _write_digits(folder: Path) -> tuple[int, str]:
    """Write each digit as a binary PGM file, values 0..16 stretched to 0..255, in a folder per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    with replacing(folder) as temporary:
        for label in range(10):
            (temporary / str(label)).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            pixels = (image * 255 / DIGITS_TOP).round().astype("uint8").tobytes()
            (temporary / str(label) / f"{index:04d}.pgm").write_bytes(b"P5\n8 8\n255\n" + pixels)
    return len(digits.target), "scikit-learn's load_digits"


def _write_fashion(folder: Path, origin: Path | None) -> tuple[int, str]:
    here = origin or (DEBIAN_FOLDER if _holds_fashion(DEBIAN_FOLDER) else None)
    if here is not None:
        whence = str(here) if origin else f"{here} (Debian package {DEBIAN_PACKAGE})"
        packed = {name: _from_folder(here, name) for name in FASHION_FILES}
    else:
        whence = OFFICIAL
        packed = {name: _download(OFFICIAL + name) for name in FASHION_FILES}
    for name, data in packed.items():
        _verify(name, data, whence)
    with replacing(folder) as temporary:
        temporary.mkdir()
        for name, data in packed.items():
            (temporary / name).write_bytes(data)
        (temporary / "classes.txt").write_text("".join(f"{name}\n" for name in FASHION_CLASSES), encoding="utf-8")
    return 70_000, whence


def _holds_fashion(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FASHION_FILES)


def _from_folder(folder: Path, name: str) -> bytes:
    """A file as it lies in a folder; one that lies there unpacked is packed, always into the same bytes."""
    if (folder / name).is_file():
        return (folder / name).read_bytes()
    plain = folder / name.removesuffix(".gz")
    if not plain.is_file():
        raise DataError(
            f"{folder}: no {name}; expected the four files {', '.join(FASHION_FILES)}. Name another folder."
        )
    return gzip.compress(plain.read_bytes(), mtime=0)


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
            length = int(reply.headers.get("Content-Length") or 0)
            chunks = track(_chunks(reply), prefix="fetch", unit="MiB", total=-(-length // CHUNK) or None)
            data = b"".join(chunks)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise CalotypeError(
            f"fetch: {url} cannot be reached ({reason}). Install the Debian package {DEBIAN_PACKAGE}, or give a folder "
            f"that holds the four files: `calotype fetch fashion-mnist --from FOLDER`."
        ) from error
    return data


def _chunks(reply: Any) -> Iterator[bytes]:
    while chunk := reply.read(CHUNK):
        yield chunk


def _verify(name: str, data: bytes, whence: str) -> None:
    try:
        digest = hashlib.sha256(gzip.decompress(data)).hexdigest()
    except (OSError, EOFError, zlib.error):
        digest = "no gzip file"
    if digest != FASHION_FILES[name]:
        raise DataError(
            f"fetch: {name} from {whence} is not the published file (SHA-256 {digest[:12]}…, expected "
            f"{FASHION_FILES[name][:12]}…). Nothing was written; fetch it from elsewhere."
        )
