"""What MLflow holds, as plain values; what a person may call a version."""

from __future__ import annotations

import pytest

from calotype.releases.runs import parse_version


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("3", ("digits", 3)),
        ("shoes/12", ("shoes", 12)),
        ("a.b-c_d/1", ("a.b-c_d", 1)),
        ("three", None),
        ("shoes/", None),
        ("-shoes/1", None),
        ("1234567890", None),
    ],
)
def test_a_version_is_a_number_or_a_name_and_a_number(what: str, expected: tuple[str, int] | None) -> None:
    assert parse_version(what, "digits") == expected
