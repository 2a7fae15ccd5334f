"""Each version of a file is new once, when it is complete; whatever else lies in the inbox."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from calotype.errors import DataError
from calotype.known import NONE, Known, digests_of
from calotype.predictions.inbox import Inbox, LocalPlace, open_place
from calotype.predictions.incoming import NotNowError, Unreadable, Waiting

MOST = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(name.encode())
    return folder


def inbox(root: Path, settle_s: float = 0.0) -> Inbox:
    return Inbox(LocalPlace(root), settle_s)


def new(one: Inbox, seen: Known = NONE) -> list[Waiting]:
    return list(one.new(seen, lambda _: None))


def seen(files: Iterable[Waiting]) -> Known:
    return Known(digests_of((one.path, one.size, one.mtime_us) for one in files))


def test_a_version_that_was_seen_is_not_new(root: Path) -> None:
    first = new(inbox(root))
    assert [one.path for one in first] == ["a.png", "b.png"]
    again = inbox(root)
    assert new(again, seen(first)) == []
    assert (again.files, again.known) == (2, 2)


@pytest.mark.parametrize("change", ["size", "time", "name"])
def test_another_size_time_or_name_is_another_version(root: Path, change: str) -> None:
    first = new(inbox(root))
    file = root / "a.png"
    if change == "size":
        times = file.stat()
        file.write_bytes(b"longer than before")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1000))
    else:
        file.rename(root / "c.png")
    (found,) = new(inbox(root), seen(first))
    assert found.path == ("c.png" if change == "name" else "a.png")


def test_a_file_still_being_written_waits_though_its_time_of_change_is_old(root: Path) -> None:
    os.utime(root / "a.png", (0, 0))
    one = inbox(root, settle_s=0.4)
    started = time.monotonic()
    waiting = one.new(NONE, lambda _: None)
    (root / "b.png").write_bytes(b"another")
    # Both are young; the writer of b goes on, a settles.
    found = [file.path for file in waiting]
    assert time.monotonic() - started >= 0.3
    assert found == ["a.png", "b.png"]


def test_a_file_that_changes_while_others_settle_is_left_for_the_next_batch(root: Path) -> None:
    class Written(LocalPlace):
        """A place where somebody goes on writing b.png after the listing."""

        def look(self, waiting: Waiting) -> Waiting | None:
            if waiting.path == "b.png":
                (root / "b.png").write_bytes(b"more and more")
            return super().look(waiting)

    one = Inbox(Written(root), 0.2)
    assert [file.path for file in new(one)] == ["a.png"]
    assert one.young == 1


def test_a_marker_says_that_a_file_or_a_folder_is_complete_and_is_no_image(root: Path) -> None:
    (root / "camera").mkdir()
    (root / "camera" / "c.png").write_bytes(b"c")
    (root / "a.png.done").touch()
    (root / "camera.done").touch()
    one = inbox(root, settle_s=3600)
    waiting = one.new(NONE, lambda _: None)
    assert [next(waiting).path for _ in range(2)] == ["a.png", "camera/c.png"]
    assert one.files == 3


def test_a_file_that_changed_or_went_after_the_listing_is_not_read(root: Path) -> None:
    one = inbox(root)
    first, second = new(one)
    assert one.read(first, MOST) == b"a.png"
    (root / "a.png").write_bytes(b"changed")
    with pytest.raises(NotNowError):
        one.read(first, MOST)
    (root / "b.png").unlink()
    with pytest.raises(NotNowError):
        one.read(second, MOST)


def test_a_folder_named_as_an_image_and_a_link_to_nothing_are_seen_once(root: Path) -> None:
    (root / "folder.jpg").mkdir()
    (root / "link.png").symlink_to("nowhere")
    found = {one.path: one for one in new(inbox(root))}
    assert (found["folder.jpg"].size, found["folder.jpg"].mtime_us) == (None, None)
    with pytest.raises(Unreadable) as error:
        inbox(root).read(found["link.png"], MOST)
    assert error.value.code == "broken-link"
    (root / "folder.jpg" / "inside.png").write_bytes(b"x")
    assert [one.path for one in new(inbox(root), seen(found.values()))] == ["folder.jpg/inside.png"]


def test_a_file_without_permission_is_tried_again_when_its_permissions_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything: what the system answers an ordinary user is told here.
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("a.png") and allowed(path, mode))
    first = new(inbox(root))
    assert new(inbox(root), seen(first)) == []
    monkeypatch.setattr(os, "access", allowed)
    (root / "a.png").chmod(0o600)
    assert [one.path for one in new(inbox(root), seen(first))] == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named_and_gets_no_row(root: Path) -> None:
    (root / "closed").mkdir(mode=0)
    one = inbox(root)
    assert [file.path for file in new(one)] == ["a.png", "b.png"]
    assert one.unlisted == ["closed"]


def test_an_inbox_that_goes_during_the_walk_is_named(root: Path) -> None:
    one = inbox(root)
    for name in ("a.png", "b.png"):
        (root / name).unlink()
    root.rmdir()
    assert new(one) == []
    assert one.unlisted == ["."]


def test_how_far_the_walk_is_is_told(root: Path) -> None:
    told: list[int] = []
    list(inbox(root).new(NONE, told.append))
    assert told == [2]


def test_an_inbox_is_a_folder_or_absent(root: Path) -> None:
    assert open_place(str(root / "absent"), "absent") is None
    assert open_place(str(root), "inbox") is not None
    with pytest.raises(DataError, match=r"inbox/a\.png: found a file; expected a folder of images"):
        open_place(str(root / "a.png"), "inbox/a.png")
