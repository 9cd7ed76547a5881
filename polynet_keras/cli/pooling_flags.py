"""How the scores of an image's crops become one."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.cli.headings import Heading

if TYPE_CHECKING:
    from polynet_keras.evaluation.pooling import Pooling


def define_pooling_flags(values: flags.FlagValues) -> None:
    pooling = Heading(values, "Pooling")
    how = "How the scores of the crops of an image are pooled: `selective`, `mean` or `max`."
    pooling.string("pooling", "selective", how, choices=("selective", "mean", "max"))
    share = "Share of the crops that selective pooling takes: the best-scoring ones of each class."
    pooling.number("fraction", 0.3, share)
    what = "What is pooled: `probabilities` or `logits`."
    pooling.string("on", "probabilities", what, choices=("probabilities", "logits"))


def pooling_of(values: flags.FlagValues) -> "Pooling":
    """What the flags say.

    Raises:
        ValueError: a value out of range.
    """
    from polynet_keras.evaluation.pooling import Pooling

    return Pooling(values.pooling, values.fraction, values.on)
