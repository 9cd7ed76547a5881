"""Settings: how workers train together, and how they sum their tensors, as a value."""

from dataclasses import dataclass

from polynet_keras.basics.checks import check_choice, check_integer, check_number

STRATEGIES = ("auto", "multi_worker", "mirrored", "tpu", "none")
IMPLEMENTATIONS = ("auto", "ring", "nccl")
GRADIENT_DTYPES = ("float32", "float16")
"""The dtypes in which gradients can be summed."""


@dataclass(frozen=True)
class Communication:
    """How workers sum their tensors.

    Raises:
        ValueError: a value out of range.

    Examples:
        >>> communication = Communication(timeout_seconds=600)
        >>> communication.implementation
        'auto'
    """

    timeout_seconds: float = 1800.0
    """A worker gives up when a training, test or prediction step, its own computing included, or another sum over the
    workers takes longer than this. It must be longer than tracing and compiling the first step takes, and longer than
    one worker can lag behind another: only the chief writes checkpoints. A worker that is gone or stopped is found in
    seconds, whatever the value."""
    implementation: str = "auto"
    """`"ring"` (gRPC), `"nccl"`, or `"auto"`: NCCL for GPUs, else the ring."""
    bytes_per_pack: int = 8 * 2**20
    """Tensors are summed in packs of this size, one after the other; 0 for one pack."""
    start_timeout: float = 300.0
    """The longest time, in seconds, until all workers have started."""

    def __post_init__(self):
        for name in ("timeout_seconds", "start_timeout"):
            check_number(name, getattr(self, name), above=0)
        check_choice("implementation", self.implementation, IMPLEMENTATIONS)
        check_integer("bytes_per_pack", self.bytes_per_pack, 0)
