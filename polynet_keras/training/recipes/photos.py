"""The recipe for a user's photographs: rules that begin with the preset `photos`, each with its reason."""

import math
import os
from collections.abc import Mapping
from typing import Any

from polynet_keras.basics.names import number_of
from polynet_keras.data.class_weights import BALANCED
from polynet_keras.data.photo_facts import PhotoFacts, photo_facts
from polynet_keras.models.inception import BN_MOMENTUM
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import Recipe

SIDES = (75, 99, 131)
"""Sides of the network's input, in pixels: 75 is the minimum, and two cores train at 131 in minutes."""
LARGE = 800
"""Shorter side, in pixels, from which JPEGs are decoded at a smaller scale: photographs of cameras and telephones."""
IMAGES_SEEN = 80_000
"""Images seen in a whole run at 131 px: a quarter to half of an hour on two cores."""
EPOCHS = (15, 150)
"""The fewest epochs, for many images, and the most: with more, a network memorizes few images."""
MANY_EPOCHS = 100
"""Number of epochs from which the random crops are the preset's: a network that sees an image often needs variety."""
CROP_MIN_AREA = 0.6
"""Least area of the random crops in a run of fewer epochs, which is too short for smaller ones."""
FEW = 320
"""Number of images below which the batch size is halved, so that an epoch still has ten steps."""
UNBALANCED = 3.0
"""Ratio of the largest to the smallest class from which classes are weighted."""
AVERAGED = 0.05
"""The share of a run's updates that the averages of weights and of moving statistics cover."""


def photos_recipe(
    data: str | os.PathLike, layout: str = "auto", settings: Mapping[str, Any] | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Looks at photographs and chooses the recipe that `polynet train --data DATA` uses for them.

    Args:
        data: a folder of images or of records, or a table of images.
        layout: layout of a folder of images; see `Recipe`.
        settings: settings that you fix yourself, by name as in `Recipe.replaced`; the chosen ones take them into
            account.

    Returns:
        The recipe, and for each chosen setting (`"image_size"`, `"optimizer.ema_momentum"`) the reason for its value.

    Raises:
        ValueError: the data cannot be listed, a setting is unknown, or a value is out of range.

    Examples:
        >>> recipe, reasons = photos_recipe(photos)
        >>> recipe.image_size, recipe.epochs
        (75, 150)
        >>> reasons["epochs"]
        '1,200 images in all; 150 epochs are the most that are chosen'
    """
    return recipe_from(data, layout, photo_facts(data, layout), settings)


def recipe_from(
    data: str | os.PathLike, layout: str, facts: PhotoFacts, settings: Mapping[str, Any] | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Chooses for `photos_recipe` from the known facts about the data."""
    given = settings or {}
    recipe = PRESETS["photos"].recipe.replaced({"data": os.fspath(data), "layout": layout, **given})
    reasons: dict[str, str] = {}

    def choose(name: str, value: Any, why: str) -> None:
        nonlocal recipe
        if why and name not in given:
            recipe, reasons[name] = recipe.replaced({name: value}), why

    images = facts.images
    if recipe.validation_share:
        images = round(images * (1 - recipe.validation_share))
    side = max(one for one in SIDES if one == SIDES[0] or one <= (facts.shorter_side or SIDES[-1]))
    choose("image_size", side, _why_side(side, facts.shorter_side))
    choose("decoding", *_decoding(facts.shorter_side))
    fewest, most = EPOCHS
    epochs = round(IMAGES_SEEN * (SIDES[-1] / recipe.image_size) ** 2 / max(images, 1))
    epochs = min(max(epochs, fewest), most)
    choose("epochs", epochs, _why_epochs(epochs, images))
    if recipe.augmentation.crop == "random_resized" and recipe.epochs < MANY_EPOCHS:
        why = f"{number_of(recipe.epochs, 'epoch')}; smaller crops help in runs of {MANY_EPOCHS} or more"
        choose("augmentation.crop_min_area", CROP_MIN_AREA, why)
    batch_size = recipe.batch_size // (2 if images < FEW else 1)
    choose("batch_size", max(batch_size, recipe.augmentation.repeats), f"{number_of(images, 'image')} to train on")
    # Balanced sampling makes up for unequal classes in another way; a gap of losses needs losses that are not weighted.
    if recipe.sampling != BALANCED and recipe.regularization.gap_metric != "loss":
        choose("class_weights", *_class_weights(facts.imbalance))
    jitter = 0.0 if facts.is_grey else recipe.augmentation.color_jitter
    choose("augmentation.color_jitter", jitter, f"the images {'are grey' if facts.is_grey else 'have colours'}")
    steps = recipe.epochs * math.ceil(max(images, 1) / recipe.batch_size)
    updates = max(steps // recipe.optimizer.gradient_accumulation_steps, 1)
    momentum = round(min(1 - 1 / max(AVERAGED * updates, 1), 0.9999), 4)
    averaged = f"averages over a twentieth of {number_of(updates, 'update')}"
    choose("optimizer.ema_momentum", momentum, averaged if momentum else "too few updates to be averaged")
    choose("normalization_momentum", *_normalization_momentum(AVERAGED * steps))
    return recipe, reasons


def _normalization_momentum(steps: float) -> tuple[float | None, str]:
    momentum = round(min(1 - 1 / max(steps, 1), 0.9999), 4)
    if momentum <= BN_MOMENTUM:
        return None, ""
    return momentum, f"statistics of batch normalization from a twentieth of the run, {number_of(round(steps), 'step')}"


def _decoding(shorter_side: int) -> tuple[str, str]:
    if shorter_side < LARGE:
        return "exact", ""
    return "scaled", f"the shorter side is {shorter_side:,} px in the median; at a smaller scale JPEGs take less time"


def _class_weights(imbalance: float) -> tuple[str | None, str]:
    if imbalance < UNBALANCED:
        return None, ""
    return BALANCED, f"the largest class has {imbalance:.0f} times as many images as the smallest"


def _why_side(side: int, shorter_side: int) -> str:
    if not shorter_side:
        return "the size of the images is not known"
    if side == SIDES[-1]:
        return f"the shorter side is {shorter_side:,} px in the median; more than {side} px would take longer"
    return f"the shorter side is {shorter_side:,} px in the median"


def _why_epochs(epochs: int, images: int) -> str:
    seen = f"{number_of(epochs * images, 'image')} in all"
    if epochs == EPOCHS[0]:
        return f"{seen}; {epochs} epochs are the fewest that are chosen"
    if epochs == EPOCHS[1]:
        return f"{seen}; {epochs} epochs are the most that are chosen"
    return seen
