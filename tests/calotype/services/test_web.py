"""A server that the environment names is asked first; a wrong address is one clear line in seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from calotype import servers
from calotype.errors import CalotypeError
from calotype.project import Project
from calotype.services import web
from tests.conftest import make_dvc_project, run

CLOSED = "http://127.0.0.1:9/api"


class Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(418, "I am a teapot")

    def log_message(self, *_: object) -> None:
        pass


class Busy(BaseHTTPRequestHandler):
    """Busy twice, then well."""

    asked = 0

    def do_POST(self) -> None:
        Busy.asked += 1
        self.send_response(503 if Busy.asked < 3 else 200)
        self.end_headers()
        self.wfile.write(b'{"sent": "%d"}' % len(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def teapot() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("variable", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
def test_up_refuses_a_wrong_address_in_one_line_before_anything_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (project.root / "prefect.yaml").write_text("deployments: []")
    monkeypatch.setenv(variable, CLOSED)
    started = time.monotonic()
    with pytest.raises(CalotypeError, match=rf"{variable} is http://127\.0\.0\.1:9/api: no server answers") as caught:
        servers.up(project)
    assert time.monotonic() - started < 50
    assert len(str(caught.value).splitlines()) == 1
    assert not (project.services / "addresses.json").exists()


def test_a_server_that_accepts_and_says_nothing_is_given_up_within_seconds() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(CalotypeError, match="no server answers there"):
            web.require(f"{url}/health", "MLFLOW_TRACKING_URI", url)
        assert time.monotonic() - started < 50


@pytest.mark.parametrize("address", ["nonsense", "http://", "http://[", "http://exa mple/", "ftp://127.0.0.1:9/"])
def test_an_address_that_is_none_is_an_error_of_ours(address: str) -> None:
    assert not web.answers(address)
    with pytest.raises(CalotypeError):
        web.require(address, "PREFECT_API_URL", address)


def test_a_server_of_another_kind_is_not_taken_for_ours(teapot: str) -> None:
    assert not web.answers(teapot)
    with pytest.raises(CalotypeError, match="I am a teapot"):
        web.require(teapot, "PREFECT_API_URL", teapot)
    with pytest.raises(CalotypeError, match=r"refused \(418: "):
        web.ask(teapot)


def test_a_server_that_is_busy_is_asked_again() -> None:
    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert web.ask(f"http://127.0.0.1:{server.server_port}", {}) == {"sent": "2"}
    assert Busy.asked == 3
    server.shutdown()
    server.server_close()


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(CalotypeError) as caught:
        web.require(CLOSED, "MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_the_command_says_it_in_one_line_and_ends_with_1(tmp_path: object) -> None:
    project = make_dvc_project(tmp_path / "project")  # type: ignore[operator]
    failed = run(project, "calotype", "up", PREFECT_API_URL=CLOSED)
    assert failed.returncode == 1
    assert failed.stderr.startswith("calotype: PREFECT_API_URL is http://127.0.0.1:9/api: no server answers there")
    assert len(failed.stderr.splitlines()) == 1
