"""What `train --weights` takes over from the weights, unless it is told otherwise."""

import pytest
from absl import flags

from polynet_keras.cli.main import main
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import recipe_of
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.pretrained import ModelCard, published
from polynet_keras.training.recipes.recipe import Recipe

STRUCTURE = "1 x [ir] | 1 x [ir] | 1 x [ir]"


def recipe(*arguments):
    values = flags.FlagValues()
    define_recipe_flags(values)
    values(["train", *arguments])
    return recipe_of(values)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.keras").touch()
    Recipe(structure=STRUCTURE, width=0.1, image_size=80, residual_scale=(0.1, 0.2, 0.3), epochs=99).save(
        folder / "recipe.json"
    )
    ModelCard(("a", "b"), Preprocessing(80, 91), 1, 1, STRUCTURE, width=0.1).save(folder)
    return folder


def network(recipe):
    return recipe.structure, recipe.width, recipe.image_size, recipe.residual_scale


def test_a_run(run):
    found = recipe(f"--weights={run}")
    assert network(found) == (STRUCTURE, 0.1, 80, (0.1, 0.2, 0.3))
    assert (found.epochs, found.start.weights) == (15, str(run))


def test_a_run_of_two_sizes(run):
    Recipe(structure=STRUCTURE, image_size=80, evaluation_size=99).save(run / "recipe.json")
    found = recipe(f"--weights={run}")
    assert (found.image_size, found.evaluation_size) == (80, 99)
    assert recipe(f"--weights={run}", "--image_size=90").evaluation_size is None
    assert recipe(f"--weights={run}", "--evaluation_size=120").evaluation_size == 120


def test_what_is_told_otherwise(run, tmp_path):
    assert recipe(f"--weights={run}", "--image_size=90", "--residual_scale=0.3").image_size == 90
    other = recipe(f"--weights={run}", "--structure=ir-5-10-5")
    assert network(other) == ("ir-5-10-5", 0.1, 80, Recipe().residual_scale)
    Recipe(structure="ir-5-10-5").save(tmp_path / "other.json")
    assert network(recipe(f"--weights={run}", f"--recipe={tmp_path / 'other.json'}"))[:2] == ("ir-5-10-5", 0.25)


def test_a_file_with_a_card_and_one_without(run, tmp_path):
    file = tmp_path / "grown.keras"
    file.touch()
    assert network(recipe(f"--weights={file}")) == network(Recipe())
    ModelCard(("a", "b"), Preprocessing(80, 91), 0, 0, STRUCTURE, width=0.1).save(file)
    assert network(recipe(f"--weights={file}")) == (STRUCTURE, 0.1, 80, Recipe().residual_scale)


def test_published_weights():
    checkpoint = published("fashion_mnist")
    assert network(recipe("--weights=fashion_mnist"))[:3] == (checkpoint.structure, checkpoint.width, 75)
    for name in ("imagenet", "imagenet-cadene"):
        with pytest.raises(ValueError, match=f"--weights={name} is the released net, .* --recipe=finetune"):
            recipe(f"--weights={name}")
    found = recipe("--weights=imagenet", "--structure=polynet-g5")
    assert (found.width, found.image_size) == (1.0, 331)
    assert recipe("--weights=imagenet", "--recipe=finetune").image_size == 331


def test_an_ensemble_of_a_model_needs_data(run, capsys):
    assert main(["ensemble", "a.npz", str(run)]) == 1
    assert f"--data is missing: '{run}' is a model, not a file of scores" in capsys.readouterr().err
