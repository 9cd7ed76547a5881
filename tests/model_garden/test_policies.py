"""The policies of tf-models-official, in an environment that has it."""

import collections
import random

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow.python.framework import op_def_registry

pytest.importorskip("official")

from official.vision.ops import augment

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.examples import Examples
from polynet_keras.data.model_garden import distortion
from polynet_keras.data.pipeline import training_batches
from polynet_keras.data.preprocessing import Preprocessing

OFFICIAL = {
    "model_garden_auto_augment": augment.AutoAugment("v0", cutout_const=100, translate_const=250),
    "model_garden_rand_augment": augment.RandAugment(2, 10, cutout_const=40, translate_const=10),
}
both_policies = pytest.mark.parametrize("policy", list(OFFICIAL))


def picture(size=48):
    """Smooth and noisy, of fractions."""
    y, x = np.mgrid[:size, :size] / size
    noise = np.random.default_rng(0).uniform(0, 55, (size, size, 3))
    return (np.stack([200 * x, 200 * y, 100 * (x + y)], -1) + noise).astype("float32")


def distorted(policy, image, indices, seed=0, parallel=2):
    """The image distorted with the seed (index, seed) for each index, by tf.data."""
    distort = distortion(policy)

    def one(index):
        return distort(tf.constant(image), tf.stack([index, tf.constant(seed, tf.int64)]))

    dataset = tf.data.Dataset.from_tensor_slices(np.array(indices, "int64"))
    dataset = dataset.map(tf.autograph.experimental.do_not_convert(one), num_parallel_calls=parallel)
    return np.stack(list(dataset.as_numpy_iterator()))


def by_officials_own_draws(policy, image, count):
    tf.random.set_seed(0)
    own = tf.autograph.experimental.do_not_convert(lambda _: OFFICIAL[policy].distort(tf.constant(image)))
    return np.stack(list(tf.data.Dataset.range(count).map(own).as_numpy_iterator()))


@both_policies
def test_a_seed_means_one_picture_in_any_order_and_by_any_number_of_threads(policy):
    first = distorted(policy, picture(), range(40))
    order = np.random.default_rng(1).permutation(40)
    again = distorted(policy, picture(), order, parallel=7)
    np.testing.assert_array_equal(again, first[order])
    np.testing.assert_array_equal(distorted(policy, picture(), range(20, 40), parallel=None), first[20:])


@both_policies
def test_another_seed_means_another_picture(policy):
    first, second = (distorted(policy, picture(), range(100), seed) for seed in (0, 1))
    for pictures in (first, second):
        # Some are left alone or meet the same operation without a draw of its own, as inversion.
        assert len({image.tobytes() for image in pictures}) > 30
    assert (first != second).any((1, 2, 3)).mean() > 0.5


def on_grey(name, level, value):
    """What an operation makes of an image of one grey value; those that move pixels leave 128 alone."""
    if name == "Invert":
        return 255 - value
    if name == "Posterize":
        step = 2 ** (8 - int(0.4 * level))
        return value // step * step
    if name == "Solarize":
        # The threshold 256 does not fit 8 bits and becomes 0: at the highest level everything is inverted.
        return value if value < int(25.6 * level) % 256 else 255 - value
    if name == "SolarizeAdd":
        return min(value + int(11 * level), 255) if value < 128 else value
    if name == "Brightness":
        return min(int(value * (0.18 * level + 0.1)), 255)
    return value


def expected_on_grey(policy):
    """Probability of each outcome for an image of 128, which is also what fills the corners."""
    outcomes = collections.Counter()
    if policy == "model_garden_auto_augment":
        for first, second in augment.AutoAugment.policy_v0():
            for apply_first in (False, True):
                for apply_second in (False, True):
                    value, probability = 128, 1 / 25
                    for (name, share, level), applied in ((first, apply_first), (second, apply_second)):
                        probability *= share if applied else 1 - share
                        value = on_grey(name, level, value) if applied else value
                    outcomes[value] += probability
    else:
        names = [*OFFICIAL[policy].available_ops, "nothing"]
        for first in names:
            for second in names:
                outcomes[on_grey(second, 10, on_grey(first, 10, 128))] += 1 / 17**2
    return outcomes


@both_policies
def test_operations_are_applied_as_often_as_their_probabilities_say(policy):
    count = 1500
    image = np.full((96, 96, 3), 128, "float32")  # too large for one cut-out to cover
    pictures = distorted(policy, image, range(count)).reshape(count, -1)
    furthest = pictures[np.arange(count), np.abs(pictures - 128).argmax(1)]
    found = collections.Counter(furthest.astype(int).tolist())
    expected = expected_on_grey(policy)
    assert set(found) <= {value for value, probability in expected.items() if probability}
    common = [value for value, probability in expected.items() if probability * count >= 5]
    assert len(common) >= 4
    rest = 1 - sum(expected[value] for value in common)
    observed = [found[value] for value in common] + [count - sum(found[value] for value in common)]
    shares = [expected[value] for value in common] + [rest]
    if rest * count < 5:
        observed[-2:], shares[-2:] = [sum(observed[-2:])], [sum(shares[-2:])]
    assert stats.chisquare(observed, np.array(shares) * count).pvalue > 1e-3


@both_policies
def test_changes_are_distributed_as_by_officials_own_draws(policy):
    image = picture()
    ours, theirs = distorted(policy, image, range(600)), by_officials_own_draws(policy, image, 600)
    for statistic in (lambda pictures: np.abs(pictures - image).mean((1, 2, 3)), lambda x: x.mean((1, 2, 3))):
        assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-3


@both_policies
def test_values_are_whole_and_an_image_that_is_left_alone_is_only_cut_to_them(policy):
    image = picture()
    pictures = distorted(policy, image, range(200))
    assert pictures.dtype == "float32"
    assert pictures.min() >= 0
    assert pictures.max() <= 255
    np.testing.assert_array_equal(pictures, np.floor(pictures))
    assert (pictures == np.floor(image)).all((1, 2, 3)).any()


def stateful_operations(function):
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    return {node.op for node in nodes if (known := op_def_registry.get(node.op)) and known.is_stateful}


@both_policies
def test_nothing_is_drawn_from_a_generator_that_counts_on(policy):
    image, distort = tf.constant(picture()), distortion(policy)
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    ours = stateful_operations(tf.function(lambda: distort(image, tf.constant([1, 2], tf.int64)), autograph=False))
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert ours <= {"Assert", "If", "Case"}
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1][1], after[1][1])
    assert before[1][2] == after[1][2]
    # The module that others import still draws as it always did.
    theirs = stateful_operations(tf.function(lambda: OFFICIAL[policy].distort(image), autograph=False))
    assert {"RandomUniform", "RandomUniformInt"} <= theirs


@both_policies
def test_training_goes_on_where_it_was_interrupted(policy):
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3)).astype("uint8"))
    examples = Examples(
        "noise", tuple("0123456789"), 3, 10, lambda i: (tf.io.encode_png(pixels[i]), i), str, fingerprint=""
    )
    augmentation = Augmentation(policy=policy)

    def batches(first_step, count):
        made = training_batches(examples, Preprocessing(32, 36), 4, 3, augmentation, first_step=first_step)
        return [images.numpy() for images, _ in made.dataset.take(count)]

    whole = batches(0, 6)
    for expected, found in zip(whole[4:], batches(4, 2), strict=True):
        np.testing.assert_array_equal(found, expected)
