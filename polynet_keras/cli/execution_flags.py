"""The flags that say how a run is carried out."""

import os

from absl import flags

from polynet_keras.cluster.strategies import Communication
from polynet_keras.training.runs.execution import Execution


def define_execution_flags(values: flags.FlagValues) -> None:
    defaults = Execution()
    communication = defaults.communication
    flags.DEFINE_string(
        "strategy",
        defaults.strategy,
        "`multi_worker`, `mirrored` (all local GPUs), `tpu`, `none`, or `auto`: what TF_CONFIG or Slurm say, else all "
        "local GPUs.",
        flag_values=values,
    )
    flags.DEFINE_string("tpu", None, "Name or address of the TPU, for --strategy=tpu.", flag_values=values)
    flags.DEFINE_float(
        "communication_timeout",
        communication.timeout_seconds,
        "Seconds that a step, or another sum over the workers, may take before a worker gives up.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "start_timeout", communication.start_seconds, "Seconds for all workers to be there.", flag_values=values
    )
    flags.DEFINE_string("communication", communication.implementation, "`ring`, `nccl` or `auto`.", flag_values=values)
    flags.DEFINE_integer(
        "bytes_per_pack",
        communication.bytes_per_pack,
        "Of tensors that are summed at once; 0 for all.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "gradient_dtype",
        defaults.gradient_dtype,
        "In which gradients are summed over the replicas: `float32`, or `float16` for half the bytes.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "deterministic",
        defaults.deterministic,
        "The same bits again on the same machine, from the start or from a checkpoint; slower on GPUs.",
        flag_values=values,
    )
    flags.DEFINE_integer("save_every_steps", None, "Steps between two checkpoints.", flag_values=values)
    flags.DEFINE_float(
        "save_every_minutes", defaults.save_every_minutes, "Minutes between two checkpoints.", flag_values=values
    )


def execution_of(values: flags.FlagValues) -> Execution:
    """What the flags and the supervisor say.

    Raises:
        ValueError: a value out of range.
    """
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
        deterministic=values.deterministic,
        attempt=int(os.environ.get("POLYNET_ATTEMPT") or 0),
    )
