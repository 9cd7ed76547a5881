import pytest

from polynet_keras.training.recipe import Recipe


def test_saved_recipe_is_the_recipe(tmp_path):
    for recipe in (Recipe(), Recipe(data="x", residual_scale=(1.0, 0.7), epochs=3), Recipe(residual_scale=None)):
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_resize_has_the_released_ratio():
    assert Recipe(image_size=331).resize_size == 378
    assert Recipe(image_size=75).resize_size == 86


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
    ],
)
def test_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)
