"""How a run is carried out: on which devices, with how much patience, and how often it is saved."""

from dataclasses import dataclass, field

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.cluster.communication import GRADIENT_DTYPES, STRATEGIES, Communication


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
    features_dir: str | None = None
    """Folder of the features that are computed once (`Start.cache_features`), which several runs may share; by default
    `features` in the run folder."""
    deterministic: bool = False
    """Whether TensorFlow keeps to operations that give the same bits again on the same machine; slower on GPUs. Once
    said, it holds for the process."""
    attempt: int = 0
    """How often a supervisor has started this run again: a finished run is then no mistake."""

    def __post_init__(self):
        check_choice("strategy", self.strategy, STRATEGIES)
        for name, at_least in (("save_every_steps", 1), ("attempt", 0)):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), at_least)
        check_choice("gradient_dtype", self.gradient_dtype, GRADIENT_DTYPES)
