"""The policies of tf-models-official, in an environment that has it."""

import collections
import functools
import itertools
import random

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow.python.framework import op_def_registry

pytest.importorskip("official")

from official.vision.ops import augment

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.model_garden import SeededDraws, TensorFlow, augment_module, distortion
from polynet_keras.data.pipeline import training_batches
from polynet_keras.data.protocol import Preprocessing
from tests.contracts.names import contract
from tests.data.arrays import examples_of, png, random_images

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


policy_of = functools.cache(distortion)


def traced(policy):
    """A new graph of a policy."""
    distort = policy_of(policy)
    return tf.function(lambda image, index, seed: distort(image, tf.stack([index, seed])), autograph=False)


traced_once = functools.cache(traced)


def distorted(function, image, indices, seed=0, parallel=2):
    """The image distorted with the seed (index, seed) for each index, by tf.data."""
    image, seed = tf.constant(image), tf.constant(seed, tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices(np.array(indices, "int64"))
    dataset = dataset.map(lambda index: function(image, index, seed), num_parallel_calls=parallel)
    return np.stack(list(dataset.as_numpy_iterator()))


def by_officials_own_draws(policy, image, count):
    tf.random.set_seed(0)
    own = tf.autograph.experimental.do_not_convert(lambda _: OFFICIAL[policy].distort(tf.constant(image)))
    return np.stack(list(tf.data.Dataset.range(count).map(own).as_numpy_iterator()))


@both_policies
def test_a_seed_means_one_picture_in_any_order_and_by_any_number_of_threads(policy):
    first = distorted(traced_once(policy), picture(), range(40))
    order = np.random.default_rng(1).permutation(40)
    again = distorted(traced(policy), picture(), order, parallel=7)
    np.testing.assert_array_equal(again, first[order])
    np.testing.assert_array_equal(distorted(traced_once(policy), picture(), range(20, 40), parallel=None), first[20:])


@both_policies
def test_another_seed_means_another_picture(policy):
    first, second = (distorted(traced_once(policy), picture(), range(100), seed) for seed in (0, 1))
    for pictures in (first, second):
        # Some are left alone or meet the same operation without a draw of its own, as inversion.
        assert len({image.tobytes() for image in pictures}) > 30
    assert (first != second).any((1, 2, 3)).mean() > 0.5


SIZE = 96
"""Of a grey image: too large for one cut-out to cover."""
GREY = {"model_garden_auto_augment": 100, "model_garden_rand_augment": 128}
"""From which the operations lead to many values. RandAugment has cut-outs, and fills them with 128."""


def on_grey(name, level, value):
    """What an operation makes of an image of one grey value, apart from a cut-out.

    Those that move pixels reflect the image at its borders and so change nothing.
    """
    if name == "Invert":
        return 255 - value
    if name == "Posterize":
        step = 2 ** min(8 - int(0.4 * level), 7)  # TensorFlow shifts eight bits by seven at most
        return value // step * step
    if name == "Solarize":
        # The threshold 256 does not fit eight bits and becomes 0: at the highest level everything is inverted.
        return value if value < int(25.6 * level) % 256 else 255 - value
    if name == "SolarizeAdd":
        return min(value + int(11 * level), 255) if value < 128 else value
    if name == "Brightness":
        return min(int(value * (0.18 * level + 0.1)), 255)
    return value


def auto_augment_on_grey(value):
    """Probability of each outcome: a pair of operations is drawn, then whether each of the two is applied."""
    outcomes = collections.Counter()
    for pair in augment.AutoAugment.policy_v0():
        for applied in itertools.product((False, True), repeat=2):
            result, probability = value, 1 / 25
            for (name, share, level), is_applied in zip(pair, applied, strict=True):
                probability *= share if is_applied else 1 - share
                result = on_grey(name, level, result) if is_applied else result
            outcomes[result] += probability
    return outcomes


def rand_augment_on_grey(value):
    """Probability of each outcome: twice one of 16 operations at level 10, or none."""
    names = [*augment.RandAugment().available_ops, "none"]
    pairs = itertools.product(names, repeat=2)
    outcomes = collections.Counter(on_grey(second, 10, on_grey(first, 10, value)) for first, second in pairs)
    return {result: count / 17**2 for result, count in outcomes.items()}


@pytest.mark.parametrize(
    ("policy", "on_grey"),
    [("model_garden_auto_augment", auto_augment_on_grey), ("model_garden_rand_augment", rand_augment_on_grey)],
)
def test_operations_are_applied_as_often_as_their_probabilities_say(policy, on_grey):
    count, value = 1500, GREY[policy]
    pictures = distorted(traced_once(policy), np.full((SIZE, SIZE, 3), value, "float32"), range(count)).reshape(
        count, -1
    )
    furthest = pictures[np.arange(count), np.abs(pictures - 128).argmax(1)]
    expected = {result: count * share for result, share in on_grey(value).items() if share > 0}
    found = collections.Counter(furthest.astype(int).tolist())
    assert set(found) <= set(expected)
    common = [result for result in expected if expected[result] >= 5]
    assert len(common) >= 5
    rare = sum(expected.values()) - sum(expected[result] for result in common)
    assert rare < 5
    shares = np.array([expected[result] for result in common])
    observed = np.array([found[result] for result in common])
    assert stats.chisquare(observed, shares / shares.sum() * observed.sum()).pvalue > 1e-3


@both_policies
def test_changes_are_distributed_as_by_officials_own_draws(policy):
    image = picture()
    ours, theirs = distorted(traced_once(policy), image, range(600)), by_officials_own_draws(policy, image, 600)
    for statistic in (lambda pictures: np.abs(pictures - image).mean((1, 2, 3)), lambda x: x.mean((1, 2, 3))):
        assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-3


@both_policies
def test_values_are_whole_and_an_image_that_is_left_alone_is_only_cut_to_them(policy):
    image = picture()
    pictures = distorted(traced_once(policy), image, range(200))
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
    image, distort = tf.constant(picture()), policy_of(policy)
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
    examples = examples_of([png(image) for image in random_images()])
    augmentation = Augmentation(policy=policy)

    def batches(first_step, count):
        made = training_batches(examples, Preprocessing(32, 36), 4, 3, augmentation, first_step=first_step)
        return [images.numpy() for images, _ in made.dataset.take(count)]

    whole = batches(0, 6)
    for expected, found in zip(whole[4:], batches(4, 2), strict=True):
        np.testing.assert_array_equal(found, expected)


@contract("official.vision.ops.augment.tf")
def test_the_module_draws_by_what_it_is_given_for_tensorflow():
    drawn = []

    class Noting(SeededDraws):
        def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32):
            drawn.append(dtype)
            return super().uniform(shape, minval, maxval, dtype)

    module, draws = augment_module(), Noting()
    module.tf = TensorFlow(draws)
    draws.start(tf.constant([1, 0], tf.int64))
    assert module.AutoAugment("v0").distort(tf.constant(picture())).shape == (48, 48, 3)
    assert drawn
    assert augment.tf is tf
