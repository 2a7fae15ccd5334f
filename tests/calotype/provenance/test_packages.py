"""Which packages differ from a training's."""

from __future__ import annotations

from calotype.provenance import packages

LOCK = """
torch==2.15.0 \\
    --hash=sha256:aaaa
numpy==2.4.1 ; python_full_version < '3.12' \\
    --hash=sha256:bbbb
numpy==2.5.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cccc
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:dddd
ruamel-yaml==0.19.1
"""


def test_an_equal_environment_differs_in_nothing() -> None:
    present = {"torch": "2.15.0", "numpy": "2.5.0", "ruamel-yaml": "0.19.1", "something-else": "1.0"}
    assert packages.differing(LOCK, {"torch": "2.15.0", "Ruamel.YAML": "0.19.1"}, present) == []


def test_each_other_version_and_each_absent_package_is_named() -> None:
    present = {"torch": "2.16.0", "numpy": "2.3.0", "colorama": "0.4.7"}
    assert packages.differing(LOCK, {}, present) == [
        "colorama 0.4.7 (was 0.4.6)",
        "numpy 2.3.0 (was 2.4.1 or 2.5.0)",
        "ruamel-yaml absent (was 0.19.1)",
        "torch 2.16.0 (was 2.15.0)",
    ]


def test_what_the_training_found_installed_counts_for_more_than_the_lock() -> None:
    present = {"torch": "2.14.0", "numpy": "2.4.1", "ruamel-yaml": "0.19.1"}
    assert packages.differing(LOCK, {"torch": "2.14.0"}, present) == []


def test_the_names_of_installed_packages_are_normal() -> None:
    found = packages.installed()
    assert {"torch", "scikit-learn", "import-linter"} <= set(found)
    assert all(name == name.lower() and "_" not in name for name in found)
