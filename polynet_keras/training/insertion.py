"""Growth by insertion: a deeper net, or one of richer modules, that begins with the weights of a trained one.

The residual units of the trained net keep their order and their weights; the grown net has new units between them
(Inception-ResNet 5-10-5 → 10-20-10), and new orders and ways in them (an `I + F` becomes `I + F + F²` or `I + F + G`,
its block F).

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
    """Gives a larger net the weights of a trained one, in place.

    The kept paths bring their residual factors. All else of the target stays as it is: the initialization it was built
    with, which is Xavier's (Glorot's), and the residual factors of new paths.

    Args:
        source: a trained net of `PolyNet` or `InceptionResNet`.
        target: a net of the same functions that is larger, with the same `width`, `share_projection`, channels of the
            image and classes.
        positions: see `plan_insertion`.
        new_paths: `"xavier"`, as on the poster: they change the outputs at once. `"zero"`: scale and offset of their
            last batch normalization are set to zero, so that the target computes what the source does (where its
            moving statistics are used) and new paths fade in as they learn.

    Returns:
        The plan that was followed.

    Raises:
        ValueError: one of them is no such net, the target is not larger, differs otherwise, or a new path cannot begin
            at zero because a kept one computes with it. The target is as it was.
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
    """Gives the target's optimizer what the source's remembers of the kept variables (mean squares, momentum, ...).

    Its own count of steps and learning rate stay; AdamW and LAMB, which take early moments for too small, begin with
    smaller steps for it. Gradients that were accumulated for an update to come are left behind.

    Args:
        source: as `insert` took it, compiled.
        target: as `insert` took it, compiled with an optimizer of the same class. Both optimizers are built.
        plan: what `insert` returned.

    Returns:
        How many variables were carried.

    Raises:
        ValueError: no optimizer, or two of different classes.
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
            "what one remembers means nothing to the other"
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
    """(of the source, of the target): the variables of all that is kept, but for the residual factors.

    Raises:
        ValueError: a variable of the source has no place in the target, or one of another shape, or the target lacks
            one for what is kept.
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
                continue  # of a new path, though its block may have been inside of another one
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
            f"the model {model.name!r} is not a PolyNet or Inception-ResNet; pass what PolyNet() returned, or "
            "set `structure` of a Network that was made of all its layers, such as a clone"
        )
    return model.structure


def _last_normalizations(plan: InsertionPlan) -> Iterator[str]:
    """The names of the layers that end new paths."""
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
    """The residual factors of the paths that a unit keeps."""
    theirs, ours = source.get_layer(_sum_name(old)), target.get_layer(_sum_name(new))
    for factor in ("scale", "survival_probability"):
        before = keras.ops.convert_to_numpy(getattr(theirs, factor))
        after = np.array(keras.ops.convert_to_numpy(getattr(ours, factor)))
        for term, value in zip(old.module.terms, before, strict=True):
            after[new.module.terms.index(term)] = value
        getattr(ours, factor).assign(after)


def _copy(source: keras.Variable, target: keras.Variable) -> None:
    """JAX's steps give their variables' arrays away: two models may not share one."""
    target.assign(keras.ops.copy(source.value))


def _variables(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """By `layer/variable`, but for the residual factors and states of random numbers."""
    for layer in model.layers:
        if not isinstance(layer, StochasticResidualScaling):
            for variable in layer.weights:
                yield f"{layer.name}/{variable.name}", variable


def _unit_and_part(name: str) -> tuple[str, str]:
    """Of a variable: its unit, and the letter or application that its layer is of."""
    match = _UNIT.fullmatch(name.partition("/")[0])
    return (match[1], match[2].upper()) if match else ("", "")


def _sum_name(unit: Unit) -> str:
    return "_".join([unit.name, "sum", *unit.module.terms]).lower()


def _slot_prefix(variable: keras.Variable) -> str:
    """What the names of an optimizer's variables for this one begin with."""
    return variable.path.replace("/", "_") + "_"


def _prefixes(name: str) -> Iterator[str]:
    for place, character in enumerate(name):
        if character == "_":
            yield name[: place + 1]
