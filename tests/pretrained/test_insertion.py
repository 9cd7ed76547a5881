"""Nets that begin with the weights of smaller ones: where units go, what is kept to the bit, and what is refused."""

import itertools

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.models import Structure
from polynet_keras.pretrained.insertion import insert, insert_optimizer, plan_insertion, structure_of
from polynet_keras.training.optimizers import RMSprop
from tests.reference import randomize

SMALL = "1 x [ir] | 2 x [ir] | 1 x [ir]"
LARGE = "2 x [2-way] | 2 x [poly-3, 2-way] | 1 x [mpoly-3]"


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


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "2 x [ir] | 1 x [ir] | 1 x [ir]",
            "1 x [ir] | 1 x [ir] | 1 x [ir]",
            "stage A has 2 units, and the target's has 1",
        ),
        ("1 x [ir] | 1 x [2-way] | 1 x [ir]", "1 x [ir] | 9 x [poly-3] | 1 x [ir]", r"stage_b_01 \(2-way\) and the 0"),
        ("ir-5-10-5", "deeper", "structure='deeper' is not known"),
    ],
)
def test_plans_that_cannot_be(source, target, message):
    with pytest.raises(ValueError, match=message):
        plan_insertion(source, target)
    with pytest.raises(ValueError, match="positions='first' must be one of"):
        plan_insertion(source, target, "first")


@pytest.mark.parametrize("structure", [SMALL, LARGE, "11 x [I + F + GF] | 1 x [I + FF] | 1 x [I + F + G + HF]"])
def test_the_structure_of_a_net_is_read_off_it(structure):
    assert structure_of(net(structure)) == Structure.parse(structure)


@pytest.mark.parametrize("positions", ["interleaved", "appended"])
@pytest.mark.parametrize("structure", ["3 x [ir] | 5 x [ir] | 2 x [ir]", LARGE])
def test_a_net_that_grew_from_zero_computes_what_the_old_one_does(trained, images, structure, positions):
    grown = net(structure, residual_scale=0.9)  # which the kept paths do not take
    insert(trained, grown, positions, new_paths="zero")
    expected = trained.predict(images, verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(grown.predict(images, verbose=0), expected, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_kept_and_what_is_new_is_as_it_was_built(trained, images):
    grown = net(LARGE, residual_scale=0.9)
    before, old = variables(grown), variables(trained)
    plan = insert(trained, grown)
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
    assert np.abs(grown.predict(images, verbose=0) - trained.predict(images, verbose=0)).max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.125}, r"the target's 'stem_\w+/kernel' has the shape .* build both with the same width"),
        ({"classes": 7}, "the target's 'predictions/.*' has the shape .* and classes"),
        ({"input_shape": (75, 75, 1)}, "the target's 'stem_conv1/kernel' has the shape"),
        ({"include_top": False}, "the source's 'predictions/bias' has no place in the target"),
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
    with pytest.raises(ValueError, match="is no PolyNet or Inception-ResNet"):
        insert(keras.Model(inputs, keras.layers.Dense(2)(inputs)), grown)
    shared = net("1 x [poly-2] | 1 x [ir] | 1 x [ir]", share_projection=True)
    with pytest.raises(ValueError, match="stage_a_01_ff_projection/kernel' is no new one"):
        insert(shared, net("1 x [poly-3] | 1 x [ir] | 1 x [ir]"))
    inner = net("1 x [I + FF] | 1 x [ir] | 1 x [ir]")
    with pytest.raises(ValueError, match="the new path F cannot begin at zero"):
        insert(inner, net("1 x [poly-2] | 1 x [ir] | 1 x [ir]"), new_paths="zero")


def test_the_optimizer_goes_on_with_what_is_kept(images):
    """Mean squares and momenta go where their variables went; those of new variables stay at zero."""
    labels = np.array([0, 1, 2])

    def compiled(structure):
        model = net(structure, residual_scale=0.2)
        model.compile(RMSprop(1e-3, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    source, grown = compiled(SMALL), compiled(LARGE)
    randomize(source, 2)
    source.fit(images, labels, batch_size=3, epochs=2, verbose=0)
    plan = insert(source, grown)
    carried = insert_optimizer(source, grown, plan)
    assert carried == 2 * len(source.trainable_variables)  # mean square and momentum
    theirs = {variable.name: keras.ops.convert_to_numpy(variable) for variable in source.optimizer.variables}
    ours = {variable.name: keras.ops.convert_to_numpy(variable) for variable in grown.optimizer.variables}

    def of(names, layer, slot):
        (found,) = [value for name, value in names.items() if layer in name and name.endswith(slot)]
        return found

    for slot in ("velocity", "momentum"):
        expected = of(theirs, "stage_b_02_f_branch2_conv1_kernel", slot)
        (name,) = [unit.name for unit in plan.units if unit.source and unit.source.name == "stage_b_02"]
        assert np.abs(expected).max() > 0
        np.testing.assert_array_equal(of(ours, f"{name}_f_branch2_conv1_kernel", slot), expected)
        assert not of(ours, "stage_a_01_g_branch2_conv1_kernel", slot).any()
    grown.compile("adam", "mse")
    with pytest.raises(ValueError, match="trained with RMSprop, the target is compiled with Adam"):
        insert_optimizer(source, grown, plan)
    with pytest.raises(ValueError, match="the target is not compiled"):
        insert_optimizer(source, net(LARGE), plan)
