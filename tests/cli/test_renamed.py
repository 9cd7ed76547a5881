"""Old names of flags, and places that have become flags: they work, and one line says the new name."""

import logging

import pytest
from absl import flags

from polynet_keras.cli import export, predict, records, renamed
from polynet_keras.cli.flag_names import named_by_flag
from polynet_keras.cli.main import main

MODEL_COMMANDS = ("evaluate", "export", "grow", "predict")
OLD = [(command, old, new) for command, names in renamed.FLAGS.items() for old, new in names.items()]


@pytest.fixture
def ran(monkeypatch):
    """What a command would have run with: its values and arguments."""
    seen = []
    for command in (*renamed.FLAGS, *renamed.PLACES):
        monkeypatch.setattr(f"polynet_keras.cli.{command}.run", lambda *given: seen.append(given))
    return seen


def test_the_table():
    """A name leaves it when it is gone for good, not by accident."""
    models = [(command, old, "model") for command in MODEL_COMMANDS for old in ("run_dir", "weights")]
    others = [("ablation", "folder", "output"), ("crops", "out", "output"), ("ensemble", "weights", "mixture")]
    assert sorted(OLD) == sorted(others + models)
    assert renamed.PLACES == {"convert": ("SOURCE", "output"), "records": ("FOLDER", "output")}


@pytest.mark.parametrize(("command", "old", "new"), OLD)
def test_an_old_name_works_and_says_the_new_one(ran, caplog, capsys, command, old, new):
    assert main([command, f"--{old}=a b"]) == 0
    ((values, arguments),) = ran
    assert (values[new].value, arguments) == ("a b", [])
    assert [record.getMessage() for record in caplog.records] == [f"--{old} is now --{new}"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("command", "old", "new"), OLD)
def test_a_new_name_says_nothing_and_help_has_it_alone(ran, caplog, capsys, command, old, new):
    assert main([command, f"--{new}=there"]) == 0
    assert not caplog.records
    assert main([command, "--help"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert f"--{new}" in names
    # A flag of `train` may have the name: --weights of an ensemble was another thing.
    assert f"--{old}" not in names


def test_an_old_name_in_a_flag_file(ran, caplog, tmp_path):
    (tmp_path / "flags").write_text("--out=a.png\n")
    assert main(["crops", f"--flagfile={tmp_path / 'flags'}", "image.png"]) == 0
    ((values, arguments),) = ran
    assert (values.output, arguments) == ("a.png", ["image.png"])
    assert [record.getMessage() for record in caplog.records] == ["--out is now --output"]


@pytest.mark.parametrize("command", renamed.PLACES)
def test_an_old_place_works_and_says_the_flag(ran, caplog, command):
    assert main([command, "a", "b c"]) == 0
    ((values, arguments),) = ran
    assert (values.output, arguments) == ("b c", ["a"])
    (argument, _) = renamed.PLACES[command]
    (record,) = caplog.records
    assert record.getMessage() == f"the argument after {argument} is now '--output=b c'"


@pytest.mark.parametrize("command", renamed.PLACES)
@pytest.mark.parametrize("argv", [["a"], ["a", "--output=b"], ["a", "b", "c"], ["a", "b", "--output=c"], []])
def test_no_place_is_taken_for_the_flag_where_none_is_left_over(ran, caplog, command, argv):
    assert main([command, *argv]) == 0
    ((_, arguments),) = ran
    assert arguments == [word for word in argv if not word.startswith("-")]
    assert not caplog.records


@pytest.mark.parametrize("command", MODEL_COMMANDS)
@pytest.mark.parametrize("twice", [("run_dir", "weights"), ("run_dir", "model"), ("weights", "model")])
def test_two_names_of_one_flag_are_refused(ran, capsys, command, twice):
    assert main([command, *(f"--{name}=a" for name in twice)]) == 1
    assert not ran
    assert f"--{twice[0]} and --{twice[1]} are both --model now; name one" in capsys.readouterr().err


def test_an_old_name_needs_the_new_one():
    with pytest.raises(flags.Error, match="output"):
        renamed.define_old_names("crops", flags.FlagValues())


def test_an_error_is_of_the_new_name():
    values = flags.FlagValues()
    predict.define_flags(values)
    renamed.define_old_names("predict", values)
    assert named_by_flag("weights='a.txt' is not a checkpoint", values) == "--model='a.txt' is not a checkpoint"
    assert named_by_flag("top=0 must be", values) == "--top=0 must be"


def test_an_error_of_data_is_of_the_flag_that_names_them():
    values = flags.FlagValues()
    export.define_flags(values)
    assert named_by_flag("data='a' holds 0 folders", values) == "--calibration='a' holds 0 folders"
    assert named_by_flag("images=0 must be", values) == "--calibration_images=0 must be"
    values = flags.FlagValues()
    records.define_flags(values)
    assert named_by_flag("data='a' holds 0 folders", values) == "FOLDER_OR_TABLE='a' holds 0 folders"
