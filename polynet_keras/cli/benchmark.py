"""`polynet benchmark input`: finds the bottleneck of a training run on this machine."""

from absl import flags

from polynet_keras.basics.checks import check_number
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import recipe_for_data
from polynet_keras.cli.table import print_table

USAGE = "input [--data DATA] [flags of train]"
EXAMPLES = ("polynet benchmark input --data photos --image_size 131",)


def define_flags(values: flags.FlagValues) -> None:
    Heading(values, "Measurement").number("seconds", 5.0, "Seconds to measure each part.")
    define_recipe_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments != ["input"]:
        raise ValueError(f"expected `input`, what to measure; got {' '.join(arguments) or 'nothing'}")
    recipe = recipe_for_data(values, announce=False)
    check_number("seconds", values.seconds, above=0)

    from polynet_keras.basics.extras import require_extra
    from polynet_keras.data.source_names import check_data, modules_of

    check_data("data", recipe.data, recipe.layout)
    require_extra("data", "PIL", *modules_of(recipe.data))
    _ = recipe.start.file  # raises if there is none

    from polynet_keras.studies.input_benchmark import CURES, benchmark_input

    result = benchmark_input(recipe, values.seconds)
    rows = [
        ("read", f"{result.read:,.1f}", "encoded images from their files, or from the system's memory"),
        ("decode", f"{result.decode:,.1f}", "the whole input pipeline: read, decoded, augmented, batched"),
        ("step", f"{result.step:,.1f}", "training steps of the network, from batches that are ready"),
    ]
    print_table(("part", "images/s", "what is measured, each alone"), rows)
    print(f"\n{result.bound}-bound: {CURES[result.bound]}")
    if result.smaller:
        width, height = result.size
        print(f"\nthe images are larger than the network needs: {width:,} x {height:,} px in the median.")
        print("With fewer pixels to decode:")
        for what, rate in result.smaller.items():
            print(f"  {what}: {rate:,.1f} images/s, {rate / result.decode:.1f} times as many")
