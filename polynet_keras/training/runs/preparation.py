"""What a recipe makes of a source of images: the network, its optimizer, and the batches that it is trained on."""

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.applications import PolyNet
from polynet_keras.cluster.inputs import distributed_dataset
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import Batches, evaluation_batches, training_batches, validation_data
from polynet_keras.data.protocol import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from polynet_keras.layers.batch_normalization import synchronize_batch_normalization
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.models.structure import Structure
from polynet_keras.training.fine_tuning import freeze
from polynet_keras.training.precision import precision
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.stochastic_depth import set_drop_rate

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
    classes, smoothing = len(source.class_names), recipe.regularization.label_smoothing

    def shares(images, labels):
        if not recipe.augmentation.mixes:
            labels = tf.one_hot(labels, classes)
        return images, labels * (1 - smoothing) + smoothing / classes

    def batches(workers: int, worker: int, replicas: int) -> tf.data.Dataset:
        dataset = training_batches(
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
        ).dataset
        return dataset.map(shares) if recipe.labels_are_shares else dataset

    steps = -(-len(source.training) // recipe.batch_size)
    return Batches(distributed_dataset(strategy, batches), steps)


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
        return data.map(one_hot) if recipe.labels_are_shares else data

    return distributed_dataset(strategy, dataset)


def network(recipe: Recipe, channels: int, classes: int, weights: str | None) -> keras.Model:
    """The network of a recipe.

    Args:
        recipe: of the run.
        channels: of the images.
        classes: of the data.
        weights: as `PolyNet` takes them.
    """
    size = recipe.image_size
    first = keras.config.image_data_format() == "channels_first"
    with precision(recipe.precision):
        return PolyNet(
            weights=weights,
            input_shape=(channels, size, size) if first else (size, size, channels),
            classes=classes,
            structure=recipe.structure,
            width=recipe.width,
            residual_scale=recipe.residual_scale,
            remat=recipe.remat,
        )


def compiled_model(recipe: Recipe, source: Source, steps_per_epoch: int, goes_on: bool = False) -> keras.Model:
    """The network of a run, with optimizer and loss.

    Args:
        recipe: of the run.
        source: of its images.
        steps_per_epoch: over which the learning rate goes.
        goes_on: whether a checkpoint is about to bring all values: the files that the run began with may be gone.

    Raises:
        ValueError: the weights to start with cannot be read or are of another net, or the run would make no update.
    """
    _check_updates(recipe, recipe.epochs * steps_per_epoch)
    weights = None if goes_on else recipe.start.file
    model = network(recipe, source.channels, len(source.class_names), weights)
    if recipe.synchronized:
        synchronize_batch_normalization(model)
    if recipe.start.frozen_through or recipe.start.frozen_normalizations:
        freeze(model, recipe.start.frozen_through, recipe.start.frozen_normalizations)
    learning_rate = recipe.schedule.make(recipe.epochs * steps_per_epoch, steps_per_epoch)
    optimizer = recipe.optimizer.make(learning_rate, recipe.regularization.weight_decay, model)
    loss = "categorical_crossentropy" if recipe.labels_are_shares else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss=loss, metrics=["accuracy"])
    for layer in model.layers:
        if isinstance(layer, StochasticResidualScaling):
            layer.active.assign(False)  # of weights that were trained with stochastic depth
    drop_rate = recipe.regularization.max_drop_rate
    if recipe.regularization.stochastic_depth == "on" and drop_rate is not None:
        set_drop_rate(model, drop_rate)
    if recipe.start.carry_optimizer and not goes_on:
        with precision(recipe.precision):  # under which Keras has an optimizer scale its loss, or not
            recipe.start.carry(model, Structure.parse(recipe.structure))
    return model


def _check_updates(recipe: Recipe, steps: int) -> None:
    """Refuses a run without an update, and warns of averages that it is too short for."""
    settings = recipe.optimizer
    updates = steps // settings.gradient_accumulation_steps
    if not updates:
        raise ValueError(
            f"gradient_accumulation_steps={settings.gradient_accumulation_steps} is more than the {steps} steps of the "
            "run: it would make no update"
        )
    left = settings.ema_momentum**updates
    if left > 0.01:
        logging.warning(
            "ema_momentum=%g: after the run's %d updates the averages still hold %.0f %% of the first weights; "
            "a smaller one forgets them",
            settings.ema_momentum,
            updates,
            100 * left,
        )
