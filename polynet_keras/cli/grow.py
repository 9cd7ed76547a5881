"""`polynet grow`: a larger net with the weights of a trained one."""

import os
import shlex
from pathlib import Path

from absl import flags

from polynet_keras.cli.recipe_flags import residual_scale_of
from polynet_keras.models.cost import network_cost
from polynet_keras.pretrained.model_card import MODEL_FILE
from polynet_keras.pretrained.registry import published
from polynet_keras.training.insertion import NEW_PATHS, POSITIONS, plan_insertion
from polynet_keras.training.recipes.recipe import MAX_SEED, Recipe
from polynet_keras.training.runs.folder import RECIPE_FILE, latest_run_folder

USAGE = "--structure STRUCTURE --output GROWN.keras [--run_dir RUN | --weights NAME] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    texts = {
        "structure": "Of the grown net: a name of `polynet summary`, or a notation.",
        "output": "File.keras to write the grown net to.",
        "run_dir": "Folder of the run whose net grows. [the newest in runs/]",
        "weights": "Published checkpoint to grow, by its name in `polynet weights`.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_string("positions", POSITIONS[0], f"Of the old units: {' or '.join(POSITIONS)}.", flag_values=values)
    flags.DEFINE_string(
        "new_paths",
        NEW_PATHS[0],
        "How new ones begin: `xavier`, the poster's, or `zero`: the net computes what the old one does.",
        flag_values=values,
    )
    flags.DEFINE_bool("carry_optimizer", False, "Keep the optimizer's memory of kept weights.", flag_values=values)
    flags.DEFINE_list(
        "residual_scale", None, "Factor on new paths, as of `polynet train`. [the run's]", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Of the new weights.", 0, MAX_SEED, flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the structure is named with --structure")
    if values.structure is None or values.output is None:
        raise ValueError("--structure and --output are needed: what to grow to, and the file for it")
    output = Path(values.output)
    if output.suffix != ".keras":
        raise ValueError(f"--output={output} must end in .keras")
    if output.exists():
        raise ValueError(f"--output={output} is there already; name a new file")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"--output={output} is in no folder that exists and can be written; make it first")
    if values.run_dir is not None and values.weights is not None:
        raise ValueError("--run_dir and --weights name two nets; name one")
    if values.weights is not None and values.carry_optimizer:
        raise ValueError("--carry_optimizer is of a run; a published checkpoint has no optimizer")

    if values.weights is not None:
        checkpoint = published(values.weights)
        name, structure, width, residual_scale = checkpoint.name, checkpoint.structure, checkpoint.width, None
        size = checkpoint.preprocessing.image_size
        command = ["--data=DATA", f"--image_size={size}", f"--width={width:g}"]
        policy = "float32"
    else:
        folder = Path(values.run_dir or latest_run_folder())
        if not folder.is_dir():
            raise ValueError(f"--run_dir={folder} is no folder")
        recipe = Recipe.load(folder / RECIPE_FILE)
        name, structure, width = os.fspath(folder), recipe.structure, recipe.width
        residual_scale, policy = recipe.residual_scale, recipe.precision
        command = [f"--recipe={folder / RECIPE_FILE}"]
    if values.residual_scale is not None:
        residual_scale = residual_scale_of(values.residual_scale)
        command.append(f"--residual_scale={','.join(values.residual_scale)}")
    elif isinstance(residual_scale, tuple) and len(residual_scale) > 2:
        raise ValueError(f"{name} has a residual scale for each module: say that of new ones with --residual_scale")
    if values.new_paths not in NEW_PATHS:
        raise ValueError(f"new_paths={values.new_paths!r} must be one of {', '.join(NEW_PATHS)}")
    plan = plan_insertion(structure, values.structure, values.positions)
    if not any(unit.new_terms for unit in plan.units):
        raise ValueError(f"{name} has this structure already: nothing grows")
    print(f"{name} grows:\n\n{plan}\n")

    import keras

    from polynet_keras.applications import PolyNet
    from polynet_keras.basics.files import written_whole
    from polynet_keras.pretrained.model_file import load_model_file
    from polynet_keras.training.growth import grown
    from polynet_keras.training.precision import precision

    if values.weights is not None:
        source = PolyNet(weights=checkpoint.name, **checkpoint.network)
    else:
        with precision(policy):
            source = load_model_file(folder / MODEL_FILE, compile=values.carry_optimizer)
    keras.utils.set_random_seed(values.seed)
    with precision(policy):
        target = grown(
            source,
            values.structure,
            width=width,
            residual_scale=residual_scale,
            positions=values.positions,
            new_paths=values.new_paths,
            carry_optimizer=values.carry_optimizer,
        )
    with written_whole(output) as partial:
        target.save(partial)
    for what, model, units in (("old", source, structure), ("grown", target, values.structure)):
        cost = network_cost(units, input_shape=_image(model), width=width, classes=model.output_shape[-1])
        print(f"{what + ':':<7}{model.count_params():,} parameters, {sum(p.macs for p in cost) / 1e9:.3f} GMAC")
    command += [f"--structure={values.structure}", f"--weights={output}"]
    command.append("--carry_optimizer" if values.carry_optimizer else "--nocarry_optimizer")
    print(f"train it: {shlex.join(['polynet', 'train', *command])}")


def _image(model) -> tuple[int, int, int]:
    """(height, width, channels), whatever the data format."""
    import keras

    shape = model.input_shape[1:]
    return shape if keras.config.image_data_format() == "channels_last" else (*shape[1:], shape[0])
