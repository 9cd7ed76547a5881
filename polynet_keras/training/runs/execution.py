"""The execution of a run: its devices, its timeouts, and how often it is saved."""

from dataclasses import dataclass, field

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.cluster.communication import GRADIENT_DTYPES, STRATEGIES, Communication


@dataclass(frozen=True)
class Execution:
    """Settings that may differ between two runs of one recipe without changing the results, except for rounding.

    Raises:
        ValueError: a value is out of range.

    Examples:
        >>> execution = Execution("mirrored", gradient_dtype="float16")
        >>> execution.save_every_minutes
        10.0
    """

    strategy: str = "auto"
    """`"auto"` (as TF_CONFIG or Slurm say, else all local GPUs, else one device), `"multi_worker"`, `"mirrored"`,
    `"tpu"` or `"none"`. On JAX `"auto"` or `"none"`."""
    tpu: str | None = None
    """Name or address of the TPU, for `strategy="tpu"`."""
    communication: Communication = field(default_factory=Communication)
    """Communication between workers."""
    gradient_dtype: str = "float32"
    """Dtype of gradients in the sum over replicas: `"float32"`, or `"float16"` for half the bytes
    (`engine.compression`)."""
    save_every_steps: int | None = None
    """Steps between two checkpoints."""
    save_every_minutes: float | None = 10.0
    """Minutes between two checkpoints."""
    features_dir: str | None = None
    """Folder of cached features (`Start.cache_features`), which several runs may share; by default `features` in the
    run folder."""
    deterministic: bool = False
    """Whether TensorFlow uses only operations that repeat bit by bit on the same machine; slower on GPUs. Once set, it
    applies to the whole process."""
    attempt: int = 0
    """How often a supervisor has restarted this run. On a restart, a finished run is not an error."""

    def __post_init__(self):
        check_choice("strategy", self.strategy, STRATEGIES)
        for name, at_least in (("save_every_steps", 1), ("attempt", 0)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), at_least)
        check_choice("gradient_dtype", self.gradient_dtype, GRADIENT_DTYPES)
