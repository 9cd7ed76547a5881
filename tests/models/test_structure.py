import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polynet_keras.models.cost import list_structures
from polynet_keras.models.polynomial import NAMED, Polynomial, PolynomialSyntaxError
from polynet_keras.models.structure import MAX_MODULES, STRUCTURES, Structure

modules = st.sampled_from([*NAMED.values(), Polynomial.parse("I + F + G + HF")])
stages = st.lists(modules, min_size=1, max_size=8).map(tuple)


@given(st.tuples(stages, stages, stages))
def test_parse_of_print_is_the_identity(stages):
    structure = Structure(stages)
    assert Structure.parse(str(structure)) == structure
    assert str(Structure.parse(str(structure))) == str(structure)


def test_g5_is_that_of_the_paper():
    text = "10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]"
    assert str(STRUCTURES["polynet-g5"]) == text
    assert Structure.parse(text) == Structure.parse("polynet-g5")
    assert STRUCTURES["polynet-g5"].module_count == 40


def test_ways_to_write_one_structure():
    assert Structure.parse("1x[I+F, ir]|3 × [ ir ]| 1 x [I + F + G]") == Structure.parse(
        "2 x [ir] | 3 x [ir] | 1 x [2-way]"
    )


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("1 x [ir] | 1 x [ir]", 19, "expected 3 stages"),
        ("1 x [ir] | 1 x [ir] | 1 x [ir] | 1 x [ir]", 31, "expected 3 stages"),
        ("1 x [ir] | [ir] | 1 x [ir]", 11, "expected the stage's count"),
        ("1 x [ir] | 1 x [ir | 1 x [ir]", 18, "expected ']'"),
        ("1 x [ir]", 8, "expected 3 stages"),
        ("ir | ir | ir", 0, "expected the stage's count"),
        ("1 x [ir] |  [ir] | 1 x [ir]", 12, "expected the stage's count"),
        ("0 x [ir] | 1 x [ir] | 1 x [ir]", 0, "holds 1 to 1000"),
        ("1 x [ir] | 10000 x [ir] | 1 x [ir]", 11, "holds 1 to 1000"),
        ("1 x [ir] |  1001 x [ir] | 1 x [ir]", 12, "holds 1 to 1000"),
        ("1 x [ir] | 501 x [ir, ir] | 1 x [ir]", 11, "holds 1 to 1000"),
        ("1 x [ir] | 99999999999999999999 x [ir] | 1 x [ir]", 11, "holds 1 to 1000"),
        ("1 x [ir] | 1 x [ir, I + F + Q] | 1 x [ir]", 28, "unknown letter 'Q'"),
        ("1 x [ir] | 1 x [ir,] | 1 x [ir]", 19, "expected a module"),
        ("1 x [ir] | 1 x [poly-9] | 1 x [ir]", 16, "poly-2, poly-3"),
    ],
)
def test_a_fault_is_named_with_its_position(text, position, reason):
    with pytest.raises(PolynomialSyntaxError) as info:
        Structure.parse(text)
    assert info.value.position == position
    assert reason in str(info.value)
    assert str(info.value).startswith("structure='")
    assert f"{text[:position]}»{text[position:]}" in str(info.value)


def test_a_stage_holds_up_to_a_thousand_modules():
    assert MAX_MODULES == 1000
    unit = (NAMED["ir"],)
    most = Structure((unit, unit * 1000, unit))
    assert Structure.parse("1 x [ir] | 1000 x [ir] | 0000001 x [ir]") == most
    assert Structure.parse("1 x [ir] | 500 x [ir, ir] | 1 x [ir]") == most
    assert Structure.inception_resnet((1, 1000, 1)) == most
    assert most.module_count == 1002
    for stages, stage, count in (((unit, unit * 1001, unit), "B", 1001), (((), unit, unit), "A", 0)):
        with pytest.raises(ValueError, match=f"^stage {stage} must hold 1 to 1000 modules; got {count}$"):
            Structure(stages)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_there_are_three_stages(count):
    with pytest.raises(ValueError, match=f"^a structure has 3 stages; got {count}$"):
        Structure(((NAMED["ir"],),) * count)


def test_a_stage_is_written_as_its_shortest_pattern():
    ir, two_way = NAMED["ir"], NAMED["2-way"]
    stages = ((ir, two_way, ir), (ir, ir, two_way) * 2, (ir,) * 6)
    assert Structure(stages).stage_texts == ("1 x [ir, 2-way, ir]", "2 x [ir, ir, 2-way]", "6 x [ir]")


def test_a_structure_is_passed_on_and_a_name_is_read_loosely():
    structure = Structure.parse("ir-5-10-5")
    assert Structure.parse(structure) is structure
    assert Structure.parse(" IR-5-10-5 ") is structure


@pytest.mark.parametrize("structure", ["polynet-g6", "", 5, None])
def test_an_unknown_structure_is_answered_with_the_known_ones(structure):
    with pytest.raises(ValueError, match=r"polynet-g5, ir-5-10-5, ir-10-20-10, ir-20-56-20"):
        Structure.parse(structure)


@pytest.mark.parametrize(
    "stages",
    [
        "2-way",
        ("ir", "ir", "ir"),
        (NAMED["ir"],) * 3,
        ((NAMED["ir"],), (NAMED["ir"],), NAMED["ir"]),
        ((NAMED["ir"],), (NAMED["ir"],), (NAMED["ir"], "ir")),
        "",
    ],
)
def test_stages_are_polynomials(stages):
    with pytest.raises(ValueError, match=r"Structure.parse reads texts"):
        Structure(stages)


def test_lists_make_the_same_value():
    lists = Structure([[NAMED["ir"]], [NAMED["ir"]], [NAMED["ir"]]])
    assert lists == Structure.inception_resnet(np.array([1, 1, 1]))
    assert hash(lists) == hash(Structure.parse("1 x [ir] | 1 x [ir] | 1 x [ir]"))


@pytest.mark.parametrize("depths", [(1, 2), (1, 2, 3, 4), (), "555", 5, None])
def test_other_than_three_depths_are_refused(depths):
    with pytest.raises(ValueError, match="^depths must be 3 integers"):
        Structure.inception_resnet(depths)


@pytest.mark.parametrize("depths", [(0, 1, 1), (1, -1, 1), (1, 2.0, 1), (1, True, 1), (1, 1, 1001), (1, 1, "1")])
def test_impossible_depths_are_refused(depths):
    with pytest.raises(ValueError, match="^each of depths must be an integer from 1 to 1000"):
        Structure.inception_resnet(depths)


def test_listed_structures_have_the_parameters_of_the_design():
    parameters = {card.name: card.parameters for card in list_structures()}
    assert parameters == {
        "polynet-g5": 95_366_600,
        "ir-5-10-5": 31_574_440,
        "ir-10-20-10": 54_048_840,
        "ir-20-56-20": 117_766_536,
    }
