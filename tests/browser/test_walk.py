"""A walk past the real pages, as a person would go who looks after a model; it leaves the documents' pictures.

`make screenshots` walks with ``CALOTYPE_PICTURES=docs/pictures``; without it the pictures go to a temporary folder.
"""

from __future__ import annotations

import io
import json
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from calotype.fetch import DEBIAN_FOLDER
from calotype.services import page as addresses
from tests.browser.scene import GOOD, WITHOUT_IMAGES, WORDS, Scene, production
from tests.waiting import until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,  # so it is the first to start
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason=WITHOUT_IMAGES),
]

WIDTH, HEIGHT = 1280, 860
SHARPNESS = 1.5
"""Pixels of a picture for each pixel of a page."""

QUALITY = 82
MOST_BYTES = 150_000
PATIENCE_MS = 60_000
SEEN_BEFORE = {
    # Prefect's pages are dark unless a person asks for light.
    "color-scheme": '"light"',
    # MLflow's welcome to its chat and to its registry, and its menu for those who train models.
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.workflowType_v1": '"machine_learning"',
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
}
"""What a browser keeps of a person who was here before."""

CHARTS = "^(test/(accuracy|f1_macro)|val/(accuracy|loss))$"
TYPE = """(box, text) => {
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(box, text);
  box.dispatchEvent(new Event('input', {bubbles: true}));
}"""
"""Fills a box of MLflow at once: hundreds of charts move beneath it, and Playwright waits for them to rest."""

WITHOUT_CHAT = "button:has(.assistant-fab-label) { display: none !important }"


@dataclass
class Eyes:
    """A browser's window in front of the scene, and the folder that receives what it shows."""

    scene: Scene
    page: Page
    folder: Path
    wrong: list[str] = field(default_factory=list)

    def open(self, address: str, *texts: str) -> Page:
        """Go to an address; wait until each text can be read there."""
        self.page.goto(address)
        for text in texts:
            expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=PATIENCE_MS)
        return self.page

    def keep(self, name: str, height: int = HEIGHT, top: Locator | None = None) -> None:
        """Keep a picture of the window, or of the page from an element on, ``height`` pixels of it."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        if top:
            top.evaluate("element => window.scrollTo(0, element.getBoundingClientRect().top + window.scrollY - 24)")
        # What still moves (charts that grow, a spinner) comes to rest.
        self.page.wait_for_timeout(1200)
        seen = Image.open(io.BytesIO(self.page.screenshot(animations="disabled", style=WITHOUT_CHAT)))
        path = self.folder / f"{name}.webp"
        seen.convert("RGB").save(path, quality=QUALITY, method=6)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        assert path.stat().st_size <= MOST_BYTES, f"{path} holds {path.stat().st_size:,} bytes"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with production(tmp_path_factory.mktemp("walk") / "fashion") as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("CALOTYPE_PICTURES")
    made = Path(named) if named else tmp_path_factory.mktemp("pictures")
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def eyes(scene: Scene, folder: Path, browser: Browser) -> Iterator[Eyes]:
    """A window of its own for each test; it fails where a page raised an error."""
    context = browser.new_context(
        color_scheme="light", viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SHARPNESS
    )
    context.add_init_script(f"Object.entries({json.dumps(SEEN_BEFORE)}).forEach(pair => localStorage.setItem(...pair))")
    opened = Eyes(scene, context.new_page(), folder)
    opened.page.on("pageerror", lambda error: opened.wrong.append(str(error)))
    yield opened
    context.close()
    assert opened.wrong == []


def test_the_page_of_addresses_leads_everywhere_and_says_that_all_is_well(eyes: Eyes) -> None:
    path = addresses.path_of(eyes.scene.project)
    assert until(lambda: "All is well." in path.read_text(encoding="utf-8"), 60)
    page = eyes.open(path.as_uri(), "All is well.", "monitoring/daily", "Completed")
    eyes.keep("addresses", height=900)
    # All at once: the page loads itself again.
    for address in page.evaluate("[...document.links].map(link => link.href)"):
        if address.startswith("file:"):
            assert Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path)).is_file(), address
        else:
            # Prefect answers with a page only whoever asks for one.
            assert page.request.get(address, headers={"Accept": "text/html"}).ok, address


def test_prefect_shows_the_deployments_with_their_runs(eyes: Eyes) -> None:
    eyes.open(f"{eyes.scene.prefect}/deployments", "batch-prediction", "monitoring", "training", "Ready")
    eyes.keep("prefect-deployments", height=430)


def test_the_page_of_a_training_shows_its_stages_and_what_they_found(eyes: Eyes) -> None:
    run = eyes.scene.completed("training")[0]
    page = eyes.open(
        f"{eyes.scene.prefect}/runs/flow-run/{run['id']}", run["name"], "Completed", "production asks for a training"
    )
    page.get_by_text("Artifacts", exact=True).click()
    for key in ("metrics", "confusion-matrix", "promotion", "registered-version"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    eyes.keep("prefect-training", height=1290)
    eyes.open(eyes.scene.artifact(run, "confusion-matrix"), "Confusion matrix on the test split")
    assert page.evaluate("[...document.images].some(image => image.naturalWidth > 400)")
    eyes.open(eyes.scene.artifact(run, "metrics"), "Test metrics", "accuracy")
    # A training that production asked for says so.
    assert any("drift" in tag for tag in run["tags"]), run["tags"]


def test_the_page_of_a_batch_counts_what_came_and_what_was_rejected(eyes: Eyes) -> None:
    run = eyes.scene.completed("batch-prediction")[-1]
    page = eyes.open(f"{eyes.scene.prefect}/runs/flow-run/{run['id']}", run["name"], "Completed")
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("predictions", exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    texts = ("unsupported-format", "truncated", "abstained", *WORDS)
    eyes.open(eyes.scene.artifact(run, "predictions"), *texts)
    eyes.keep("prefect-batch", height=1090)


def test_the_page_of_a_monitoring_names_the_drift(eyes: Eyes) -> None:
    run = eyes.scene.completed("monitoring")[0]
    eyes.open(eyes.scene.artifact(run, "monitoring"), "drift in the last window", "Brightness")
    eyes.keep("prefect-monitoring", height=760)


def test_mlflow_compares_two_runs_by_our_metrics(eyes: Eyes) -> None:
    experiment, runs = eyes.scene.runs()
    assert len(runs) == 2
    chosen = f"runs={json.dumps(runs)}&experiments={json.dumps([experiment])}".replace(" ", "")
    page = eyes.open(f"{eyes.scene.mlflow}/#/compare-runs?{chosen}", "Comparing 2 Runs", "train.lr")
    eyes.open(f"{eyes.scene.mlflow}/#/experiments/{experiment}/runs?compareRunsMode=CHART", "Run Name")
    page.get_by_placeholder("Search metric charts").evaluate(TYPE, CHARTS)
    for title in ("test/accuracy", "test/f1_macro", "val/accuracy", "val/loss"):
        expect(page.get_by_text(title, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    eyes.keep("mlflow-runs", height=1090)


def test_the_registry_shows_champion_and_challenger_and_the_model_card(eyes: Eyes) -> None:
    eyes.open(f"{eyes.scene.mlflow}/#/models/fashion", "Version 1", "champion", "Version 2", "challenger")
    card = ("Model card: fashion version 1", "Intended use", "weakest classes", "How to reproduce")
    eyes.open(f"{eyes.scene.mlflow}/#/models/fashion/versions/1", "champion", *card)
    expect(eyes.page.get_by_role("cell", name=re.compile(r"\d\d\.\d\s% \(\d\d\.\d–\d\d\.\d\)")).first).to_be_visible()
    eyes.keep("mlflow-model-card")


def test_the_reports_of_data_and_model_show_their_pictures(eyes: Eyes) -> None:
    reports = eyes.scene.project.reports
    page = eyes.open((reports / "data.html").as_uri(), "Near-duplicates", "Samples", *WORDS)
    eyes.keep("data", height=785, top=page.get_by_role("heading", name="Samples"))
    page = eyes.open((reports / "report.html").as_uri(), "What to trust", "Most confident mistakes", *WORDS)
    eyes.keep("report", height=1240)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_the_pages_of_production_show_batches_drift_and_accuracy(eyes: Eyes) -> None:
    reports = eyes.scene.project.reports
    first, last = sorted((reports / "batches").glob("*.html"))
    eyes.open(last.as_uri(), "Least confident")
    page = eyes.open(first.as_uri(), "1 truncated", "Least confident", f"{GOOD} rows appended")
    eyes.keep("batch", height=1210)
    page = eyes.open((reports / "monitoring.html").as_uri(), "Drift in", "asks for a new training")
    eyes.keep("monitoring", height=860)
    eyes.keep("unusual", height=960, top=page.get_by_role("heading", name="Confidence and appearance"))
    eyes.open((reports / "production.html").as_uri(), "Production accuracy", "The gate had expected")
    eyes.keep("production", height=985)
