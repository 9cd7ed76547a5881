from pathlib import Path

import numpy as np
import pytest

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.models import Structure
from polynet_keras.training.recipe import Recipe


def test_saved_recipe_is_the_recipe(tmp_path):
    for recipe in (
        Recipe(),
        Recipe(data="x", residual_scale=(1.0, 0.7), epochs=3),
        Recipe(residual_scale=None),
        Recipe(data=Path("x"), seed=np.int64(3), structure=Structure.parse("ir-5-10-5")),
    ):
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_resize_has_the_released_ratio():
    assert Recipe(image_size=331).resize_size == 378
    assert Recipe(image_size=75).resize_size == 86


def test_the_facts_tell_recipes_apart():
    facts = Recipe().facts()
    other = Recipe(augmentation=Augmentation(mixup=0.2), seed=1).facts()
    assert {name for name in facts if facts[name] != other[name]} == {"augmentation.mixup", "seed"}
    assert other["augmentation.mixup"] == "0.2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "deep"}, "structure='deep' is not known"),
        ({"residual_scale": (0.1, 0.2, 0.3)}, "residual_scale="),
        ({"width": -0.5}, "width=-0.5 must be a finite number > 0"),
        ({"learning_rate": 0}, "learning_rate=0 must be a finite number > 0"),
        ({"image_size": 74}, "image_size=74 must be an integer of at least 75"),
        ({"epochs": 0}, "epochs=0 must be an integer of at least 1"),
        ({"batch_size": 1.5}, "batch_size=1.5 must be"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"seed": 2**32}, "seed=4294967296 must be at most 4294967295"),
        ({"data": 5}, "data=5 must be 'digits' or 'fashion_mnist' or the path"),
    ],
)
def test_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "not a recipe"), ('{"colour": 1}', "colour"), ("{", "not a recipe")]
)
def test_a_file_without_a_recipe_is_named(tmp_path, text, message):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=rf"recipe.json: .*{message}"):
        Recipe.load(tmp_path / "recipe.json")
    with pytest.raises(ValueError, match=r"none.json: cannot be read: No such file"):
        Recipe.load(tmp_path / "none.json")
