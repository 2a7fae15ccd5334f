"""What a source is to the rest: images with a label each, and a way to read them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

MAX_FILE_BYTES = 256 * 2**20
"""Larger files are no images that could be trained on; they are reported, unread."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Words by which folders and tables declare a split, in lower case."""


class Unreadable(Exception):  # noqa: N818 - a state of one file, not an error of the command
    """One file cannot be read; its text says why."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One labelled image of a source.

    Attributes
    ----------
    path
        POSIX path relative to the source's root, unique in the source.
    label
        Name of its class.
    split
        ``train``, ``val`` or ``test`` where the source declares it.
    group
        Images of one group stay in one split.
    attributes
        Further columns of a table as a JSON object of texts. Rows that differ in these alone name the same image.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    attributes: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Tree:
    """The files of a folder or of an archive, by name; litter is left out and counted.

    Attributes
    ----------
    name
        What a message calls it.
    files, folders
        POSIX paths, sorted. Folders are listed because an empty one is worth a message.
    ignored
        How many entries were left out, by reason.
    read
        Gives a file's bytes, or raises `Unreadable`.
    """

    name: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: dict[str, int]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Images:
    """Images that their paths tell all about: each is made when it is asked for, because a million take their room."""

    paths: Sequence[str]
    make: Callable[[str], SourceImage]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[SourceImage]:
        return map(self.make, self.paths)

    def __getitem__(self, place: int) -> SourceImage:
        return self.make(self.paths[place])


@dataclass(frozen=True)
class Source:
    """Labelled images, wherever they are.

    Attributes
    ----------
    kind
        ``folder``, ``split-folders``, ``table`` or ``idx``; in an archive ``zip:folder`` and so on.
    images
        Every image, sorted by path.
    ignored
        How many files were left out, by reason.
    empty_classes
        Class folders that hold no file.
    load
        Gives an image's bytes, or raises `Unreadable`.
    """

    kind: str
    images: tuple[SourceImage, ...] | Images
    ignored: dict[str, int]
    empty_classes: tuple[str, ...]
    load: Callable[[SourceImage], bytes]

    @property
    def count(self) -> int:
        """How many images the source names."""
        return len(self.images)

    def emptied(self) -> Source:
        """The same without its images, when they have been read: a source may hold every byte of them."""
        return replace(self, images=(), load=_nothing)

    def read(self, images: Iterable[SourceImage] | None = None) -> Iterator[tuple[SourceImage, bytes | None, str]]:
        """Read the images, or some of them, one by one: each with its bytes, or with None and the reason."""
        for image in self.images if images is None else images:
            data, reason = self._attempt(image)
            yield image, data, reason

    def _attempt(self, image: SourceImage) -> tuple[bytes | None, str]:
        try:
            return self.load(image), ""
        except Unreadable as error:
            return None, str(error)


def _nothing(image: SourceImage) -> bytes:
    raise Unreadable(f"{image.path} has been read already")
