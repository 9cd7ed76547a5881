"""The flags that make a recipe, of the commands that take one.

Help needs no Keras: so defaults and choices are written here once more. A test holds them to those of `Recipe`.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from polynet_keras.cli.headings import Heading

if TYPE_CHECKING:
    from polynet_keras.training.recipes.recipe import Recipe

_string, _integer, _number, _switch = Heading.string, Heading.integer, Heading.number, Heading.switch

SETTINGS: dict[str, dict[str, tuple[Callable[[Heading, str, Any, str], None], Any, str]]] = {
    "Data": {
        "data": (
            _string,
            "digits",
            "`digits`, `fashion_mnist`, `tfds:NAME`, or a folder: of images, one folder for each class, or of records.",
        ),
        "image_size": (_integer, 75, "Side of the network's input, in pixels."),
        "on_error": (_string, "error", "What to do about an image that cannot be read: `error` or `skip`."),
    },
    "Network": {
        "structure": (
            _string,
            "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3]",
            "The residual units: a name of `polynet summary`, or a notation.",
        ),
        "width": (_number, 0.25, "Multiplier of the channel counts."),
        "residual_scale": (
            Heading.list,
            ["0.3"],
            "Factor on the residual paths: a number, `first,last` (linear in depth), one number for each module, or "
            "`released` (the published net's: 1 to 0.7 with depth).",
        ),
        "synchronized": (
            _switch,
            False,
            "Take the statistics of batch normalization over the global batch, and not over each device's part.",
        ),
    },
    "Training": {
        "epochs": (_integer, 15, "Passes over the training images."),
        "batch_size": (_integer, 32, "Images in a step, of all workers together."),
        "seed": (_integer, 0, "Seed of the initialization, the split, the order and the augmentation."),
        "precision": (
            _string,
            "float32",
            "What the network computes in: `float32`, `mixed_bfloat16` or `mixed_float16`.",
        ),
        "remat": (
            _string,
            "none",
            "Activations that are computed again and not kept, to save memory: `none`, `stage_b` or `all`.",
        ),
    },
    "Start from other weights": {
        "start.weights": (_string, None, "Weights to start with: a checkpoint's name, a file, or a run folder."),
        "start.carry_optimizer": (_switch, False, "Take over what the optimizer in the .keras file remembers, too."),
        "start.frozen_through": (
            _string,
            None,
            "Last part of the network that is not trained: `stem`, `stage_a`, `reduction_a`, `stage_b`, `reduction_b` "
            "or `stage_c`.",
        ),
        "start.frozen_normalizations": (_switch, False, "Train no batch normalization, and keep its statistics."),
    },
    "Augmentation": {
        "augmentation.crop": (
            _string,
            "random",
            "Training crop: `random`, a square of the resized image, or `random_resized`, of random size too.",
        ),
        "augmentation.flip": (_switch, False, "Mirror half of the images."),
        "augmentation.color_jitter": (
            _number,
            0.0,
            "How far brightness, contrast and saturation vary, as a share: 0.4 is common.",
        ),
        "augmentation.policy": (
            _string,
            None,
            "Policy of distortions: `rand_augment`, or of the extra model-garden `model_garden_rand_augment` or "
            "`model_garden_auto_augment`.",
        ),
        "augmentation.erasing": (_number, 0.0, "Probability that a rectangle of an image is replaced by noise."),
        "augmentation.mixup": (_number, 0.0, "Alpha of MixUp; 0 for none, 0.2 is common."),
        "augmentation.cutmix": (_number, 0.0, "Alpha of CutMix; 0 for none, 1 is common."),
    },
    "Optimizer": {
        "optimizer.name": (_string, "rmsprop", "Optimizer: `rmsprop`, `sgd`, `adamw` or `lamb`."),
        "optimizer.momentum": (_number, None, "Momentum (rmsprop, sgd). [0 for rmsprop, 0.9 for sgd]"),
        "optimizer.rho": (_number, None, "Decay of the mean square of the gradients (rmsprop). [0.9]"),
        "optimizer.beta_1": (_number, None, "Decay of the first moment (adamw, lamb). [0.9]"),
        "optimizer.beta_2": (_number, None, "Decay of the second moment (adamw, lamb). [0.999]"),
        "optimizer.epsilon": (
            _number,
            None,
            "Term that keeps the divisor of an update from zero (rmsprop, adamw, lamb). [1e-07]",
        ),
        "optimizer.global_clipnorm": (_number, 0.0, "Largest norm of the whole gradient; 0 for no clipping."),
        "optimizer.gradient_accumulation_steps": (_integer, 1, "Steps whose mean gradient makes one update."),
        "optimizer.ema_momentum": (
            _number,
            0.0,
            "Momentum of the moving average of the weights, which is what is evaluated and saved; 0 for none.",
        ),
    },
    "Schedule of the learning rate": {
        "schedule.learning_rate": (_number, 0.002, "Highest learning rate."),
        "schedule.name": (_string, "cosine", "How it falls: `cosine`, `step`, `exponential` or `constant`."),
        "schedule.warmup_share": (_number, 0.1, "Share of the run in which the learning rate rises from zero."),
        "schedule.decay_epochs": (_number, None, "Epochs in which the learning rate falls once (step, exponential)."),
        "schedule.decay_factor": (_number, None, "Factor by which it falls then (step, exponential)."),
    },
    "Regularization": {
        "regularization.weight_decay": (
            _number,
            0.0,
            "Share of each kernel that an update takes off, times the learning rate.",
        ),
        "regularization.label_smoothing": (
            _number,
            0.0,
            "Share of a label that is spread over all classes: 0.1 is common.",
        ),
        "regularization.stochastic_depth": (
            _string,
            "off",
            "Stochastic depth: `off`, `on`, or `adaptive`, which begins when the network overfits.",
        ),
        "regularization.max_drop_rate": (
            _number,
            None,
            "Highest drop rate, of the deepest residual unit (on, adaptive). [0.25]",
        ),
        "regularization.drop_rate_step": (_number, None, "Step by which the drop rate changes (adaptive). [0.05]"),
        "regularization.gap_metric": (
            _string,
            None,
            "Metric whose gap between training and validation tells overfitting: `accuracy` or `loss` (adaptive). "
            "[accuracy]",
        ),
        "regularization.gap_threshold": (
            _number,
            None,
            "Gap above which the network overfits (adaptive). [0.05]",
        ),
        "regularization.gap_window": (
            _integer,
            None,
            "Epochs that have to say the same before the drop rate changes (adaptive). [3]",
        ),
    },
    "Evaluation": {
        "crops": (_integer, 1, "Crops of each image that `polynet evaluate` shows the network: 1, 10 or 144."),
    },
}
"""By heading and setting of a recipe: the kind of the flag, its default, and what it is for."""

PRESETS = ("digits", "fashion_mnist", "finetune", "imagenet-ir-5-10-5", "imagenet-g5")


def define_recipe_flags(values: flags.FlagValues) -> None:
    Heading(values, "Recipe").string(
        "recipe",
        None,
        f"Settings to begin with: a preset ({', '.join(PRESETS)}; `polynet recipes` shows them) or a JSON file. The "
        "flags below change it; `--noflip` and `--policy=` take a choice back.",
    )
    for title, settings in SETTINGS.items():
        heading = Heading(values, title)
        for setting, (define, default, text) in settings.items():
            define(heading, flag_of(setting), default, text)


def flag_of(setting: str) -> str:
    """The flag of a recipe's setting: its name, or for the name of an optimizer or a schedule that of the section."""
    section, _, name = setting.rpartition(".")
    return section if name == "name" else name


def recipe_of(values: flags.FlagValues) -> "Recipe":
    """The recipe that the flags say: the named one, with the settings of the flags that were given.

    Raises:
        ValueError: no such recipe, or a value out of range.
    """
    settings = {}
    for setting in (setting for texts in SETTINGS.values() for setting in texts):
        flag = flag_of(setting)
        if flag in values and values[flag].present:
            given = values[flag].value
            # An empty text takes a preset's choice back.
            settings[setting] = residual_scale_of(given) if flag == "residual_scale" else None if given == "" else given
    return recipe_named(values.recipe).replaced(settings)


def recipe_named(name: str | None) -> "Recipe":
    """A preset, or the recipe in a file; without a name the defaults.

    Raises:
        ValueError: neither.
    """
    from polynet_keras.training.recipes.presets import PRESETS
    from polynet_keras.training.recipes.recipe import Recipe

    if name is None:
        return Recipe()
    if name in PRESETS:
        return PRESETS[name].recipe
    if not os.path.isfile(name):
        raise ValueError(f"recipe={name!r} is no file and none of {', '.join(PRESETS)}")
    return Recipe.load(name)


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
