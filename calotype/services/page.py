"""The page of addresses: where everything is, and how it is, in one file that a browser opens from the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from calotype.files import write_text
from calotype.pages import render
from calotype.project import Project
from calotype.services import status_text
from calotype.services.status import Status, addresses_of

REFRESH_S = 10
"""Seconds after which a browser reads the page again; the watch writes it as often."""

LATEST = 12
"""Reports that the page names."""


@dataclass(frozen=True)
class Link:
    """A place that the page points to, and what is there."""

    href: str
    title: str
    what: str


def path_of(project: Project) -> Path:
    """Where the page lies."""
    return project.services / "index.html"


def write(project: Project, status: Status) -> Path:
    """Write the page of this moment; return where it lies."""
    path = path_of(project)
    shown = {
        "name": project.root.name,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "refresh_s": REFRESH_S,
        "status": status,
        "servers": server_links(addresses_of(project)),
        "reports": report_links(project),
        "logs": log_links(project),
        "age": status_text.age,
        "next_run": status_text.next_run,
        "verdict": status_text.verdict(status).capitalize(),
    }
    write_text(path, render("services.html.j2", **shown))
    return path


def server_links(addresses: dict[str, str]) -> list[Link]:
    """The pages of both servers that a person wants first."""
    prefect, mlflow = addresses.get("prefect", ""), addresses.get("mlflow", "")
    links = []
    if prefect:
        links += [
            Link(f"{prefect}/deployments", "Prefect: deployments", "what runs when, and a button to run it now"),
            Link(f"{prefect}/runs", "Prefect: runs", "what ran, its log, its artifacts"),
            Link(f"{prefect}/automations", "Prefect: automations", "what happens by itself"),
        ]
    if mlflow:
        links += [
            Link(f"{mlflow}/#/experiments", "MLflow: experiments", "trainings side by side"),
            Link(f"{mlflow}/#/models", "MLflow: registry", "versions, champion and challenger"),
        ]
    return links


def report_links(project: Project) -> list[Link]:
    """The latest pages under reports/, the newest first: every batch of predictions leaves one."""
    found = sorted(project.reports.rglob("*.html"), key=lambda path: path.stat().st_mtime, reverse=True)[:LATEST]
    names = [path.relative_to(project.reports).as_posix() for path in found]
    return [
        Link(f"../reports/{name}", name.removesuffix(".html"), _changed(path))
        for path, name in zip(found, names, strict=True)
    ]


def log_links(project: Project) -> list[Link]:
    """The logs of what runs."""
    return [
        Link(f"../logs/{path.name}", path.name, _changed(path))
        for path in sorted((project.root / "logs").glob("*.log"))
    ]


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
