"""The errors of Calotype; each knows the exit code of the command that meets it.

::

    CalotypeError       exit 1   something failed: a server, a training, a disk
    ├── UsageError      exit 2   the command was called in a way that cannot work
    │   └── ParamsError exit 2   params.yaml holds values that cannot work
    └── DataError       exit 3   the images, tables or bundles cannot be used

A message says what was found, what was expected and what to do, on one line for each problem.
"""

from __future__ import annotations


class CalotypeError(Exception):
    """Something failed that the user can act on."""

    exit_code = 1


class UsageError(CalotypeError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class ParamsError(UsageError):
    """params.yaml holds values that cannot work; one line for each problem."""


class DataError(CalotypeError):
    """Images, tables or bundles that cannot be used."""

    exit_code = 3
