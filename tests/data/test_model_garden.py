import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from polynet_keras.data.augmentation import POLICIES, Augmentation
from polynet_keras.data.distortion import Distortion
from polynet_keras.data.model_garden import SeededDraws


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy.startswith("model_garden")])
def test_without_the_extra_it_says_what_to_install(monkeypatch, policy):
    monkeypatch.setitem(sys.modules, "official", None)
    with pytest.raises(ValueError, match=r"tf-models-official.*pip install 'polynet_keras\[model-garden\]'$"):
        Distortion(Augmentation(policy=policy), 3)


def drawn(seeds):
    """For each of some seeds: two floats of [0, 1), one of [-2, 3), an integer under 5 and one under a tensor."""
    draws = SeededDraws()

    def of_seed(seed):
        draws.start(tf.stack([seed, tf.constant(9, tf.int64)]))
        bound = tf.cast(tf.size(seed) + 2, tf.int32)
        floats = draws.uniform([]), draws.uniform(shape=[]), draws.uniform([], minval=-2.0, maxval=3.0)
        return *floats, draws.uniform([], maxval=5, dtype=tf.int32), draws.uniform([], 0, bound, tf.int32)

    dataset = tf.data.Dataset.from_tensor_slices(np.array(seeds, "int64"))
    return [np.array(values) for values in zip(*dataset.map(of_seed).as_numpy_iterator(), strict=True)]


@pytest.mark.slow
def test_draws_are_uniform_and_independent():
    first, second, between, under_five, under_three = drawn(range(4000))
    for values in (first, second, (between + 2) / 5):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    for values, bound in ((under_five, 5), (under_three, 3)):
        assert stats.chisquare(np.bincount(values, minlength=bound)).pvalue > 1e-3
        assert values.max() == bound - 1
    pairs = (first * 4).astype(int) * 4 + (second * 4).astype(int)
    assert stats.chisquare(np.bincount(pairs, minlength=16)).pvalue > 1e-3
    neighbours = (first[:-1] * 4).astype(int) * 4 + (first[1:] * 4).astype(int)
    assert stats.chisquare(np.bincount(neighbours, minlength=16)).pvalue > 1e-3


def test_draws_follow_from_the_seed():
    for values, again in zip(drawn(range(20)), drawn(range(19, -1, -1)), strict=True):
        np.testing.assert_array_equal(values, again[::-1])


def test_draws_of_other_kinds_are_refused():
    with pytest.raises(AttributeError, match="normal"):
        SeededDraws().normal([])
