"""The flags that make a recipe, of the commands that take one."""

import dataclasses

from absl import flags

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.training.recipe import Recipe


def define_recipe_flags(values: flags.FlagValues) -> None:
    defaults = Recipe()
    text = {
        "data": (
            flags.DEFINE_string,
            "`digits`, `fashion_mnist`, `tfds:NAME`, or a folder: of images, one folder for each class, or of records.",
        ),
        "structure": (flags.DEFINE_string, "The residual units: a name of `polynet summary`, or a notation."),
        "width": (flags.DEFINE_float, "Multiplier of the channel counts."),
        "image_size": (flags.DEFINE_integer, "Side of the network's input, in pixels."),
        "epochs": (flags.DEFINE_integer, "Passes over the training images."),
        "batch_size": (flags.DEFINE_integer, "Images a step, of all workers together."),
        "learning_rate": (flags.DEFINE_float, "The highest learning rate of the schedule."),
        "seed": (flags.DEFINE_integer, "Seed of the initialization, the split, the order and the augmentation."),
        "synchronized": (flags.DEFINE_bool, "Batch normalization over the global batch, not each device's part."),
        "on_error": (flags.DEFINE_string, "What to do about an image that cannot be read: `error` or `skip`."),
    }
    augmentation = {
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
    }
    for settings, help_texts in ((defaults, text), (defaults.augmentation, augmentation)):
        for name, (define, help_text) in help_texts.items():
            define(name, getattr(settings, name), help_text, flag_values=values)
    flags.DEFINE_list(
        "residual_scale",
        [str(defaults.residual_scale)],
        "Factor on the residual paths: a number, `first,last` (linear in depth), one number a module, or `released` "
        "(1 to 0.7 with depth, the published net's).",
        flag_values=values,
    )


def recipe_of(values: flags.FlagValues) -> Recipe:
    """The recipe that the flags say.

    Raises:
        ValueError: a value out of range.
    """
    augmentation = Augmentation(**{field.name: values[field.name].value for field in dataclasses.fields(Augmentation)})
    settings = {
        field.name: values[field.name].value for field in dataclasses.fields(Recipe) if field.name != "augmentation"
    }
    settings["residual_scale"] = _residual_scale(values.residual_scale)
    return Recipe(augmentation=augmentation, **settings)


def _residual_scale(values: list[str]) -> float | tuple[float, ...] | None:
    if values == ["released"]:
        return None
    try:
        numbers = tuple(map(float, values))
    except ValueError:
        raise ValueError(
            f"--residual_scale={','.join(values)} must be numbers split by commas, or `released`"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
