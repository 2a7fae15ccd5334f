"""S3 by the environment's variables: what each library must be told, and what a store's refusal says in one line.

The address and the keys are those that every program for S3 reads: ``AWS_ENDPOINT_URL`` (a server other than Amazon's),
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_DEFAULT_REGION``, or a profile in ``~/.aws``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from calotype.errors import CalotypeError, UsageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

CONNECT_S, ANSWER_S = 4, 5
"""Seconds for a connection, and for an answer to a first question: a wrong address is told of within 15 s."""

NO_KEYS = "no keys found; expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws"
ADVICE = "AWS_ENDPOINT_URL or the keys"
"""What may be wrong beside the URL."""


def is_s3(place: object) -> bool:
    """Whether a place is a URL of S3."""
    return str(place).startswith(("s3://", "s3a://"))


def address() -> str:
    """The address of S3 that the environment names, empty where it is Amazon's.

    Raises
    ------
    UsageError
        If it is none.
    """
    named = os.environ.get("AWS_ENDPOINT_URL", "")
    try:
        parts = urlsplit(named)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if named and not is_address:
        raise UsageError(
            f"AWS_ENDPOINT_URL: found {named!r}; expected an address such as http://minio:9000. "
            "Correct it, or unset it for Amazon's S3."
        )
    return named


def delta_options(place: object) -> dict[str, str] | None:
    """What `deltalake` must be told of S3 beside what it reads from the environment; None for other places.

    Raises
    ------
    UsageError
        If the environment's address of S3 is none.
    """
    if not is_s3(place):
        return None
    return {
        # Else it knows nothing of profiles, as all other libraries do.
        "aws_force_credential_load": "true",
        # Else a server of one's own without TLS is refused, though its address says so itself.
        "allow_http": str(address().startswith("http://")).lower(),
        "connect_timeout": f"{CONNECT_S}s",
        # Of one request. A file is sent in parts of 5 MB.
        "timeout": "12s",
        "max_retries": "5",
        "retry_timeout": "10s",
    }


def arrow_files(url: str) -> FileSystem | None:
    """The file system by which Arrow reads below a URL without Python; None where it has none.

    What is written in Python, as Delta's own, is let go of by Arrow's threads a moment after a read has ended. If the
    interpreter ends in that moment, the process aborts ("terminate called without an active exception").

    Parameters
    ----------
    url
        Of a folder: ``file://`` or ``s3://``.
    """
    from pyarrow import fs

    parts = urlsplit(url)
    if parts.scheme == "file":
        return fs.SubTreeFileSystem(unquote(parts.path), fs.LocalFileSystem())
    if not is_s3(url):
        return None
    named = urlsplit(address())
    where = {"scheme": named.scheme, "endpoint_override": named.netloc + named.path} if named.netloc else {}
    store = fs.S3FileSystem(connect_timeout=CONNECT_S, allow_delayed_open=True, **where)
    return fs.SubTreeFileSystem(f"{parts.netloc}{unquote(parts.path)}", store)


def client(*, attempts: int, answer_s: float) -> Any:
    """A client of boto3 for S3, for use in many threads.

    Parameters
    ----------
    attempts
        How often it asks before it gives up.
    answer_s
        Seconds that it waits each time.

    Raises
    ------
    UsageError
        If the environment's address of S3 is none.
    """
    address()
    # A third of a second to import.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=answer_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=32,
    )
    # Of a session of its own: the common one keeps the keys that it found first.
    return boto3.session.Session().client("s3", config=config)


@contextlib.contextmanager
def reaching(place: str, what: str, variable: str) -> Iterator[None]:
    """Say in one line why a place cannot be read or written.

    Parameters
    ----------
    place
        Its URL.
    what
        What lies there.
    variable
        The environment's variable that names it.

    Raises
    ------
    CalotypeError
        If S3, or the file system that fsspec found, refuses or does not answer.
    """
    import ftplib

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (*ftplib.all_errors, BotoCoreError, ClientError) as error:
        raise unreachable(place, what, variable, error) from error


def unreachable(place: object, what: str, variable: str, error: BaseException) -> CalotypeError:
    """The error that a place cannot be read or written."""
    further = f", {ADVICE}" if is_s3(place) else ""
    return CalotypeError(f"{place}: {what} cannot be read or written ({reason(error)}). Correct {variable}{further}.")


def require(url: str, what: str, variable: str) -> None:
    """Ask S3 whether it lets us list below a URL; other places are not asked.

    Raises
    ------
    CalotypeError
        If it does not.
    """
    if is_s3(url):
        bucket, _, prefix = url.partition("://")[2].partition("/")
        with reaching(url, what, variable):
            client(attempts=2, answer_s=ANSWER_S).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)


def reason(error: BaseException) -> str:
    """What a store or its library says, in one line; a store's own code first where it gave one."""
    response = getattr(error, "response", None)
    if response:
        return f"{response['Error'].get('Code')}: {response['Error'].get('Message')}"
    # Of deltalake: a coloured tree of many lines whose last leaf is the cause.
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    if "loading credentials" in text or "locate credentials" in text or "IMDS" in text:
        return NO_KEYS
    if said := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{said[1]}: {said[2]}"
    host = re.search(r"Error performing \w+ (https?://[^/\s]+)", text)
    leaf = " ".join(text.split("↳")[-1].split())[:200] or type(error).__name__
    return f"{host[1]}: {leaf}" if host else leaf
