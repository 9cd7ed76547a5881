"""The data of a finished run, in the run's own splits."""

import dataclasses
from pathlib import Path

from polynet_keras.data.examples import Source
from polynet_keras.data.sources import open_source
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.training.recipes.recipe import Recipe


def source_of_run(run_folder: Path, recipe: Recipe, layout: str, otherwise: str) -> Source:
    """Opens the training and held-out images of a run.

    Args:
        run_folder: folder of the run.
        recipe: recipe of the run.
        layout: layout of its data.
        otherwise: what to do if the data have changed, for the message.

    Raises:
        ValueError: the data have changed since the run was trained.
    """
    source = open_source(recipe.data, recipe.seed, layout, recipe.validation_share)
    expected = ModelCard.load(run_folder).held_out_fingerprint
    if expected and source.validation is not None and expected == source.validation.fingerprint:
        # An older run, which held out `val` beside a split `test`.
        source = dataclasses.replace(source, held_out=source.validation, validation=None)
    if expected and expected != source.held_out.fingerprint:
        raise ValueError(
            f"{recipe.data!r} has changed since {run_folder} was trained: its held-out images are no longer known; "
            f"{otherwise}"
        )
    return source
