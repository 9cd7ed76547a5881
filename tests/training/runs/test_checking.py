"""What is refused before a run begins."""

import pytest

from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.phases import PhaseSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs import checking

UNFREEZING = Recipe(
    start=Start("fashion_mnist", unfreezing=(PhaseSettings("stem", 2),)), optimizer=OptimizerSettings(ema_momentum=0.9)
)


@pytest.mark.parametrize("installed", ["3.14.0", "3.9.2"])
def test_an_older_keras_would_swap_averages_of_other_layers(monkeypatch, installed):
    monkeypatch.setattr(checking, "version", lambda name: installed)
    with pytest.raises(ValueError, match=rf"needs keras 3.15 or later, and {installed} is installed: pip install"):
        checking.check_phases(UNFREEZING)
    checking.check_phases(UNFREEZING.replaced({"optimizer.ema_momentum": 0.0}))
    checking.check_phases(UNFREEZING.replaced({"start.unfreezing": None}))


@pytest.mark.parametrize("installed", ["3.15.0", "3.15.1", "4.0.0"])
def test_a_later_keras_swaps_its_own(monkeypatch, installed):
    monkeypatch.setattr(checking, "version", lambda name: installed)
    checking.check_phases(UNFREEZING)


def test_cached_features_have_no_range_test():
    recipe = Recipe(start=Start("fashion_mnist", frozen_through="stage_b", cache_features=1))
    with pytest.raises(ValueError, match="with cache_features=1 the run does not: say --cache_features=0 for the test"):
        checking.check_range_test(recipe)
    checking.check_range_test(recipe.replaced({"start.cache_features": 0}))
