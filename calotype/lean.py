"""Short commands without what they would import and never use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def spare_pandas() -> None:
    """Let pyarrow believe, for this process, that there is no pandas: else its first array imports it.

    That import takes a quarter of a CPU-second, a fifth of a prediction of few images. Tables of pyarrow have no
    ``to_pandas`` afterwards; everyone else imports pandas as ever.
    """
    if "pandas" in sys.modules:
        return
    refuser = _NoPandas()
    sys.meta_path.insert(0, refuser)
    try:
        import pyarrow

        pyarrow.array([0])
    finally:
        sys.meta_path.remove(refuser)
