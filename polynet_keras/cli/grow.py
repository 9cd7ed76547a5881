"""`polynet grow`: makes a larger net with the weights of a trained one."""

from absl import flags

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.names import shell_quoted, shown
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.model_flags import define_model_flag, find_named
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of
from polynet_keras.cli.recipe_from_flags import residual_scale_of

USAGE = "--structure STRUCTURE --output GROWN.keras [--model MODEL] [flags]"
EXAMPLES = ('polynet grow --structure "2 x [2-way] | 4 x [poly-3, 2-way] | 2 x [poly-3, 2-way]" --output grown.keras',)


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "grow", "a run folder, a .keras file with a card, or a name of `polynet weights`")
    define_output_flag(values, "File.keras for the grown net; its card is written beside it.")
    growth = Heading(values, "Growth")
    structure = "Structure of the grown net: a name of `polynet summary`, or a notation. [must be named]"
    growth.string("structure", None, structure)
    positions = "Place of the new units among the old ones: `interleaved` or `appended`."
    growth.string("positions", "interleaved", positions, choices=("interleaved", "appended"))
    new_paths = "Start of new paths: `xavier`, the poster's, or `zero`: then the net computes the same as the old one."
    growth.string("new_paths", "xavier", new_paths, choices=("xavier", "zero"))
    scale = "Factor on the new paths; --residual_scale of `polynet train` lists the possible values. [the run's]"
    growth.list("residual_scale", None, scale)
    growth.switch("carry_optimizer", False, "Keep the optimizer's state for the weights that are kept.")
    growth.integer("seed", 0, "Seed of the new weights.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the structure with --structure")
    if values.structure is None:
        raise ValueError("--structure is missing: the structure of the grown net")
    output = check_new_file("output", output_of(values, "the file for the grown net"), [".keras"])
    card_file = output.with_suffix(".json")
    if card_file.exists():
        raise ValueError(
            f"--output={output}: its card, {card_file}, already exists; name a new file, or remove the card"
        )

    from polynet_keras.models.cost import network_cost
    from polynet_keras.pretrained.description import card_of
    from polynet_keras.pretrained.model_card import ModelCard
    from polynet_keras.pretrained.model_source import RECIPE_FILE, Kind
    from polynet_keras.pretrained.registry import published
    from polynet_keras.training.insertion_plan import NEW_PATHS, plan_insertion
    from polynet_keras.training.recipes.recipe import MAX_SEED, Recipe

    check_integer("seed", values.seed, 0, MAX_SEED)
    check_choice("new_paths", values.new_paths, NEW_PATHS)
    model = find_named(values)
    card = card_of(model)
    name, structure, width, residual_scale = shown(model.name), card.structure, card.width, None
    policy, command = "float32", ["--data=DATA"]
    if model.kind is Kind.RUN:
        recipe = Recipe.load(model.path / RECIPE_FILE)
        structure, width, residual_scale = recipe.structure, recipe.width, recipe.residual_scale
        policy, command = recipe.precision, [f"--recipe={model.path / RECIPE_FILE}"]
    elif model.kind is Kind.PUBLISHED and values.carry_optimizer:
        raise ValueError("--carry_optimizer is for a run; a published checkpoint has no optimizer")
    if not (structure and width):
        raise ValueError(f"{name}: its card has no structure and width, from which it could grow")
    if values.residual_scale is not None:
        residual_scale = residual_scale_of(values.residual_scale)
        command.append(f"--residual_scale={','.join(values.residual_scale)}")
    elif isinstance(residual_scale, tuple) and len(residual_scale) > 2:
        raise ValueError(f"{name} has a residual scale for each module: give that of new ones with --residual_scale")
    plan = plan_insertion(structure, values.structure, values.positions)
    if not any(unit.new_terms for unit in plan.units):
        raise ValueError(f"{name} has this structure already: nothing grows")
    print(f"{name} grows:\n\n{plan}\n")

    import keras

    from polynet_keras.applications import PolyNet
    from polynet_keras.basics.files import written_whole
    from polynet_keras.models.macs import parameters_text
    from polynet_keras.pretrained.model_file import load_model_file
    from polynet_keras.training.growth import grown
    from polynet_keras.training.precision import precision

    if model.kind is Kind.PUBLISHED:
        checkpoint = published(model.name)
        source = PolyNet(weights=checkpoint.name, **checkpoint.network)
    else:
        with precision(policy):
            source = load_model_file(model.file, compile=values.carry_optimizer)
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
    ModelCard(card.class_names, card.preprocessing, 0, 0, target.structure, width=width).save(output)
    for what, net, units in (("old", source, structure), ("grown", target, values.structure)):
        cost = network_cost(
            units, input_shape=_image(net, card.preprocessing.image_size), width=width, classes=net.output_shape[-1]
        )
        print(f"{what + ':':<7}{parameters_text(net)}, {sum(p.macs for p in cost) / 1e9:.3f} GMAC")
    command += [f"--structure={values.structure}", f"--weights={output}"]
    command.append("--carry_optimizer" if values.carry_optimizer else "--nocarry_optimizer")
    print(f"train it: {shell_quoted(['polynet', 'train', *command])}")


def _image(model, side: int) -> tuple[int, int, int]:
    """Returns (height, width, channels) in any data format; `side` replaces sides that the model leaves open."""
    import keras

    first, second, third = (side if one is None else one for one in model.input_shape[1:])
    is_last = keras.config.image_data_format() == "channels_last"
    return (first, second, third) if is_last else (second, third, first)
