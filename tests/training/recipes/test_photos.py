"""What is chosen for photographs: by the rules, from real files, and by the command."""

import json
import tracemalloc

import numpy as np
import pytest
from absl import flags
from PIL import Image

from polynet_keras.cli import train
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import recipe_for_data
from polynet_keras.data.photo_facts import PhotoFacts, photo_facts
from polynet_keras.data.records.manifest import MANIFEST, Manifest, Shard, Split
from polynet_keras.training.recipes.photos import EPOCHS, IMAGES_SEEN, SIDES, photos_recipe, recipe_from
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import Recipe


def save(path, size=(150, 200), grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 1 if grey else 3), dtype="uint8")
    Image.fromarray(np.repeat(pixels, 3, 2) if grey else pixels).save(path)


def chosen(*arguments):
    values = flags.FlagValues()
    define_recipe_flags(values)
    values(["train", *arguments])
    return recipe_for_data(values)


@pytest.fixture
def photos(tmp_path):
    for name, count in (("cat", 10), ("dog", 5)):
        for number in range(count):
            save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("shorter_side", "side"), [(0, 131), (20, 75), (75, 75), (98, 75), (99, 99), (130, 99), (131, 131), (4000, 131)]
)
def test_no_image_is_enlarged_unless_the_network_needs_it(shorter_side, side):
    recipe, reasons = recipe_from("photos", "auto", PhotoFacts(1000, 1.0, shorter_side, False))
    assert recipe.image_size == side
    assert (f"{shorter_side:,} px" in reasons["image_size"]) == (shorter_side > 0)


@pytest.mark.parametrize("images", [0, 1, 100, 319, 320, 1000, 2345, 10**6])
@pytest.mark.parametrize("shorter_side", SIDES)
def test_a_run_sees_as_much_of_few_images_as_of_many(images, shorter_side):
    recipe, _ = recipe_from("photos", "auto", PhotoFacts(images, 1.0, shorter_side, False))
    fewest, most = EPOCHS
    assert fewest <= recipe.epochs <= most
    pixels = recipe.epochs * images * recipe.image_size**2
    if fewest < recipe.epochs < most:
        assert pixels == pytest.approx(IMAGES_SEEN * SIDES[-1] ** 2, rel=0.05)
    assert recipe.batch_size == (16 if images < 320 else 32)
    steps = recipe.epochs * -(-images // recipe.batch_size)
    if 200 < steps < 10**5:
        for momentum in (recipe.optimizer.ema_momentum, recipe.normalization_momentum):
            assert 1 / (1 - momentum) == pytest.approx(steps / 20, rel=0.15)
    assert 0.8 <= recipe.optimizer.ema_momentum <= 0.9999
    assert (recipe.normalization_momentum or 0.9) <= 0.9999


def test_short_runs_have_larger_crops():
    for images, area in ((810, 0.6), (800, 0.35), (100_000, 0.6), (10, 0.35)):
        recipe, reasons = recipe_from("photos", "auto", PhotoFacts(images, 1.0, 300, False))
        assert recipe.augmentation.crop_min_area == area, recipe.epochs
        assert ("augmentation.crop_min_area" in reasons) == (area == 0.6)
    for given in ({"augmentation.crop_min_area": 0.2}, {"augmentation.crop": "random"}):
        recipe, reasons = recipe_from("photos", "auto", PhotoFacts(2000, 1.0, 300, False), given)
        assert "augmentation.crop_min_area" not in reasons
        assert recipe.augmentation.crop_min_area == given.get("augmentation.crop_min_area")


def test_what_is_chosen_follows_what_is_given():
    """A run of an epoch would else be averaged over more updates than it has, with those of the random start."""
    facts = PhotoFacts(1000, 1.0, 300, False)
    for epochs, batch_size, momentum in ((1, 32, 0.375), (10, 32, 0.9375), (1, 1000, 0.0)):
        recipe, reasons = recipe_from("here", "auto", facts, {"epochs": epochs, "batch_size": batch_size})
        assert (recipe.epochs, recipe.batch_size, recipe.optimizer.ema_momentum) == (epochs, batch_size, momentum)
        assert "epochs" not in reasons
        assert recipe.normalization_momentum == (momentum if momentum > 0.9 else None)  # never less than the network's
        assert ("normalization_momentum" in reasons) == (momentum > 0.9)
    given = {"epochs": 40, "optimizer.gradient_accumulation_steps": 4}
    accumulated = recipe_from("here", "auto", facts, given)[0]
    assert accumulated.optimizer.ema_momentum == 0.9375  # 320 updates, too
    assert accumulated.normalization_momentum == 0.9844  # of all 1,280 steps, since each moves the statistics
    fixed, reasons = recipe_from("here", "auto", facts, {"normalization_momentum": 0.5})
    assert fixed.normalization_momentum == 0.5
    assert "normalization_momentum" not in reasons
    larger, reasons = recipe_from("here", "auto", facts, {"image_size": 262})
    assert (larger.image_size, larger.epochs) == (262, IMAGES_SEEN // 4 // 1000)
    assert "image_size" not in reasons
    assert recipe_from("here", "auto", facts)[0].epochs == IMAGES_SEEN // 1000
    with pytest.raises(ValueError, match="epochs=0"):
        recipe_from("here", "auto", facts, {"epochs": 0})


def test_the_rest_is_the_preset():
    recipe, reasons = recipe_from("here", "classes", PhotoFacts(1000, 1.0, 300, True))
    preset = PRESETS["photos"].recipe
    assert (recipe.data, recipe.layout) == ("here", "classes")
    mine, presets = recipe.facts(), preset.facts()
    assert {name for name in mine if mine[name] != presets[name]} <= {"data", "layout", *reasons}
    assert recipe.augmentation.color_jitter == 0
    assert preset.augmentation.color_jitter > 0


@pytest.mark.parametrize(("shorter_side", "decoding"), [(0, "exact"), (799, "exact"), (800, "scaled")])
def test_large_photographs_are_decoded_at_a_smaller_scale(shorter_side, decoding):
    recipe, reasons = recipe_from("photos", "auto", PhotoFacts(1000, 1.0, shorter_side, False))
    assert recipe.decoding == decoding
    assert ("decoding" in reasons) == (decoding == "scaled")


def test_unequal_classes_are_weighed():
    recipe, reasons = recipe_from("here", "auto", PhotoFacts(1000, 2.9, 300, False))
    assert recipe.class_weights is None
    assert "class_weights" not in reasons
    recipe, reasons = recipe_from("here", "auto", PhotoFacts(1000, 7.2, 300, False))
    assert recipe.class_weights == "balanced"
    assert "7 times" in reasons["class_weights"]


def test_sampling_that_is_asked_for_takes_their_place(photos):
    for number in range(10, 30):
        save(photos / "cat" / f"{number}.png")
    assert chosen(f"--data={photos}").class_weights == "balanced"
    assert chosen(f"--data={photos}", "--sampling=uniform").class_weights == "balanced"
    recipe = chosen(f"--data={photos}", "--sampling=balanced")
    assert (recipe.class_weights, recipe.sampling) == (None, "balanced")


def test_facts_of_a_folder(photos):
    # 2 and 1 are held out.
    assert photo_facts(photos) == PhotoFacts(images=12, imbalance=2.0, shorter_side=150, is_grey=False)
    (photos / "cat" / "broken.png").write_bytes(b"no image")
    assert photo_facts(photos).shorter_side == 150


def test_facts_of_splits_and_of_grey_images(tmp_path):
    for split, count in (("Training", 4), ("test", 2)):
        for number in range(count):
            save(tmp_path / split / "cat" / f"{number}.png", (90 + number, 80), grey=True)
            save(tmp_path / split / "dog" / f"{number}.png", (10, 80), grey=True)
    assert photo_facts(tmp_path) == PhotoFacts(images=8, imbalance=1.0, shorter_side=45, is_grey=True)


def test_a_large_photograph_takes_little_more_memory_than_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_ENCODED_BYTES", 1 << 20)  # so much is set aside for a file
    for name in ("cat", "dog"):
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (2000, 1500), (90, 60, 30)).save(tmp_path / name / f"{number}.png")
    tracemalloc.start()
    try:
        assert photo_facts(tmp_path) == PhotoFacts(images=2, imbalance=1.0, shorter_side=1500, is_grey=False)
        assert tracemalloc.get_traced_memory()[1] < 3 * 2000 * 1500 * 3
    finally:
        tracemalloc.stop()


def test_facts_where_nothing_can_be_read(tmp_path):
    for number in range(10):
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert photo_facts(tmp_path) == PhotoFacts(images=8, imbalance=1.0, shorter_side=0, is_grey=False)


def test_facts_of_records(tmp_path):
    def split(count):
        return Split("0" * 64, 1, (Shard("a", count, 1, "0" * 64, {}),))

    Manifest(("a", "b"), 0, {"train": split(700), "test": split(90)}, 1).save(tmp_path / MANIFEST)
    assert photo_facts(tmp_path) == PhotoFacts(700, 1.0, 0, True)
    Manifest(("a", "b"), 0, {"all": split(100)}).save(tmp_path / MANIFEST)
    assert photo_facts(tmp_path) == PhotoFacts(80, 1.0, 0, False)


def test_the_command_chooses_and_says_why(photos, caplog):
    caplog.set_level("INFO", logger="absl")
    recipe = chosen(f"--data={photos}", "--epochs=3")
    assert recipe == photos_recipe(photos, settings={"epochs": 3})[0]
    assert recipe.epochs == 3
    told = " ".join(caplog.text.split())
    assert "--image_size=131 the shorter side is 150 px in the median" in told
    assert "--epochs" not in told
    assert "--batch_size=16" in told


@pytest.mark.parametrize("data", ["digits", "fashion_mnist", "tfds:flowers"])
def test_named_data_keep_the_defaults(data):
    assert chosen(f"--data={data}") == Recipe(data=data)


def test_a_recipe_or_weights_that_are_named_choose(photos, tmp_path):
    assert chosen(f"--data={photos}", "--recipe=digits") == Recipe(data=str(photos))
    (tmp_path / "mine.json").write_text(json.dumps({"epochs": 7}))
    assert chosen(f"--data={photos}", f"--recipe={tmp_path / 'mine.json'}") == Recipe(data=str(photos), epochs=7)
    weights = tmp_path / "net.keras"
    weights.touch()
    assert chosen(f"--data={photos}", f"--weights={weights}").width == Recipe().width
    assert chosen(f"--data={photos}", "--recipe=photos") == PRESETS["photos"].recipe.replaced({"data": str(photos)})


def test_data_that_are_not_there_are_told(tmp_path):
    with pytest.raises(ValueError, match="nope.* is not there"):
        chosen(f"--data={tmp_path / 'nope'}")


def test_a_worker_without_the_data_goes_on_to_meet_the_others(tmp_path, monkeypatch, caplog):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train", f"--data={tmp_path / 'nope'}"])
    task = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert train.recipe_of_run(values) == Recipe(data=str(tmp_path / "nope"))
    assert "nope' is not there" in caplog.text
    monkeypatch.delenv("TF_CONFIG")
    with pytest.raises(ValueError, match="is not there"):
        train.recipe_of_run(values)


def test_what_is_chosen_goes_with_what_is_given():
    facts = PhotoFacts(images=300, imbalance=5.0, shorter_side=480, is_grey=False)
    given = {"regularization.stochastic_depth": "adaptive", "regularization.gap_metric": "loss"}
    recipe, reasons = recipe_from("photos", "auto", facts, given | {"regularization.label_smoothing": 0.0})
    assert recipe.class_weights is None
    assert "class_weights" not in reasons
    assert recipe_from("photos", "auto", facts, {"augmentation.repeats": 20})[0].batch_size == 20


def test_images_that_choose_the_epoch_are_not_trained_on():
    facts = PhotoFacts(images=600, imbalance=1.0, shorter_side=480, is_grey=False)
    recipe, reasons = recipe_from("photos", "auto", facts, {"validation_share": 0.5})
    assert reasons["batch_size"] == "300 images to train on"
    assert recipe.batch_size == 16
    assert recipe.epochs == recipe_from("photos", "auto", PhotoFacts(300, 1.0, 480, False))[0].epochs


def test_a_flag_that_goes_with_what_is_chosen(photos):
    """The preset crops `random_resized`, and the defaults do not."""
    assert chosen(f"--data={photos}", "--crop_min_area=0.5").augmentation.crop_min_area == 0.5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--run_dir=rnus/photos"], True),
        (["--run_dir=runs/new", "--data=digits"], False),
        ([], False),
    ],
)
def test_a_new_run_in_a_folder_that_may_be_misspelled_is_told(tmp_path, monkeypatch, caplog, given, told):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="absl")
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train", *given])
    assert train.recipe_of_run(values) == Recipe()
    assert ("holds no run yet: a new one begins, on the digits" in caplog.text) == told
