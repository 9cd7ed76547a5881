"""`polynet ablation`: the poster's study, Inception-ResNet against Poly and K-way modules."""

from pathlib import Path

from absl import flags

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.output_flags import define_output_flag, output_of
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import numbers_by_name, recipe_of
from polynet_keras.cli.table import print_table

USAGE = "--output STUDY [--depths A,B,C] [--modules NAME,...] [--stages NAME,...] [--seeds N] [flags of train]"
EXAMPLES = ("polynet ablation --output study --data photos --epochs 5 --depths 1,2,1 --modules poly-2,2-way",)


def define_flags(values: flags.FlagValues) -> None:
    define_output_flag(values, "Folder of the study: a new one, or one to continue.")
    study = Heading(values, "Study")
    study.list("depths", ["1", "2", "1"], "Residual units of the Inception-ResNet, by stage.")
    study.list("modules", ["poly-2", "2-way"], "Poly and K-way modules to compare with it.")
    study.list("stages", ["A", "B", "C", "mixed"], "Stages in which nets have these modules; mixed: in all three.")
    study.string(
        "learning_rates",
        None,
        "Learning rates of nets, such as `ir 1-2-1=0.002,mixed g5=0.001`. [--learning_rate]",
    )
    study.integer("seeds", 3, "Runs of each net: their seeds count up from --seed.")
    define_recipe_flags(values, photographs=False)
    delattr(values, "structure")  # the study varies it


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the data with --data")
    folder = Path(output_of(values, "the folder for the runs, the table and the plot"))
    if len(values.depths) != 3 or not all(depth.isdigit() for depth in values.depths):
        raise ValueError(f"--depths={','.join(values.depths)} must be three numbers of residual units, such as 1,2,1")
    depths = tuple(map(int, values.depths))
    check_integer("seeds", values.seeds, at_least=1)
    recipe = recipe_of(values)
    rates = numbers_by_name("learning_rates", values.learning_rates, "NET=NUMBER", "ir 1-2-1=0.002")

    from polynet_keras.basics.holding import make_folder
    from polynet_keras.data.source_names import modules_of
    from polynet_keras.studies.ablation_variants import variants
    from polynet_keras.studies.study_folder import check_study
    from polynet_keras.training.runs.checking import check_run

    studied = variants(depths, values.modules, values.stages)
    for net in rates or ():
        check_choice("learning_rates", net, [variant.name for variant in studied])
    require_extra("data", "PIL", "matplotlib", "scipy", "tensorboard", *modules_of(recipe.data))
    check_run(recipe)
    if folder.exists():
        make_folder("output", folder)  # raises if it is not a folder
        check_study(folder, recipe)

    from polynet_keras.basics.files import written_whole
    from polynet_keras.studies.ablation_report import ablation_answer, ablation_table, paired_table, plot_ablation
    from polynet_keras.studies.ablation_runs import RESULTS_FILE, ablation

    print(f"{number_of(len(studied), 'net')}, {number_of(values.seeds, 'seed')} each:\n")
    print_table(("net", "at equal compute"), [(variant.name, variant.same_compute) for variant in studied])
    with held_back():
        outcomes = ablation(recipe, folder, depths, values.modules, values.seeds, values.stages, rates)
    tables = [ablation_table(outcomes), *([paired_table(outcomes)] if values.seeds > 1 else [])]
    found = "\n".join((*tables, ablation_answer(outcomes))) + "\n"
    with written_whole(folder / "ablation.md") as partial:
        partial.write_text(found)
    plot_ablation(outcomes, folder / "ablation.png")
    print(f"\n{found}")
    print(f"table: {folder / RESULTS_FILE} and {folder / 'ablation.md'}")
    print(f"plot:  {folder / 'ablation.png'}")
