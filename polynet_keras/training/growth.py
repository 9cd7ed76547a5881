"""Growth of a trained network by insertion, to a larger network that a training can begin with."""

from collections.abc import Sequence
from typing import Any

import keras

from polynet_keras.applications import PolyNet
from polynet_keras.models.structure import Structure
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.training.insertion import insert, insert_optimizer
from polynet_keras.training.insertion_plan import plan_insertion


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
    """Returns a network of another structure that begins with the weights of a trained one.

    Args:
        source: a trained network of `PolyNet` or `InceptionResNet` with its classifier.
        structure: structure of the larger network.
        width: width of both.
        residual_scale: factors of new paths, as in `PolyNet`; kept paths keep their own.
        positions: as in `training.insertion.insert`.
        new_paths: as in `training.insertion.insert`.
        carry_optimizer: whether to compile the network, with an optimizer of the source's settings and its state for
            kept variables (`insert_optimizer`). Its schedule begins anew, and it decays all weights.

    Raises:
        ValueError: as `training.insertion.insert` and `insert_optimizer`.

    Examples:
        >>> small = InceptionResNet((1, 1, 1), width=0.1)
        >>> large = grown(small, "1 x [2-way] | 2 x [ir] | 1 x [ir]", width=0.1)
        >>> large.structure
        '1 x [2-way] | 2 x [ir] | 1 x [ir]'
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
        check_optimizer(source, "carry_optimizer")
        optimizer: Any = getattr(source.optimizer, "inner_optimizer", source.optimizer)  # compile wraps it again
        target.compile(type(optimizer).from_config(optimizer.get_config()), source.loss)
        insert_optimizer(source, target, plan)
    return target


def carry_optimizer(file: str, model: keras.Model, structure: Structure) -> int:
    """Copies the optimizer state in a file of the same network to a compiled model's optimizer.

    Args:
        file: a `.keras` file.
        model: the compiled model.
        structure: structure of both.

    Returns:
        The number of variables copied.

    Raises:
        ValueError: the file's model has no optimizer, or another one.
    """
    if not file.endswith(".keras"):
        raise ValueError(f"carry_optimizer: {file} holds no optimizer; a .keras file or a run folder does")
    source = load_model_file(file, compile=True)
    check_optimizer(source, f"carry_optimizer, {file}")
    return insert_optimizer(source, model, plan_insertion(structure, structure))


def check_optimizer(source: keras.Model, what: str) -> None:
    """Raises a `ValueError` unless the model has an optimizer with state to carry."""
    optimizer = getattr(source, "optimizer", None)
    if optimizer is None:
        raise ValueError(f"{what}: the net was saved without its optimizer")
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    slots = [v for v in inner.variables if len(v.shape) > 0]
    if not any(keras.ops.convert_to_numpy(keras.ops.any(v != 0)) for v in slots):
        raise ValueError(f"{what}: the net's optimizer has not trained yet, or in another precision than here")
