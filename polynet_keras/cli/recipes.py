"""`polynet recipes`: the presets, or one of them as a file."""

import dataclasses
import json

from absl import flags

from polynet_keras.cli.recipe_flags import recipe_named

USAGE = "[NAME]"


def define_flags(values: flags.FlagValues) -> None:
    pass


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}; one recipe is shown at a time")

    from polynet_keras.training.recipes.presets import PRESETS

    if arguments:
        print(json.dumps(dataclasses.asdict(recipe_named(arguments[0])), indent=2))
        return
    for name, preset in PRESETS.items():
        cost = f"{preset.flops_per_image / 1e9:.3g} GFLOP an image"
        if preset.flops:
            cost += f", {preset.flops:.2g} FLOP in all"
        print(f"{name}: {preset.about}")
        for what, text in (
            ("command", preset.command), ("cost", cost), ("time", preset.time), ("result", preset.result)
        ):  # fmt: skip
            print(f"  {what:<9}{text or '(not measured)'}")
        print()
    print("`polynet recipes NAME` prints one as a file that `polynet train --recipe FILE` takes.")
