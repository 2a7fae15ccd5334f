"""What all pages share: escaping, a policy that matches the script, pictures of bounded size."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

import calotype.pages
from calotype.pages import picture, render

TEMPLATES = sorted(path.name for path in Path(calotype.pages.__file__).parent.glob("*.html.j2"))


def test_only_the_script_of_the_page_may_run() -> None:
    text = render("page.html.j2")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r"script-src 'sha256-([^']+)'", text)
    assert script
    assert policy
    assert policy[1] == base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "page.html.j2"])
def test_a_page_refuses_to_show_nothing_for_a_value_that_is_missing(name: str) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render(name)


def encoded(size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_small_picture_keeps_its_pixels() -> None:
    data = encoded((28, 20), "L")
    uri, is_small = picture(data, max_megapixels=1)
    assert is_small
    shown = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data))))


def test_a_large_picture_shrinks_so_that_the_page_stays_light() -> None:
    uri, is_small = picture(encoded((900, 600)), max_megapixels=1)
    assert not is_small
    shown = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert shown.size == (192, 128)
    assert len(uri) < 60_000
