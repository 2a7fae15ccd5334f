"""Real servers in processes of their own, on 127.0.0.1 and a free port: S3 (moto's) and Postgres (Debian's)."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg2

from calotype.services.ports import claimed

ACTIONS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
"""All that the line needs, of each bucket that it uses; no request with another is let through."""

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
WITHOUT_POSTGRES = "needs Postgres: apt-get install postgresql"


@dataclass(frozen=True)
class S3Server:
    """A server with one bucket and two users: one may do `ACTIONS` alone, the other only read."""

    address: str
    bucket: str
    environment: dict[str, str]
    read_only: dict[str, str]

    def client(self) -> Any:
        """boto3's client with the user's keys."""
        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        keys = {argument: self.environment[name] for name, argument in names.items()}
        return boto3.client("s3", endpoint_url=self.address, region_name="us-east-1", **keys)

    def keys(self, prefix: str = "") -> list[str]:
        """Names of all objects below a prefix."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]


@contextlib.contextmanager
def s3_server(folder: Path, bucket: str = "line") -> Iterator[S3Server]:
    """Start moto's server, which checks keys and signatures, with one bucket in it."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(claimed(5600))
        address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        stack.enter_context(_running(command, folder / "s3.log", lambda: _answers(f"{address}/moto-api/")))
        root = {"endpoint_url": address, "region_name": "us-east-1"}
        root |= {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        boto3.client("s3", **root).create_bucket(Bucket=bucket)
        iam = boto3.client("iam", **root)
        environment = _user(iam, "line", ACTIONS) | {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        read_only = environment | _user(iam, "reader", ("s3:ListBucket", "s3:GetObject"))
        # From now on every request is checked.
        check = urllib.request.Request(f"{address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(check, timeout=10).close()
        yield S3Server(address, bucket, environment, read_only)


def _user(iam: Any, name: str, actions: tuple[str, ...]) -> dict[str, str]:
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


@dataclass(frozen=True)
class Postgres:
    """A server with a role, whose password holds what a URL must escape, and databases of its own."""

    port: int
    user: str = "line"
    password: str = "p@ss/word%"

    def url(self, database: str, driver: str = "") -> str:
        """Address of a database, as SQLAlchemy wants it."""
        escaped = urllib.parse.quote(self.password, safe="")
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{self.user}:{escaped}@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with contextlib.closing(psycopg2.connect(self.url(database))) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())


@contextlib.contextmanager
def postgres(folder: Path, *databases: str) -> Iterator[Postgres]:
    """Start Postgres as an unprivileged user, its log in a folder, with a role that owns these databases."""
    with claimed(5700) as port:
        yield from _postgres(folder, Postgres(port), databases)


def _postgres(folder: Path, server: Postgres, databases: tuple[str, ...]) -> Iterator[Postgres]:
    binaries = POSTGRES[-1]
    # Not below the test's folder, which is closed to the user that Postgres runs as.
    data = Path(tempfile.mkdtemp(prefix="calotype-postgres-"))
    start, allowed = _unprivileged(data)
    password = data / "password"
    password.write_text(server.password)
    allowed(password)
    try:
        initdb = [binaries / "initdb", "-D", data / "data", "-U", server.user, "-A", "scram-sha-256", "-N"]
        initdb += ["-E", "UTF8", "--no-locale", f"--pwfile={password}"]
        subprocess.run([*start, *map(str, initdb)], check=True, capture_output=True, cwd=data)
        settings = [f"port={server.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [*start, str(binaries / "postgres"), "-D", str(data / "data"), *options]
        ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", server.user]
        with _running(command, folder / "postgres.log", lambda: subprocess.run(ready, check=False).returncode == 0):
            for database in databases:
                create = [str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(server.port), "-U", server.user]
                own = dict(os.environ) | {"PGPASSWORD": server.password}
                subprocess.run([*create, database], check=True, env=own)
            yield server
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _unprivileged(folder: Path) -> tuple[list[str], Callable[[Path], None]]:
    """How to start a program that refuses to run as root, and to give it a file; the folder is made its own."""
    if os.getuid() != 0:
        return [], lambda _: None
    user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
    shutil.chown(folder, user)
    return ["setpriv", f"--reuid={user}", "--clear-groups"], lambda path: shutil.chown(path, user)


@contextlib.contextmanager
def _running(command: list[str], log: Path, answers: Callable[[], bool], limit_s: float = 60) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        deadline = time.monotonic() + limit_s
        while not answers():
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        yield
    finally:
        # Of Postgres: end the sessions, then the server.
        process.send_signal(2)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
