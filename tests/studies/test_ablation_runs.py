"""The ablation: which nets are compared, that it goes on where it was, and what it makes of its numbers."""

import contextlib
import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from polynet_keras import PolyNet
from polynet_keras.basics.holding import Hold
from polynet_keras.cli.main import main
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sources import open_source
from polynet_keras.models import Structure
from polynet_keras.models.cost import network_cost
from polynet_keras.pretrained import ModelCard
from polynet_keras.studies import ablation_runs as module
from polynet_keras.studies.ablation_outcomes import Outcome, load_outcomes, save_outcomes
from polynet_keras.studies.ablation_report import ablation_answer, ablation_table, paired_table, plot_ablation
from polynet_keras.studies.ablation_runs import ablation
from polynet_keras.studies.ablation_variants import variants
from polynet_keras.studies.paired_seeds import comparisons
from polynet_keras.training.recipes.recipe import Recipe


def macs(structure):
    return sum(part.macs for part in network_cost(structure, input_shape=(75, 75, 1), width=0.25, classes=10))


def test_depth_and_compute_are_equal():
    depths, modules = (2, 4, 2), ("poly-2", "2-way", "3-way")
    found = {variant.name: variant for variant in variants(depths, modules)}
    assert {variant.stage for variant in found.values()} == {"", "A", "B", "C", "mixed"}
    others = [variant for variant in found.values() if variant.stage]
    assert len(others) == 4 * len(modules) + 1
    for variant in others:
        assert tuple(map(len, variant.structure.stages)) == depths
        baseline = found[variant.same_compute]
        assert baseline.structure == Structure.inception_resnet([len(units) for units in baseline.structure.stages])
        assert macs(baseline.structure) == macs(variant.structure)
    assert found["B 3-way"].same_compute == "ir 2-12-2"
    assert {variant.same_depth for variant in others} == {"ir 2-4-2"}
    assert str(found["mixed g5"].structure) == "2 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]"
    assert len({str(variant.structure) for variant in found.values()}) == len(found)


def test_some_stages_are_studied():
    """In the order of the whole study, and with the baselines that they need."""
    assert [variant.name for variant in variants((2, 4, 2), ("2-way",), ("mixed", "B"))] == [
        *("ir 2-4-2", "ir 2-8-2", "B 2-way", "ir 4-8-4", "mixed 2-way", "ir 4-10-5", "mixed g5"),
    ]
    assert "mixed g5" not in [variant.name for variant in variants((2, 4, 2), ("2-way",), ("C",))]
    for stages, message in (((), "must name one or more of A, B, C, mixed"), (("D",), "must be one of A, B, C, mixed")):
        with pytest.raises(ValueError, match=message):
            variants((1, 1, 1), ("2-way",), stages)


@pytest.mark.parametrize("modules", [(), ("poly-2", "ir"), ("I + F",)])
def test_modules_are_other_than_the_baseline(modules):
    with pytest.raises(ValueError, match="must be one or more, such as poly-2, and not ir"):
        variants((1, 1, 1), modules)


def finish(run, recipe, errors=0):
    """Leaves what a study reads of a run that is done: its second epoch took 100 images a second."""
    run.mkdir()
    recipe.save(run / "recipe.json")
    (run / "history.csv").write_text("epoch,images_per_second\n0,nan\n1,100.0\n")
    preprocessing = Preprocessing(75, 86, (0.5,), (0.5,))
    ModelCard(tuple("0123456789"), preprocessing, 359, 359 - errors, recipe.structure).save(run)


def finish_study(folder, recipe, depths, modules, seeds, errors):
    """A study all of whose runs are done, with so many errors by net and seed; its table is not written yet."""
    folder.mkdir(exist_ok=True)
    recipe.save(folder / "study.json")
    for seed in range(recipe.seed, recipe.seed + seeds):
        for variant in variants(depths, modules):
            mine = dataclasses.replace(recipe, structure=str(variant.structure), seed=seed)
            finish(folder / f"{variant.name.replace(' ', '-')}-seed-{seed}", mine, errors(variant, seed))


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    """Twice: before the second net is trained, and before the third one."""
    recipe = Recipe(width=0.0625, epochs=1, batch_size=256)
    train, started = module.train, []

    def breaks(recipe, folder):
        started.append(folder.name)
        if len(started) in (2, 4):
            raise KeyboardInterrupt
        return train(recipe, folder)

    monkeypatch.setattr(module, "train", breaks)
    for done in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            ablation(recipe, tmp_path, (1, 1, 1), ("2-way",), seeds=1)
        table = rows(tmp_path / "ablation.csv")
        assert [row["variant"] for row in table] == ["ir 1-1-1", "ir 2-1-1"][:done]
    assert started == ["ir-1-1-1-seed-0", "ir-2-1-1-seed-0", "ir-2-1-1-seed-0", "A-2-way-seed-0"]
    assert int(table[0]["macs"]) < int(table[1]["macs"])
    for row in table:
        assert int(row["images"]) == 359
        assert 0 < int(row["errors"]) < 359
        assert float(row["seconds"]) > 0


class BrokenOffError(Exception):
    """What ends a study that would train."""


@pytest.fixture
def asked(monkeypatch):
    """What a study would train: the recipes and folders. Nothing is trained."""
    asked = []

    def train(recipe, folder):
        asked.append((recipe, folder))
        raise BrokenOffError

    monkeypatch.setattr(module, "train", train)
    return asked


@pytest.mark.slow
def test_only_what_is_not_done_is_trained_seed_by_seed(tmp_path, asked):
    recipe = Recipe(epochs=2, seed=5)
    study = {"output": tmp_path / "study", "depths": (1, 1, 1), "modules": ("2-way",), "seeds": 2}
    expected = [(variant, seed) for seed in (5, 6) for variant in variants((1, 1, 1), ("2-way",))]
    assert len(expected) == 22
    for number, (variant, seed) in enumerate(expected):
        one = dataclasses.replace(recipe, structure=str(variant.structure), seed=seed)
        folder = tmp_path / "study" / f"{variant.name.replace(' ', '-')}-seed-{seed}"
        if number in (0, 1, 11, 21):
            with pytest.raises(BrokenOffError):
                ablation(recipe, **study)
            assert asked == [(one, folder)]
            asked.clear()
            assert not number or len(rows(tmp_path / "study" / "ablation.csv")) == number
        finish(folder, one, errors=number)
    outcomes = ablation(recipe, **study)
    assert not asked
    assert [(outcome.variant, outcome.seed) for outcome in outcomes] == [(v.name, seed) for v, seed in expected]
    assert [outcome.errors for outcome in outcomes] == list(range(22))
    with pytest.raises(ValueError, match=r"holds a study of another recipe \(epochs=2, here 3\)"):
        ablation(dataclasses.replace(recipe, epochs=3), **study)


def test_learning_rates_are_by_net(tmp_path, asked):
    recipe, study = Recipe(epochs=2), {"depths": (1, 1, 1), "modules": ("2-way",), "seeds": 1, "stages": ("A",)}
    rates = {"A 2-way": 0.005}
    for variant in variants((1, 1, 1), ("2-way",), ("A",)):
        with pytest.raises(BrokenOffError):
            ablation(recipe, tmp_path / "study", **study, learning_rates=rates)
        (one, folder) = asked.pop()
        assert one.schedule.learning_rate == rates.get(variant.name, recipe.schedule.learning_rate)
        finish(folder, one)
    outcomes = ablation(recipe, tmp_path / "study", **study, learning_rates=rates)
    assert [outcome.learning_rate for outcome in outcomes] == [0.002, 0.002, 0.005]
    with pytest.raises(ValueError, match=r"A-2-way-seed-0 holds a run of another recipe .*learning_rate=0.005, here"):
        ablation(recipe, tmp_path / "study", **study)
    with pytest.raises(ValueError, match="learning_rates='A 2way' must be one of ir 1-1-1, ir 2-1-1, A 2-way"):
        ablation(recipe, tmp_path / "other", **study, learning_rates={"A 2way": 0.1})
    assert not (tmp_path / "other").exists()


def test_who_has_lost_the_folder_writes_no_table(tmp_path, monkeypatch):
    recipe = Recipe(epochs=2)
    finish_study(tmp_path, recipe, (1, 1, 1), ("2-way",), 1, lambda variant, seed: 1)
    monkeypatch.setattr(module, "holding", lambda *_: contextlib.nullcontext(Hold(is_lost=True)))
    with pytest.raises(OSError, match="another process has taken it; this process no longer writes there"):
        ablation(recipe, tmp_path, (1, 1, 1), ("2-way",), seeds=1)
    assert not (tmp_path / "ablation.csv").exists()


def test_a_run_of_another_recipe_is_not_taken_for_one_of_the_study(tmp_path, asked):
    recipe = Recipe(epochs=2)
    finish(tmp_path / "ir-1-1-1-seed-0", dataclasses.replace(recipe, structure="ir-5-10-5"))
    recipe.save(tmp_path / "study.json")
    with pytest.raises(ValueError, match="ir-1-1-1-seed-0 holds a run of another recipe .*; name a new folder"):
        ablation(recipe, tmp_path, (1, 1, 1), ("2-way",))
    assert not asked


def test_a_study_that_an_older_version_began_does_not_mix_held_out_images(tmp_path, asked):
    """It held out `val` of data with train, val and test, whose epochs are now chosen on `val`."""
    for split in ("train", "val", "test"):
        for label in "ab":
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), 10 * number).save(tmp_path / "data" / split / label / f"{split}{number}.png")
    source = open_source(str(tmp_path / "data"), 0)
    recipe, study = Recipe(data=str(tmp_path / "data"), epochs=2), tmp_path / "study"
    study.mkdir()
    recipe.save(study / "study.json")
    (variant, *_) = variants((1, 1, 1), ("2-way",))
    run = study / "ir-1-1-1-seed-0"
    finish(run, dataclasses.replace(recipe, structure=str(variant.structure)))
    card = ModelCard.load(run)
    for held_out, error in ((source.validation, ValueError), (source.held_out, BrokenOffError)):
        dataclasses.replace(card, held_out_fingerprint=held_out.fingerprint).save(run)
        with pytest.raises(error) as raised:
            ablation(recipe, study, (1, 1, 1), ("2-way",))
        assert len(asked) == (error is BrokenOffError)
        if error is ValueError:
            said = (
                "an older version held out `val` where there is `test` too, or the data have changed; begin the study"
            )
            assert said in str(raised.value)


def test_outcomes_have_the_cost_of_their_net(tmp_path):
    """Of digits of one channel and ten classes, of which 1438 of 1797 are trained on."""
    recipe = Recipe(epochs=2, width=0.25)
    finish_study(tmp_path, recipe, (1, 1, 1), ("2-way",), 1, lambda variant, seed: 7)
    outcomes = {outcome.variant: outcome for outcome in ablation(recipe, tmp_path, (1, 1, 1), ("2-way",), seeds=1)}
    for outcome in outcomes.values():
        assert outcome.macs == macs(outcome.structure)
        assert (outcome.images, outcome.errors, outcome.error) == (359, 7, 7 / 359)
        assert outcome.seconds == 28.8  # two epochs at 100 images a second
        if outcome.stage:
            assert outcome.macs == outcomes[outcome.same_compute].macs
            assert outcome.macs > outcomes[outcome.same_depth].macs
    model = PolyNet(
        weights=None, structure=outcomes["A 2-way"].structure, width=0.25, input_shape=(75, 75, 1), classes=10
    )
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert outcomes["A 2-way"].parameters == trained


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_one_process_is_one_study(tmp_path, monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ValueError, match="an ablation runs in one process"):
        ablation(Recipe(), tmp_path, (1, 1, 1), ("2-way",))


def test_names_of_one_module_are_one():
    assert variants((1, 1, 1), ("poly-2", "I + F + F^2")) == variants((1, 1, 1), ("poly-2",))


def test_time_is_of_all_epochs(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,images_per_second\n0,nan\n1,50.0\n2,100.0\n")
    assert module._seconds(tmp_path / "history.csv", 100) == 4.5
    (tmp_path / "history.csv").write_text("epoch,images_per_second\n0,nan\n")
    assert np.isnan(module._seconds(tmp_path / "history.csv", 100))


STRUCTURE = "1 x [ir] | 1 x [ir] | 1 x [ir]"


def outcomes_of(errors):
    """By net, errors of 1000 by seed."""
    return [
        Outcome(
            name,
            stage,
            baseline and "ir 1",
            baseline,
            "1 x [ir] | 1 x [ir] | 1 x [ir]",
            seed,
            1000,
            2_000_000,
            3.5,
            1000,
            wrong,
            0.002,
        )
        for (name, stage, baseline), row in errors.items()
        for seed, wrong in enumerate(row)
    ]


def test_differences_are_of_the_same_seed():
    outcomes = outcomes_of({("ir 1", "", ""): [100, 120, 140], ("B x", "B", "ir 1"): [90, 115, 141]})
    (pair,) = comparisons(outcomes, "compute")
    assert comparisons(outcomes, "depth") == [pair]
    assert pair.differences == pytest.approx({0: -0.01, 1: -0.005, 2: 0.001})
    table = ablation_table(outcomes).splitlines()
    assert table[2].startswith("| ir 1 |  | `1 x [ir] \\| 1 x [ir] \\| 1 x [ir]` | 1,000 | 2.00 | 12.00 ± 2.00 | 3 |")
    assert "| 11.53 ± 2.55 | 3 | -0.47 ± 0.55 | -0.47 ± 0.55 | ir 1 | 4 |" in table[3]
    assert len({line.count(" | ") for line in table}) == 1


@pytest.mark.parametrize(
    ("better_by", "verdict"),
    [([10, 11, 12], "Yes."), ([-10, -11, -12], "No: Inception-ResNet does better."), ([10, -12, 3], "Not decided.")],
)
def test_the_answer(better_by, verdict):
    base = [100, 120, 140]
    poly = [wrong - better for wrong, better in zip(base, better_by, strict=True)]
    said = ablation_answer(outcomes_of({("ir 1", "", ""): base, ("B x", "B", "ir 1"): poly}))
    assert said.startswith(f"Does PolyNet beat Inception-ResNet at the same compute here? {verdict} Over 3 seeds the")
    assert "two or more seeds" in ablation_answer(outcomes_of({("ir 1", "", ""): [1], ("B x", "B", "ir 1"): [2]}))


def test_intervals_of_single_nets():
    """With t of a printed table, 4.3027 for three seeds. Holm doubles the smaller of two p-values."""
    nets = {"A x": [91, 110, 132], "B x": [100, 121, 139], "C x": [100]}
    others = {(net, net[0], "ir 1"): row for net, row in nets.items()}
    outcomes = outcomes_of({("ir 1", "", ""): [100, 120, 140], **others})
    rows = [line.strip("| ").split(" | ") for line in paired_table(outcomes).splitlines()]
    assert [row[0] for row in rows] == ["net", "---", "A x", "B x"]
    half = 4.3027 * np.std([0.9, 1.0, 0.8], ddof=1) / 3**0.5
    assert rows[2][1:5] == ["ir 1", "3", "-0.90", f"{-0.9 - half:+.2f} to {-0.9 + half:+.2f}"]
    assert float(rows[2][6]) == pytest.approx(2 * float(rows[2][5]), rel=0.01)
    assert rows[3][3:] == ["+0.00", "-0.25 to +0.25", "1", "1"]
    same = outcomes_of({("ir 1", "", ""): [100, 120, 140], ("A x", "A", "ir 1"): [90, 110, 130]})
    assert paired_table(same).splitlines()[2].endswith("| -1.00 | -1.00 to -1.00 | - | - |")  # no spread, no test
    assert "Not decided." in ablation_answer(same)
    assert "99.9 % interval" in paired_table(outcomes, level=0.999)


def test_a_table_comes_back_as_it_was(tmp_path):
    outcomes = outcomes_of({("ir 1", "", ""): [100, 120], ("B x", "B", "ir 1"): [90, 115]})
    table = tmp_path / "ablation.csv"
    save_outcomes(table, outcomes)
    assert load_outcomes(table) == outcomes
    lines = table.read_text().splitlines()
    for changed, message in (
        (lines[1:], "must begin with the line variant,stage,same_depth"),
        ([], "must begin with the line"),
        ([*lines, "ir 1,"], "line 6: got 2 fields, expected 12"),
        ([*lines[:2], lines[2].replace("120", "many")], "line 3: errors='many' must be an integer"),
    ):
        table.write_text("\n".join(changed))
        with pytest.raises(ValueError, match=message):
            load_outcomes(table)
    with pytest.raises(ValueError, match="nowhere.csv cannot be read"):
        load_outcomes(tmp_path / "nowhere.csv")


def test_tables_and_pictures(tmp_path):
    outcomes = outcomes_of(
        {("ir 1", "", ""): [100, 120], ("B x", "B", "ir 1"): [90, 115], ("mixed y", "mixed", "ir 1"): [9]}
    )
    save_outcomes(tmp_path / "a.csv", outcomes)
    assert [row["errors"] for row in rows(tmp_path / "a.csv")] == ["100", "120", "90", "115", "9"]
    plot_ablation(outcomes, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (960, 600)


def test_the_command(capsys, tmp_path):
    """On runs that are done: Poly and K-way nets have 10 errors of 359, Inception-ResNets 20 and 21."""
    folder = tmp_path / "study"
    finish_study(folder, Recipe(), (1, 1, 1), ("2-way",), 2, lambda variant, seed: 10 if variant.stage else 20 + seed)
    runs = {path.name for path in folder.iterdir()}
    assert main(["ablation", f"--output={folder}", "--depths=1,1,1", "--modules=2-way", "--seeds=2"]) == 0
    output = capsys.readouterr().out
    assert "Does PolyNet beat Inception-ResNet at the same compute here? Yes. Over 2 seeds" in output
    assert "is -2.92 points (95 % interval -4.69 to -1.16)" in output  # 10.5 of 359, ± 12.7 * 0.5
    assert paired_table(load_outcomes(folder / "ablation.csv")) in output
    assert {path.name for path in folder.iterdir()} - runs == {"ablation.csv", "ablation.md", "ablation.png"}
    table = (folder / "ablation.md").read_text()
    assert table in output
    assert f"| {100 * 20.5 / 359:.2f} ± {100 * 0.5**0.5 / 359:.2f} | 2 |" in table
    assert [row["errors"] for row in rows(folder / "ablation.csv")[::11]] == ["20", "21"]
    assert output.startswith("11 nets, 2 seeds each:")
    for argv, message in (
        ([], "--output is missing: the folder for the runs, the table and the plot"),
        (["--output=x", "--structure=ir-5-10-5"], "unknown flag --structure of polynet ablation"),
        (["--output=x", "--depths=1,2"], "--depths=1,2 must be three numbers"),
        ([f"--output={tmp_path}"], "is not empty: 'study'; name a new folder, nothing is overwritten"),
        ([f"--output={folder}", "--epochs=3"], "holds a study of another recipe (epochs=15, here 3)"),
        (["--output=x", "--depths=1,2,some"], "--depths=1,2,some must be three numbers"),
        (["--output=x", "--modules=foo"], "modules='»foo', column 1: unknown module"),
        (["--output=x", "--stages=a"], "stages='a' must be one of A, B, C, mixed"),
        (["--output=x", "--learning_rates=ir 1-2-1"], "--learning_rates=ir 1-2-1 must be NET=NUMBER, split by commas"),
        (["--output=x", "--learning_rates=ir=0.1"], "learning_rates='ir' must be one of ir 1-2-1, ir 2-2-1"),
        (["--output=x", "--seeds=0"], "seeds=0 must be an integer of at least 1"),
        (["x"], "unexpected argument 'x'"),
    ):
        assert main(["ablation", *argv]) == 1
        assert message in capsys.readouterr().err


def test_data_that_are_not_there_begin_no_study(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        ablation(Recipe(data=str(tmp_path / "nowhere")), tmp_path / "study", (1, 1, 1), ("2-way",))
    assert not list(tmp_path.iterdir())
