"""Growth by insertion: a deeper network, or one of richer modules, that begins with the weights of a trained one.

The residual units of the trained network keep their order and their weights. The grown network has new units between
them (Inception-ResNet 5-10-5 → 10-20-10), and new orders and ways in them (an `I + F` becomes `I + F + F²` or
`I + F + G`, with its block F).

Source: the authors' poster on PolyNet, CVPR 2017: "Ultra-deep models are initialized via block insertion, where new
blocks are initialized using Xavier." It does not say where the blocks go.
"""

import re
from collections.abc import Iterator

import keras
import numpy as np

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import size_text
from polynet_keras.engine.network import Network
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.training.insertion_plan import NEW_PATHS, InsertionPlan, Unit, plan_insertion

_UNIT = re.compile(r"(stage_[abc]_\d+)_([a-z]+)(?:_.*)?")


def insert(
    source: keras.Model, target: keras.Model, positions: str = "interleaved", new_paths: str = "xavier"
) -> InsertionPlan:
    """Gives a larger network the weights of a trained one, in place.

    The kept paths keep their residual factors. Everything else in the target stays unchanged: its own initialization,
    which is Xavier's (Glorot's), and the residual factors of new paths.

    Args:
        source: a trained network of `PolyNet` or `InceptionResNet`.
        target: a larger network of the same functions, with the same `width`, `share_projection`, image channels and
            classes.
        positions: see `plan_insertion`.
        new_paths: `"xavier"`, as on the poster: new paths change the outputs at once. `"zero"`: scale and offset of
            their last batch normalization are set to zero, so that the target computes the same as the source (where it
            uses its moving statistics), and new paths fade in as they learn.

    Returns:
        The plan of the insertion.

    Raises:
        ValueError: one of them is not such a network, the target is not larger or differs otherwise, or a new path
            cannot begin at zero because a kept one contains it. The target is unchanged then.

    Examples:
        >>> small, large = (InceptionResNet((1, depth, 1), width=0.1) for depth in (1, 2))
        >>> print(insert(small, large, new_paths="zero"))
        stage_a_01  ir  from stage_a_01 (ir)
        stage_b_01  ir  from stage_b_01 (ir)
        stage_b_02  ir  new
        stage_c_01  ir  from stage_c_01 (ir)
    """
    check_choice("new_paths", new_paths, NEW_PATHS)
    plan = plan_insertion(_structure_of(source), _structure_of(target), positions)
    pairs = kept_variables(source, target, plan)
    zeroed = [target.get_layer(name) for name in _last_normalizations(plan)] if new_paths == "zero" else []
    for theirs, ours in pairs:
        _copy(theirs, ours)
    for layer in zeroed:
        for variable in (layer.gamma, layer.beta):
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    for unit in plan.units:
        if unit.source is not None:
            _bring_factors(source, unit.source, target, unit)
    return plan


def insert_optimizer(source: keras.Model, target: keras.Model, plan: InsertionPlan) -> int:
    """Copies the source optimizer's state of kept variables (mean squares, momentum, ...) to the target's.

    The target keeps its own step count and learning rate. AdamW and LAMB correct for moments that are small at the
    beginning, so their first steps are smaller. Accumulated gradients of a pending update are not copied.

    Args:
        source: the source of `insert`, compiled.
        target: the target of `insert`, compiled with an optimizer of the same class. Both optimizers are built if
            needed.
        plan: the return value of `insert`.

    Returns:
        The number of variables copied.

    Raises:
        ValueError: there is no optimizer, or the two have different classes.

    Examples:
        >>> small, large = (InceptionResNet((1, depth, 1), width=0.1) for depth in (1, 2))
        >>> small.compile(RMSprop(1e-3))
        >>> large.compile(RMSprop(1e-3))
        >>> insert_optimizer(small, large, plan=insert(small, large))
        119
    """
    optimizers = []
    for name, model in (("source", source), ("target", target)):
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(f"the {name} is not compiled; it has no optimizer")
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        optimizers.append(getattr(optimizer, "inner_optimizer", optimizer))  # of one that scales the loss
    theirs, ours = optimizers
    if not (
        isinstance(theirs, type(ours)) or isinstance(ours, type(theirs))
    ):  # Keras's own, or with learning rates by part
        raise ValueError(
            f"the source was trained with {type(theirs).__name__}, the target is compiled with {type(ours).__name__}: "
            "neither can use the other's state"
        )
    slots = {variable.name: variable for variable in theirs.variables}
    carried = 0
    renamed = {_slot_prefix(after): _slot_prefix(before) for before, after in kept_variables(source, target, plan)}
    for variable in ours.variables:
        if variable.name.endswith("_gradient_accumulator"):
            continue
        prefix = next((p for p in _prefixes(variable.name) if p in renamed), None)
        found = None if prefix is None else slots.get(renamed[prefix] + variable.name.removeprefix(prefix))
        if found is not None:
            _copy(found, variable)
            carried += 1
    return carried


def kept_variables(
    source: keras.Model, target: keras.Model, plan: InsertionPlan
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns pairs (source's, target's) of all kept variables, except for the residual factors.

    Raises:
        ValueError: a variable of the source has no place in the target, or one of another shape, or the source lacks a
            variable that is not new in the target.
    """
    theirs, ours = dict(_variables(source)), dict(_variables(target))
    units = {unit.name: unit for unit in plan.units}
    pairs, used = [], set()
    for name, variable in ours.items():
        unit_name, part = _unit_and_part(name)
        unit, before = units.get(unit_name), name
        if unit is not None:
            if unit.source is None:
                continue  # new
            before = unit.source.name + name.removeprefix(unit.name)
            if before not in theirs and part not in unit.source.module.applications:
                continue  # a new path, though its block may have been inside another path
        if before not in theirs:
            raise ValueError(
                f"the target's {name!r} is not new, and the source has no {before!r}: build both with the same "
                "arguments but for the structure"
            )
        if theirs[before].shape != variable.shape:
            raise ValueError(
                f"the target's {name!r} is {size_text(variable.shape)}, the source's {before!r} "
                f"{size_text(theirs[before].shape)}: build both with the same width, image channels and classes"
            )
        pairs.append((theirs[before], variable))
        used.add(before)
    left = sorted(set(theirs) - used)
    if left:
        raise ValueError(f"the source's {left[0]!r} has no place in the target ({len(left)} such variables)")
    return pairs


def _structure_of(model: keras.Model) -> str:
    if not isinstance(model, Network) or model.structure is None:
        raise ValueError(
            f"the model {model.name!r} is not a PolyNet or Inception-ResNet; pass the result of PolyNet(), or "
            "set `structure` of a Network that was made of all its layers, such as a clone"
        )
    return model.structure


def _last_normalizations(plan: InsertionPlan) -> Iterator[str]:
    """Yields the names of the layers that end new paths."""
    for unit in plan.units:
        kept = unit.source.module.applications if unit.source else ()
        for term in unit.new_terms:
            if term in kept:
                raise ValueError(
                    f"{unit.name}: the new path {term} cannot begin at zero, for the trained net computes with it "
                    "inside another path; use new_paths='xavier'"
                )
            yield f"{unit.name}_{term.lower()}_projection_bn"


def _bring_factors(source: keras.Model, old: Unit, target: keras.Model, new: Unit) -> None:
    """Copies the residual factors of the paths that a unit keeps."""
    theirs, ours = source.get_layer(_sum_name(old)), target.get_layer(_sum_name(new))
    for factor in ("scale", "survival_probability"):
        before = keras.ops.convert_to_numpy(getattr(theirs, factor))
        after = np.array(keras.ops.convert_to_numpy(getattr(ours, factor)))
        for term, value in zip(old.module.terms, before, strict=True):
            after[new.module.terms.index(term)] = value
        getattr(ours, factor).assign(after)


def _copy(source: keras.Variable, target: keras.Variable) -> None:
    """Copies a variable's value. JAX's steps donate their variables' arrays, so two models must not share one."""
    target.assign(keras.ops.copy(source.value))


def _variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields variables by `layer/variable`, except for residual factors and random states."""
    for layer in model.layers:
        if not isinstance(layer, StochasticResidualScaling):
            for variable in layer.weights:
                yield f"{layer.name}/{variable.name}", variable


def _unit_and_part(name: str) -> tuple[str, str]:
    """Returns the unit of a variable, and the letter or application of its layer."""
    match = _UNIT.fullmatch(name.partition("/")[0])
    return (match[1], match[2].upper()) if match else ("", "")


def _sum_name(unit: Unit) -> str:
    return "_".join([unit.name, "sum", *unit.module.terms]).lower()


def _slot_prefix(variable: keras.Variable) -> str:
    """Returns the prefix of the names of an optimizer's variables for this one."""
    return variable.path.replace("/", "_") + "_"


def _prefixes(name: str) -> Iterator[str]:
    for place, character in enumerate(name):
        if character == "_":
            yield name[: place + 1]
