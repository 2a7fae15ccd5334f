"""report.html: complete in itself, and deaf to whatever a folder is called."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from calotype.evaluation.metrics import measure
from calotype.pages.report import Mistake, Report, most_confused, render
from tests.examples import make_findings

HOSTILE = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.2 / epoch,
        "train_accuracy": 0.5,
        "val_accuracy": 0.4,
        "lr": 0.1,
    }
    for epoch in (1, 2, 3)
]


class Page(HTMLParser):
    """Elements, attributes and words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def report(classes: list[str], **changes: object) -> Report:
    mistake = Mistake(f"{classes[0]}/1.png", classes[0], classes[-1], 0.875, "data:image/png;base64,AAAA", True)
    values: dict[str, object] = {
        "title": "digits",
        "findings": make_findings(classes),
        "history": HISTORY,
        "facts": {"Network": "cnn, 12 parameters"},
        "parameters": {"train.lr": 0.003, "name": "digits"},
        "mistakes": [mistake],
    }
    return Report(**(values | changes))  # type: ignore[arg-type]


def test_the_page_shows_each_headline_figure_with_its_interval() -> None:
    made = report(["cat", "dog", "eel", "fox"])
    # A path may break after each slash.
    words = " ".join(Page(render(made)).words).replace("\xa0", " ").replace("/ ", "/")
    text = re.sub(r"\s+", " ", words)
    for name in ("accuracy", "top_k_accuracy", "f1_macro"):
        figure = made.findings.evaluation.headline[name]
        assert f"{figure.value * 100:.1f} %" in text
        assert f"{figure.low * 100:.1f}–{figure.high * 100:.1f} %" in text
    for word in ("cat", "12 parameters", "train.lr", "87.5 %", "cat/1.png"):
        assert word in text


@pytest.mark.parametrize("where", ["class", "title", "path", "fact", "parameter"])
def test_a_hostile_name_is_shown_and_never_becomes_an_element(where: str) -> None:
    classes = [HOSTILE, "dog", "eel", "fox"] if where == "class" else ["cat", "dog", "eel", "fox"]
    changes: dict[str, dict[str, object]] = {
        "class": {},
        "title": {"title": HOSTILE},
        "path": {"mistakes": [Mistake(HOSTILE, "cat", "dog", 0.5, "data:,", True)]},
        "fact": {"facts": {HOSTILE: HOSTILE}},
        "parameter": {"parameters": {HOSTILE: HOSTILE}},
    }
    harmless = Page(render(report(["cat", "dog", "eel", "fox"])))
    page = Page(render(report(classes, **changes[where])))
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == len([tag for tag, _ in harmless.elements if tag == "img"])
    assert HOSTILE in "".join(page.words) or HOSTILE in {attributes.get("alt") for attributes in images}


def test_many_classes_with_hostile_names_are_text_as_well() -> None:
    page = Page(render(report([f"{HOSTILE}{number}" for number in range(40)])))
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert f"{HOSTILE}7" in page.words


def test_the_page_names_no_address_but_its_own_data() -> None:
    text = render(report(["cat", "dog", "eel", "fox"]))
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    for _, attributes in Page(text).elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")


def test_only_the_script_of_the_page_may_run() -> None:
    text = render(report(["cat", "dog"]))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r"script-src 'sha256-([^']+)'", text)
    assert script
    assert policy
    assert policy[1] == base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()


@pytest.mark.parametrize("count", [2, 10, 30, 31, 120])
def test_any_number_of_classes_has_a_matrix_and_a_row_for_each_class(count: int) -> None:
    classes = [f"class {number}" for number in range(count)]
    text = render(report(classes, findings=make_findings(classes, images=4 * count)))
    assert ("Confusion matrix of" in text) == (count > 30)
    assert text.count('<th scope="row">class ') == count
    assert len(text) < 1_000_000


def test_permuting_the_classes_permutes_the_rows_and_nothing_else() -> None:
    classes = ["cat", "dog", "eel"]
    random = np.random.default_rng(1)
    actual, probabilities = random.integers(0, 3, 50), random.dirichlet(np.ones(3), 50)
    order = [2, 0, 1]

    def page(labels: np.ndarray, columns: np.ndarray, names: list[str]) -> list[str]:
        figures = measure(labels, columns, names, top_k=2, resamples=100)
        text = render(report(names, findings=make_findings(names, evaluation=figures), mistakes=[]))
        rows = re.findall(r'<tr><th scope="row">(?:cat|dog|eel).*?</tr>', text, re.DOTALL)
        cards = re.findall(r'<div class="card">.*?</b><span>.*?</span>', text, re.DOTALL)
        return sorted(rows) + cards + sorted(re.findall(r"<title>(?:cat|dog|eel).*?</title>", text))

    permuted = page(np.argsort(order)[actual], probabilities[:, order], [classes[old] for old in order])
    assert permuted == page(actual, probabilities, classes)


def test_a_perfect_score_says_how_little_that_proves() -> None:
    perfect = measure(
        np.array([0, 1] * 30), np.tile([[0.9, 0.1], [0.1, 0.9]], (30, 1)), ["a", "b"], top_k=1, resamples=100
    )
    text = render(report(["a", "b"], findings=make_findings(["a", "b"], evaluation=perfect), mistakes=[])).replace(
        "&nbsp;", " "
    )
    assert "all answered rightly" in text
    assert "above 95.0 %" in text
    assert "Most confident mistakes" not in text
    assert "Most confused" not in text


def test_without_a_history_there_are_no_curves() -> None:
    assert "<h2>Training</h2>" not in render(report(["a", "b"], history=[]))


def test_equal_reports_are_equal_bytes() -> None:
    assert render(report(["a", "b"])) == render(report(["a", "b"]))


def test_the_most_confused_pairs_come_most_images_first() -> None:
    actual = np.array([0] * 5 + [1] * 4 + [2] * 3)
    answers = np.array([0, 0, 1, 1, 1, 1, 1, 2, 0, 2, 2, 2])
    pairs = most_confused(measure(actual, np.eye(3)[answers], ["cat", "dog", "eel"], top_k=1, resamples=100))
    assert [(pair.actual, pair.predicted, pair.count) for pair in pairs] == [
        ("cat", "dog", 3),
        ("dog", "cat", 1),
        ("dog", "eel", 1),
    ]
    assert pairs[0].share == pytest.approx(0.6)
