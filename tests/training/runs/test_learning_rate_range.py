"""The range test's smoothing and proposal, and its table and picture."""

import csv

import numpy as np
import pytest
from PIL import Image

from polynet_keras.training.runs.learning_rate_range import LearningRateRange, write_range


def range_of(losses):
    return LearningRateRange(tuple(np.geomspace(1e-7, 10, 100)[: len(losses)]), tuple(losses), 100)


@pytest.mark.parametrize("seed", range(10))
def test_the_proposal_has_the_lowest_loss(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(85, 101))
    logs = np.linspace(-7, 1, 100)[:count]
    rise = rng.uniform(-1, 1)
    curve = 2.3 - 1.5 / (1 + np.exp(-2 * (logs + 3))) + np.exp(4 * (logs - rise))
    found = range_of(curve + rng.normal(0, 0.02, count))
    assert found.proposal == found.rates[10 + int(np.argmin(found.smoothed[10:]))]
    assert 1 <= found.proposal / found.rates[int(np.argmin(curve))] < 6  # the mean is late


@pytest.mark.parametrize("seed", range(3))
def test_the_smoothed_loss_is_a_weighted_mean(seed):
    losses = np.random.default_rng(seed).uniform(0, 3, 40)
    found = range_of(losses)
    for i in range(40):
        weights = 0.9 ** np.arange(i, -1, -1)
        np.testing.assert_allclose(found.smoothed[i], np.average(losses[: i + 1], weights=weights), rtol=1e-12)


@pytest.mark.parametrize("losses", [[], [2.0] * 12, list(np.linspace(2, 3, 100))])
def test_without_a_fall_nothing_is_proposed(losses):
    assert range_of(losses).proposal is None


def test_a_loss_that_only_falls():
    assert range_of(np.linspace(3, 1, 100)).proposal == pytest.approx(10.0)


@pytest.mark.parametrize("losses", [np.linspace(3, 1, 100), [2.0] * 30, [1.0]])
def test_table_and_picture(tmp_path, losses):
    found = range_of(losses)
    picture = write_range(found, tmp_path / "range.csv")
    assert picture == tmp_path / "range.png"
    assert Image.open(picture).size == (720, 480)
    with open(tmp_path / "range.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == list(found.rates)
    assert [float(row["loss"]) for row in rows] == list(found.losses)
    assert [float(row["smoothed_loss"]) for row in rows] == found.smoothed.tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"range.csv", "range.png"}
