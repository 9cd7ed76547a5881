"""Phases of a run as values: what they may be, in Python and in a file."""

import json

import pytest

from polynet_keras.cli.recipe_from_flags import unfreezing_of
from polynet_keras.training.recipes.phases import PhaseSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.start import Start

PHASES = (PhaseSettings("stage_c", 3), PhaseSettings("stage_b", 4, 0.001))


def test_the_last_phase_has_the_epochs_that_are_left():
    recipe = Recipe(epochs=10, start=Start("fashion_mnist", frozen_through="stem", unfreezing=PHASES))
    assert recipe.phases == [*PHASES, PhaseSettings("stem", 3)]
    assert Recipe(epochs=10).phases == [PhaseSettings(None, 10)]


def test_in_a_file_a_phase_is_an_object(tmp_path):
    recipe = Recipe(start=Start("fashion_mnist", unfreezing=PHASES))
    recipe.save(tmp_path / "recipe.json")
    saved = json.loads((tmp_path / "recipe.json").read_text())["start"]["unfreezing"]
    assert saved == [
        {"frozen_through": "stage_c", "epochs": 3, "learning_rate": None},
        {"frozen_through": "stage_b", "epochs": 4, "learning_rate": 0.001},
    ]
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    start = {"weights": "fashion_mnist", "unfreezing": [{"frozen_through": "stage_c", "epochs": 3}, saved[1]]}
    (tmp_path / "part.json").write_text(json.dumps({"start": start}))
    assert Recipe.load(tmp_path / "part.json") == recipe
    assert recipe.fingerprint != Recipe(start=Start("fashion_mnist")).fingerprint


def test_on_the_command_line():
    assert unfreezing_of("stage_c:3, stage_b:4:1e-3") == PHASES
    assert unfreezing_of(None) is None
    assert Start("fashion_mnist", unfreezing=[]) == Start("fashion_mnist")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unfreezing": "stage_c:3"},
            "unfreezing='stage_c:3' must be a list of phases, each with frozen_through",
        ),
        ({"unfreezing": [("stage_c", 3)]}, r"unfreezing=\[\('stage_c', 3\)\] must be a list of phases"),
        ({"unfreezing": [{"frozen_through": "stage_c"}]}, "must be a list of phases"),
        ({"unfreezing": [{"frozen_through": "stage_c", "epochs": 1, "rate": 1}]}, "must be a list of phases"),
        ({"unfreezing": [{"frozen_through": "stage_c", "epochs": "1"}]}, "unfreezing: epochs='1' must be an integer"),
        ({"unfreezing": (PhaseSettings("predictions", 1),)}, "goes from frozen_through='predictions' to None: each"),
        ({"unfreezing": PHASES[::-1]}, "goes from frozen_through='stage_b' to 'stage_c'"),
        ({"unfreezing": PHASES, "frozen_through": "stage_b"}, "goes from frozen_through='stage_b' to 'stage_b'"),
        ({"unfreezing": (PhaseSettings(None, 1),)}, "goes from frozen_through=None to None"),
        (
            {"unfreezing": PHASES, "carry_optimizer": True},
            "carry_optimizer with unfreezing: each phase begins with a",
        ),
        ({"unfreezing": PHASES, "weights": None}, "^unfreezing needs weights: random ones are trained"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ValueError, match=message):
        Start(**{"weights": "a.keras", **settings})


def test_a_last_phase_without_epochs():
    with pytest.raises(ValueError, match="epochs=7 leaves none for the phase after unfreezing, which takes 7"):
        Recipe(epochs=7, start=Start("fashion_mnist", unfreezing=PHASES))
