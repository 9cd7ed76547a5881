"""`polynet train`: a recipe from flags, a run, and where to go from it."""

from absl import flags

from polynet_keras.basics.names import shell_quoted, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.execution_flags import define_execution_flags, execution_of
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.recipe_flags import define_recipe_flags, recipe_of

USAGE = "[--data DATA] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    run_dir = "Folder of the run: a new or empty one, or that of an unfinished run of the same recipe, which goes on."
    Heading(values, "Run").string("run_dir", None, f"{run_dir} [runs/DATA-TIME]")
    define_recipe_flags(values)
    define_execution_flags(values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the data is named with --data")
    recipe = recipe_of(values)
    execution = execution_of(values)

    from polynet_keras.checkpoints.interruption import Preempted
    from polynet_keras.cluster.cluster import Cluster
    from polynet_keras.cluster.failures import PeerFailure, leave
    from polynet_keras.training.runs.train import train

    cluster = Cluster.from_environment()
    try:
        with held_back():
            result = train(recipe, values.run_dir, execution)
    except (PeerFailure, Preempted) as ended:
        if not cluster.is_distributed:
            raise
        # TensorFlow's teardown waits for workers that are gone, in the time that is left for a new start.
        leave(int(ended.code or 0))
    if cluster.is_chief:
        _print(result)
    if cluster.is_distributed:
        leave()


def _print(result) -> None:
    card = result.card
    accuracy = f"{card.held_out_correct / card.held_out:.2%} ({card.held_out_correct} of {card.held_out} images)"
    print(f"\nheld-out accuracy: {accuracy}")
    print(f"run folder:        {shown(result.folder)}")
    logs = shell_quoted(["tensorboard", "--logdir", f"{result.folder}/tensorboard"])
    print(f"curves:            {shown(result.folder)}/curves.png, or: {logs}")
    command = ["polynet", "predict", f"--run_dir={result.folder}", *result.samples[:3]]
    print(f"predict with it:   {shell_quoted(command)}")
