"""The ablation: which nets are compared, that it goes on where it was, and what it makes of its numbers."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.models import Structure
from polynet_keras.models.cost import network_cost
from polynet_keras.training import ablation as module
from polynet_keras.training.ablation import Outcome, ablation, save_outcomes, variants
from polynet_keras.training.ablation_report import answer, comparisons, interval, markdown, plot
from polynet_keras.training.recipe import Recipe


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


@pytest.mark.parametrize("modules", [(), ("poly-2", "ir"), ("I + F",)])
def test_modules_are_other_than_the_baseline(modules):
    with pytest.raises(ValueError, match="must be one or more, such as poly-2, and not ir"):
        variants((1, 1, 1), modules)


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    recipe = Recipe(width=0.0625, epochs=1, batch_size=256)
    everything = variants((1, 1, 1), ("2-way",))
    two = [variant for variant in everything if variant.name in ("ir 2-1-1", "A 2-way")]
    monkeypatch.setattr(module, "variants", lambda depths, modules: two)
    train, started = module.train, []

    def breaks(recipe, folder):
        started.append(folder.name)
        if len(started) == 2:
            raise KeyboardInterrupt
        return train(recipe, folder)

    monkeypatch.setattr(module, "train", breaks)
    with pytest.raises(KeyboardInterrupt):
        ablation(recipe, tmp_path, (1, 1, 1), ("2-way",), seeds=1)
    assert len(rows(tmp_path / "ablation.csv")) == 1
    outcomes = ablation(recipe, tmp_path, (1, 1, 1), ("2-way",), seeds=1)
    assert started == ["ir-2-1-1-seed-0", "A-2-way-seed-0", "A-2-way-seed-0"]
    assert [outcome.variant for outcome in outcomes] == ["ir 2-1-1", "A 2-way"]
    assert [row["variant"] for row in rows(tmp_path / "ablation.csv")] == ["ir 2-1-1", "A 2-way"]
    assert outcomes[0].macs == outcomes[1].macs
    assert outcomes[0].images == 359
    assert all(outcome.seconds > 0 for outcome in outcomes)
    with pytest.raises(ValueError, match=r"holds a study of another recipe \(epochs=1, here 2\)"):
        ablation(dataclasses.replace(recipe, epochs=2), tmp_path, (1, 1, 1), ("2-way",), seeds=1)


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
        )
        for (name, stage, baseline), row in errors.items()
        for seed, wrong in enumerate(row)
    ]


def test_differences_are_of_the_same_seed():
    outcomes = outcomes_of({("ir 1", "", ""): [100, 120, 140], ("B x", "B", "ir 1"): [90, 115, 141]})
    (pair,) = comparisons(outcomes, "compute")
    assert comparisons(outcomes, "depth") == [pair]
    assert pair.differences == pytest.approx({0: -0.01, 1: -0.005, 2: 0.001})
    table = markdown(outcomes).splitlines()
    assert table[2].startswith("| ir 1 |  | `1 x [ir] \\| 1 x [ir] \\| 1 x [ir]` | 1,000 | 2.00 | 12.00 ± 2.00 | 3 |")
    assert "| 11.53 ± 2.55 | 3 | -0.47 ± 0.55 | -0.47 ± 0.55 | ir 1 | 4 |" in table[3]
    assert len({line.count(" | ") for line in table}) == 1


@pytest.mark.parametrize(("count", "t"), [(2, 12.7062), (3, 4.3027), (10, 2.2622)])
def test_the_interval_is_students(count, t):
    """With t of a printed table."""
    values = np.random.default_rng(count).normal(1, 2, count)
    half = t * np.sqrt(np.sum((values - values.mean()) ** 2) / (count - 1) / count)
    np.testing.assert_allclose(
        interval(values), [values.mean(), values.mean() - half, values.mean() + half], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="two or more values; got 1"):
        interval([1.0])


@pytest.mark.parametrize(
    ("better_by", "verdict"),
    [([10, 11, 12], "Yes."), ([-10, -11, -12], "No: Inception-ResNet does better."), ([10, -12, 3], "Not decided.")],
)
def test_the_answer(better_by, verdict):
    base = [100, 120, 140]
    poly = [wrong - better for wrong, better in zip(base, better_by, strict=True)]
    said = answer(outcomes_of({("ir 1", "", ""): base, ("B x", "B", "ir 1"): poly}))
    assert said.startswith(f"Does PolyNet beat Inception-ResNet at the same compute here? {verdict} Over 3 seeds the")
    assert "two or more seeds" in answer(outcomes_of({("ir 1", "", ""): [1], ("B x", "B", "ir 1"): [2]}))


def test_tables_and_pictures(tmp_path):
    outcomes = outcomes_of(
        {("ir 1", "", ""): [100, 120], ("B x", "B", "ir 1"): [90, 115], ("mixed y", "mixed", "ir 1"): [9]}
    )
    save_outcomes(tmp_path / "a.csv", outcomes)
    assert [row["errors"] for row in rows(tmp_path / "a.csv")] == ["100", "120", "90", "115", "9"]
    plot(outcomes, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (960, 600)


def test_the_command(capsys, tmp_path, monkeypatch):
    def outcome(variant, recipe, *_):
        about = (variant.name, variant.stage, variant.same_depth, variant.same_compute, str(variant.structure))
        return Outcome(*about, recipe.seed, 1, 2, 3.0, 100, recipe.seed)

    monkeypatch.setattr(module, "_outcome", outcome)
    folder = tmp_path / "study"
    folder.mkdir()
    assert main(["ablation", f"--folder={folder}", "--depths=1,1,1", "--modules=2-way", "--seeds=2"]) == 0
    output = capsys.readouterr().out
    assert "Does PolyNet beat Inception-ResNet at the same compute here? Not decided." in output
    assert {path.name for path in folder.iterdir()} == {"ablation.csv", "ablation.md", "ablation.png", "study.json"}
    assert output.startswith("11 nets, 2 seeds each:")
    for argv, message in (
        ([], "--folder is needed"),
        (["--folder=x", "--structure=ir-5-10-5"], "Unknown command line flag 'structure'"),
        (["--folder=x", "--depths=1,2"], "--depths=1,2 must be three numbers"),
        ([f"--folder={tmp_path}"], "is not empty; name a new folder, nothing is overwritten"),
        ([f"--folder={folder}", "--epochs=3"], "holds a study of another recipe (epochs=15, here 3)"),
        (["--folder=x", "--depths=1,2,some"], "--depths=1,2,some must be three numbers"),
        (["--folder=x", "--modules=foo"], "modules: unknown letter"),
        (["--folder=x", "--seeds=0"], "seeds=0 must be an integer of at least 1"),
        (["x"], "unexpected argument 'x'"),
    ):
        assert main(["ablation", *argv]) == 1
        assert message in capsys.readouterr().err
