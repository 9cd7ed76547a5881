"""`polynet recipes`: lists the presets, or prints one as a file."""

import dataclasses
import json

from absl import flags

from polynet_keras.cli.recipe_from_flags import recipe_named

USAGE = "[NAME]"
EXAMPLES = ("polynet recipes imagenet-g5 > mine.json",)


def define_flags(values: flags.FlagValues) -> None:
    pass


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}; name one recipe at a time")

    from polynet_keras.training.recipes.presets import FLOPS_A_SECOND, PRESETS

    if arguments:
        print(json.dumps(dataclasses.asdict(recipe_named(arguments[0])), indent=2))
        return
    for name, preset in PRESETS.items():
        cost = f"{preset.flops_per_image / 1e9:.3g} GFLOP an image"
        if preset.recipe.start.cache_features:
            cost += ", once"
        if preset.flops:
            cost += f", {preset.flops:.2g} FLOP in all"
        if preset.hours >= 1:
            cost += f": {preset.hours:.0f} hours at {FLOPS_A_SECOND / 1e12:.0f} TFLOP/s, of all devices together"
        print(f"{name}: {preset.about}")
        for what, text in (
            ("command", preset.command), ("cost", cost), ("time", preset.time), ("result", preset.result)
        ):  # fmt: skip
            print(f"  {what:<9}{text or '(not measured)'}")
        print()
    print("`polynet recipes NAME` prints one as a file that `polynet train --recipe FILE` takes.")
