"""Which model a command is about: a run's, or a checkpoint."""

from pathlib import Path

from absl import flags

from polynet_keras.cli.headings import Heading

FILES = "a name of `polynet weights`, or a file of the released net"


def define_model_flags(values: flags.FlagValues, verb: str, checkpoints: str = FILES) -> None:
    """Defines `--run_dir` and `--weights`.

    Args:
        verb: what the command does with the model.
        checkpoints: that it takes.
    """
    model = Heading(values, "Model")
    model.string("run_dir", None, f"Folder of the run to {verb}. [the newest in runs/]")
    model.string("weights", None, f"Checkpoint to {verb} in place of a run: {checkpoints}.")


def check_model_flags(values: flags.FlagValues) -> None:
    """Refuses two models.

    Raises:
        ValueError: a run and a checkpoint are named.
    """
    if values.run_dir is not None and values.weights is not None:
        raise ValueError("--run_dir and --weights name two models; name one")


def run_folder_of(values: flags.FlagValues) -> Path:
    """The folder of the run that is named, or of the newest one.

    Raises:
        ValueError: none is named, and there is none.
    """
    from polynet_keras.training.runs.folder import latest_run_folder

    return Path(values.run_dir or latest_run_folder())
