"""The position of a training."""

import dataclasses
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Position:
    """A place between two steps of `fit`.

    Steps are counted as Keras counts them: one a batch, and `steps_per_execution` for each execution, even if the data
    ended within it.

    Attributes:
        epoch: the epoch, from 0.
        step: the number of completed steps of this epoch. It is all steps if the epoch's validation comes next.
        global_step: the number of completed steps of all epochs.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0


@dataclass(frozen=True)
class Progress:
    """A position, with the other values that `fit` needs to resume from it.

    Attributes:
        position: the position.
        steps_per_epoch: the number that Keras used; None if it did not know the number.
        steps_per_execution: the model's setting.
        batches_read: the number of batches read by `fit`'s iterator, which is for one epoch, or for all epochs of an
            endless dataset.
        iterators: the number of iterators made before that one; None in files of older versions.
        iterators_read: the number of these iterators that were read; None in files of older versions.
        seeds: the seeds of the data's shuffles, see `data_order`; None in files of older versions.
        ended: whether a callback ended the training.
        logs: the logs of the last step, which Keras shows and passes to callbacks.
    """

    position: Position
    steps_per_epoch: int | None = None
    steps_per_execution: int = 1
    batches_read: int = 0
    iterators: int | None = None
    iterators_read: int | None = None
    seeds: list[list[int]] | None = None
    ended: bool = False
    logs: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Returns values that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "Progress":
        """Makes a value from the result of `to_json`."""
        return cls(**{**values, "position": Position(**values["position"])})
