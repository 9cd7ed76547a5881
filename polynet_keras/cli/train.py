"""`polynet train`: trains by a recipe from flags, and shows the next commands."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from polynet_keras.basics.names import number_of, shell_quoted, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.backend import chosen_backend
from polynet_keras.cli.execution_flags import define_execution_flags, execution_of
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.output_flags import check_new_file
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import recipe_for_data, recipe_of

if TYPE_CHECKING:
    from polynet_keras.training.recipes.recipe import Recipe

USAGE = "[--data DATA] [flags]"
EXAMPLES = (
    "polynet train --data photos --width 0.5 --image_size 131 --epochs 40",
    "polynet train --recipe finetune --weights imagenet --data photos",
)


def define_flags(values: flags.FlagValues) -> None:
    run = Heading(values, "Run")
    run_dir = "Folder of the run: a new or empty one, or that of an unfinished run, which resumes with its own recipe."
    run.string("run_dir", None, f"{run_dir} [runs/DATA-TIME]")
    dry = "Describe the data, estimate the time of the run from a few steps, and stop: nothing is saved."
    run.switch("dry_run", False, dry)
    find = "Run a range test, propose a learning rate, and stop: nothing is trained further."
    run.switch("find_learning_rate", False, find)
    table = "With --find_learning_rate: table of rates and losses, NAME.csv; the plot is NAME.png."
    run.string("output", None, table)
    run.switch("strict", False, "Stop with an error if an image file is in several splits of the data.")
    define_recipe_flags(values)
    define_execution_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the data with --data")
    execution = execution_of(values)
    _check_test(values)

    from polynet_keras.cluster.cluster import Cluster

    cluster = Cluster.from_environment()
    recipe = recipe_of_run(values, announce=cluster.is_chief)
    from polynet_keras.training.runs.checking import check_backend, check_dry_run, check_run

    check_backend(chosen_backend().name, recipe, execution)
    if values.dry_run:
        check_dry_run(recipe)
    if not cluster.is_distributed:  # a worker that lacks something tells the others after they have met
        leaves_nothing = values.dry_run or values.find_learning_rate
        check_run(recipe, None if leaves_nothing else values.run_dir, execution.attempt, execution.features_dir)

    from polynet_keras.checkpoints.interruption import Preempted
    from polynet_keras.cluster.failures import PeerFailure, leave
    from polynet_keras.training.runs.dry_run import dry_run
    from polynet_keras.training.runs.find_learning_rate import find_learning_rate
    from polynet_keras.training.runs.train import train

    try:
        with held_back():
            if values.dry_run:
                tried = dry_run(recipe, execution, strict=values.strict)
            elif values.find_learning_rate:
                found = find_learning_rate(recipe, execution, strict=values.strict)
            else:
                result = train(recipe, values.run_dir, execution, strict=values.strict)
    except (PeerFailure, Preempted) as ended:
        if not cluster.is_distributed:
            raise
        # TensorFlow's teardown would wait for absent workers, and use up the time for a new start.
        leave(int(ended.code or 0))
    except (Exception, KeyboardInterrupt) as error:
        if not cluster.is_distributed or chosen_backend().name != "jax":
            raise
        from polynet_keras.cli.main import report

        leave(report(error, values))  # JAX's teardown would wait for the other workers, and abort
    if cluster.is_chief and values.dry_run:
        _print_dry_run(tried)
    elif values.find_learning_rate:
        _print_range(found, recipe, values.output)
    elif cluster.is_chief:
        _print(result)
    if cluster.is_distributed:
        leave()


def recipe_of_run(values: flags.FlagValues, announce: bool = True) -> "Recipe":
    """Returns the recipe of the flags and the data. For the folder of a run without --recipe, flags change its recipe.

    Args:
        values: the command's flags.
        announce: whether to log the choices for the data.

    Raises:
        ValueError: the recipe does not exist, a value is out of range, or the run's data are not found from here.
    """
    if values.recipe is not None:
        return recipe_of(values)
    if not values.run_dir:
        return _chosen(values, announce)

    from polynet_keras.training.recipes.recipe import Recipe
    from polynet_keras.training.runs.folder import RECIPE_FILE, check_data_is_there

    path = Path(values.run_dir)
    if not (path / RECIPE_FILE).is_file():
        is_new = not (values["data"].present or values["weights"].present)
        if announce and is_new and not (values.dry_run or values.find_learning_rate):
            logging.info("--run_dir=%s holds no run yet: a new one begins, on the digits", values.run_dir)
        return _chosen(values, announce)
    own = Recipe.load(path / RECIPE_FILE)
    recipe = recipe_of(values, own)
    if recipe.data == own.data:
        check_data_is_there(path / RECIPE_FILE, own)
    return recipe


def _chosen(values: flags.FlagValues, announce: bool) -> "Recipe":
    from polynet_keras.cluster.cluster import Cluster

    try:
        return recipe_for_data(values, announce)
    except ValueError as error:
        if not Cluster.from_environment().is_distributed:
            raise
        logging.error("%s", error)  # the others would wait for this worker: all exit after they have met
        return recipe_of(values)


def _check_test(values: flags.FlagValues) -> None:
    """Refuses flags that exclude `--find_learning_rate`, or that need it."""
    if values.output and not values.find_learning_rate:
        raise ValueError(f"--output={values.output} goes with --find_learning_rate; a run is written to --run_dir")
    if values.find_learning_rate and values.dry_run:
        raise ValueError("--dry_run and --find_learning_rate exclude each other; leave one out")
    if values.find_learning_rate:
        from polynet_keras.training.runs.learning_rate_range import check_one_worker

        check_one_worker()
    if values.output:
        check_new_file("output", values.output, (".csv",))
        check_new_file("output", f"{values.output.removesuffix('.csv')}.png")


def _print_range(found, recipe: "Recipe", output: str | None) -> None:
    from polynet_keras.training.runs.learning_rate_range import write_range

    tried = f"{number_of(len(found.rates), 'update')}"
    if found.rates:
        tried += f" at learning rates from {found.rates[0]:.1e} to {found.rates[-1]:.1e}"
    print(f"\nrange test: {tried}")
    if output and found.rates:
        print(f"table:      {shown(output)}; plot: {shown(write_range(found, output))}")
    if found.proposal is None:
        raise ValueError(
            f"the range test proposes nothing: the loss diverged after {tried}, or never fell. Check in the recipe: "
            "--batch_size, --precision, --global_clipnorm, or the weights to start with"
        )
    print(f"proposal:   --learning_rate {found.proposal:.2g} (the recipe has {recipe.schedule.learning_rate:g})")


def _print_dry_run(tried) -> None:
    from polynet_keras.training.runs.progress import duration, short_duration

    print(f"\nfirst step:         loss {tried.loss:.4f}, {tried.seconds:.1f} s, compilation included")
    print(f"one held-out batch: loss {tried.held_out_loss:.4f}, {tried.held_out_seconds:.1f} s, compilation included")
    steps = f"{number_of(tried.steps, 'step')} of {short_duration(tried.next_seconds)}"
    whole = f"about {duration(tried.run_seconds)} for {number_of(tried.epochs, 'epoch')}"
    print(f"the whole run:      {whole}; starting and saving come on top")
    print(f"each epoch:         {steps}, and {short_duration(tried.validation_seconds)} of validation")
    print("this was a dry run: no folder is left")


def _print(result) -> None:
    card = result.card
    right = f"{card.held_out_correct} of {number_of(card.held_out, 'image')}"
    print(f"\nheld-out accuracy: {card.held_out_correct / card.held_out:.2%} ({right})")
    if card.validation:
        chosen = f"{card.validation_correct / card.validation:.2%} of {number_of(card.validation, 'validation image')}"
        print(f"best epoch:        {card.epoch}, with {chosen}")
    print(f"run folder:        {shown(result.folder)}")
    logs = shell_quoted(["tensorboard", "--logdir", f"{result.folder}/tensorboard"])
    print(f"curves:            {shown(result.folder)}/curves.png, or: {logs}")
    few = result.samples[:: max(1, len(result.samples) // 3)][:3]  # they are sorted by class
    command = ["polynet", "predict", f"--model={result.folder}", *few]
    print(f"predict with it:   {shell_quoted(command)}")
