"""Postgres, where an address names it: asked before anything else waits for it, and set up by one process at a time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from calotype.errors import CalotypeError, UsageError

CONNECT_S = 5
SETUP_LOCK = 0xCA10  # any number that no other program locks
"""Of Postgres' advisory locks: whoever holds it makes a store's tables."""

PREFECT = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
"""Variables by which Prefect's server is told of its database."""


def is_postgres(url: str) -> bool:
    """Whether an address is one of Postgres, by whatever driver."""
    return url.startswith(("postgresql:", "postgresql+", "postgres:"))


def without_password(url: str) -> str:
    """An address that may be printed: ``http://me:secret@host`` becomes ``http://me:***@host``."""
    return re.sub(r"(://[^:/@]*:)[^/]*@", r"\1***@", url)


def require(url: str, variable: str) -> None:
    """Ask a database whether it lets us in; addresses of other kinds are not asked.

    Raises
    ------
    CalotypeError
        If it does not.
    UsageError
        If it is Prefect's, and the address has no driver that Prefect takes.
    """
    if not is_postgres(url):
        return
    if variable in PREFECT and not url.startswith("postgresql+asyncpg://"):
        raise UsageError(
            f"{variable} is {without_password(url)}: expected postgresql+asyncpg://user:password@host:5432/database."
        )
    with _connected(url, variable):
        pass


@contextlib.contextmanager
def setting_up(url: str, variable: str, table: str) -> Iterator[bool]:
    """Be alone while a database's tables are made; others wait, and find them there.

    Parameters
    ----------
    url, variable
        The address, and who names it.
    table
        One that is there when all are.

    Yields
    ------
    bool
        Whether the tables are still to be made.
    """
    with _connected(url, variable) as cursor:
        if not _lacks(cursor, table):
            yield False
            return
        # Ends with the connection.
        cursor.execute("SELECT pg_advisory_lock(%s)", (SETUP_LOCK,))
        yield _lacks(cursor, table)


def _lacks(cursor: Any, table: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NULL", (table,))
    return bool(cursor.fetchone()[0])


@contextlib.contextmanager
def _connected(url: str, variable: str) -> Iterator[Any]:
    import psycopg2

    parts = urlsplit(url)
    # The query is left out: drivers differ in what they take there.
    given = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": parts.path.lstrip("/"),
    }
    try:
        connection = psycopg2.connect(
            **{name: value for name, value in given.items() if value}, connect_timeout=CONNECT_S
        )
    except psycopg2.OperationalError as error:
        said = " ".join(str(error).strip().partition("\n")[0].split())
        raise CalotypeError(f"{without_password(url)}: {said}. Start Postgres, or correct {variable}.") from error
    # Each statement by itself: a transaction that stays open while others make tables would be in their way.
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        yield cursor
