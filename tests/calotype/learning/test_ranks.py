"""Two processes that torchrun starts train as one does: the same losses, to the rounding of a sum."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from calotype import params as parameters
from calotype.errors import ParamsError
from calotype.learning import network, ranks, training
from calotype.learning.ranks import Ranks
from calotype.learning.training import Labelled, State, Trainer

ROOT = Path(__file__).parents[3]
RECIPES: dict[str, dict[str, dict[str, object]]] = {
    "cnn": {
        "network": {"widths": [16, 32], "dropout": 0.0},
        "train": {"optimizer": "adamw", "lr": 0.002, "class_weights": "balanced"},
        "augment": {"flip": 0.5, "translate": 0.1, "crop_scale": 0.7, "erase": 0.5},
    },
    "fast": {
        "network": {"name": "fast", "widths": [16, 24], "dropout": 0.0},
        "train": {"optimizer": "muon", "lr": 0.1, "momentum": 0.6, "schedule": "linear", "warmup_epochs": 0},
        "augment": {"flip": 0.5, "translate": 0.1, "erase": 0.5},
    },
}


def trained(name: str, group: Ranks) -> list[dict[str, float]]:
    """Two epochs on digits; the history without its clock."""
    values = parameters.load(ROOT / "params.yaml")
    fixed = {"epochs": 2, "batch_size": 32, "precision": "float32", "threads": 1, "label_smoothing": 0.1}
    recipe = RECIPES[name]
    train = values.train.model_copy(update=fixed | recipe["train"])
    data = load_digits()
    images = torch.from_numpy((data.images * 255 / 16).round().astype("uint8"))[:, None]
    labels = torch.from_numpy(data.target).long()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trainer = Trainer(
        network.build(values.network.model_copy(update=recipe["network"]), values.image, classes=10),
        Labelled(images[:300], labels[:300]),
        Labelled(images[-101:], labels[-101:]),
        training.pixel_statistics(images[:300]),
        train=train,
        augmentation=values.augment.model_copy(update=recipe["augment"]),
        device=torch.device("cpu"),
        classes=10,
        ranks=group,
    )
    state = training.train(trainer, State(), on_step=lambda _: None, on_epoch=lambda _: None)
    return [row | {"images_per_second": 0.0} for row in training.history_rows(state.history)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_give_the_losses_of_one(name: str, tmp_path: Path) -> None:
    out = tmp_path / "history.json"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    subprocess.run(
        [*torchrun, __file__, name, str(out)], check=True, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    together, alone = json.loads(out.read_text()), trained(name, ranks.ALONE)
    assert len(together) == 2
    for two, one in zip(together, alone, strict=True):
        assert two == pytest.approx(one, abs=2e-4)


def test_every_image_of_a_batch_has_one_process() -> None:
    batch = torch.arange(32)
    parts = [Ranks(rank, 4).share(batch) for rank in range(4)]
    assert torch.equal(torch.cat(parts), batch)
    assert torch.equal(ranks.ALONE.share(batch), batch)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"batch_size: found 50 for 4 processes; expected a multiple of 4"):
        ranks.check(4, 50, torch.device("cpu"))


if __name__ == "__main__":
    with ranks.joined(torch.device("cpu")) as everyone:
        history = trained(sys.argv[1], everyone)
        if everyone.leads:
            Path(sys.argv[2]).write_text(json.dumps(history))
