"""The documents against the code: commands, targets, files and variables that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from calotype.cli import app
from calotype.project import PLACES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
VERBS = {str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback}
GROUPS = {
    str(group.name): {str(one.callback.__name__) for one in group.typer_instance.registered_commands if one.callback}
    for group in app.registered_groups
    if group.typer_instance
}
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def code(path: Path) -> str:
    """What a document shows as code, in blocks and inline."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```.*?\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_targets_that_a_document_names_exist(path: Path) -> None:
    shown = code(path)
    assert set(re.findall(r"^(?:\.venv/bin/)?calotype ([a-z]+)", shown, flags=re.MULTILINE)) <= VERBS | set(GROUPS)
    for group, commands in GROUPS.items():
        assert set(re.findall(rf"^(?:\.venv/bin/)?calotype {group} ([a-z]+)", shown, flags=re.MULTILINE)) <= commands
    assert set(re.findall(r"^make ([a-z-]+)", shown, flags=re.MULTILINE)) <= TARGETS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_links_to_exist(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_each_picture_is_shown_says_what_it_shows_and_is_light() -> None:
    shown = {}
    for path in DOCUMENTS:
        for words, target in re.findall(r"!\[([^\]]*)\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
            shown[(path.parent / target).resolve()] = words
    pictures = set((ROOT / "docs" / "pictures").iterdir())
    assert pictures <= set(shown)
    assert [path.name for path, words in shown.items() if len(words) < 20] == []
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []


def test_the_architecture_names_every_place_that_the_environment_moves() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)`", text, flags=re.MULTILINE)) == set(PLACES) | {"CALOTYPE_ROOT"}


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS


def test_no_committed_text_names_a_package_host_or_pins_an_address() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "http://" not in lock
    assert "https://" not in lock
    assert lock.count("--hash=sha256:") > 500
