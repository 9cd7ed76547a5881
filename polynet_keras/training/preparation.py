"""What a recipe makes of a source of images: the network, its optimizer, and the batches that it is trained on."""

import keras
import tensorflow as tf

from polynet_keras.applications import PolyNet
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import Batches, evaluation_batches, training_batches, validation_data
from polynet_keras.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from polynet_keras.distribution.inputs import distributed_dataset
from polynet_keras.layers import synchronize_batch_normalization
from polynet_keras.training.optimizers import RMSprop
from polynet_keras.training.recipe import Recipe

WARMUP_SHARE = 0.1
"""The share of the steps over which the learning rate rises."""

GREY_MEAN, GREY_STD = (0.5,), (0.5,)


def preprocessing_of(recipe: Recipe, source: Source) -> Preprocessing:
    """The protocol that a run's network is trained and evaluated with."""
    mean, std = (GREY_MEAN, GREY_STD) if source.channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(recipe.image_size, recipe.resize_size, mean, std)


def training_data(
    recipe: Recipe,
    source: Source,
    preprocessing: Preprocessing,
    unreadable: Unreadable,
    strategy: tf.distribute.Strategy | None,
    first_step: int,
) -> Batches:
    """The training images as `fit` takes them, from a step of the run on: every worker reads its part of each batch."""

    def batches(workers: int, worker: int, replicas: int) -> Batches:
        return training_batches(
            source.training,
            preprocessing,
            recipe.batch_size,
            recipe.seed,
            recipe.augmentation,
            first_step=first_step,
            workers=workers,
            worker=worker,
            replicas=replicas,
            unreadable=unreadable,
        )

    steps = -(-len(source.training) // recipe.batch_size)
    return Batches(distributed_dataset(strategy, lambda *worker: batches(*worker).dataset), steps)


def held_out_data(
    recipe: Recipe,
    source: Source,
    preprocessing: Preprocessing,
    unreadable: Unreadable,
    strategy: tf.distribute.Strategy | None,
):
    """Held-out images as `fit` takes them; every worker reads a part, and each is counted once."""

    def one_hot(images, labels):
        return images, tf.one_hot(labels, len(source.class_names))

    def dataset(workers: int, worker: int, replicas: int) -> tf.data.Dataset:
        size = -(-recipe.batch_size // (workers * replicas))
        batches = evaluation_batches(
            source.held_out, preprocessing, size, workers=workers, worker=worker, unreadable=unreadable
        )
        data = validation_data(batches)
        # The loss of mixed images takes shares of the classes.
        return data.map(one_hot) if recipe.augmentation.mixes else data

    return distributed_dataset(strategy, dataset)


def compiled_model(recipe: Recipe, source: Source, steps: int) -> keras.Model:
    """The network of a run, with optimizer and loss; the learning rate falls over so many steps."""
    size, channels = recipe.image_size, source.channels
    first = keras.config.image_data_format() == "channels_first"
    model = PolyNet(
        weights=None,
        input_shape=(channels, size, size) if first else (size, size, channels),
        classes=len(source.class_names),
        structure=recipe.structure,
        width=recipe.width,
        residual_scale=recipe.residual_scale,
    )
    if recipe.synchronized:
        synchronize_batch_normalization(model)
    warmup = max(1, round(WARMUP_SHARE * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=recipe.learning_rate, warmup_steps=warmup
    )
    optimizer = RMSprop(schedule, rho=0.9)
    loss = "categorical_crossentropy" if recipe.augmentation.mixes else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss=loss, metrics=["accuracy"])
    return model
