"""The flags that make a recipe, of the commands that take one."""

import os
from typing import Any

from absl import flags

from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import Recipe

TEXTS: dict[str, dict[str, tuple[Any, str]]] = {
    "": {
        "data": (
            flags.DEFINE_string,
            "`digits`, `fashion_mnist`, `tfds:NAME`, or a folder: of images, one folder for each class, or of records.",
        ),
        "structure": (flags.DEFINE_string, "The residual units: a name of `polynet summary`, or a notation."),
        "width": (flags.DEFINE_float, "Multiplier of the channel counts."),
        "image_size": (flags.DEFINE_integer, "Side of the network's input, in pixels."),
        "epochs": (flags.DEFINE_integer, "Passes over the training images."),
        "batch_size": (flags.DEFINE_integer, "Images a step, of all workers together."),
        "seed": (flags.DEFINE_integer, "Seed of the initialization, the split, the order and the augmentation."),
        "precision": (flags.DEFINE_string, "`float32`, `mixed_bfloat16` or `mixed_float16`."),
        "remat": (flags.DEFINE_string, "Activations computed again, not kept: `none`, `stage_b` or `all`."),
        "synchronized": (flags.DEFINE_bool, "Batch normalization over the global batch, not each device's part."),
        "crops": (flags.DEFINE_integer, "Of each image, that `polynet evaluate` shows the net: 1, 10 or 144."),
        "on_error": (flags.DEFINE_string, "What to do about an image that cannot be read: `error` or `skip`."),
    },
    "start": {
        "weights": (flags.DEFINE_string, "To start with: a checkpoint's name, a file, or a run folder."),
        "carry_optimizer": (flags.DEFINE_bool, "Start with the optimizer's memory in the weights' .keras file too."),
        "frozen_through": (flags.DEFINE_string, "The last part that is not trained: stem, stage_a, ..., stage_c."),
        "frozen_normalizations": (flags.DEFINE_bool, "Train no batch normalization."),
    },
    "augmentation": {
        "crop": (flags.DEFINE_string, "`random`, from the resized image, or `random_resized`, of random size too."),
        "flip": (flags.DEFINE_bool, "Mirror half of the images."),
        "color_jitter": (flags.DEFINE_float, "How far brightness, contrast and saturation vary: 0.4 is common."),
        "policy": (
            flags.DEFINE_string,
            "`rand_augment`, `model_garden_rand_augment` or `model_garden_auto_augment` (extra `model-garden`).",
        ),
        "erasing": (flags.DEFINE_float, "Probability that a rectangle of an image is replaced by noise."),
        "mixup": (flags.DEFINE_float, "Alpha of MixUp: 0.2 is common."),
        "cutmix": (flags.DEFINE_float, "Alpha of CutMix: 1 is common."),
    },
    "optimizer": {
        "name": (flags.DEFINE_string, "`rmsprop`, `sgd`, `adamw` or `lamb`."),
        "momentum": (flags.DEFINE_float, "Of rmsprop and sgd."),
        "rho": (flags.DEFINE_float, "Decay of rmsprop's mean square."),
        "epsilon": (flags.DEFINE_float, "Of rmsprop, adamw and lamb."),
        "beta_1": (flags.DEFINE_float, "Of adamw and lamb."),
        "beta_2": (flags.DEFINE_float, "Of adamw and lamb."),
        "global_clipnorm": (flags.DEFINE_float, "The gradient's largest norm; 0 for no clipping."),
        "gradient_accumulation_steps": (flags.DEFINE_integer, "Steps for one update, with their mean gradient."),
        "ema_momentum": (flags.DEFINE_float, "Of averaged weights, which are evaluated and saved; 0 for none."),
    },
    "schedule": {
        "name": (flags.DEFINE_string, "Of the learning rate: `cosine`, `step`, `exponential` or `constant`."),
        "learning_rate": (flags.DEFINE_float, "The highest learning rate of the schedule."),
        "warmup_share": (flags.DEFINE_float, "Share of the run over which the learning rate rises."),
        "decay_epochs": (flags.DEFINE_float, "Of step and exponential: epochs for one factor."),
        "decay_factor": (flags.DEFINE_float, "Of step and exponential."),
    },
    "regularization": {
        "weight_decay": (flags.DEFINE_float, "Of kernels, times the learning rate."),
        "label_smoothing": (flags.DEFINE_float, "Share of a label that goes to all classes: 0.1 is common."),
        "stochastic_depth": (flags.DEFINE_string, "`off`, `on`, or `adaptive`: when overfitting emerges."),
        "max_drop_rate": (flags.DEFINE_float, "Of the deepest residual unit."),
        "drop_rate_step": (flags.DEFINE_float, "Of adaptive stochastic depth."),
        "gap_metric": (flags.DEFINE_string, "`accuracy` or `loss`: what adaptive stochastic depth watches."),
        "gap_threshold": (flags.DEFINE_float, "Between training and validation, above which the net overfits."),
        "gap_window": (flags.DEFINE_integer, "Epochs that have to say the same for a decision."),
    },
}
"""By section and setting: the kind of flag, and what it says. A section's `name` has a flag of the section's name."""


def define_recipe_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "recipe",
        None,
        f"A preset ({', '.join(PRESETS)}; `polynet recipes` shows them) or a JSON file. Other flags change it: "
        "`--noflip`, `--policy=`.",
        flag_values=values,
    )
    defaults = Recipe()
    for section, texts in TEXTS.items():
        settings = getattr(defaults, section) if section else defaults
        for name, (define, text) in texts.items():
            define(_flag(section, name), getattr(settings, name), text, flag_values=values)
    flags.DEFINE_list(
        "residual_scale",
        [str(defaults.residual_scale)],
        "Factor on the residual paths: a number, `first,last` (linear in depth), one number a module, or `released` "
        "(1 to 0.7 with depth, the published net's).",
        flag_values=values,
    )


def recipe_of(values: flags.FlagValues) -> Recipe:
    """The recipe that the flags say: the named one, with the settings of the flags that were given.

    Raises:
        ValueError: no such recipe, or a value out of range.
    """
    settings = {
        f"{section}.{name}".lstrip("."): values[_flag(section, name)].value
        for section, texts in TEXTS.items()
        for name in texts
        if _flag(section, name) in values and values[_flag(section, name)].present
    }
    if values["residual_scale"].present:
        settings["residual_scale"] = residual_scale_of(values.residual_scale)
    # An empty text takes a preset's choice back.
    return recipe_named(values.recipe).replaced({n: None if value == "" else value for n, value in settings.items()})


def recipe_named(name: str | None) -> Recipe:
    """A preset, or the recipe in a file; without a name the defaults.

    Raises:
        ValueError: neither.
    """
    if name is None:
        return Recipe()
    if name in PRESETS:
        return PRESETS[name].recipe
    if not os.path.isfile(name):
        raise ValueError(f"recipe={name!r} is no file and none of {', '.join(PRESETS)}")
    return Recipe.load(name)


def _flag(section: str, name: str) -> str:
    return section if name == "name" else name


def residual_scale_of(values: list[str]) -> float | tuple[float, ...] | None:
    """What the flag of this name says.

    Raises:
        ValueError: no numbers.
    """
    if values == ["released"]:
        return None
    try:
        numbers = tuple(map(float, values))
    except ValueError:
        raise ValueError(
            f"--residual_scale={','.join(values)} must be numbers split by commas, or `released`"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
