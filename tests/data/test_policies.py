"""Policies: their tables beside torchvision's and timm's, what they draw, and that the seed alone decides it."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chisquare, kstest

from polynet_keras.data import policies
from polynet_keras.data.distortion import example_seed
from polynet_keras.data.policies import INCREASING, TRIVIAL, rand_augment_increasing, trivial_augment_wide


def drawn(function, count, seed=0):
    """A function of a seed, in a graph, for many seeds."""
    dataset = tf.data.Dataset.range(count).map(
        tf.autograph.experimental.do_not_convert(lambda i: function(example_seed(seed, tf.constant(0, tf.int64), i)))
    )
    return list(dataset.as_numpy_iterator())


@pytest.fixture
def recorded(monkeypatch):
    """In place of the image, which operation is applied with what strength: (1, 1, 3)."""

    def replace(table):
        for number, (name, entry) in enumerate(table.items()):
            monkeypatch.setitem(table, name, (lambda image, strength, n=number: _note(n, strength), *entry[1:]))

    return replace


def _note(number, strength):
    return tf.reshape(tf.stack([float(number), tf.cast(strength, tf.float32), 1.0]), (1, 1, 3))


TORCHVISION = {
    "Identity": ([0.0], False),
    **dict.fromkeys(("ShearX", "ShearY"), (np.linspace(0, 0.99, 31), True)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (np.linspace(0, 32, 31).astype(int), True)),
    "Rotate": (np.linspace(0, 135, 31), True),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (np.linspace(0, 0.99, 31), True)),
    "Posterize": (np.repeat([8, 7, 6, 5, 4, 3, 2], [3, 5, 5, 5, 5, 5, 3]), False),
    "Solarize": (np.linspace(255, 0, 31), False),
    "AutoContrast": ([0.0], False),
    "Equalize": ([0.0], False),
}
"""The space of torchvision's `TrivialAugmentWide`, written from its source: strengths of 31 bins, and whether they are
signed. It moves by whole pixels: by 15 in bin 15, since its float32 is a little below 16."""


def test_trivial_augments_strengths_are_torchvisions():
    assert list(TRIVIAL) == list(TORCHVISION)
    for name, (strengths, signed) in TORCHVISION.items():
        np.testing.assert_allclose(TRIVIAL[name][1], np.broadcast_to(strengths, 31), atol=1e-6, err_msg=name)
        assert TRIVIAL[name][2] == signed, name


@pytest.mark.slow
def test_trivial_augment_draws_each_operation_and_strength_equally_often(recorded):
    """Chi-square tests at 1e-4: of 14 operations, of the 31 strengths of one, and of their signs."""
    recorded(TRIVIAL)
    notes = np.array(drawn(lambda seed: trivial_augment_wide(tf.zeros((1, 1, 3)), seed), 6000))[:, 0, 0]
    assert chisquare(np.bincount(notes[:, 0].astype(int), minlength=14)).pvalue > 1e-4
    rotations = notes[notes[:, 0] == list(TRIVIAL).index("Rotate"), 1]
    places = np.abs(rotations) / (135 / 30)
    np.testing.assert_allclose(places, places.round(), atol=1e-4)
    assert chisquare(np.bincount(places.round().astype(int), minlength=31)).pvalue > 1e-4
    assert chisquare([(rotations > 0).sum(), (rotations < 0).sum()]).pvalue > 1e-4
    bits = notes[notes[:, 0] == list(TRIVIAL).index("Posterize"), 1]
    assert set(bits) == {2, 3, 4, 5, 6, 7, 8}


def timms(name, level, sign):
    """timm's strengths of `inc1`, by its documentation: of a level of 10, and what a coin decides."""
    share = level / 10
    return {
        "Rotate": sign * 30 * share,
        "PosterizeIncreasing": 4 - int(4 * share),
        "SolarizeIncreasing": 256 - int(256 * share),
        "SolarizeAdd": int(110 * share),
        **dict.fromkeys(("ShearX", "ShearY"), sign * 0.3 * share),
        **dict.fromkeys(("TranslateXRel", "TranslateYRel"), sign * 0.45 * share),
        **{f"{kind}Increasing": max(0.1, 1 + sign * 0.9 * share) for kind in ENHANCED},
    }.get(name)


ENHANCED = ("Color", "Contrast", "Brightness", "Sharpness")


@pytest.mark.parametrize("level", [0.0, 3.3, 6.0, 7.0, 9.0, 10.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_increasing_strengths_are_timms(level, sign):
    for name, (_, strength) in INCREASING.items():
        expected = timms(name, level, sign)
        if expected is not None:
            found = float(strength(tf.constant(level / 10), tf.constant(sign)))
            assert found == pytest.approx(expected, abs=1e-5), name
    assert sum(timms(name, level, sign) is None for name in INCREASING) == 3  # these have none


@pytest.mark.slow
def test_rand_augment_leaves_half_out_and_draws_magnitudes_around_its_own(recorded):
    """Two turns: a quarter of the images stay as they are; strengths are normal, and cut off at 10."""
    recorded(INCREASING)
    notes = np.array(drawn(lambda seed: rand_augment_increasing(9, 0.5)(tf.zeros((1, 1, 3)), seed), 4000))[:, 0, 0]
    untouched = (notes[:, 2] == 0).sum()
    assert abs(untouched - 1000) < 6 * math.sqrt(4000 * 0.25 * 0.75)
    applied = notes[notes[:, 2] == 1]
    assert chisquare(np.bincount(applied[:, 0].astype(int), minlength=15)).pvalue > 1e-4
    levels = np.abs(applied[applied[:, 0] == list(INCREASING).index("Rotate"), 1]) / 3
    assert levels.max() == 10
    below = levels[levels < 9.5]  # where nothing was cut off
    assert kstest(below, _normal_below(9.5)).pvalue > 1e-4
    steady = np.array(drawn(lambda seed: rand_augment_increasing(4, 0)(tf.zeros((1, 1, 3)), seed), 600))[:, 0, 0]
    rotations = steady[(steady[:, 2] == 1) & (steady[:, 0] == list(INCREASING).index("Rotate")), 1]
    assert set(np.round(rotations, 4)) == {12, -12}


def _normal_below(bound):
    def distribution(x):
        phi = np.vectorize(lambda z: (1 + math.erf(z / math.sqrt(2))) / 2)
        return phi((x - 9) / 0.5) / phi((bound - 9) / 0.5)

    return distribution


IMAGE = np.random.default_rng(0).uniform(0, 255, (24, 20, 3)).astype("float32")


@pytest.mark.parametrize(
    "policy",
    [trivial_augment_wide, pytest.param(rand_augment_increasing(7, 0.5), marks=pytest.mark.slow)],
    ids=["trivial", "rand"],
)
def test_the_seed_alone_decides(policy):
    """Bit by bit in another graph and order; and among many images most differ from the one that was given."""
    first = drawn(lambda seed: policy(tf.constant(IMAGE), seed), 40)
    assert all(image.shape == IMAGE.shape and image.dtype == np.float32 for image in first)
    backwards = tf.data.Dataset.range(39, -1, -1).map(
        tf.autograph.experimental.do_not_convert(
            lambda i: policy(tf.constant(IMAGE), example_seed(0, tf.constant(0, tf.int64), i))
        ),
        num_parallel_calls=4,
    )
    np.testing.assert_array_equal(first[::-1], list(backwards.as_numpy_iterator()))
    assert sum(not np.array_equal(image, IMAGE) for image in first) > 20
    assert np.min(first) > -1e-3
    assert np.max(first) < 255 + 1e-3


def test_an_operation_may_be_drawn_twice(recorded):
    recorded(INCREASING)
    seen = drawn(lambda seed: tf.stack(_numbers_of(seed)), 1500)
    both = np.array(seen)
    assert abs((both[:, 0] == both[:, 1]).sum() - 100) < 6 * math.sqrt(1500 / 15)


def _numbers_of(seed):
    fold = tf.random.experimental.stateless_fold_in
    return [policies._whole_numbers(fold(seed, turn), (len(INCREASING),))[0] for turn in range(policies.TURNS)]
