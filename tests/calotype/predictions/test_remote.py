"""An inbox at a URL: what is listed, what is read, and which trouble is one file's and which is the whole inbox's."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from calotype.errors import CalotypeError, UsageError
from calotype.predictions.incoming import Unreadable
from calotype.predictions.remote import RemoteFolder
from tests.real_servers import S3Server, s3_server

MANY = 10_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["s3", "memory", "file"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an inbox with four files, of which two count."""
    name = f"inbox-{uuid.uuid4().hex[:8]}"
    files = {"b/two.png": b"22", "a.png": b"1", ".hidden": b"x", "b/Thumbs.db": b"x"}
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        for path, data in files.items():
            server.client().put_object(Bucket=server.bucket, Key=f"{name}/{path}", Body=data)
        return f"s3://{server.bucket}/{name}"
    url = f"memory://{name}" if request.param == "memory" else f"file://{tmp_path}/{name}"
    for path, data in files.items():
        with fsspec.open(f"{url}/{path}", "wb", auto_mkdir=True) as file:
            file.write(data)
    return url


def test_files_are_listed_by_path_with_size_and_time_and_read(inbox: str) -> None:
    folder = RemoteFolder(f"{inbox}/")
    found = list(folder)
    assert [(one.path, one.file, one.size) for one in found] == [
        ("a.png", f"{inbox}/a.png", 1),
        ("b/two.png", f"{inbox}/b/two.png", 2),
    ]
    for one in found:
        assert one.mtime_us is not None
        assert abs(one.mtime_us / 1e6 - time.time()) < 60
        assert folder.look(one) == one
    assert [folder.read(one, MANY) for one in found] == [b"1", b"22"]
    assert folder.read(folder.at("b/two.png"), MANY) == b"22"
    assert folder.holds("b/two.png")
    assert not folder.holds("b/two.png.done")


def test_a_file_that_is_gone_or_too_large_is_that_files_trouble(inbox: str) -> None:
    folder = RemoteFolder(inbox)
    small, large = folder
    with pytest.raises(Unreadable) as too_large:
        folder.read(large, 1)
    assert too_large.value.code == "too-large"
    files, root = fsspec.core.url_to_fs(inbox)
    files.rm_file(f"{root}/{small.path}")
    with pytest.raises(Unreadable) as missing:
        folder.read(small, MANY)
    assert missing.value.code == "missing"
    assert folder.look(small) is None
    assert [one.path for one in folder] == ["b/two.png"]


def test_keys_of_s3_are_taken_as_they_are(s3: S3Server) -> None:
    keys = ["./e.png", "a//b.png", "c/../d.png", "f%20g.png", "hé\u0301.png", "i j+k.png", "o#p?q.png", "t~u*[x].png"]
    for key in [*keys, "folder/"]:
        s3.client().put_object(Bucket=s3.bucket, Key=f"odd/{key}", Body=key.encode())
    folder = RemoteFolder(f"s3://{s3.bucket}/odd")
    visible = [key for key in keys if not key.startswith(".") and ".." not in key]
    assert [one.path for one in folder] == visible
    assert [folder.read(one, MANY).decode() for one in folder] == visible


@pytest.mark.slow
def test_more_than_a_page_of_objects_is_listed_whole(s3: S3Server) -> None:
    client = s3.client()
    for number in range(1010):
        client.put_object(Bucket=s3.bucket, Key=f"pages/{number:04}.png", Body=b"x")
    assert [one.path for one in RemoteFolder(f"s3://{s3.bucket}/pages")] == [f"{n:04}.png" for n in range(1010)]


def refused(url: str) -> str:
    started = time.monotonic()
    with pytest.raises(CalotypeError) as raised:
        list(RemoteFolder(url))
    assert time.monotonic() - started < 50, "botocore itself waits for minutes"
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{url}: the inbox cannot be read or written (")
    return str(raised.value)


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_one_line() -> None:
    said = refused("s3://nowhere-at-all/inbox")
    assert "(NoSuchBucket: The specified bucket does not exist). Correct CALOTYPE_PREDICT_INBOX, AWS_" in said


def test_keys_that_the_server_refuses_are_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "(SignatureDoesNotMatch: " in refused(f"s3://{s3.bucket}/inbox")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    assert "(InvalidAccessKeyId: " in refused(f"s3://{s3.bucket}/inbox")


@pytest.mark.slow
def test_a_server_that_is_silent_or_gone_is_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "(Read timeout on endpoint URL: " in refused(f"s3://{s3.bucket}/inbox")
    assert "(Could not connect to the endpoint URL: " in refused(f"s3://{s3.bucket}/inbox")


def test_a_server_that_fails_while_files_are_read_blames_no_file(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.client().put_object(Bucket=s3.bucket, Key="halfway/a.png", Body=b"1")
    (one,) = RemoteFolder(f"s3://{s3.bucket}/halfway")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "expired meanwhile")
    with pytest.raises(CalotypeError, match="halfway: the inbox cannot be read"):
        RemoteFolder(f"s3://{s3.bucket}/halfway").read(one, MANY)


def test_a_url_that_nothing_reads_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^foo://x/y: Protocol not known: foo\. Expected a folder, s3://bucket"):
        RemoteFolder("foo://x/y")
    with pytest.raises(UsageError, match=r"^hdfs://|^gs://x: .*install gcsfs"):
        RemoteFolder("gs://x")


def test_a_server_that_does_not_let_us_in_is_one_line_that_names_the_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ftp://127.0.0.1:{server.getsockname()[1]}/inbox"
        answering = threading.Thread(target=_refuse_login, args=[server])
        answering.start()
        assert refused(url).endswith("(530 Not you). Correct CALOTYPE_PREDICT_INBOX.")
        answering.join()
    assert refused(url).endswith("Connection refused). Correct CALOTYPE_PREDICT_INBOX.")


def _refuse_login(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(b"220 Hello\r\n")
        connection.recv(100)
        connection.sendall(b"530 Not you\r\n")


def test_times_without_a_zone_are_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    from calotype.predictions import remote

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        expected = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1e6)
        for moment in (datetime(2026, 3, 1, 12), "2026-03-01T12:00:00Z", expected / 1e6):
            assert remote._microseconds(moment) == expected
    finally:
        monkeypatch.undo()
        time.tzset()
