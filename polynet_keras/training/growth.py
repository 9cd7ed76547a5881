"""A trained net grown by insertion: the larger net that a training can begin with."""

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
    """A net of another structure that begins with the weights of a trained one.

    Args:
        source: a trained net of `PolyNet` or `InceptionResNet` with its classifier.
        structure: of the larger net.
        width: of both.
        residual_scale: of what is new, as `PolyNet` takes it; kept paths bring their own.
        positions: as `training.insertion.insert` takes it.
        new_paths: as `training.insertion.insert` takes it.
        carry_optimizer: whether the net is compiled, with an optimizer of the source's settings that remembers what the
            source's does of kept variables (`insert_optimizer`). Its schedule begins anew, and it decays all weights.

    Raises:
        ValueError: as `training.insertion.insert` and `insert_optimizer`.
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
    """Gives a compiled model's optimizer what that of a file remembers of the same net.

    Args:
        file: `.keras`.
        model: compiled.
        structure: of both.

    Returns:
        Of how many variables.

    Raises:
        ValueError: the file's model has no optimizer, or another one.
    """
    if not file.endswith(".keras"):
        raise ValueError(f"carry_optimizer: {file} holds no optimizer; a .keras file or a run folder does")
    source = load_model_file(file, compile=True)
    check_optimizer(source, f"carry_optimizer, {file}")
    return insert_optimizer(source, model, plan_insertion(structure, structure))


def check_optimizer(source: keras.Model, what: str) -> None:
    """Raises a `ValueError` unless the model has an optimizer that remembers something."""
    optimizer = getattr(source, "optimizer", None)
    if optimizer is None:
        raise ValueError(f"{what}: the net was saved without its optimizer")
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    slots = [v for v in inner.variables if len(v.shape) > 0]
    if not any(keras.ops.convert_to_numpy(keras.ops.any(v != 0)) for v in slots):
        raise ValueError(f"{what}: the net's optimizer has not trained yet, or in another precision than here")
