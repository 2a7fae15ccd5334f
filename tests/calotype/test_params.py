"""params.yaml: every problem at once, each with key, finding, allowance and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype import params
from calotype.errors import ParamsError

SHIPPED = Path(__file__).parents[2] / "params.yaml"
TEXT = SHIPPED.read_text(encoding="utf-8")


def problems(tmp_path: Path, text: str) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        params.load(path)
    return str(caught.value)


def test_the_shipped_file_is_valid_and_explains_every_key() -> None:
    loaded = params.load(SHIPPED)
    assert loaded.train.epochs > 0
    for line in TEXT.splitlines():
        if ":" in line and not line.endswith(":") and not line.startswith("#"):
            assert " # " in line


def test_a_key_has_no_default_in_code(tmp_path: Path) -> None:
    for key in params.flatten(params.load(SHIPPED)):
        name = key.rpartition(".")[2]
        section = key.partition(".")[0]
        lines = TEXT.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
        number = next(i for i in range(start, len(lines)) if lines[i].strip().startswith(f"{name}:"))
        text = problems(tmp_path, "\n".join(lines[:number] + lines[number + 1 :]) + "\n")
        assert f"{key}: missing" in text or "found None" in text


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = TEXT.replace("lr: 0.003", "lr: -1").replace("optimizer: adamw", "optimizer: lion")
    found = problems(tmp_path, text.replace("seed: 0", "seed: x"))
    assert "params.yaml:34: train.lr: found -1; expected greater than 0." in found
    assert "train.optimizer: found 'lion'; expected one of 'sgd', 'adam', 'adamw' or 'muon'." in found
    assert "train.seed: found 'x'; expected a whole number." in found


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    found = problems(tmp_path, TEXT.replace("batch_size: 64", "batchsize: 64"))
    assert found == "params.yaml:32: train.batchsize: unknown key. Did you mean `train.batch_size`?"


def test_a_missing_key_prints_the_line_to_add_which_mends_it(tmp_path: Path) -> None:
    start, end = TEXT.index("promote:\n"), TEXT.index("predict:\n")
    without = TEXT[:start] + TEXT[end:]
    found = problems(tmp_path, without)
    added = found.split("\n", 1)[1]
    (tmp_path / "params.yaml").write_text(without + "\n" + added + "\n", encoding="utf-8")
    assert params.load(tmp_path / "params.yaml").promote.min_margin == 0.0


def test_problems_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems(
        tmp_path, TEXT.replace("seed: 0", "seed: x").replace("size: 8 ", "size: 2 ").replace("lr: 0", "rl: 0")
    )
    lines = [int(line.split(":")[1]) for line in found.splitlines() if line.startswith("params.yaml:")]
    assert lines == sorted(lines)
    assert len(lines) == 3


def test_fractions_that_leave_no_training_set_are_refused(tmp_path: Path) -> None:
    assert "val + test is 1.1" in problems(tmp_path, TEXT.replace("val: 0.1", "val: 0.9"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected sections"),
        ("- 1\n", "expected sections"),
        ("a: [1\n", "not valid YAML"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("\t- x", "not valid YAML"),
        ("name: !!python/object:os.system x\n", "missing"),
    ],
)
def test_what_is_no_mapping_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    assert says in problems(tmp_path, text)


def test_a_file_that_is_absent_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParamsError, match="cannot be read"):
        params.load(tmp_path / "params.yaml")


def test_origins_name_the_line_of_each_value() -> None:
    origins = params.origins(SHIPPED)
    assert set(origins) == set(params.flatten(params.load(SHIPPED)))
    line = int(origins["train.lr"].partition(":")[2])
    assert TEXT.splitlines()[line - 1].strip().startswith("lr:")


def test_parameters_are_frozen() -> None:
    loaded = params.load(SHIPPED)
    with pytest.raises(Exception, match="frozen"):
        loaded.train.lr = 1.0  # type: ignore[misc]


@given(st.text(max_size=200))
def test_no_text_makes_the_loader_fail_in_another_way(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        with pytest.raises(ParamsError):
            params.load(path)
