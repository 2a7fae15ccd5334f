"""The project's tables on S3: of simultaneous writers none is lost, and what is wrong with a place is one line."""

from __future__ import annotations

import json
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem, S3FileSystem, SubTreeFileSystem

from calotype import delta, object_store
from calotype.delta import Kind
from calotype.errors import CalotypeError, UsageError
from tests.real_servers import S3Server, s3_server

pytestmark = pytest.mark.slow

KIND = Kind("the table of tests", "CALOTYPE_TABLE", "tests", pa.schema([pa.field("writer", pa.int64())]), 1, {})
WRITERS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def append_once(place: str, writer: int) -> int:
    """Append a row whatever the others do; return how often another was first."""
    for lost in range(100):
        table = delta.open_table(place, KIND)
        if table is None:
            delta.create(place, KIND, "tests", "Rows of several writers")
        elif delta.append(table, KIND, pa.table({"writer": [writer]}, KIND.schema)):
            return lost
    raise AssertionError("never first")


def commit_through(args: tuple[str, int, int]) -> bool:
    """Read, wait for a moment, and append through what was read."""
    place, writer, moment = args
    table = delta.open_table(place, KIND)
    assert table is not None
    time.sleep(max(0, moment - time.time()))
    return delta.append(table, KIND, pa.table({"writer": [writer]}, KIND.schema))


def rows(place: str) -> list[int]:
    table = delta.open_table(place, KIND)
    assert table is not None
    return sorted(table.to_pyarrow_table()["writer"].to_pylist())


def test_of_eight_writers_that_read_the_same_snapshot_one_commits_and_all_who_retry_do(s3: S3Server) -> None:
    place = f"s3://{s3.bucket}/simultaneous"
    append_once(place, -1)
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        # All processes have started by then.
        pool.map(time.sleep, [1.0] * WRITERS, chunksize=1)
        moment = int(time.time()) + 4
        first = pool.map(commit_through, [(place, writer, moment) for writer in range(WRITERS)], chunksize=1)
        assert first.count(True) == 1
        assert rows(place) == [-1, first.index(True)]
        others = [writer for writer, was_first in enumerate(first) if not was_first]
        pool.starmap(append_once, [(place, writer) for writer in others], chunksize=1)
    assert rows(place) == [-1, *range(WRITERS)]


def test_a_table_that_several_make_at_once_is_one_table(s3: S3Server) -> None:
    place = f"s3://{s3.bucket}/made"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(append_once, [(place, writer) for writer in range(4)], chunksize=1)
    assert rows(place) == [0, 1, 2, 3]
    assert sum(key.endswith("/00000000000000000000.json") for key in s3.keys("made/")) == 1


def refused(place: str) -> str:
    started = time.monotonic()
    with pytest.raises(CalotypeError) as raised:
        delta.open_table(place, KIND)
    assert time.monotonic() - started < 50
    message = str(raised.value)
    assert message.startswith(f"{place}: the table of tests cannot be read or written (")
    assert message.endswith("). Correct CALOTYPE_TABLE, AWS_ENDPOINT_URL or the keys.")
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_one_line() -> None:
    assert "(NoSuchBucket: The specified bucket does not exist)" in refused("s3://nowhere-at-all/table")


def test_a_key_that_the_server_does_not_know_is_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    assert "(InvalidAccessKeyId: " in refused(f"s3://{s3.bucket}/table")


def test_a_wrong_secret_is_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "(SignatureDoesNotMatch: " in refused(f"s3://{s3.bucket}/table")


def test_no_keys_at_all_are_one_line(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "(no keys found; expected AWS_ACCESS_KEY_ID and" in refused(f"s3://{s3.bucket}/table")


def test_keys_of_a_profile_serve_as_well(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".aws").mkdir()
    keys = {name.lower(): s3.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    lines = ["[line]", *(f"{name} = {value}" for name, value in keys.items())]
    (tmp_path / ".aws" / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "line")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    append_once(f"s3://{s3.bucket}/by-profile", 1)
    assert rows(f"s3://{s3.bucket}/by-profile") == [1]


def test_an_address_that_refuses_connections_is_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert f"({address}: Connection refused" in refused(f"s3://{s3.bucket}/table")


def test_a_server_that_never_answers_is_one_line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert f"({address}: operation timed out)" in refused(f"s3://{s3.bucket}/table")


def test_a_user_who_may_only_read_is_told_what_is_denied(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    append_once(f"s3://{s3.bucket}/denied", 1)
    for name, value in s3.read_only.items():
        monkeypatch.setenv(name, value)
    table = delta.open_table(f"s3://{s3.bucket}/denied", KIND)
    assert table is not None
    with pytest.raises(CalotypeError, match=r"^[^\n]*/denied: the table of tests cannot be .*\(AccessDenied: [^\n]*$"):
        delta.append(table, KIND, pa.table({"writer": [2]}, KIND.schema))
    with pytest.raises(CalotypeError, match=r"^[^\n]*/new: the table of tests cannot be .*\(AccessDenied: [^\n]*$"):
        delta.create(f"s3://{s3.bucket}/new", KIND, "tests", "Rows")


def test_the_log_on_s3_is_plain_delta(s3: S3Server) -> None:
    append_once(f"s3://{s3.bucket}/plain", 5)
    log = s3.client().get_object(Bucket=s3.bucket, Key="plain/_delta_log/00000000000000000001.json")["Body"].read()
    actions = [json.loads(line) for line in log.splitlines()]
    assert {"appId": "tests", "version": 1} in [
        {name: action["txn"][name] for name in ("appId", "version")} for action in actions if "txn" in action
    ]


ENDS = """
import os, sys
import pyarrow as pa, pyarrow.dataset, deltalake.fs
from calotype import delta
from tests.calotype.test_delta import KIND
died = 0
for _ in range(30):
    child = os.fork()
    if not child:
        delta.whole(delta.open_table(sys.argv[1], KIND), KIND)
        sys.exit()
    died += os.waitpid(child, 0)[1] != 0
print(died)
"""
"""Children, because what a process dies of at its end shows in its parent alone."""


def test_a_process_that_ends_right_after_reading_ends_well(tmp_path: Path) -> None:
    append_once(str(tmp_path / "table"), 1)
    command = [sys.executable, "-c", ENDS, str(tmp_path / "table")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_tables_are_read_without_threads_that_need_python(s3: S3Server, tmp_path: Path) -> None:
    for place in (str(tmp_path / "a table of ours"), f"s3://{s3.bucket}/without-python"):
        append_once(place, 3)
        table = delta.open_table(place, KIND)
        assert table is not None
        files = object_store.arrow_files(table.table_uri)
        assert isinstance(files, SubTreeFileSystem)
        assert isinstance(files.base_fs, LocalFileSystem | S3FileSystem)
        assert rows(place) == delta.whole(table, KIND)["writer"].to_pylist() == [3]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "minio", "http://", "ftp://minio", "http://minio:port"])
def test_an_address_of_s3_that_is_none_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    message = f"^AWS_ENDPOINT_URL: found {address!r}; expected an address such as http://minio:9000. Correct it, or "
    for ask in (
        lambda: delta.open_table("s3://line/table", KIND),
        lambda: object_store.require("s3://line/table", "the table of tests", "CALOTYPE_TABLE"),
    ):
        with pytest.raises(UsageError, match=message):
            ask()
