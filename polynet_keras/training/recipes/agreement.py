"""Checks that a recipe's settings agree: settings that undo or falsify one another are refused."""

import dataclasses
from typing import TYPE_CHECKING

from polynet_keras.basics.checks import check_number
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.class_weights import BALANCED

if TYPE_CHECKING:
    from polynet_keras.training.recipes.recipe import Recipe


def check_agreement(recipe: "Recipe") -> None:
    """Refuses settings that contradict each other, each within its range.

    Raises:
        ValueError: two settings contradict each other; the message has both.
    """
    _check_balance(recipe)
    _check_targets(recipe)
    if recipe.regularization.stochastic_depth == "adaptive":
        _check_gap(recipe)
    if recipe.start.cache_features:
        _check_cached(recipe)


def _check_balance(recipe: "Recipe") -> None:
    if recipe.class_weights == BALANCED == recipe.sampling:
        raise ValueError(
            "class_weights='balanced' with sampling='balanced' would make up for unequal classes twice; leave one "
            "out, or give weights by class"
        )
    repeats = recipe.augmentation.repeats
    if repeats > 1 and recipe.sampling == BALANCED:
        raise ValueError(
            f"repeats={repeats} with sampling='balanced': both say how often an epoch has an image; leave one out"
        )
    if repeats > recipe.batch_size:
        raise ValueError(
            f"repeats={repeats} is more than batch_size={recipe.batch_size}: a batch has this many copies of an image"
        )


def _check_targets(recipe: "Recipe") -> None:
    threshold, smoothing = recipe.target_threshold, recipe.regularization.label_smoothing
    if threshold is None:
        return
    if recipe.loss != "binary":
        raise ValueError(f"target_threshold={threshold!r} is for loss='binary', not {recipe.loss!r}")
    check_number("target_threshold", threshold, above=0, below=1)
    if smoothing:
        raise ValueError(
            f"target_threshold={threshold!r} makes every target 0 or 1, and undoes label_smoothing={smoothing!r}; "
            "leave one out"
        )


def _check_gap(recipe: "Recipe") -> None:
    """Refuses settings that measure training and validation differently: their gap would not show overfitting."""
    metric = recipe.regularization.gap_metric
    if recipe.augmentation.mixes:
        raise ValueError(f"stochastic_depth='adaptive' with mixed images: their {metric} says nothing; use 'on'")
    if metric == "loss" and recipe.regularization.label_smoothing:
        raise ValueError("gap_metric='loss' with label_smoothing: it is in one of the losses only; use 'accuracy'")
    if metric == "loss" and recipe.regularization.teacher is not None:
        raise ValueError("gap_metric='loss' with a teacher: it is in one of the losses only; use 'accuracy'")
    if metric == "loss" and recipe.class_weights is not None:
        raise ValueError("gap_metric='loss' with class_weights: they are in one of the losses only; use 'accuracy'")
    if recipe.evaluation_size not in (None, recipe.image_size):
        raise ValueError(
            f"stochastic_depth='adaptive' with evaluation_size={recipe.evaluation_size}: training has images of "
            f"another size than validation, and the gap in {metric} tells nothing of overfitting; use 'on'"
        )
    if recipe.sampling == BALANCED:
        raise ValueError(
            f"stochastic_depth='adaptive' with sampling='balanced': training has other shares of the classes than "
            f"validation, and the gap in {metric} tells nothing of overfitting; use 'on', or class_weights"
        )


def _check_cached(recipe: "Recipe") -> None:
    """Refuses settings that cached features cannot serve."""
    cached, augmented = f"cache_features={recipe.start.cache_features}", recipe.augmentation
    if augmented.mixes:
        raise ValueError(f"{cached} with mixup or cutmix: they mix images anew in each step; leave one out")
    if recipe.regularization.stochastic_depth != "off":
        raise ValueError(
            f"{cached} with stochastic_depth={recipe.regularization.stochastic_depth!r}, which drops paths of the "
            "frozen part anew in each step; leave one out"
        )
    if recipe.regularization.teacher is not None:
        raise ValueError(f"{cached} with a teacher: it looks at images, and steps have features; leave one out")
    if recipe.start.unfreezing:
        raise ValueError(f"{cached} with unfreezing, which trains a part that was frozen before; leave one out")
    if recipe.evaluation_size not in (None, recipe.image_size):
        raise ValueError(
            f"{cached} with evaluation_size={recipe.evaluation_size}: features are kept of one size; leave one out"
        )
    if augmented.repeats > 1:
        raise ValueError(
            f"{cached} with repeats={augmented.repeats}, which augments an image several times in an epoch: the cache "
            "has one copy of it for each epoch; leave one out"
        )
    others = [
        f"{name}={value!r}"
        for name, value in dataclasses.asdict(augmented).items()
        if value != getattr(Augmentation(), name)
    ]
    if recipe.start.cache_features == 1 and others:
        raise ValueError(
            f"{cached} keeps the centre crop of each image, which is not augmented: leave out "
            f"{', '.join(others)}, or use cache_features=10 for ten augmented copies"
        )
