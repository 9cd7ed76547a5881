"""`polynet grow`: a larger net with the weights of a trained one."""

import os
import shlex

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import check_model_flags, define_model_flags, run_folder_of
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of
from polynet_keras.cli.recipe_flags import residual_scale_of

USAGE = "--structure STRUCTURE --output GROWN.keras [--run_dir RUN | --weights NAME] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    define_model_flags(values, "grow", checkpoints="a name of `polynet weights`")
    define_output_flag(values, "File.keras to write the grown net to.")
    growth = Heading(values, "Growth")
    growth.string("structure", None, "Structure of the grown net: a name of `polynet summary`, or a notation.")
    growth.string("positions", "interleaved", "Where new units go among the old ones: `interleaved` or `appended`.")
    new_paths = "How new paths begin: `xavier`, the poster's, or `zero`: then the net computes what the old one does."
    growth.string("new_paths", "xavier", new_paths)
    scale = "Factor on the new paths; --residual_scale of `polynet train` has what it may be. [the run's]"
    growth.list("residual_scale", None, scale)
    growth.switch("carry_optimizer", False, "Keep the optimizer's memory of the weights that are kept.")
    growth.integer("seed", 0, "Seed of the new weights.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the structure is named with --structure")
    if values.structure is None:
        raise ValueError("--structure is missing: what to grow to")
    output = check_new_file("output", output_of(values, "the file for the grown net"), [".keras"])
    check_model_flags(values)
    if values.weights is not None and values.carry_optimizer:
        raise ValueError("--carry_optimizer is of a run; a published checkpoint has no optimizer")

    from polynet_keras.models.cost import network_cost
    from polynet_keras.pretrained.model_card import MODEL_FILE
    from polynet_keras.pretrained.registry import published
    from polynet_keras.training.insertion import NEW_PATHS, plan_insertion
    from polynet_keras.training.recipes.recipe import MAX_SEED, Recipe
    from polynet_keras.training.runs.folder import RECIPE_FILE

    check_integer("seed", values.seed, 0, MAX_SEED)
    if values.weights is not None:
        checkpoint = published(values.weights)
        name, structure, width, residual_scale = checkpoint.name, checkpoint.structure, checkpoint.width, None
        size = checkpoint.preprocessing.image_size
        command = ["--data=DATA", f"--image_size={size}", f"--width={width:g}"]
        policy = "float32"
    else:
        folder = run_folder_of(values)
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
