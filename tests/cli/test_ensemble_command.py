"""`polynet ensemble`: what is printed, and one line for each mistake."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.evaluation.ensemble import evaluate_ensemble
from polynet_keras.evaluation.pooling import pool
from tests.cli.outcomes import fails, succeeds
from tests.data.arrays import random_images
from tests.evaluation.test_ensemble import nets
from tests.test_loading import NAMES, network

SKILLS = (0.9, 1.1, 1.0)
FILES = ["0.npz", "1.npz", "2.npz"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the scores of three nets, and those of the same nets on other images; the command runs in it."""
    for kind, seed in (("", 0), ("held_out_", 1)):
        for i, scores in enumerate(nets(seed, 1200, 6, SKILLS, crops=10)):
            scores.save(tmp_path / f"{kind}{i}.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(output):
    return [line.split() for line in output.splitlines()]


def test_table_and_gain(capsys, here):
    output = succeeds(capsys, "ensemble", *FILES)
    report = evaluate_ensemble(nets(0, 1200, 6, SKILLS, crops=10))
    first, header, *rows, mixed, empty, gain = output.splitlines()
    assert first == "data 0: 1,200 images, 6 classes"
    assert header.split() == ["member", "weight", "top-1", "%", "95", "%", "interval", "top-5", "%", "loss", "scores"]
    assert empty == ""
    for i, (row, member) in enumerate(zip(rows, report.members, strict=True)):
        low, high = member.counts.interval()
        numbers = (
            f"0.3333 {100 * member.counts.top1:.2f} {100 * low:.2f} to {100 * high:.2f} "
            f"{100 * member.counts.top5:.2f} {member.counts.loss:.4f}"
        )
        assert row.split() == f"net {i} {numbers} {i}.npz".split()
    assert mixed.split()[:2] == ["mixture", f"{100 * report.mixture.top1:.2f}"]
    low, high = (100 * end for end in report.paired.interval())
    assert gain == (
        f"gain over net 1, the best member: top-1 {100 * report.gain:+.2f} points, 95 % interval {low:+.2f} to "
        f"{high:+.2f}, McNemar's exact p-value {report.paired.p_value:.2g}; "
        f"loss {-report.loss_gain:+.4f} against the lowest of a member"
    )


def test_weights_and_pooling(capsys, here):
    output = succeeds(capsys, "ensemble", *FILES, "--mixture=1,3,0", "--pooling=mean", "--on=logits", "--fraction=0.5")
    members = nets(0, 1200, 6, SKILLS, crops=10)
    report = evaluate_ensemble(members, (1, 3, 0), pooling=lambda logits: pool(logits, "mean", on="logits"))
    rows = cells(output)[2:]
    assert [row[2] for row in rows[:3]] == ["0.2500", "0.7500", "0.0000"]
    assert rows[3][-1] == f"{report.mixture.loss:.4f}"
    selective = evaluate_ensemble(members, (1, 3, 0), pooling=lambda logits: pool(logits, fraction=0.5))
    rows = cells(succeeds(capsys, "ensemble", *FILES, "--mixture=1,3,0", "--fraction=0.5"))[2:]
    assert rows[3][-1] == f"{selective.mixture.loss:.4f}" != f"{report.mixture.loss:.4f}"


def test_fitted_weights(capsys, here):
    output = succeeds(capsys, "ensemble", *FILES, "--mixture=fit", "--fit=held_out_0.npz,held_out_1.npz,held_out_2.npz")
    assert output.startswith("data 0: 1,200 images, 6 classes; weights fitted on 1,200 others\n")
    weights = [float(row[2]) for row in cells(output)[2:5]]
    assert sum(weights) == pytest.approx(1, abs=2e-4)
    assert max(weights) < 0.9
    output = succeeds(capsys, "ensemble", *FILES, "--mixture=fit", "--seed=5")
    assert output.startswith("data 0: 600 images, 6 classes; weights fitted on 600 others\n")
    assert [float(row[2]) for row in cells(output)[2:5]] != weights
    report = evaluate_ensemble(nets(0, 1200, 6, SKILLS, crops=10), "fit", seed=5)
    assert cells(output)[5][-1] == f"{report.mixture.loss:.4f}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected two files of scores or models, or more; got 0"),
        (["0.npz"], "expected two files of scores or models, or more; got 1"),
        (["0.npz", "none.npz"], "none.npz: no such file; `polynet evaluate --scores FILE` writes one"),
        (["0.npz", "text.npz"], "text.npz: not a file of scores"),
        (["0.npz", "turned.npz"], "have the same classes in another order (6 and 6): class 0 is"),
        (["0.npz", "held_out_1.npz"], "net 0 and net 1 were evaluated on other data: data 0 and data 1"),
        ([*FILES, "--mixture=best"], "--mixture=best must be uniform, fit, or one number for each member"),
        (
            [*FILES, "--mixture=1,2"],
            "the weights of the mixture, 1.0, 2.0, must be 3 numbers of at least 0, one for each member",
        ),
        ([*FILES, "--mixture=1,2,nan"], "the weights of the mixture, 1.0, 2.0, nan, must be 3 numbers of at least 0"),
        ([*FILES, "--fit=0.npz"], "--fit needs --mixture=fit; got --mixture=uniform"),
        ([*FILES, "--mixture=fit", "--fit=held_out_0.npz"], "3 members need as many scores to fit on; got 1"),
        ([*FILES, "--mixture=fit", "--fit=0.npz,1.npz,2.npz"], "1,200 images of data 0 are among those to fit on"),
        ([*FILES, "--pooling=median"], "pooling='median' must be one of"),
        ([*FILES, "--on=ranks"], "on='ranks' must be one of"),
        ([*FILES, "--fraction=0"], "fraction=0.0 must be above 0 and at most 1"),
        ([*FILES, "--seed=-1"], "--seed=-1"),
    ],
)
def test_mistakes(capsys, here, argv, message):
    (here / "text.npz").write_text("no scores")
    scores = nets(0, 1200, 6, (1, 2), crops=10)[1]
    replace(scores, class_names=scores.class_names[::-1]).save(here / "turned.npz")
    assert message in fails(capsys, "ensemble", *argv)


def test_crops_of_other_numbers_are_mixed(capsys, here):
    """Each member has a protocol of its own."""
    one = nets(0, 1200, 6, (1, 2))[1]
    np.testing.assert_array_equal(one.labels, nets(0, 1200, 6, (1, 2), crops=10)[1].labels)
    one.save(here / "one.npz")
    assert "one.npz" in succeeds(capsys, "ensemble", "0.npz", "one.npz")


@pytest.mark.slow
def test_members_that_are_models_are_scored_here(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    for label, name in enumerate(NAMES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, image in enumerate(random_images(4, seed=label)):
            Image.fromarray(image).save(tmp_path / "data" / name / f"{i}.png")
    for file, last in (("a.keras", ()), ("b.keras", (keras.layers.Softmax(),))):
        network(*last).save(file)
        succeeds(capsys, "card", file, "--classes=classes.txt", "--preprocessing=raw")
    succeeds(capsys, "evaluate", "--model=a.keras", "--data=data", "--scores=a.npz", "--results=")
    expected = succeeds(capsys, "ensemble", "a.npz", "a.npz").splitlines()
    found = succeeds(capsys, "ensemble", "a.npz", "b.keras", "--data=data").splitlines()
    assert found[0] == expected[0] == "data: 12 images, 3 classes"
    assert found[4].split() == expected[4].split()
    assert found[3].split()[0] == "b.keras"
