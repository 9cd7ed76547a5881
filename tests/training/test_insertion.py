"""Nets that begin with the weights of smaller ones: where units go, what is kept to the bit, and what is refused."""

import itertools
from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.engine.network import Network
from polynet_keras.models import Structure
from polynet_keras.models.polynomial import Polynomial
from polynet_keras.training.insertion import insert, insert_optimizer
from polynet_keras.training.insertion_plan import plan_insertion
from polynet_keras.training.optimizers import RMSprop
from tests.reference import randomize

SMALL = "1 x [ir] | 2 x [ir] | 1 x [ir]"
ONE = (Polynomial.parse("I + F"),)
MODULES = {"ir": "I + F", "2-way": "I + F + G", "3-way": "I + F + G + H", "poly-2": "I + F + FF"}
LARGE = "2 x [2-way] | 1 x [poly-3, 2-way, ir, ir] | 1 x [mpoly-2]"


def net(structure, **arguments):
    shared = {"input_shape": (75, 75, 3), "classes": 5, "classifier_activation": None, "width": 0.0625}
    return PolyNet(weights=None, structure=structure, **{**shared, **arguments})


@pytest.fixture(scope="module")
def trained():
    model = net(SMALL, residual_scale=(0.4, 0.2))
    randomize(model, 0)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(3, 75, 75, 3)).astype("float32")


def outputs(model, images):
    """Layer by layer: for so few images a graph takes longer to make than to run."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def variables(model):
    return {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable)
        for layer in model.layers
        for variable in layer.weights
    }


def sources(plan, stage):
    return [unit.source and int(unit.source.name[-2:]) for unit in plan.units if unit.name.startswith(f"stage_{stage}")]


def test_the_posters_growth():
    first = plan_insertion("ir-5-10-5", "ir-10-20-10")
    assert sources(first, "a") == [1, None, 2, None, 3, None, 4, None, 5, None]
    second = plan_insertion("ir-10-20-10", "ir-20-56-20")
    found = sources(second, "b")
    assert [number for number in found if number] == list(range(1, 21))
    places = [place for place, number in enumerate(found) if number]
    assert {b - a for a, b in itertools.pairwise(places)} == {2, 3}  # of 56, 20 are as even as can be
    assert sources(plan_insertion("ir-5-10-5", "ir-10-20-10", "appended"), "c") == [1, 2, 3, 4, 5, *[None] * 5]


def test_units_find_places_that_fit_them():
    plan = plan_insertion("1 x [ir] | 2 x [poly-2, 2-way] | 1 x [ir]", "1 x [ir] | 4 x [poly-3, 2-way] | 1 x [3-way]")
    assert sources(plan, "b") == [1, 2, None, None, 3, 4, None, None]
    assert str(plan).splitlines()[:3] == [
        "stage_a_01  ir  from stage_a_01 (ir)",
        "stage_b_01  poly-3  from stage_b_01 (poly-2), new: FFF",
        "stage_b_02  2-way  from stage_b_02 (2-way)",
    ]
    assert str(plan).splitlines()[-1] == "stage_c_01  3-way  from stage_c_01 (ir), new: G, H"


@pytest.mark.parametrize("positions", ["interleaved", "appended"])
@pytest.mark.parametrize("seed", range(20))
def test_places_are_the_best_of_all(positions, seed):
    """Of all places in order that fit, those that are nearest to where units are wanted, by trying every one."""
    rng = np.random.default_rng(seed)
    old = rng.choice(["ir", "2-way", "poly-2"], rng.integers(1, 5))
    new = rng.choice(["ir", "2-way", "3-way", "poly-2", "I + F + G + FF"], rng.integers(len(old), 9))
    old, new = (tuple(Polynomial.parse(MODULES.get(name, name)) for name in names) for names in (old, new))
    wanted = [i if positions == "appended" else i * len(new) / len(old) for i in range(len(old))]
    costs = {
        places: sum((place - best) ** 2 for place, best in zip(places, wanted, strict=True))
        for places in itertools.combinations(range(len(new)), len(old))
        if all(set(unit.terms) <= set(new[place].terms) for unit, place in zip(old, places, strict=True))
    }
    source, target = (Structure((units, ONE, ONE)) for units in (old, new))
    if not costs:
        with pytest.raises(ValueError, match="do not fit into the target in their order"):
            plan_insertion(source, target, positions)
        return
    plan = plan_insertion(source, target, positions)
    found = sources(plan, "a")
    assert [number for number in found if number] == list(range(1, len(old) + 1))
    places = tuple(place for place, number in enumerate(found) if number)
    assert costs[places] == pytest.approx(min(costs.values()))


def test_a_plan_stays_what_it_is():
    plan = plan_insertion("ir-5-10-5", "ir-10-20-10")
    assert hash(plan) == hash(plan_insertion("ir-5-10-5", "ir-10-20-10", "interleaved"))
    for value, field in ((plan, "units"), (plan.units[0], "source")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, None)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "2 x [ir] | 1 x [ir] | 1 x [ir]",
            "1 x [ir] | 1 x [ir] | 1 x [ir]",
            "stage A has 2 units, and the target's has 1",
        ),
        ("1 x [ir] | 1 x [2-way] | 1 x [ir]", "1 x [ir] | 9 x [poly-3] | 1 x [ir]", r"stage_b_01 \(2-way\) and the 0"),
        ("ir-5-10-5", "deeper", "structure='»deeper', column 1: unknown structure"),
    ],
)
def test_plans_that_cannot_be(source, target, message):
    with pytest.raises(ValueError, match=message):
        plan_insertion(source, target)
    with pytest.raises(ValueError, match="positions='first' must be one of"):
        plan_insertion(source, target, "first")


@pytest.mark.parametrize("part", ["a keras.Model", "a Network", "a clone"])
def test_a_part_of_a_net_is_no_net(trained, part):
    """It may lack units, or the layers behind them: nothing of it is guessed from names."""
    if part == "a clone":
        source = keras.models.clone_model(trained)
    else:
        source = {"a keras.Model": keras.Model, "a Network": Network}[part](trained.inputs, trained.layers[-2].output)
    with pytest.raises(ValueError, match="is not a PolyNet or Inception-ResNet"):
        insert(source, trained)


@pytest.mark.parametrize(
    ("structure", "positions"),
    [
        (LARGE, "interleaved"),
        pytest.param("2 x [ir] | 4 x [ir] | 1 x [ir]", "appended", marks=pytest.mark.slow),
        pytest.param(LARGE, "appended", marks=pytest.mark.slow),
        pytest.param("2 x [ir] | 4 x [ir] | 1 x [ir]", "interleaved", marks=pytest.mark.slow),
    ],
)
def test_a_net_that_grew_from_zero_computes_what_the_old_one_does(trained, images, structure, positions):
    grown = net(structure, residual_scale=0.9)  # which the kept paths do not take
    insert(trained, grown, positions, new_paths="zero")
    expected = outputs(trained, images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(outputs(grown, images), expected, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_kept_and_what_is_new_is_as_it_was_built(trained, images):
    grown = net(LARGE, residual_scale=0.9)
    before, old = variables(grown), variables(trained)
    plan = insert(trained, grown)
    assert plan == plan_insertion(SMALL, LARGE, "interleaved") != plan_insertion(SMALL, LARGE, "appended")
    after = variables(grown)
    for name in ("stem_conv1/kernel", "reduction_b_branch1_conv1_bn/moving_variance", "predictions/bias"):
        np.testing.assert_array_equal(after[name], old[name])
    for unit in plan.units:
        mine = [name for name in after if name.startswith(f"{unit.name}_")]
        for name in mine:
            theirs = unit.source and name.replace(unit.name, unit.source.name)
            if theirs in old:
                np.testing.assert_array_equal(after[name], old[theirs])
            elif "_sum_" not in name:
                np.testing.assert_array_equal(after[name], before[name])
    assert after["stage_a_01_sum_f_g/scale"] == pytest.approx([0.4, 0.9])
    assert np.abs(outputs(grown, images) - outputs(trained, images)).max() > 0.01


def test_each_kept_path_brings_its_factors_and_its_variables():
    """Where the new paths come between the old ones: I + F + F² grows to I + F + G + F²."""
    source = net("1 x [mpoly-2] | 1 x [poly-2] | 1 x [ir]")
    randomize(source, 3)
    for name, scales, survivals in (
        ("stage_a_01_sum_f_gf", [0.3, 0.7], [0.9, 0.5]),
        ("stage_b_01_sum_f_ff", [1.5, 0.25], [0.6, 0.8]),
        ("stage_c_01_sum_f", [0.1], [0.4]),
    ):
        source.get_layer(name).scale.assign(scales)
        source.get_layer(name).survival_probability.assign(survivals)
    grown = net("1 x [I + F + G + GF] | 1 x [I + F + G + FF] | 1 x [3-way]", residual_scale=0.9)
    before, old = variables(grown), variables(source)
    insert(source, grown)
    after = variables(grown)
    for name, scales, survivals in (
        ("stage_a_01_sum_f_g_gf", [0.3, 0.9, 0.7], [0.9, 1, 0.5]),
        ("stage_b_01_sum_f_g_ff", [1.5, 0.9, 0.25], [0.6, 1, 0.8]),
        ("stage_c_01_sum_f_g_h", [0.1, 0.9, 0.9], [0.4, 1, 1]),
    ):
        assert after[f"{name}/scale"] == pytest.approx(scales)
        assert after[f"{name}/survival_probability"] == pytest.approx(survivals)
    others = [name for name in after if "_sum_" not in name]
    new = [name for name in others if name.startswith(("stage_b_01_g_", "stage_c_01_g_", "stage_c_01_h_"))]
    # In stage A the block G was there, inside GF: only what its own path adds to it is new.
    new += [name for name in others if name.startswith("stage_a_01_g_") and name not in old]
    assert "stage_a_01_g_projection/kernel" in new
    assert "stage_a_01_g_branch1_conv1/kernel" not in new
    for name in others:
        np.testing.assert_array_equal(after[name], before[name] if name in new else old[name], err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.125}, r"the target's 'stem_\w+/kernel' is 3 x 3 x .* build both with the same width"),
        pytest.param(
            {"classes": 7}, "the target's 'predictions/kernel' is 136 x 7, .* and classes", marks=pytest.mark.slow
        ),
        pytest.param(
            {"input_shape": (75, 75, 1)}, "the target's 'stem_conv1/kernel' is 3 x 3 x", marks=pytest.mark.slow
        ),
        pytest.param(
            {"include_top": False},
            "the source's 'predictions/bias' has no place in the target",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_nets_that_are_not_alike_are_refused(trained, arguments, message):
    if not arguments.get("include_top", True):
        grown = PolyNet(False, None, input_shape=(75, 75, 3), structure=LARGE, width=0.0625)
    else:
        grown = net(LARGE, **arguments)
    before = variables(grown)
    with pytest.raises(ValueError, match=message):
        insert(trained, grown)
    after = variables(grown)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_other_refusals(trained):
    grown = net(LARGE)
    with pytest.raises(ValueError, match="stage A has 2 units, and the target's has 1"):
        insert(grown, trained)
    with pytest.raises(ValueError, match="new_paths='he' must be one of"):
        insert(trained, grown, new_paths="he")
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="is not a PolyNet or Inception-ResNet"):
        insert(keras.Model(inputs, keras.layers.Dense(2)(inputs)), grown)
    shared = net("1 x [poly-2] | 1 x [ir] | 1 x [ir]", share_projection=True)
    with pytest.raises(ValueError, match="stage_a_01_ff_projection/kernel' is not new"):
        insert(shared, net("1 x [poly-3] | 1 x [ir] | 1 x [ir]"))
    inner = net("1 x [I + FF] | 1 x [ir] | 1 x [ir]")
    with pytest.raises(ValueError, match="the new path F cannot begin at zero"):
        insert(inner, net("1 x [poly-2] | 1 x [ir] | 1 x [ir]"), new_paths="zero")


def compiled(structure, **arguments):
    """A net of a structure with an optimizer that is built, all of whose variables hold numbers of their own."""
    model = net(structure, residual_scale=0.2)
    settings = {"momentum": 0.9, "centered": True, "gradient_accumulation_steps": 2, **arguments}
    model.compile(RMSprop(1e-3, **settings), "mse")
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    random = np.random.default_rng(len(model.layers))
    for variable in optimizer.variables:
        if variable.dtype == "float32":
            variable.assign(random.uniform(0.1, 1, variable.shape))
    return model


def test_the_optimizer_goes_on_with_what_is_kept():
    """Mean squares, averages and momenta go where their variables went. Those of new variables stay, and so do the
    count of steps, the learning rate, and gradients that were accumulated."""
    source, grown = compiled("1 x [ir] | 1 x [ir] | 1 x [ir]"), compiled("1 x [2-way] | 2 x [ir] | 1 x [ir]")
    (count,) = [variable for variable in source.optimizer.variables if variable.name == "iteration"]
    count.assign(7)
    plan = insert(source, grown)
    theirs = {variable.name: keras.ops.convert_to_numpy(variable) for variable in source.optimizer.variables}
    before = {variable.name: keras.ops.convert_to_numpy(variable) for variable in grown.optimizer.variables}
    carried = insert_optimizer(source, grown, plan)
    after = {variable.name: keras.ops.convert_to_numpy(variable) for variable in grown.optimizer.variables}
    assert carried == 3 * len(source.trainable_variables)
    units = {unit.name: unit.source and unit.source.name for unit in plan.units}
    expected = {}
    for name, value in before.items():
        unit = next((unit for unit in units if name.startswith(f"{unit}_")), None)
        old = name if unit is None else units[unit] and name.replace(unit, units[unit])
        is_slot = name.endswith(("_velocity", "_momentum", "_average_gradient"))
        expected[name] = theirs[old] if is_slot and old in theirs else value
    assert sum(not np.array_equal(expected[name], before[name]) for name in before) == carried
    for name, value in after.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert any(name.endswith("_gradient_accumulator") for name in after)
    assert int(grown.optimizer.iterations) == 0


@pytest.mark.slow
def test_optimizers_that_scale_the_loss_are_looked_into():
    structure = "1 x [ir] | 1 x [ir] | 1 x [ir]"
    source, grown = compiled(structure, gradient_accumulation_steps=None), net(structure)
    scaled = keras.optimizers.LossScaleOptimizer(RMSprop(1e-3, momentum=0.9, centered=True))
    grown.compile(scaled, "mse")
    plan = insert(source, grown)
    assert insert_optimizer(source, grown, plan) == 3 * len(source.trainable_variables)  # and it is built for that
    (ours,) = [v for v in scaled.inner_optimizer.variables if v.name == "stem_conv1_kernel_velocity"]
    (theirs,) = [v for v in source.optimizer.variables if v.name == "stem_conv1_kernel_velocity"]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs))
    assert np.abs(keras.ops.convert_to_numpy(ours)).min() > 0


def test_optimizers_that_do_not_fit():
    source, grown = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]) for _ in range(2))
    plan = plan_insertion(SMALL, LARGE)
    with pytest.raises(ValueError, match="the source is not compiled; it has no optimizer"):
        insert_optimizer(source, grown, plan)
    source.compile(RMSprop())
    with pytest.raises(ValueError, match="the target is not compiled"):
        insert_optimizer(source, grown, plan)
    grown.compile("adam")
    with pytest.raises(ValueError, match="trained with RMSprop, the target is compiled with Adam"):
        insert_optimizer(source, grown, plan)
