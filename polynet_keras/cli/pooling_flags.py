"""The pooling of the scores of an image's crops."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.cli.headings import Heading

if TYPE_CHECKING:
    from polynet_keras.evaluation.pooling import Pooling


def define_pooling_flags(values: flags.FlagValues) -> None:
    pooling = Heading(values, "Pooling")
    how = "Pooling of the scores of an image's crops: `selective`, `mean` or `max`."
    pooling.string("pooling", "selective", how, choices=("selective", "mean", "max"))
    share = "Share of the crops that selective pooling takes: the best-scoring ones of each class."
    pooling.number("fraction", 0.3, share)
    what = "Scores to pool: `probabilities` or `logits`."
    pooling.string("on", "probabilities", what, choices=("probabilities", "logits"))


def pooling_of(values: flags.FlagValues) -> "Pooling":
    """Returns the pooling that the flags describe.

    Raises:
        ValueError: a value out of range.
    """
    from polynet_keras.evaluation.pooling import Pooling

    return Pooling(values.pooling, values.fraction, values.on)
