"""The run: from a recipe to a folder with a trained model and what is needed to judge it and to use it."""

import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from polynet_keras.applications import PolyNet
from polynet_keras.data.decoding import Unreadable
from polynet_keras.data.examples import Source
from polynet_keras.data.extras import require_data_extra
from polynet_keras.data.pipeline import Batches, evaluation_batches, reading, training_batches, validation_data
from polynet_keras.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from polynet_keras.data.sources import open_source
from polynet_keras.pretrained import MODEL_FILE, ModelCard
from polynet_keras.training.curves import plot_curves
from polynet_keras.training.optimizers import RMSprop
from polynet_keras.training.recipe import Recipe
from polynet_keras.training.run_folder import (
    CURVES_FILE,
    HISTORY_FILE,
    RECIPE_FILE,
    SAMPLES_FOLDER,
    TENSORBOARD_FOLDER,
    create_run_folder,
    discard_run_folder,
)

WARMUP_SHARE = 0.1
"""The share of the steps over which the learning rate rises."""

GREY_MEAN, GREY_STD = (0.5,), (0.5,)
SAMPLES = 10


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        folder: of the run.
        card: of the model, with the held-out counts.
        samples: a few held-out image files, to predict with.
    """

    folder: Path
    card: ModelCard
    samples: tuple[str, ...]


def train(recipe: Recipe, folder: str | os.PathLike | None = None) -> RunResult:
    """Trains a PolyNet and leaves the model, recipe, history, TensorBoard logs and curves in a run folder.

    An interrupt (Ctrl-C) ends the training at once and still leaves all of them, as they are by then. Where no epoch
    was over, an interrupt or an unreadable image leaves no run folder.

    Args:
        recipe: what to do.
        folder: of the run, new or empty; by default one in `runs/`, named after the data and the time.

    Raises:
        ValueError: the data cannot be read, the folder not be written, or the extra `data` is not installed.
        KeyboardInterrupt: interrupted before the first epoch was over.
    """
    require_data_extra("PIL", "matplotlib", "tensorboard")
    keras.utils.set_random_seed(recipe.seed)
    source = open_source(recipe.data, recipe.seed)
    preprocessing = preprocessing_of(recipe, source)
    unread, unread_held_out = Unreadable(recipe.on_error), Unreadable(recipe.on_error)
    training = training_batches(
        source.training, preprocessing, recipe.batch_size, recipe.seed, recipe.augmentation, unreadable=unread
    )
    held_out = evaluation_batches(source.held_out, preprocessing, recipe.batch_size, unreadable=unread_held_out)
    validation = _validation(recipe, source, held_out)
    path = create_run_folder(folder, recipe.data)
    recipe.save(path / RECIPE_FILE)

    model = compiled_model(recipe, source, steps=recipe.epochs * training.steps)
    logging.info(
        "%s: %d classes, %d images to train on, %d held out; %s parameters; run folder %s",
        recipe.data,
        len(source.class_names),
        len(source.training),
        len(source.held_out),
        f"{model.count_params():,}",
        path,
    )
    try:
        with reading(unread_held_out), reading(unread):
            _fit(model, training, validation, recipe.epochs, path)
    except (tf.errors.OpError, ValueError, KeyboardInterrupt):
        if not _epochs(path):
            discard_run_folder(path)  # so that the same command can run again
        raise
    counted = len(source.held_out) - len(unread_held_out.skipped)
    if not counted:
        discard_run_folder(path)
        raise ValueError(f"{source.held_out.name} has no image that can be read")
    model.save(path / MODEL_FILE)
    accuracy = model.evaluate(validation, verbose=0)[1]
    correct = round(accuracy * counted)
    fingerprint = source.held_out.fingerprint
    card = ModelCard(source.class_names, preprocessing, counted, correct, recipe.structure, fingerprint)
    card.save(path)
    unread.log(len(source.training))
    unread_held_out.log(len(source.held_out))
    plot_curves(path / HISTORY_FILE, path / CURVES_FILE)
    return RunResult(path, card, _samples(source, path))


def preprocessing_of(recipe: Recipe, source: Source) -> Preprocessing:
    """The protocol that a run's network is trained and evaluated with."""
    mean, std = (GREY_MEAN, GREY_STD) if source.channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(recipe.image_size, recipe.resize_size, mean, std)


def _validation(recipe: Recipe, source: Source, held_out: Batches) -> tf.data.Dataset:
    validation = validation_data(held_out)
    if not recipe.augmentation.mixes:
        return validation
    # The loss of mixed images takes shares of the classes.
    return validation.map(lambda images, labels: (images, tf.one_hot(labels, len(source.class_names))))


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
    warmup = max(1, round(WARMUP_SHARE * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=recipe.learning_rate, warmup_steps=warmup
    )
    optimizer = RMSprop(schedule, rho=0.9)
    loss = "categorical_crossentropy" if recipe.augmentation.mixes else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss=loss, metrics=["accuracy"])
    return model


def _fit(model: keras.Model, training: Batches, validation: tf.data.Dataset, epochs: int, path: Path) -> None:
    callbacks = [
        keras.callbacks.CSVLogger(str(path / HISTORY_FILE)),
        keras.callbacks.TensorBoard(str(path / TENSORBOARD_FOLDER), write_graph=False),
    ]
    # Off a terminal, Keras's bar would print a line a step.
    verbose = 1 if os.isatty(1) else 2
    try:
        model.fit(
            training.dataset,
            validation_data=validation,
            epochs=epochs,
            steps_per_epoch=training.steps,
            callbacks=callbacks,
            shuffle=False,
            verbose=verbose,
        )
    except KeyboardInterrupt:
        callbacks[0].on_train_end()  # closes the history
        if not _epochs(path):
            raise
        logging.warning("interrupted: the run ends with the model as it is")


def _epochs(path: Path) -> int:
    """The number of epochs in the history so far."""
    history = path / HISTORY_FILE
    return max(0, len(history.read_text().splitlines()) - 1) if history.exists() else 0


def _samples(source: Source, path: Path) -> tuple[str, ...]:
    """Held-out images as files: the source's own, or written to the run folder where it has none."""
    held_out = source.held_out
    # Evenly spaced: sources list class by class.
    indices = np.unique(np.linspace(0, len(held_out) - 1, SAMPLES).astype(int))
    if held_out.are_files:
        return tuple(held_out.name_of(int(i)) for i in indices)
    from PIL import Image

    folder = path / SAMPLES_FOLDER
    folder.mkdir()
    files = []
    for i in indices:
        image, label = held_out.image(i), source.class_names[held_out.label(i)].replace("/", "-")
        name = held_out.name_of(int(i)).replace("/", "-")
        file = folder / f"{name}-is-{label}.png"
        Image.fromarray(image.squeeze(-1) if source.channels == 1 else image).save(file)
        files.append(str(file))
    return tuple(files)
