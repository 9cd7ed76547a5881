"""`polynet benchmark input`: what a training run would wait for on this machine."""

from absl import flags

from polynet_keras.cli.headings import Heading
from polynet_keras.cli.recipe_flags import define_recipe_flags, recipe_of
from polynet_keras.cli.table import print_table

USAGE = "input [--data DATA] [flags of train]"


def define_flags(values: flags.FlagValues) -> None:
    Heading(values, "Measurement").number("seconds", 5.0, "Seconds that each part is measured.")
    define_recipe_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments != ["input"]:
        raise ValueError(f"expected `input`, what to measure; got {' '.join(arguments) or 'nothing'}")
    recipe = recipe_of(values)

    from polynet_keras.studies.input_benchmark import CURES, benchmark_input

    result = benchmark_input(recipe, values.seconds)
    rows = [
        ("read", f"{result.read:,.1f}", "encoded images from their files, or from the system's memory"),
        ("decode", f"{result.decode:,.1f}", "the whole input pipeline: read, decoded, augmented, batched"),
        ("step", f"{result.step:,.1f}", "training steps of the network, from batches that are ready"),
    ]
    print_table(("part", "images/s", "what is measured, each alone"), rows)
    print(f"\n{result.bound}-bound: {CURES[result.bound]}")
