"""How far a training has come."""

import dataclasses
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Position:
    """A place between two steps of `fit`.

    Steps are counted as Keras counts them: one a batch, and `steps_per_execution` for each execution, even if the data
    ended within it.

    Attributes:
        epoch: from 0.
        step: steps of this epoch that are done. All of them, if its validation is what comes next.
        global_step: steps that are done, of all epochs.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0


@dataclass(frozen=True)
class Progress:
    """A position, and what else `fit` has to be told to go on from it.

    Attributes:
        position: the place.
        steps_per_epoch: that Keras counted with; None where it did not know.
        steps_per_execution: of the model.
        batches_read: by the iterator that `fit` held, which is of one epoch, or of all epochs of an endless dataset.
        iterators: that were made over the data before that one; None in files of older versions.
        iterators_read: those of them that were read from; None in files of older versions.
        seeds: of what shuffles the data, see `data_order`; None in files of older versions.
        ended: whether a callback ended the training.
        logs: of the last step: what Keras shows and hands to callbacks.
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
        """As values that JSON holds."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "Progress":
        """What `to_json` gave."""
        return cls(**{**values, "position": Position(**values["position"])})
