"""Makes the network, its optimizer, and its training batches from a recipe and a source of images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from polynet_keras.applications import PolyNet
from polynet_keras.basics.names import number_of
from polynet_keras.cluster.inputs import distributed_dataset
from polynet_keras.cluster.jax_devices import one_device
from polynet_keras.cluster.workers import Strategy
from polynet_keras.data.class_weights import weights_by_label
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.pipeline import (
    Batches,
    evaluation_batches,
    training_batches,
    training_order,
    validation_data,
)
from polynet_keras.data.protocol import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.evaluation.loading import load_source
from polynet_keras.layers.batch_normalization import set_normalization_momentum, synchronize_batch_normalization
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.models.structure import Structure
from polynet_keras.training.distillation import teach
from polynet_keras.training.features.batches import evaluation_features, training_features
from polynet_keras.training.features.files import FeatureFiles
from polynet_keras.training.fine_tuning import freeze
from polynet_keras.training.growth import carry_optimizer
from polynet_keras.training.initial_weights import drawn_by_tensorflow
from polynet_keras.training.losses import ClasswiseBinaryCrossentropy
from polynet_keras.training.making import make_optimizer, make_schedule
from polynet_keras.training.precision import precision
from polynet_keras.training.recipes.phases import PhaseSettings
from polynet_keras.training.recipes.recipe import Recipe, resize_size_of
from polynet_keras.training.recipes.teacher import find_teacher
from polynet_keras.training.runs.checking import check_phases
from polynet_keras.training.stochastic_depth import set_drop_rate

GREY_MEAN, GREY_STD = (0.5,), (0.5,)


def preprocessing_of(recipe: Recipe, source: Source) -> Preprocessing:
    """Returns the preprocessing for a run's evaluation."""
    mean, std = (GREY_MEAN, GREY_STD) if source.channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    size = recipe.evaluation_size or recipe.image_size
    return Preprocessing(size, resize_size_of(size), mean, std, decoding=recipe.decoding)


def _trained_with(recipe: Recipe, preprocessing: Preprocessing) -> Preprocessing:
    """Returns the same preprocessing for images of the training size."""
    return replace(preprocessing, image_size=recipe.image_size, resize_size=recipe.resize_size)


def training_data(
    recipe: Recipe,
    source: Source,
    preprocessing: Preprocessing,
    unreadable: Unreadable,
    strategy: Strategy | None,
    first_step: int,
    features: Sequence[FeatureFiles] = (),
) -> Batches:
    """Returns the training images for `fit`, from a step of the run on; every worker reads its part of each batch.

    The images are preprocessed as in evaluation, at the training size.

    With class weights, an example has the weight of its class; a mixed example has the mean of both, by their shares.
    `features`, in one copy or several, take the place of the images.
    """
    classes, smoothing = len(source.class_names), recipe.regularization.label_smoothing
    preprocessing = _trained_with(recipe, preprocessing)
    training, table = source.training, None
    if recipe.class_weights is not None:
        training = training.labelled(recipe.on_error)
        assert training.labels is not None
        table = tf.constant(weights_by_label(recipe.class_weights, source.class_names, training.labels), tf.float32)

    def prepared(images, labels):
        weights: tuple[tf.Tensor, ...] = ()
        if table is not None:
            mixes = recipe.augmentation.mixes
            weights = (tf.linalg.matvec(labels, table) if mixes else tf.gather(table, labels),)
        if recipe.labels_are_shares:
            if not recipe.augmentation.mixes:
                labels = tf.one_hot(labels, classes)
            labels = labels * (1 - smoothing) + smoothing / classes
        return images, labels, *weights

    def batches(workers: int, worker: int, replicas: int) -> tf.data.Dataset:
        parts: dict[str, Any] = {"workers": workers, "worker": worker, "replicas": replicas}
        if features:
            order = training_order(
                training,
                recipe.batch_size,
                recipe.seed,
                sampling=recipe.sampling,
                on_error=recipe.on_error,
                **parts,
            )
            augmented = recipe.start.cache_features > 1
            dataset = training_features(features, training, order, first_step, unreadable, augmented=augmented)
        else:
            dataset = training_batches(
                training,
                preprocessing,
                recipe.batch_size,
                recipe.seed,
                recipe.augmentation,
                sampling=recipe.sampling,
                first_step=first_step,
                unreadable=unreadable,
                **parts,
            ).dataset
        return dataset.map(prepared) if recipe.labels_are_shares or table is not None else dataset

    return Batches(distributed_dataset(strategy, batches), steps_of(recipe, source))


def steps_of(recipe: Recipe, source: Source) -> int:
    """Returns the number of batches in an epoch."""
    return -(-len(source.training) // recipe.batch_size)


def held_out_data(
    recipe: Recipe,
    examples: Examples,
    preprocessing: Preprocessing,
    unreadable: Unreadable,
    strategy: Strategy | None,
    features: FeatureFiles | None = None,
):
    """Returns images that are not trained on, or their features, for `fit`.

    Every worker reads a part, and each image counts once."""

    def one_hot(images, labels):
        return images, tf.one_hot(labels, len(examples.class_names))

    def dataset(workers: int, worker: int, replicas: int) -> tf.data.Dataset:
        size = -(-recipe.batch_size // (workers * replicas))
        if features is not None:
            batches = evaluation_features(features, examples, size, workers, worker, unreadable)
        else:
            batches = evaluation_batches(
                examples, preprocessing, size, workers=workers, worker=worker, unreadable=unreadable
            )
        data = validation_data(batches)
        return data.map(one_hot) if recipe.labels_are_shares else data

    return distributed_dataset(strategy, dataset)


def network(recipe: Recipe, channels: int, classes: int, weights: str | None) -> keras.Model:
    """Builds the network of a recipe.

    Args:
        recipe: recipe of the run.
        channels: channels of the images.
        classes: classes of the data.
        weights: as in `PolyNet`.
    """
    # With two sizes, the network takes images of any size.
    size = recipe.image_size if recipe.evaluation_size in (None, recipe.image_size) else None
    first = keras.config.image_data_format() == "channels_first"
    with precision(recipe.precision), drawn_by_tensorflow():
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
    """Builds the network of a run with optimizer and loss, for the training of its last phase.

    Args:
        recipe: recipe of the run.
        source: source of its images.
        steps_per_epoch: steps per epoch of its training data.
        goes_on: whether a checkpoint is about to restore all values: the files of the initial weights may be gone.

    Raises:
        ValueError: the initial weights cannot be read or belong to another network, the run would make no update, or
            Keras is too old for its phases.
    """
    check_phases(recipe)
    _check_updates(recipe, min(phase.epochs for phase in recipe.phases) * steps_per_epoch)
    _check_statistics(recipe, recipe.epochs * steps_per_epoch)
    weights = None if goes_on else recipe.start.file
    model = network(recipe, source.channels, len(source.class_names), weights)
    if recipe.synchronized and keras.backend.backend() == "tensorflow":  # on JAX they always are
        synchronize_batch_normalization(model)
    if recipe.normalization_momentum is not None:
        set_normalization_momentum(model, recipe.normalization_momentum)
    if recipe.start.frozen_through or recipe.start.frozen_normalizations:
        freeze(model, recipe.start.frozen_through, recipe.start.frozen_normalizations)
    learning_rate = phase_schedule(recipe, recipe.phases[-1], steps_per_epoch)
    optimizer = make_optimizer(recipe.optimizer, learning_rate, recipe.regularization.weight_decay, model)
    model.compile(optimizer, loss=make_loss(recipe), metrics=["accuracy"])
    if (learning := recipe.regularization).teacher is not None:
        with one_device():  # on JAX its weights are constants of a step, which JAX then puts where it needs them
            teacher = load_source(find_teacher(learning.teacher))
        prepared = _trained_with(recipe, preprocessing_of(recipe, source))
        teach(model, teacher, source.class_names, prepared, learning.teacher_temperature, learning.teacher_weight)
    for layer in model.layers:
        if isinstance(layer, StochasticResidualScaling):
            layer.active.assign(False)  # for weights that were trained with stochastic depth
    drop_rate = recipe.regularization.max_drop_rate
    if recipe.regularization.stochastic_depth == "on" and drop_rate is not None:
        set_drop_rate(model, drop_rate)
    if recipe.start.carry_optimizer and not goes_on:
        with precision(recipe.precision):  # under which Keras has an optimizer scale its loss, or not
            carry_optimizer(str(recipe.start.file), model, Structure.parse(recipe.structure))
    return model


def make_loss(recipe: Recipe) -> str | keras.losses.Loss:
    """Makes the loss of a recipe, for `compile`."""
    if recipe.loss == "binary":
        return ClasswiseBinaryCrossentropy(recipe.target_threshold)
    return "categorical_crossentropy" if recipe.labels_are_shares else "sparse_categorical_crossentropy"


def phase_schedule(
    recipe: Recipe, phase: PhaseSettings, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning rate schedule of one phase of a run, counted from the phase's beginning."""
    settings = recipe.schedule
    if phase.learning_rate is not None:
        settings = replace(settings, learning_rate=phase.learning_rate)
    return make_schedule(settings, phase.epochs * steps_per_epoch, steps_per_epoch)


def _check_updates(recipe: Recipe, steps: int) -> None:
    """Refuses a run, or a phase of one, without an update, and warns if it is too short for its averages.

    Args:
        recipe: recipe of the run.
        steps: steps of its shortest phase.
    """
    settings = recipe.optimizer
    updates = steps // settings.gradient_accumulation_steps
    if not updates:
        raise ValueError(
            f"gradient_accumulation_steps={settings.gradient_accumulation_steps} is more than the "
            f"{number_of(steps, 'step')} of the {'shortest phase' if recipe.start.unfreezing else 'run'}: it would "
            "make no update"
        )
    left = settings.ema_momentum**updates
    if left > 0.01:
        logging.warning(
            "ema_momentum=%g: after %s %s the averages still hold %.0f %% of the first weights; "
            "a smaller one forgets them",
            settings.ema_momentum,
            "the shortest phase's" if recipe.start.unfreezing else "the run's",
            number_of(updates, "update"),
            100 * left,
        )


def _check_statistics(recipe: Recipe, steps: int) -> None:
    """Warns if a run of so many steps is too short for the moving statistics of a new network."""
    momentum = recipe.normalization_momentum or 0.0
    if recipe.start.weights is None and momentum**steps > 0.01:
        logging.warning(
            "normalization_momentum=%g: after the run's %s the moving statistics still hold %.0f %% of their first "
            "values; a smaller one forgets them",
            momentum,
            number_of(steps, "step"),
            100 * momentum**steps,
        )
