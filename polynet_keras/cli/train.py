"""`polynet train`: a recipe from flags, a run, and where to go from it."""

import dataclasses
import shlex

from absl import flags

from polynet_keras.training.recipe import Recipe

USAGE = "[--data DATA] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    defaults = Recipe()
    text = {
        "data": (
            flags.DEFINE_string,
            "`digits`, `fashion_mnist`, or a folder with one folder of images for each class.",
        ),
        "structure": (flags.DEFINE_string, "The residual units: a name of `polynet summary`, or a notation."),
        "width": (flags.DEFINE_float, "Multiplier of the channel counts."),
        "image_size": (flags.DEFINE_integer, "Side of the network's input, in pixels."),
        "epochs": (flags.DEFINE_integer, "Passes over the training images."),
        "batch_size": (flags.DEFINE_integer, "Images a step."),
        "learning_rate": (flags.DEFINE_float, "The highest learning rate of the schedule."),
        "seed": (flags.DEFINE_integer, "Seed of the initialization, the split, the order and the crops."),
    }
    for name, (define, help_text) in text.items():
        define(name, getattr(defaults, name), help_text, flag_values=values)
    flags.DEFINE_list(
        "residual_scale",
        [str(defaults.residual_scale)],
        "Factor on the residual paths: a number, `first,last` (linear in depth), one number a module, or `released` "
        "(1 to 0.7 with depth, the published net's).",
        flag_values=values,
    )
    flags.DEFINE_string("run_dir", None, "Folder of the run, new or empty. [runs/DATA-TIME]", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the data is named with --data")
    settings = {field.name: values[field.name].value for field in dataclasses.fields(Recipe)}
    recipe = Recipe(**{**settings, "residual_scale": _residual_scale(values.residual_scale)})

    from polynet_keras.training.run import train  # TensorFlow takes seconds: flags are checked before

    result = train(recipe, values.run_dir)
    card = result.card
    accuracy = f"{card.held_out_correct / card.held_out:.2%} ({card.held_out_correct} of {card.held_out} images)"
    print(f"\nheld-out accuracy: {accuracy}")
    print(f"run folder:        {result.folder}")
    print(f"curves:            {result.folder}/curves.png, or: tensorboard --logdir {result.folder}/tensorboard")
    command = ["polynet", "predict", f"--run_dir={result.folder}", *result.samples[:3]]
    print(f"predict with it:   {shlex.join(command)}")


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
