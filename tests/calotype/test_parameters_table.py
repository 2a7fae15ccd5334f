import pytest

from calotype.databases import without_password
from calotype.errors import ParamsError
from calotype.parameters_table import show
from calotype.project import Project


def rows(project: Project, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    show(project)
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    return {line[0]: line[1].split("  ") for line in lines}


def test_every_value_is_shown_with_its_line(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shown = rows(project, capsys)
    lines = project.params.read_text().splitlines()
    assert shown["train.lr"][0] == "0.003"
    place, _, number = shown["train.lr"][-1].strip().partition(":")
    assert place == "params.yaml"
    assert lines[int(number) - 1].startswith("  lr: 0.003")
    assert shown["network.widths"][0] == "[32, 64]"


def test_places_say_whether_the_environment_moved_them(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_PREDICT_INBOX", "/mnt/[new]")
    shown = rows(project, capsys)
    assert (shown["CALOTYPE_PREDICT_INBOX"][0], shown["CALOTYPE_PREDICT_INBOX"][-1].strip()) == (
        "/mnt/[new]",
        "environment",
    )
    assert shown["CALOTYPE_PREDICT_OUTPUT"][-1].strip() == "default"


def test_the_address_that_make_up_wrote_is_shown(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.root / "prefect.toml").write_text('[api]\nurl = "http://127.0.0.1:4200/api"\n')
    shown = rows(project, capsys)["PREFECT_API_URL"]
    assert (shown[0], shown[-1].strip()) == ("http://127.0.0.1:4200/api", "prefect.toml (make up)")


def test_a_long_value_is_not_cut(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    source = "/" + "long/" * 40 + "images"
    project.params.write_text(project.params.read_text().replace("data/raw/digits", source))
    assert rows(project, capsys)["ingest.source"][0] == source


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://me:***@host:5000/x"),
        ("postgresql://me:a:b@host/db", "postgresql://me:***@host/db"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_passwords_are_not_printed(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_a_network_that_cannot_take_the_image_is_an_error(project: Project) -> None:
    project.params.write_text(project.params.read_text().replace("name: cnn ", "name: no_such_net "))
    with pytest.raises(ParamsError):
        show(project)
