"""The experiment's values: params.yaml as frozen models, with every problem reported at once.

No value has a default in code: what is not in params.yaml is an error that prints the line to add.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from calotype.errors import ParamsError

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class IngestParams(_Section):
    """Where the labelled images are, and how much may be wrong with them."""

    source: str = Field(min_length=1, examples=["data/raw/digits"])
    corrections: str = Field(min_length=1, examples=["none"])
    min_per_class: Count = Field(examples=[10])
    max_reject_fraction: Probability = Field(examples=[0.01])
    max_megapixels: Positive = Field(examples=[100])


class SplitParams(_Section):
    """Fractions of the images, or groups, that the hash sends to validation and test."""

    val: Fraction = Field(gt=0, examples=[0.1])
    test: Fraction = Field(gt=0, examples=[0.2])
    salt: str = Field(examples=["calotype"])
    on_leak: Literal["error", "move", "keep"] = Field(examples=["move"])

    @model_validator(mode="after")
    def _leave_a_training_set(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; expected less than 1, the rest is for training")
        return self


class ImageParams(_Section):
    """The form in which every image reaches the network."""

    size: Annotated[int, Field(ge=4, le=1024)] = Field(examples=[32])
    channels: Literal[1, 3] = Field(examples=[3])
    resize: Literal["stretch", "crop", "pad"] = Field(examples=["stretch"])


class NetworkParams(_Section):
    """Which network, with which weights at the start."""

    name: str = Field(min_length=1, examples=["cnn"])
    weights: str = Field(min_length=1, examples=["random"])
    widths: list[Count] = Field(min_length=1, max_length=8, examples=[[32, 64]])
    convs: Annotated[int, Field(ge=1, le=4)] = Field(examples=[2])
    hidden: list[Count] = Field(max_length=4, examples=[[128]])
    dropout: Fraction = Field(examples=[0.2])


class TrainParams(_Section):
    """The recipe of a training."""

    epochs: Count = Field(examples=[30])
    batch_size: Count = Field(examples=[64])
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = Field(examples=["adamw"])
    lr: Positive = Field(examples=[0.003])
    momentum: Fraction = Field(examples=[0.9])
    weight_decay: NonNegative = Field(examples=[0.01])
    schedule: Literal["cosine", "linear", "one-cycle"] = Field(examples=["cosine"])
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(examples=[1])
    label_smoothing: Fraction = Field(examples=[0.05])
    class_weights: Literal["none", "balanced"] = Field(examples=["none"])
    early_stopping: Annotated[int, Field(ge=0)] = Field(examples=[0])
    precision: Literal["auto", "float32", "bf16"] = Field(examples=["auto"])
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(examples=["auto"])
    memory_gb: Positive = Field(examples=[8.0])
    threads: Annotated[int, Field(ge=1, le=512)] = Field(examples=[2])
    processes: Annotated[int, Field(ge=1, le=1024)] = Field(examples=[1])
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(examples=[0])


class AugmentParams(_Section):
    """What happens at random to training images, on whole batches."""

    flip: Probability = Field(examples=[0.5])
    translate: Annotated[float, Field(ge=0, le=0.5)] = Field(examples=[0.1])
    crop_scale: Annotated[float, Field(gt=0, le=1)] = Field(examples=[1.0])
    erase: Probability = Field(examples=[0.0])


class EvaluateParams(_Section):
    """How the test split is scored."""

    top_k: Count = Field(examples=[3])
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = Field(examples=[1000])
    target_precision: Annotated[float, Field(gt=0, lt=1)] = Field(examples=[0.99])
    slices: list[Annotated[str, Field(min_length=1)]] = Field(examples=[["drop"]])
    robustness_images: Annotated[int, Field(ge=0)] = Field(examples=[1000])


class AuditParams(_Section):
    """How the labels of the training images are doubted."""

    folds: Annotated[int, Field(ge=2, le=20)] = Field(examples=[4])
    epochs: Count = Field(examples=[15])


class PromoteParams(_Section):
    """What a challenger must show."""

    metric: Literal["accuracy", "macro_f1", "macro_recall"] = Field(examples=["accuracy"])
    min_margin: Fraction = Field(examples=[0.0])
    floor: Fraction = Field(examples=[0.5])
    recall_tolerance: Fraction = Field(gt=0, examples=[0.05])
    calibration_tolerance: Fraction = Field(examples=[0.05])
    class_changes: Literal["refuse", "accept"] = Field(examples=["refuse"])
    moved_alias: Literal["restore", "adopt"] = Field(examples=["restore"])


class CardParams(_Section):
    """What a model card says that no figure can."""

    intended_use: str = Field(min_length=1, max_length=500, examples=["Classify images like those it was trained on."])


class PredictParams(_Section):
    """Batch prediction."""

    batch_size: Count = Field(examples=[256])
    settle_s: NonNegative = Field(examples=[5])
    shadow: bool = Field(examples=[False])


class MonitorParams(_Section):
    """What is held against the champion in production."""

    # Below it the permutations of a window would take minutes.
    alpha: Fraction = Field(ge=0.001, examples=[0.01])
    min_images: Annotated[int, Field(ge=20)] = Field(examples=[100])
    windows: Count = Field(examples=[2])
    of_last: Count = Field(examples=[3])
    min_accuracy: Fraction = Field(examples=[0.8])

    @model_validator(mode="after")
    def _ask_for_windows_that_there_are(self) -> Self:
        if self.windows > self.of_last:
            raise ValueError(f"windows is {self.windows}; expected at most of_last, {self.of_last}")
        return self


class Params(_Section):
    """Everything in params.yaml."""

    name: Name = Field(examples=["digits"])
    ingest: IngestParams
    split: SplitParams
    image: ImageParams
    network: NetworkParams
    train: TrainParams
    augment: AugmentParams
    evaluate: EvaluateParams
    audit: AuditParams
    promote: PromoteParams
    predict: PredictParams
    monitor: MonitorParams
    card: CardParams


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises
    ------
    ParamsError
        Naming every problem, one line each: key, what was found, what is allowed, the nearest known key.
    """
    document = read_yaml(path)
    try:
        return Params.model_validate(_plain(document))
    except ValidationError as error:
        details = _without_twins(error.errors(include_url=False))
        details.sort(key=lambda detail: _line(document, detail["loc"]) or 0)
        raise ParamsError("\n".join(_explain(path, document, detail) for detail in details)) from error


def read_yaml(path: Path) -> CommentedMap:
    """Read a YAML mapping with comments and positions kept.

    Raises
    ------
    ParamsError
        If the file is absent, unreadable, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = YAML().load(text)
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: no such file. Run `calotype` in the project's folder.") from error
    except (UnicodeDecodeError, OSError) as error:
        raise ParamsError(f"{path}: cannot be read ({error}). Expected UTF-8 text.") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ParamsError(f"{path}:{line}: not valid YAML: {error.problem}. Mend the line, then run again.") from error
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ParamsError(f"{path}: not valid YAML: {reason}. Mend the file, then run again.") from error
    if not isinstance(document, CommentedMap):
        raise ParamsError(f"{path}: found {_show(document)}; expected sections such as `train:` with keys below them.")
    return document


def flatten(params: Params) -> dict[str, Any]:
    """Full key names and values, in the order of params.yaml: ``{"train.lr": 0.003, ...}``."""
    flat: dict[str, Any] = {}
    for section, value in params.model_dump().items():
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": inner for key, inner in value.items()}
        else:
            flat[section] = value
    return flat


def origins(path: Path) -> dict[str, str]:
    """Where each value comes from: ``{"train.lr": "params.yaml:40", ...}``."""
    document = read_yaml(path)
    found: dict[str, str] = {}
    for section, value in document.items():
        if isinstance(value, CommentedMap):
            found |= {f"{section}.{key}": f"{path.name}:{value.lc.key(key)[0] + 1}" for key in value}
        else:
            found[str(section)] = f"{path.name}:{document.lc.key(section)[0] + 1}"
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    # The round-trip loader gives subclasses of float, int and str, which strict models refuse.
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _explain(path: Path, document: CommentedMap, detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    line = _line(document, detail["loc"])
    where = f"{path.name}:{line}: {key}" if line else f"{path.name}: {key}"
    if detail["type"] == "missing":
        return f"{where}: missing; add the line below to {path.name}\n{_line_to_add(detail['loc'])}"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key. {_nearest(key) or 'Remove it.'}"
    if detail["type"] == "value_error":
        return f"{where}: {detail['msg'].removeprefix('Value error, ')}."
    return f"{where}: found {_show(detail['input'])}; expected {_allowed(detail)}."


def _without_twins(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out a key that is missing because it stands there misspelt: the misspelt one names it."""
    unknown = [".".join(map(str, detail["loc"])) for detail in details if detail["type"] == "extra_forbidden"]
    meant = {_close(key) for key in unknown}
    return [d for d in details if d["type"] != "missing" or ".".join(map(str, d["loc"])) not in meant]


def _line(document: CommentedMap, location: tuple[int | str, ...]) -> int | None:
    node: Any = document
    line = None
    for part in location:
        if not isinstance(node, CommentedMap) or part not in node:
            break
        line = node.lc.key(part)[0] + 1
        node = node[part]
    return line


def _line_to_add(location: tuple[int | str, ...]) -> str:
    section = Params.model_fields[str(location[0])]
    if len(location) == 1:
        kind = section.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines = [f"  {name}: {_example(field)}" for name, field in kind.model_fields.items()]
            return "\n".join([f"{location[0]}:", *lines])
        return f"{location[0]}: {_example(section)}"
    assert isinstance(section.annotation, type)
    assert issubclass(section.annotation, BaseModel)
    key = str(location[1])
    return f"{location[0]}:\n  {key}: {_example(section.annotation.model_fields[key])}"


def _example(field: Any) -> Any:
    return field.examples[0]


def known_keys() -> list[str]:
    """Every key that params.yaml may hold, sections included."""
    keys: list[str] = []
    for name, field in Params.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{key}" for key in field.annotation.model_fields]
    return keys


def _nearest(key: str) -> str:
    close = _close(key)
    return f"Did you mean `{close}`?" if close else ""


def _close(key: str) -> str | None:
    known = known_keys()
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        last = key.rpartition(".")[2]
        close = [name for name in known if name.rpartition(".")[2] == last][:1]
    return close[0] if close else None


def _allowed(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    simple = {
        "float_type": "a number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "string_type": "text",
        "list_type": "a list such as [32, 64]",
        "model_type": "a section with keys below it",
        "model_attributes_type": "a section with keys below it",
        "finite_number": "a finite number",
        "string_too_short": "text that is not empty",
        "string_pattern_mismatch": "letters, digits, dots, dashes or underscores",
    }
    if detail["type"] in simple:
        return simple[detail["type"]]
    if detail["type"] == "literal_error":
        return f"one of {context['expected']}"
    return detail["msg"].removeprefix("Input should be ").removeprefix("List should have ")


def _show(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict) else "a section"
    return text if len(text) <= 60 else f"{text[:57]}..."
