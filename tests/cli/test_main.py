"""The command line as a user meets it: what it prints, and one line with exit code 1 for each mistake."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from polynet_keras.cli.main import COMMANDS, main
from polynet_keras.cli.recipe_flags import define_recipe_flags
from polynet_keras.cli.recipe_from_flags import recipe_of
from polynet_keras.pretrained.registry import CHECKPOINTS
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import Recipe
from tests.cli.outcomes import fails, succeeds


@pytest.mark.parametrize(
    "program",
    [[Path(sys.executable).parent / "polynet"], [sys.executable, "-m", "polynet_keras"]],
    ids=["polynet", "-m"],
)
def test_console_script(program):
    done = subprocess.run([*program, "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "polynet: unknown command 'trian'; did you mean train? `polynet --help` lists the commands\n"


def test_help_lists_the_commands(capsys):
    for argv in (["--help"], ["-h"], ["help"], []):
        output = succeeds(capsys, *argv)
        for command in COMMANDS:
            assert command in output


@pytest.mark.parametrize("name", ["there.csv", b"there.csv", "a\x1b[2Jb\nc.csv", "caf\udce9.csv"])
def test_an_error_of_the_system_names_the_file_and_no_number(capsys, monkeypatch, name):
    def run(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr("polynet_keras.cli.results.run", run)
    text = {"a\x1b[2Jb\nc.csv": r"a\x1b[2Jb\nc.csv", "caf\udce9.csv": r"caf\xe9.csv"}.get(name, "there.csv")
    assert fails(capsys, "results") == f"polynet: {text}: Permission denied"


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["train", "--run_dir=a\0b"], r"--run_dir 'a\x00b'"),
        (["export", "--output", "a\0b"], r"--output 'a\x00b'"),
        (["train", "--data=a\0b"], r"--data 'a\x00b'"),
        (["records", "a\0b", "out"], r"argument 'a\x00b'"),
        (["export", "--keep_float=a,a\0b"], r"--keep_float 'a\x00b'"),
    ],
)
def test_a_null_character_is_refused_with_its_flag(capsys, argv, name):
    assert fails(capsys, *argv) == f"polynet: {name} has a null character, which no name can have"


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flag(capsys, command):
    assert fails(capsys, command, "--epoch=3").startswith(f"polynet: unknown flag --epoch of polynet {command}; ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "many"], "--epochs=many"),
        (["--epochs", "0"], "epochs=0 must be an integer of at least 1"),
        (["--width", "-1"], "width=-1.0 must be a finite number > 0"),
        (["--image_size", "32"], "image_size=32 must be an integer of at least 75"),
        (
            ["--recipe", "resnet"],
            "recipe='resnet' is neither a file nor one of digits, fashion_mnist, photos, finetune, probe, imagenet-ir",
        ),
        (
            ["--recipe", "imagenet-g5", "--optimizer", "adamw", "--momentum", "0.9"],
            "momentum=0.9 is a setting of optimizer=rmsprop",
        ),
        (["--optimizer", "adam"], "optimizer='adam' must be one of rmsprop, sgd, adamw, lamb; did you mean adamw?"),
        (["--schedule", "step"], "schedule='step' needs decay_epochs"),
        (["--weights", "nowhere"], "weights='nowhere' is not a file or folder in"),
        (
            ["--weights", "fashion_mnist", "--structure", "ir-5-10-5"],
            "weights='fashion_mnist' are of a network with structure",
        ),
        (["--frozen_through", "stem"], "frozen_through='stem' needs weights"),
        (["--structure", "resnet"], "structure='»resnet', column 1: unknown structure"),
        (["--structure", "1 x [I + G] | 1 x [ir] | 1 x [ir]"], "G comes where F is due"),
        (["--residual_scale", "big"], "--residual_scale=big must be numbers"),
        (["--data", "nowhere"], "data='nowhere' is not there"),
        (["--crop", "center"], "crop='center' must be one of random, random_resized"),
        (["--mixup", "-1"], "mixup=-1.0 must be a finite number ≥ 0"),
        (["--color_jitter", "0.1"], "color_jitter and policy are for RGB images; these have 1 channel"),
        (["--mixup", "0.2", "--batch_size", "5"], "global_batch_size=5 must be a multiple of 2"),
        (["--on_error", "ignore"], "on_error='ignore' must be one of error, skip"),
        (["--run_dir", "/proc/run"], "run_dir='/proc/run' cannot be written"),
        (["digits"], "unexpected argument 'digits'; name the data with --data"),
    ],
)
def test_train_mistakes(capsys, argv, message):
    assert message in fails(capsys, "train", *argv)


def test_recipes_are_listed_and_shown(capsys, tmp_path):
    output = succeeds(capsys, "recipes")
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.about}\n  command  {preset.command}\n" in output
    unmeasured = "\n  time     (not measured)\n  result   (not measured)"
    cost = "208 GFLOP an image, 6e+19 FLOP in all: 166 hours at 100 TFLOP/s, of all devices together"
    assert cost + unmeasured in output
    assert "an image, 2.1e+12 FLOP in all\n" in output  # no hour
    (tmp_path / "mine.json").write_text(succeeds(capsys, "recipes", "imagenet-g5"))
    assert Recipe.load(tmp_path / "mine.json") == PRESETS["imagenet-g5"].recipe
    assert "recipe='resnet' is neither a file" in fails(capsys, "recipes", "resnet")
    assert "unexpected argument 'b'; name one recipe at a time" in fails(capsys, "recipes", "digits", "b")


def test_flags_change_a_recipe(tmp_path):
    Recipe(epochs=3, residual_scale=None).save(tmp_path / "mine.json")
    values = flags.FlagValues()
    define_recipe_flags(values)
    values(["polynet", f"--recipe={tmp_path / 'mine.json'}", "--seed=5", "--optimizer=sgd", "--flip"])
    recipe = recipe_of(values)
    assert (recipe.epochs, recipe.residual_scale, recipe.seed) == (3, None, 5)
    assert recipe.optimizer.name == "sgd"
    assert recipe.augmentation.flip


def test_data_folder_without_classes(capsys, tmp_path):
    assert "holds 0 folders; expected a folder with one folder of images for each class" in fails(
        capsys, "train", "--data", str(tmp_path)
    )


def test_summary_of_all(capsys):
    output = succeeds(capsys, "summary")
    assert output.startswith("one 331 x 331 x 3 image, width 1, 1,000 classes; trainable parameters\n")
    (line,) = (line for line in output.splitlines() if line.startswith("polynet-g5 "))
    assert line.split("  ")[-1] == "10 x [2-way] | 10 x [poly-3, 2-way] | 5 x [poly-3, 2-way]"
    assert line.split()[1:6] == ["95,366,600", "34.699", "G", "66.523", "M"]
    smaller = succeeds(capsys, "summary", "--image_size=131", "--width=0.5", "--channels=1", "--classes=10")
    assert smaller.startswith("one 131 x 131 x 1 image, width 0.5, 10 classes; trainable parameters\n")
    assert "34.699 G" not in smaller


def test_summary_of_one(capsys):
    output = succeeds(
        capsys, "summary", "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--image_size=75", "--width=0.25"
    )
    parts = [line.split("  ")[0] for line in output.splitlines()[2:]]
    assert parts == ["part", "stem", "stage A", "reduction A", "stage B", "reduction B", "stage C", "head", "total"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--structure", "x"], "structure='»x', column 1: unknown structure"),
        (["--image_size", "74"], "image_size=74 must be an integer of at least 75"),
        (["--channels", "2"], "channels=2 must be one of 1, 3, 4"),
        (["--classes", "0"], "classes=0 must be an integer"),
        (["--structure", "ir-5-10-5", "--width", "-1"], "width=-1.0 must be a finite number > 0"),
        (["polynet-g5"], "unexpected argument 'polynet-g5'"),
    ],
)
def test_summary_mistakes(capsys, argv, message):
    assert message in fails(capsys, "summary", *argv)


def test_weights_are_listed_and_shown(capsys, tmp_path):
    output = succeeds(capsys, "weights")
    for checkpoint in CHECKPOINTS:
        assert f"\n{checkpoint.name} " in output
    assert "imagenet is imagenet-tf2cv." in output
    assert "| SHA-256 of the file | `f71d82a5`" in succeeds(capsys, "weights", "imagenet-cadene")
    succeeds(capsys, "weights", f"--cards={tmp_path}")
    assert {path.stem for path in tmp_path.iterdir()} == {checkpoint.name for checkpoint in CHECKPOINTS}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnet"], "no published checkpoint is called 'resnet'; known are imagenet, "),
        (["imagenet", "more"], "unexpected argument 'more'"),
        (["--cards=/nowhere"], "--cards=/nowhere must be a folder that exists"),
    ],
)
def test_weights_mistakes(capsys, argv, message):
    assert message in fails(capsys, "weights", *argv)


def test_convert_mistakes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("no weights")
    Path("there.weights.h5").write_text("precious")
    for argv, message in (
        ([], "expected one SOURCE (a file, or a name of `polynet weights`); got 0"),
        (["text.pth"], "--output is missing: the file to write"),
        (["text.pth", "--output=net.h5"], "--output=net.h5 must end in .weights.h5 or .keras"),
        (["text.pth", "--output=there.weights.h5"], "--output=there.weights.h5 already exists; name a new file"),
        (["text.pth", "--output=folder/net.weights.h5"], "folder does not exist or cannot be written"),
        (["none.pth", "--output=net.weights.h5"], "SOURCE 'none.pth' is neither a file nor one of imagenet, "),
        (["text.pth", "--output=net.weights.h5"], "weights='text.pth' is not a checkpoint"),
        (
            ["fashion_mnist", "--output=net.weights.h5"],
            "is already a file of this package; there is nothing to convert",
        ),
    ):
        assert message in fails(capsys, "convert", *argv)
    assert {path.name for path in tmp_path.iterdir()} == {"text.pth", "there.weights.h5"}
    assert Path("there.weights.h5").read_text() == "precious"


@pytest.mark.slow
def test_predict_with_a_published_checkpoint(capsys, digits_run):
    output = succeeds(capsys, "predict", "--weights=fashion_mnist", "--top=1", digits_run.samples[0])
    assert output.startswith("model: fashion_mnist\n")
    assert "are both --model now" in fails(
        capsys, "predict", "--weights=imagenet", "--run_dir=x", digits_run.samples[0]
    )
    assert "model='x' is not a file or folder in" in fails(capsys, "predict", "--weights=x", digits_run.samples[0])
    assert "model='' is not a file or folder in" in fails(capsys, "predict", "--weights=", digits_run.samples[0])
    assert "none.png: no such file" in fails(capsys, "predict", "--weights=imagenet", "none.png")


def test_what_a_restart_may_mend_is_no_mistake(capsys, monkeypatch):
    """A network file system that fails, say: not code 1, after which no supervisor would try again."""

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/shared/run")

    def says_which(*_):
        try:
            fails()
        except OSError as error:
            raise ValueError(f"run_dir='/shared/run' cannot be written: {error.strerror}") from None

    for command in (fails, says_which):
        monkeypatch.setattr("polynet_keras.cli.summary.run", command)
        assert main(["summary"]) == 70
        told = capsys.readouterr().err
        assert "Traceback" in told
        assert "Input/output error" in told


PROGRAM = """
import sys, time
from polynet_keras.cli import main, summary

def run(*_):
    try:
        print("works", flush=True)
        time.sleep(60)
    finally:
        print("cleans", flush=True)
        time.sleep(60)

summary.run = run
sys.argv = ["polynet", "summary"]
sys.exit(main.program())
"""


def test_a_second_interrupt_ends_the_process_at_once():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, **pipes) as process:
        for line in ("works\n", "cleans\n"):
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT
        assert process.stderr.read() == ""


def test_an_interrupt_that_comes_back_as_another_error_is_one(capsys, monkeypatch):
    def fails(*_):
        raise SystemError("<built-in function f> returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr("polynet_keras.cli.summary.run", fails)
    assert main(["summary"]) == 130
    assert capsys.readouterr().err == "polynet: interrupted\n"


@pytest.mark.parametrize(
    ("argument", "expanded"),
    [
        ("--run_dir=~/runs/a b", "--run_dir={home}/runs/a b"),
        ("-o=~", "-o={home}"),
        ("~/photo.jpg", "{home}/photo.jpg"),
        ("--data=a~b", "--data=a~b"),
        ("photo~", "photo~"),
        ("--data=~nobody-of-this-name/x", "--data=~nobody-of-this-name/x"),
    ],
)
def test_a_home_folder_in_a_flag(monkeypatch, tmp_path, argument, expanded):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    monkeypatch.setattr("polynet_keras.cli.summary.define_flags", lambda values: seen.append(sys.argv))
    monkeypatch.setattr("absl.flags.FlagValues.__call__", lambda self, argv: seen.append(argv) or [argv[0]])
    monkeypatch.setattr("polynet_keras.cli.summary.run", lambda values, arguments: 0)
    main(["summary", argument])
    assert seen[-1][1:] == [expanded.format(home=tmp_path)]


def test_traceback_on_demand(monkeypatch):
    monkeypatch.setenv("POLYNET_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["x"])
