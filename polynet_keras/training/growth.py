"""A trained net grown by insertion: the larger net that a training can begin with."""

from collections.abc import Sequence

import keras

from polynet_keras.applications import PolyNet
from polynet_keras.models import Structure
from polynet_keras.pretrained.insertion import insert, insert_optimizer


def grown(
    source: keras.Model,
    structure: str | Structure,
    *,
    width: float,
    residual_scale: float | Sequence[float] | None = None,
    positions: str = "interleaved",
    new_paths: str = "xavier",
    carry_optimizer: bool = False,
) -> keras.Model:
    """A net of another structure that begins with the weights of a trained one.

    Args:
        source: a trained net of `PolyNet` or `InceptionResNet` with its classifier.
        structure: of the larger net.
        width: of both.
        residual_scale: of what is new, as `PolyNet` takes it; kept paths bring their own.
        positions, new_paths: as `pretrained.insertion.insert` takes them.
        carry_optimizer: whether the net is compiled, with the source's optimizer and loss, and the optimizer remembers
            what the source's does of kept variables.

    Raises:
        ValueError: as `pretrained.insertion.insert` and `insert_optimizer`.
    """
    target = PolyNet(
        weights=None,
        input_shape=source.input_shape[1:],
        classes=source.output_shape[-1],
        classifier_activation=source.layers[-1].activation,
        structure=structure,
        width=width,
        residual_scale=residual_scale,
    )
    plan = insert(source, target, positions, new_paths)
    if carry_optimizer:
        if source.optimizer is None:
            raise ValueError("carry_optimizer: the net was saved without its optimizer")
        target.compile(type(source.optimizer).from_config(source.optimizer.get_config()), source.loss)
        insert_optimizer(source, target, plan)
        target.optimizer.iterations.assign(source.optimizer.iterations)  # it has trained
    return target
