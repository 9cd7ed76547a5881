import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.models import Structure, network_cost
from polynet_keras.models.parts import PARTS
from polynet_keras.training.making import make_schedule
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.phases import PhaseSettings
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start


def test_saved_recipe_is_the_recipe(tmp_path):
    for recipe in (
        Recipe(),
        Recipe(data="x", residual_scale=(1.0, 0.7), epochs=3),
        Recipe(residual_scale=None),
        Recipe(optimizer=OptimizerSettings("adamw", learning_rate_factors={"stem": np.float32(0.5), "stage_a": 1})),
        Recipe(optimizer=OptimizerSettings("sgd", layer_decay=0.75)),
        Recipe(start=Start("x.keras", unfreezing=(PhaseSettings("stage_c", np.int64(3), 1), PhaseSettings("stem", 2)))),
        Recipe(data=Path("x"), seed=np.int64(3), structure=Structure.parse("ir-5-10-5")),
        Recipe(start=Start(Path("x.keras"), carry_optimizer=True), precision="mixed_bfloat16", crops=144),
        *(preset.recipe for preset in PRESETS.values()),
    ):
        recipe.save(tmp_path / "recipe.json")
        assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_a_file_may_hold_some_of_the_settings(tmp_path):
    (tmp_path / "recipe.json").write_text('{"epochs": 3, "optimizer": {"name": "sgd"}, "residual_scale": [1, 0.5]}')
    expected = Recipe(epochs=3, optimizer=OptimizerSettings("sgd"), residual_scale=(1, 0.5))
    assert Recipe.load(tmp_path / "recipe.json") == expected


def test_resize_has_the_released_ratio():
    assert Recipe(image_size=331).resize_size == 378
    assert Recipe(image_size=75).resize_size == 86


def test_the_facts_tell_recipes_apart():
    facts = Recipe().facts()
    other = Recipe(augmentation=Augmentation(mixup=0.2), seed=1)
    assert {name for name in facts if facts[name] != other.facts()[name]} == {"augmentation.mixup", "seed"}
    assert other.facts()["augmentation.mixup"] == "0.2"
    assert Recipe().differences(other) == ["seed=1, here 0", "augmentation.mixup=0.2, here 0.0"]


def test_every_setting_is_in_the_facts():
    """Two workers with recipes that differ anywhere must notice."""
    recipe = Recipe()
    names = {field.name for field in dataclasses.fields(Recipe)}
    for name in list(names):
        if dataclasses.is_dataclass(getattr(recipe, name)):
            names.remove(name)
            names |= {f"{name}.{field.name}" for field in dataclasses.fields(getattr(recipe, name))}
    assert set(recipe.facts()) == names


def test_another_optimizer_or_schedule_forgets_what_was_the_old_ones():
    posters = PRESETS["imagenet-g5"].recipe
    changed = posters.replaced({"optimizer.name": "adamw", "schedule.name": "cosine", "schedule.learning_rate": 0.001})
    assert changed.optimizer == OptimizerSettings("adamw")
    assert changed.schedule == ScheduleSettings("cosine", 0.001, warmup_share=0.0)
    assert posters.replaced({"optimizer.name": "rmsprop"}).optimizer.epsilon == 1.0
    lamb = Recipe(optimizer=OptimizerSettings("lamb", decay_in_ratio=True))
    assert lamb.replaced({"optimizer.name": "sgd"}).optimizer == OptimizerSettings("sgd")
    assert posters.replaced({"optimizer.ema_momentum": 0.999}).optimizer.epsilon == 1.0


def test_equal_recipes_say_the_same():
    """Also where numbers were given as other types: workers and resumed runs compare what recipes say."""
    other = Recipe(
        width=np.float32(1),
        residual_scale=[1, 1],
        epochs=np.int32(3),
        augmentation=Augmentation(mixup=1),
        optimizer=OptimizerSettings("sgd", momentum=0),
        schedule=ScheduleSettings("step", 1, decay_epochs=2, decay_factor=np.float64(0.5)),
    )
    plain = Recipe(
        width=1.0,
        residual_scale=(1.0, 1.0),
        epochs=3,
        augmentation=Augmentation(mixup=1.0),
        optimizer=OptimizerSettings("sgd", momentum=0.0),
        schedule=ScheduleSettings("step", 1.0, decay_epochs=2.0, decay_factor=0.5),
    )
    assert other == plain
    assert other.fingerprint == plain.fingerprint
    assert other.facts() == plain.facts()
    assert float(make_schedule(other.schedule, 100, 10)(25)) == 0.5


def test_a_setting_that_came_later_leaves_older_fingerprints_as_they_are():
    """Checkpoints have them: a run of an older version goes on."""
    settings = dataclasses.asdict(Recipe(epochs=3))
    for name in ("layout", "decoding", "validation_share", "patience", "class_weights", "sampling"):
        del settings[name]
    for name in ("loss", "target_threshold", "evaluation_size", "normalization_momentum"):
        del settings[name]
    for name in ("crop_min_area", "magnitude", "magnitude_std", "repeats"):
        del settings["augmentation"][name]
    for name in ("decay_in_ratio", "learning_rate_factors", "layer_decay"):
        del settings["optimizer"][name]
    for name in ("teacher", "teacher_temperature", "teacher_weight"):
        del settings["regularization"][name]
    for name in ("unfreezing", "cache_features"):
        del settings["start"][name]
    older = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    assert Recipe(epochs=3).fingerprint == older
    assert Recipe(epochs=3, layout="classes").fingerprint != older
    assert Recipe(epochs=3, validation_share=0.0).fingerprint != older


def test_the_least_area_is_forgotten_with_the_crop_that_has_one():
    recipe = Recipe(augmentation=Augmentation("random_resized", crop_min_area=0.5))
    assert recipe.fingerprint != Recipe(augmentation=Augmentation("random_resized")).fingerprint
    assert recipe.replaced({"augmentation.crop": "random"}).augmentation == Augmentation()


def test_the_magnitude_is_forgotten_with_the_policy_that_has_one():
    recipe = Recipe().replaced({"augmentation.policy": "rand_augment_increasing", "augmentation.magnitude": 7})
    assert (recipe.augmentation.magnitude, recipe.augmentation.magnitude_std) == (7.0, 0.5)
    assert recipe.replaced({"augmentation.policy": None}) == Recipe()
    assert recipe.replaced({"augmentation.crop": "random_resized"}).augmentation.magnitude == 7.0


def test_the_settings_of_a_loss_and_of_a_teacher_are_forgotten_with_them():
    recipe = PRESETS["a2"].recipe
    assert recipe.target_threshold is not None
    assert recipe.replaced({"loss": "categorical"}).target_threshold is None
    assert recipe.replaced({"loss": "binary"}).target_threshold == recipe.target_threshold
    taught = Recipe().replaced({"regularization.teacher": "runs/a", "regularization.teacher_temperature": 2.0})
    assert taught.replaced({"regularization.teacher": None}) == Recipe()
    assert taught.replaced({"regularization.teacher": "runs/b"}).regularization.teacher_temperature == 4.0
    assert taught.replaced({"regularization.label_smoothing": 0.1}).regularization.teacher_temperature == 2.0


def test_a_section_may_be_replaced_as_a_whole():
    assert Recipe().replaced({"optimizer": OptimizerSettings("lamb")}).optimizer.name == "lamb"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("colour", "; known are data, .*, optimizer.name, "),
        ("optimizer.colour", "; "),
        ("learning_rate", "; did you mean schedule.learning_rate"),
        ("optimizer.optimizer", "; did you mean optimizer.name"),
        ("batchsize", "; did you mean batch_size"),
        ("seed.name", "; did you mean"),
    ],
)
def test_an_unknown_setting_is_named(name, meant):
    with pytest.raises(ValueError, match=f"unknown setting '{name}'{meant}"):
        Recipe().replaced({name: 1})


def test_what_ran_is_what_is_saved():
    """A later version with other defaults reads what this one did."""
    assert json.loads(Recipe(optimizer=OptimizerSettings("adamw")).facts()["optimizer.beta_2"]) == 0.999
    assert Recipe().facts()["optimizer.momentum"] == "0.0"
    assert Recipe().facts()["optimizer.beta_1"] == "null"
    assert Recipe(regularization=ADAPTIVE).facts()["regularization.gap_threshold"] == "0.05"
    assert OptimizerSettings("sgd").momentum == 0.9


ADAPTIVE = Regularization(stochastic_depth="adaptive")
LOSS_GAP = Regularization(label_smoothing=0.1, stochastic_depth="adaptive", gap_metric="loss")


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Recipe, {"structure": "deep"}, "structure='»deep', column 1: unknown structure"),
        (Recipe, {"residual_scale": (0.1, 0.2, 0.3)}, "residual_scale="),
        (Recipe, {"width": -0.5}, "width=-0.5 must be a finite number > 0"),
        (Recipe, {"normalization_momentum": 1}, "normalization_momentum=1.0 must be a finite number ≥ 0 and < 1"),
        (Recipe, {"image_size": 74}, "image_size=74 must be an integer of at least 75"),
        (Recipe, {"epochs": 0}, "epochs=0 must be an integer of at least 1"),
        (Recipe, {"batch_size": 1.5}, "batch_size=1.5 must be"),
        (Recipe, {"seed": -1}, "seed=-1 must be"),
        (Recipe, {"seed": 2**32}, "seed=4294967296 must be an integer from 0 to 4294967295"),
        (Recipe, {"data": 5}, "data=5 must be 'digits' or 'fashion_mnist' or the path"),
        (Recipe, {"optimizer": "sgd"}, "optimizer='sgd' must be of the class OptimizerSettings"),
        (Recipe, {"precision": "float16"}, "precision='float16' must be one of float32, mixed_bfloat16, mixed_float16"),
        (Recipe, {"remat": "some"}, "remat='some' must be one of"),
        (Recipe, {"synchronized": 1}, "synchronized=1 must be True or False"),
        (Recipe, {"layout": "flat"}, "layout='flat' must be one of auto, classes, splits"),
        (Recipe, {"crops": 12}, r"crops=12 must be one of 1, 10, 144"),
        (Recipe, {"evaluation_size": 74}, "evaluation_size=74 must be an integer of at least 75"),
        (
            Recipe,
            {"evaluation_size": 99, "regularization": ADAPTIVE},
            "with evaluation_size=99: training has images of another size than validation",
        ),
        (
            Recipe,
            {"augmentation": Augmentation(repeats=3), "sampling": "balanced"},
            "repeats=3 with sampling='balanced': both say how often",
        ),
        (Recipe, {"augmentation": Augmentation(repeats=3), "batch_size": 2}, "repeats=3 is more than batch_size=2"),
        (Recipe, {"loss": "hinge"}, "loss='hinge' must be one of categorical, binary"),
        (Recipe, {"target_threshold": 0.2}, "target_threshold=0.2 is for loss='binary', not 'categorical'"),
        (Recipe, {"loss": "binary", "target_threshold": 1}, "target_threshold=1.0 must be a finite number > 0 and < 1"),
        (
            Recipe,
            {"loss": "binary", "target_threshold": 0.2, "regularization": Regularization(label_smoothing=0.1)},
            "target_threshold=0.2 makes every target 0 or 1, and undoes label_smoothing=0.1; leave one out",
        ),
        (Recipe, {"on_error": "no"}, "on_error='no' must be one of error, skip"),
        (OptimizerSettings, {"name": "adam"}, "optimizer='adam' must be one of rmsprop, sgd, adamw, lamb"),
        (
            OptimizerSettings,
            {"name": "adamw", "momentum": 0.9},
            "momentum=0.9 is a setting of optimizer=rmsprop and sgd, and not",
        ),
        (
            OptimizerSettings,
            {"decay_in_ratio": True},
            "decay_in_ratio=True is a setting of optimizer=lamb, not of optimizer=rmsprop",
        ),
        (OptimizerSettings, {"name": "lamb", "decay_in_ratio": 1}, "decay_in_ratio=1 must be True or False"),
        (OptimizerSettings, {"rho": 1.5}, "rho=1.5 must be a finite number ≥ 0 and < 1"),
        (OptimizerSettings, {"global_clipnorm": -1}, "global_clipnorm=-1.0 must be a finite number ≥ 0"),
        (
            OptimizerSettings,
            {"gradient_accumulation_steps": 0},
            "gradient_accumulation_steps=0 must be an integer",
        ),
        (OptimizerSettings, {"ema_momentum": float("nan")}, "ema_momentum=nan must be a finite number"),
        (ScheduleSettings, {"learning_rate": 0}, "learning_rate=0.0 must be a finite number > 0"),
        (ScheduleSettings, {"name": "linear"}, "schedule='linear' must be one of cosine, step, exponential, constant"),
        (
            ScheduleSettings,
            {"name": "step"},
            "needs decay_epochs and decay_factor; decay_epochs is",
        ),
        (
            ScheduleSettings,
            {"name": "step", "decay_epochs": 2},
            "needs decay_epochs and decay_factor; decay_factor",
        ),
        (ScheduleSettings, {"decay_factor": 0.1}, "decay_factor=0.1 is a setting of step and exponential"),
        (ScheduleSettings, {"warmup_share": 2}, "warmup_share=2.0 must be a finite number ≥ 0 and ≤ 1"),
        (Regularization, {"label_smoothing": -0.1}, "label_smoothing=-0.1 must be a finite number ≥ 0 and < 1"),
        (Regularization, {"stochastic_depth": "maybe"}, "stochastic_depth='maybe' must be one of off, on, adaptive"),
        (
            Regularization,
            {"stochastic_depth": "on", "max_drop_rate": 1},
            "max_drop_rate=1.0 must be a finite number > 0 and ≤ 0.95",
        ),
        (
            Regularization,
            {"stochastic_depth": "adaptive", "gap_window": 0},
            "gap_window=0 must be an integer of at least 1",
        ),
        (
            Regularization,
            {"max_drop_rate": 0.1},
            "max_drop_rate=0.1 is a setting of stochastic_depth=on and adaptive",
        ),
        (
            Regularization,
            {"stochastic_depth": "on", "gap_window": 2},
            "gap_window=2 is a setting of stochastic_depth=adaptive",
        ),
        (
            Recipe,
            {"regularization": ADAPTIVE, "augmentation": Augmentation(mixup=0.2)},
            "with mixed images: their accuracy",
        ),
        (
            Recipe,
            {"regularization": LOSS_GAP},
            "gap_metric='loss' with label_smoothing: it is in one of the losses only",
        ),
        (OptimizerSettings, {"epsilon": 0}, "epsilon=0.0 must be a finite number > 0"),
        (OptimizerSettings, {"ema_momentum": 1}, "ema_momentum=1.0 must be a finite number ≥ 0 and < 1"),
        (Recipe, {"crops": 10.0}, "crops=10.0 must be an integer"),
        (Start, {"weights": 5}, "weights=5 must be the name of a checkpoint, a file or a run folder"),
        (Start, {"frozen_through": "stem"}, "frozen_through='stem' needs weights"),
        (Start, {"weights": "x", "frozen_through": "head"}, "frozen_through='head' must be one of"),
        (Start, {"weights": "x", "frozen_through": "predictions"}, "leaves nothing to train"),
        (Start, {"weights": "x", "cache_features": 2}, "cache_features=2 needs frozen_through: the output of a part"),
        (Start, {"cache_features": -1}, "cache_features=-1 must be an integer of at least 0"),
        (Start, {"cache_features": True}, "cache_features=True must be an integer of at least 0"),
        (
            Start,
            {"weights": "imagenet", "carry_optimizer": True},
            "checkpoint 'imagenet' has no optimizer",
        ),
    ],
)
def test_out_of_range(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not a recipe: expected an object"),
        ('{"colour": 1}', "not a recipe: unknown setting 'colour'"),
        ('{"optimizer": {"momentun": 1}}', "unknown setting 'optimizer.momentun'"),
        ('{"optimizer": "sgd"}', r"optimizer='sgd' must be an object of settings \(name, momentum, "),
        ('{"epochs": "many"}', "epochs='many' must be an integer"),
        ("{", "not a recipe"),
    ],
)
def test_a_file_without_a_recipe_is_named(tmp_path, text, message):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=rf"recipe.json: .*{message}"):
        Recipe.load(tmp_path / "recipe.json")
    with pytest.raises(ValueError, match=r"none.json: cannot be read: No such file"):
        Recipe.load(tmp_path / "none.json")


def test_a_run_folder_is_its_model(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder without model.keras .*; name the folder of a run"):
        _ = Start(str(tmp_path)).file
    (tmp_path / "model.keras").write_text("")
    assert Start(tmp_path).file == str(tmp_path / "model.keras")
    assert Start("imagenet").file == "imagenet"
    with pytest.raises(ValueError, match="weights='none.keras' is not a file"):
        _ = Start("none.keras").file
    (tmp_path / "model.keras").rename(tmp_path / "card.json")
    with pytest.raises(ValueError, match="is exported and cannot be trained; name the model that it was"):
        _ = Start(tmp_path).file
    assert json.loads(json.dumps(dataclasses.asdict(Start(tmp_path))))["weights"] == str(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augmentation.mixup": 0.2}, "cache_features=2 with mixup or cutmix: they mix images anew in each step"),
        ({"augmentation.cutmix": 1.0}, "cache_features=2 with mixup or cutmix"),
        ({"regularization.teacher": "fashion_mnist"}, "cache_features=2 with a teacher: it looks at images"),
        ({"start.unfreezing": [{"frozen_through": "stage_c", "epochs": 1}]}, "cache_features=2 with unfreezing"),
        ({"evaluation_size": 99}, "cache_features=2 with evaluation_size=99: features are kept of one size"),
        (
            {"augmentation.repeats": 3},
            "cache_features=2 with repeats=3, which augments an image several times in an epoch: the cache has one "
            "copy of it for each epoch; leave one out",
        ),
        ({"regularization.stochastic_depth": "on"}, "with stochastic_depth='on', which drops paths of the frozen part"),
        ({"regularization.stochastic_depth": "adaptive"}, "with stochastic_depth='adaptive'"),
        (
            {"start.cache_features": 1, "augmentation.flip": True, "augmentation.erasing": 0.2},
            "cache_features=1 keeps the centre crop of each image, which is not augmented: leave out flip=True, "
            "erasing=0.2, or use cache_features=10 for ten augmented copies",
        ),
        ({"start.cache_features": 1, "augmentation.crop": "random_resized"}, "leave out crop='random_resized', or"),
    ],
)
def test_what_is_drawn_anew_in_each_step_cannot_be_cached(settings, message):
    cached = Recipe(start=Start("x", frozen_through="stem", cache_features=2))
    with pytest.raises(ValueError, match=re.escape(message)):
        cached.replaced(settings)
    cached.replaced({"augmentation.flip": True, "augmentation.erasing": 0.2})
    cached.replaced({"start.cache_features": 1})
    cached.replaced({**settings, "start.cache_features": 0})


def test_the_posters_presets():
    """The decay is recalled: 560,000 steps of 512 images, and × 0.1 every 160,000."""
    preset = PRESETS["imagenet-g5"]
    recipe, steps = preset.recipe, preset.images / preset.recipe.batch_size
    assert recipe.epochs * steps == pytest.approx(560_000, rel=0.01)
    assert recipe.schedule.decay_epochs * steps == pytest.approx(160_000, rel=0.01)
    assert recipe.optimizer.name == "rmsprop"
    assert recipe.augmentation == Augmentation(crop="random")
    assert recipe.crops == 144
    # 34.70 G multiply-accumulates, of 331 px (docs/design.md)
    assert preset.flops_per_image == pytest.approx(6 * 34.699e9, rel=1e-3)
    assert preset.flops == pytest.approx(6 * 34.699e9 * 1_281_167 * 224, rel=1e-3)
    assert PRESETS["digits"].recipe == Recipe()


def test_frozen_parts_have_no_backward_pass():
    preset = PRESETS["finetune"]
    parts = network_cost("polynet-g5")
    assert [part.name.lower().replace(" ", "_") for part in parts] == [*PARTS[:-1], "head"]
    behind = sum(part.macs for part in parts[4:])  # reduction B, stage C and the classifier
    assert preset.flops_per_image == 2 * sum(part.macs for part in parts) + 4 * behind
    assert preset.flops == 0  # of the user's images
    # With a cache the frozen part is computed once for each copy, of which there are no more than epochs.
    frozen, trained = 2 * sum(part.macs for part in parts[:4]), 6 * behind
    for copies, times in ((0, 10), (1, 1), (4, 4), (20, 10)):
        recipe = preset.recipe.replaced({"start.cache_features": copies})
        assert dataclasses.replace(preset, recipe=recipe, images=7).flops == 7 * (times * frozen + 10 * trained)
