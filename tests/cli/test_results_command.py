"""`polynet results` as a user meets it."""

import dataclasses

import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.cli.table import markdown_table
from polynet_keras.evaluation.identity import environment
from polynet_keras.evaluation.results import Result, append, read
from tests.cli.outcomes import fails


@pytest.fixture
def results_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = environment() | dict.fromkeys(("structure", "weights_hash", "fingerprint", "pooling"), "x")
    about["protocol"] = '{"image_size": 32}'
    for model, crops, images, skipped, top1, macs in (
        ("small", 1, 9_990, 10, 7_000, 0),
        ("large", 144, 50_000, 0, 40_620, 34_699_000_000),
    ):
        append(
            Result(
                model=model,
                dataset=f"{model} data",
                crops=crops,
                images=images,
                skipped=skipped,
                top1_hits=top1,
                top5_hits=images - 100,
                loss=0.5,
                ece=0.1,
                seconds=40.0,
                parameters=95_366_600,
                macs=macs,
                **about,
            ),
            "results.csv",
        )
    return tmp_path / "results.csv"


def lines_of(capsys, *argv):
    code = main(["results", *argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.splitlines()


def test_table(capsys, results_file):
    expected = [
        "model  crops           images  top-1 %   95 % interval  top-5 %  images/s  parameters       MACs  dataset",
        "small      1  9,990 of 10,000    70.07  69.16 to 70.96    99.00    249.75  95,366,600  not known  small data",
        "large    144           50,000    81.24  80.90 to 81.58    99.80   1250.00  95,366,600   34.699 G  large data",
    ]
    assert lines_of(capsys) == expected
    assert lines_of(capsys, str(results_file)) == expected


@pytest.mark.parametrize(
    ("column", "first"), [("top1", "large"), ("model", "large"), ("dataset", "large"), ("skipped", "small")]
)
def test_sorted(capsys, results_file, column, first):
    lines = lines_of(capsys, f"--sort={column}")
    assert lines[1].startswith(first)
    assert len(lines) == 3


def test_a_speed_that_was_not_measured(capsys, results_file):
    result = read(results_file)[0]
    for model in ("once", "again"):
        append(dataclasses.replace(result, model=model, seconds=0.0), results_file)
    lines = lines_of(capsys, "--sort=images_per_second")
    assert [line.split()[0] for line in lines[1:]] == ["large", "small", "once", "again"]
    assert "  not measured  " in lines[3]
    assert len(lines_of(capsys, "--filter=images_per_second>0")) == 3


@pytest.mark.parametrize(
    ("conditions", "models"),
    [
        (["top1>=80"], ["large"]),
        (["top1 < 80"], ["small"]),
        (["crops!=1"], ["large"]),
        (["images<=9990"], ["small"]),
        (["images>9990", "dataset==large data"], ["large"]),
        (["dataset=small data"], ["small"]),
        (["date>2020", "loss=0.5"], ["small", "large"]),
    ],
)
def test_filtered(capsys, results_file, conditions, models):
    lines = lines_of(capsys, *(f"--filter={condition}" for condition in conditions))
    assert [line.split()[0] for line in lines[1:]] == models


def test_markdown(capsys, results_file):
    header, rules, *cells = lines_of(capsys, "--format=markdown", "--sort=top1")
    assert header.startswith("| model | crops | images | top-1 % | 95 % interval |")
    assert rules == "| :-- |" + " --: |" * 8 + " :-- |"
    assert cells[0].startswith("| large | 144 | 50,000 | 81.24 | 80.90 to 81.58 | 99.80 | 1250.00 |")
    assert len(cells) == 2


def test_names_do_not_end_a_cell_of_markdown():
    assert markdown_table(("a", "b"), [("x|y", "C:\\z")])[2] == r"| x\|y | C:\\z |"


def test_plot(capsys, results_file):
    assert lines_of(capsys, "--plot=results.png")[-1] == "error against cost: results.png"
    with Image.open("results.png") as picture:
        assert picture.format == "PNG"


def test_mistakes(capsys, results_file):
    header = results_file.read_text().splitlines()[0]
    (results_file.parent / "none.csv").write_text(header + "\n")
    (results_file.parent / "other.csv").write_text("a,b\n")
    for argv, message in (
        (["a.csv", "b.csv"], "unexpected argument 'b.csv'; name one file of results"),
        (["--format=html"], "--format='html' must be one of"),
        (["--filter=top1"], "--filter=top1 is not a condition; write a column, one of >= <= != = > <, and a value"),
        (["--filter=speed>1"], "--filter=speed>1: speed must be one of date, model, "),
        (["--filter=top1>high"], "--filter=top1>high: top1 is a number; got 'high'"),
        (["--filter=top1>99"], "results.csv: none of 2 results matches --filter"),
        (["--sort=speed"], "--sort=speed must be one of date, model, "),
        (["missing.csv"], "missing.csv: no such file; `polynet evaluate --results FILE` writes one"),
        (["none.csv"], "none.csv: has no result; `polynet evaluate --results FILE` adds one"),
        (["other.csv"], "other.csv: not the columns of this version's results: it lacks date"),
        (["--plot=results.txt"], "Format 'txt' is not supported"),
        (["--plot=nowhere/results.png"], "nowhere/results.png: No such file or directory"),
    ):
        assert message in fails(capsys, "results", *argv)
