"""How a run is carried out: on which devices, with how much patience, and how often it is saved."""

from dataclasses import dataclass, field

from polynet_keras.cluster.strategies import Communication
from polynet_keras.engine.compression import GRADIENT_DTYPES


@dataclass(frozen=True)
class Execution:
    """What may differ between two runs of one recipe that compute the same, but for rounding.

    Raises:
        ValueError: a value out of range.
    """

    strategy: str = "auto"
    """`"auto"` (what TF_CONFIG or Slurm say, else all local GPUs, else one device), `"multi_worker"`, `"mirrored"`,
    `"tpu"` or `"none"`."""
    tpu: str | None = None
    """Name or address of the TPU, for `strategy="tpu"`."""
    communication: Communication = field(default_factory=Communication)
    """Between workers."""
    gradient_dtype: str = "float32"
    """In which gradients are summed over the replicas: `"float32"`, or `"float16"` for half the bytes
    (`engine.compression`)."""
    save_every_steps: int | None = None
    """Steps between two checkpoints."""
    save_every_minutes: float | None = 10.0
    """Minutes between two checkpoints."""
    deterministic: bool = False
    """Whether TensorFlow keeps to operations that give the same bits again on the same machine; slower on GPUs. Once
    said, it holds for the process."""
    attempt: int = 0
    """How often a supervisor has started this run again: a finished run is then no mistake."""

    def __post_init__(self):
        if self.gradient_dtype not in GRADIENT_DTYPES:
            raise ValueError(f"gradient_dtype={self.gradient_dtype!r} must be one of {GRADIENT_DTYPES}")
