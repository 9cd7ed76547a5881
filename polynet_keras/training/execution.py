"""How a run is carried out: on which devices, with how much patience, and how often it is saved."""

from dataclasses import dataclass, field

from polynet_keras.distribution.strategies import Communication


@dataclass(frozen=True)
class Execution:
    """What may differ between two runs of one recipe that compute the same, but for rounding."""

    strategy: str = "auto"
    """`"auto"` (what TF_CONFIG or Slurm say, else all local GPUs, else one device), `"multi_worker"`, `"mirrored"`,
    `"tpu"` or `"none"`."""
    tpu: str | None = None
    """Name or address of the TPU, for `strategy="tpu"`."""
    communication: Communication = field(default_factory=Communication)
    """Between workers."""
    save_every_steps: int | None = None
    """Steps between two checkpoints."""
    save_every_minutes: float | None = 10.0
    """Minutes between two checkpoints."""
    attempt: int = 0
    """How often a supervisor has started this run again: a finished run is then no mistake."""
