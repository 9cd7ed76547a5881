"""The flags for the execution of a run.

Help needs no TensorFlow, so the defaults are repeated here. A test compares them with those of `Execution`.
"""

import os
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.cli.headings import Heading

if TYPE_CHECKING:
    from polynet_keras.training.runs.execution import Execution


def define_execution_flags(values: flags.FlagValues) -> None:
    machines = Heading(values, "Workers and machines")
    machines.string(
        "strategy",
        "auto",
        "`multi_worker`, `mirrored` (all local GPUs), `tpu`, `none`, or `auto`: the workers of TF_CONFIG or Slurm, "
        "else all local GPUs.",
        choices=("auto", "multi_worker", "mirrored", "tpu", "none"),
    )
    machines.switch(
        "deterministic",
        False,
        "Compute the same bits again on the same machine, from the start or from a checkpoint; slower on GPUs.",
    )
    workers = Heading(values, "Details of workers and machines", rare=True)
    workers.string("tpu", None, "Name or address of the TPU, for --strategy=tpu.")
    workers.number("start_timeout", 300.0, "Seconds that the workers wait for each other at the start.")
    workers.number(
        "communication_timeout",
        1800.0,
        "Seconds that a step, or another sum over the workers, may take before a worker gives up.",
    )
    workers.string(
        "communication",
        "auto",
        "How tensors are summed over the workers: `ring`, `nccl` or `auto`.",
        choices=("auto", "ring", "nccl"),
    )
    workers.integer("bytes_per_pack", 8 * 2**20, "Bytes of tensors to sum at once; 0 for all.")
    workers.string(
        "gradient_dtype",
        "float32",
        "Dtype for summing gradients over the replicas: `float32`, or `float16` for half the bytes.",
        choices=("float32", "float16"),
    )
    checkpoints = Heading(values, "Checkpoints and cached features")
    checkpoints.number("save_every_minutes", 10.0, "Minutes between two checkpoints.")
    checkpoints.integer("save_every_steps", None, "Steps between two checkpoints.")
    features_dir = "Folder of the features of --cache_features; several runs can share it. [features in the run folder]"
    checkpoints.string("features_dir", None, features_dir)


def execution_of(values: flags.FlagValues) -> "Execution":
    """Returns the settings from the flags and the supervisor.

    Raises:
        ValueError: a value out of range.
    """
    from polynet_keras.cluster.communication import Communication
    from polynet_keras.training.runs.execution import Execution

    communication = Communication(
        values.communication_timeout, values.communication, values.bytes_per_pack, values.start_timeout
    )
    return Execution(
        strategy=values.strategy,
        tpu=values.tpu,
        communication=communication,
        gradient_dtype=values.gradient_dtype,
        save_every_steps=values.save_every_steps,
        save_every_minutes=values.save_every_minutes,
        features_dir=values.features_dir,
        deterministic=values.deterministic,
        attempt=int(os.environ.get("POLYNET_ATTEMPT") or 0),
    )
