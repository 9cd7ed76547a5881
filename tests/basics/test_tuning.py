"""Datasets that are not tuned: an iterator that is tuned may wait up to a minute for its end."""

import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.basics.tuning import untuned
from polynet_keras.data.pipeline import decoded_images, evaluation_batches, training_batches, validation_data
from polynet_keras.data.protocol import Preprocessing
from tests.data.arrays import examples_of, png, random_images

PROTOCOL = Preprocessing(8, 8)
EXAMPLES = examples_of([png(image) for image in random_images(5, size=8)])

DATASETS = {
    "training": lambda: training_batches(EXAMPLES, PROTOCOL, 2, 0).dataset,
    "evaluation": lambda: evaluation_batches(EXAMPLES, PROTOCOL, 2).dataset,
    "validation": lambda: validation_data(evaluation_batches(EXAMPLES, PROTOCOL, 2)),
    "whole images": lambda: decoded_images(EXAMPLES).dataset,
    "encoded images": EXAMPLES.dataset,
}


FAST = ("training", "encoded images")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in DATASETS]
)
def test_no_dataset_is_tuned(name):
    dataset = DATASETS[name]()
    assert dataset.options().autotune.enabled is False
    # What is made of it later, by `fit` say, is not either.
    assert dataset.map(lambda *example: example).prefetch(1).options().autotune.enabled is False
    assert len(list(dataset.take(2))) == 2


def test_a_map_runs_as_many_calls_as_there_are_threads():
    """As many calls meet at a barrier, which fewer could not pass."""
    import threading

    barrier = threading.Barrier(7)

    def meet(index):
        barrier.wait(timeout=20)
        return index

    dataset = tf.data.Dataset.range(7).map(
        lambda index: tf.numpy_function(meet, [index], tf.int64), num_parallel_calls=tf.data.AUTOTUNE
    )
    np.testing.assert_array_equal(list(untuned(dataset, threads=7).as_numpy_iterator()), range(7))


def test_a_dataset_keeps_the_threads_that_it_has():
    plain = untuned(tf.data.Dataset.range(7)).options()
    assert plain.autotune.enabled is False
    assert (plain.threading.private_threadpool_size, plain.autotune.initial_parallelism) == (None, None)
    own = tf.data.Options()
    own.threading.private_threadpool_size = 5
    own.deterministic = False
    dataset = tf.data.Dataset.range(7).with_options(own)
    again = untuned(dataset).options()
    assert (again.threading.private_threadpool_size, again.autotune.initial_parallelism) == (5, 5)
    assert again.deterministic is False
    assert dataset.options().autotune.enabled is None  # it is as it was
    assert untuned(dataset, threads=3).options().threading.private_threadpool_size == 3
