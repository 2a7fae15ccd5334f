import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype import params as parameters
from calotype.errors import DataError
from calotype.learning import network
from calotype.project import Project
from calotype.use import slug, use

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def fresh(project: Project) -> Project:
    """A project with the repository's own params.yaml."""
    project.params.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return project


def picture(width: int, height: int, *, colour: bool, seed: int = 0, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels = pixels if colour else pixels[..., :1].repeat(3, axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def folder_of(root: Path, labels: list[str], per_class: int, width: int, height: int, *, colour: bool) -> Path:
    for index in range(len(labels) * per_class):
        path = root / labels[index % len(labels)] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(width, height, colour=colour, seed=index))
    return root


def fitted(project: Project, source: Path | str) -> parameters.Params:
    use(project, str(source))
    return parameters.load(project.params)


def test_the_shipped_params_are_those_that_fit_digits(fresh: Project) -> None:
    before = fresh.params.read_bytes()
    (fresh.raw / "digits").rename(fresh.root / "thirty-of-each")
    use(fresh, "digits")
    assert fresh.params.read_bytes() == before


def test_a_second_time_changes_nothing(fresh: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "Two Leaves", ["oak", "ash"], 6, 40, 30, colour=True)
    use(fresh, str(source))
    first = capsys.readouterr().out
    after = fresh.params.read_bytes()
    use(fresh, str(source))
    assert fresh.params.read_bytes() == after
    assert "+name: two-leaves" in first
    assert capsys.readouterr().out.splitlines()[-1] == "params.yaml fits already"


def test_what_was_seen_is_printed(fresh: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "leaves", ["oak", "ash"], 6, 40, 30, colour=True)
    (source / "oak" / "Thumbs.db").touch()
    (source / "oak" / "bad.png").write_bytes(b"no image")
    (source / "elm").mkdir()
    use(fresh, str(source))
    seen = capsys.readouterr().out
    for line in (
        "  kind       a folder per class",
        "  classes    2: ash, oak",
        "  images     13, 6 to 7 of a class",
        "  splits     none declared",
        "  sizes      40×30 pixels (12 images looked at)",
        "  colour     colour",
        "  left out   1 system litter",
        "  unreadable 1 of those looked at, first oak/bad.png: ",
        "  empty      class folders 'elm' hold no image: ingest will refuse",
    ):
        assert line in seen


def test_two_small_classes_get_values_that_work(fresh: Project, tmp_path: Path) -> None:
    values = fitted(fresh, folder_of(tmp_path / "leaves", ["oak", "ash"], 6, 30, 30, colour=True))
    assert (values.image.size, values.image.channels) == (32, 3)
    assert values.ingest.min_per_class == 6
    assert values.evaluate.top_k == 1
    assert values.augment.flip == 0.5
    assert 2 ** len(values.network.widths) <= values.image.size
    network.check(values.network, values.image)


def test_small_images_get_the_fast_recipe_and_tiny_ones_lose_it_again(fresh: Project, tmp_path: Path) -> None:
    small = fitted(fresh, folder_of(tmp_path / "leaves", ["oak", "ash"], 6, 20, 20, colour=True))
    assert (small.network.name, small.train.optimizer, small.train.schedule) == ("fast", "muon", "linear")
    network.check(small.network, small.image)
    tiny = fitted(fresh, fresh.raw / "digits")
    assert (tiny.network.name, tiny.train.optimizer, tiny.train.schedule) == ("cnn", "adamw", "cosine")
    shipped = parameters.load(REPOSITORY / "params.yaml")
    assert (tiny.train.lr, tiny.train.momentum, tiny.train.label_smoothing) == (
        shipped.train.lr,
        shipped.train.momentum,
        shipped.train.label_smoothing,
    )


def test_grey_pictures_stored_in_colour_are_grey(fresh: Project, tmp_path: Path) -> None:
    source = tmp_path / "scans"
    for index in range(8):
        path = source / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(20, 20, colour=False, seed=index, kind="JPEG"))
    values = fitted(fresh, source)
    assert values.image.channels == 1
    assert values.augment.flip == 0.0  # classes of one letter: writing


def test_photographs_are_made_small_and_cropped(fresh: Project, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "photos", ["oak", "ash"], 3, 200, 150, colour=True)
    folder_of(source, ["elm", "yew"], 3, 120, 300, colour=True)
    values = fitted(fresh, source)
    assert (values.image.size, values.image.resize, values.augment.crop_scale) == (128, "crop", 0.6)


def test_a_zip_outside_the_project_is_named_in_full(fresh: Project, tmp_path: Path) -> None:
    path = tmp_path / "My Leaves.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for index in range(8):
            split, label = ("train", "test")[index % 4 == 0], "ab"[index // 4]
            packed.writestr(f"{split}/{label}/{index}.png", picture(9, 9, colour=True, seed=index))
    values = fitted(fresh, path)
    assert values.ingest.source == str(path)
    assert values.name == "my-leaves"


def test_another_source_leaves_the_corrections_of_the_old_one_behind(fresh: Project, tmp_path: Path) -> None:
    text = fresh.params.read_text(encoding="utf-8")
    fresh.params.write_text(text.replace("corrections: none", "corrections: fixed.csv"), encoding="utf-8")
    digits = str(fresh.raw / "digits")
    assert fitted(fresh, digits).ingest.corrections == "fixed.csv"
    other = folder_of(tmp_path / "other", ["oak", "ash"], 6, 40, 30, colour=True)
    assert fitted(fresh, other).ingest.corrections == "none"


def test_a_path_inside_the_project_is_relative(fresh: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fresh.root / "data")
    assert fitted(fresh, "raw/../raw/digits").ingest.source == "data/raw/digits"


def test_a_single_class_is_refused_and_nothing_written(fresh: Project, tmp_path: Path) -> None:
    before = fresh.params.read_bytes()
    with pytest.raises(DataError, match=r"one class \(oak\); expected at least two"):
        use(fresh, str(folder_of(tmp_path / "leaves", ["oak"], 3, 9, 9, colour=True)))
    assert fresh.params.read_bytes() == before


def test_a_source_without_a_readable_image_is_refused(fresh: Project, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "1.txt").write_text("words")
    with pytest.raises(DataError, match=r"none of the 2 images looked at can be decoded; a/1\.txt: "):
        use(fresh, str(tmp_path / "texts"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/My Leaves.tar.gz", "my-leaves"),
        ("/data/leaves/labels.CSV", "leaves"),
        ("Blätter 2", "bl-tter-2"),
        ("/…", "images"),
        ("-.x", "x"),
        ("v1.2", "v1.2"),
    ],
)
def test_names_are_made_from_paths(path: str, name: str) -> None:
    assert slug(Path(path)) == name
