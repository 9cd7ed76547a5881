"""Presets that others published: their numbers, and that each of them trains."""

import csv
import math

import numpy as np
import pytest

from polynet_keras.data.examples import Source
from polynet_keras.models import network_cost
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.runs.train import train
from tests.data.arrays import examples_of, png, random_images

NUMBERS = {
    "a2": {
        "image_size": 224,
        "evaluation_size": None,
        "epochs": 300,
        "batch_size": 2048,
        "loss": "binary",
        "optimizer.name": "lamb",
        "schedule.name": "cosine",
        "schedule.learning_rate": 5e-3,
        "regularization.weight_decay": 0.02,
        "regularization.label_smoothing": 0.0,
        "regularization.max_drop_rate": 0.05,
        "augmentation.magnitude": 7.0,
        "augmentation.magnitude_std": 0.5,
        "augmentation.mixup": 0.1,
        "augmentation.cutmix": 1.0,
        "augmentation.repeats": 3,
        "augmentation.erasing": 0.0,
    },
    "a3": {
        "image_size": 160,
        "evaluation_size": 224,
        "epochs": 100,
        "batch_size": 2048,
        "loss": "binary",
        "optimizer.name": "lamb",
        "schedule.learning_rate": 8e-3,
        "regularization.weight_decay": 0.02,
        "regularization.stochastic_depth": "off",
        "augmentation.magnitude": 6.0,
        "augmentation.mixup": 0.1,
        "augmentation.cutmix": 1.0,
        "augmentation.repeats": 1,
    },
    "ra2": {
        "epochs": 450,
        "batch_size": 768,
        "loss": "categorical",
        "optimizer.name": "rmsprop",
        "optimizer.momentum": 0.9,
        "optimizer.epsilon": 1e-3,
        "optimizer.ema_momentum": 0.9999,
        "schedule.name": "step",
        "schedule.learning_rate": 0.048,
        "schedule.decay_epochs": 2.4,
        "schedule.decay_factor": 0.97,
        "regularization.weight_decay": 1e-5,
        "regularization.max_drop_rate": 0.2,
        "augmentation.magnitude": 9.0,
        "augmentation.magnitude_std": 0.5,
        "augmentation.erasing": 0.2,
    },
    "torchvision": {
        "image_size": 176,
        "evaluation_size": 224,
        "epochs": 600,
        "batch_size": 1024,
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "schedule.name": "cosine",
        "schedule.learning_rate": 0.5,
        "regularization.label_smoothing": 0.1,
        "augmentation.policy": "trivial_augment_wide",
        "augmentation.erasing": 0.1,
        "augmentation.mixup": 0.2,
        "augmentation.cutmix": 1.0,
        "augmentation.repeats": 4,
    },
}
"""What the sources say, of what is a setting here."""


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_are_those_that_were_published(name):
    recipe = PRESETS[name].recipe
    found = {
        setting: getattr(getattr(recipe, setting.split(".")[0]), setting.split(".")[1])
        if "." in setting
        else getattr(recipe, setting)
        for setting in NUMBERS[name]
    }
    assert found == NUMBERS[name]
    assert (recipe.augmentation.crop, recipe.augmentation.flip) == ("random_resized", True)
    warmup = 3 if name == "ra2" else 5
    assert recipe.schedule.warmup_share * recipe.epochs == pytest.approx(warmup)
    assert recipe.replaced({"structure": "polynet-g5"}).structure == "polynet-g5"


def test_torchvisions_averages_and_decay():
    """Every 32 steps its references take the share alpha; of every step the same remains. A momentum of 0.9 takes up
    what is in the gradient ten times."""
    recipe = PRESETS["torchvision"].recipe
    alpha = (1 - 0.99998) * 8 * 128 * 32 / 600
    assert recipe.optimizer.ema_momentum**32 == pytest.approx(1 - alpha, rel=1e-6)
    assert recipe.regularization.weight_decay == pytest.approx(2e-5 / (1 - recipe.optimizer.momentum))


@pytest.mark.parametrize("name", NUMBERS)
def test_the_cost_is_counted(name):
    preset = PRESETS[name]
    side = preset.recipe.image_size
    macs = sum(part.macs for part in network_cost("ir-5-10-5", input_shape=(side, side, 3)))
    assert preset.flops_per_image == 6 * macs
    assert preset.hours == pytest.approx(6 * macs * 1_281_167 * preset.recipe.epochs / 1e14 / 3600)


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMBERS)
def test_each_trains_for_some_steps(name, tmp_path, monkeypatch):
    """In 16 bits, as those that published it do."""
    labels = np.arange(24) % 3
    parts = [examples_of([png(i) for i in random_images(24, 90, seed=seed)], labels) for seed in (0, 1)]
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: Source(*parts))
    small = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.05, "batch_size": 8, "epochs": 2}
    small["precision"] = "mixed_bfloat16"
    sizes = {"image_size": 75, "evaluation_size": PRESETS[name].recipe.evaluation_size and 83}
    recipe = PRESETS[name].recipe.replaced({**small, **sizes})
    train(recipe, tmp_path / "run")
    with open(tmp_path / "run" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(math.isfinite(float(row[name])) for row in rows for name in ("loss", "val_loss"))
    assert ModelCard.load(tmp_path / "run").preprocessing.image_size == (sizes["evaluation_size"] or 75)
