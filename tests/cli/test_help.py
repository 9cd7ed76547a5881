"""What `--help` prints: every flag once, under a heading, with its default; and no Keras is imported for it."""

import dataclasses
import importlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import polynet_keras
from polynet_keras.cli import recipe_flags
from polynet_keras.cli.execution_flags import define_execution_flags, execution_of
from polynet_keras.cli.headings import Heading, choices_of, flag_help
from polynet_keras.cli.main import COMMANDS, GROUPS, main
from polynet_keras.cli.parsing import parsed
from polynet_keras.cli.recipe_flags import SETTINGS, define_recipe_flags, flag_of
from polynet_keras.cluster.communication import GRADIENT_DTYPES
from polynet_keras.data.augmentation import POLICIES, RANDOM_CROPS
from polynet_keras.data.crops import CROPS
from polynet_keras.data.folders import LAYOUTS
from polynet_keras.data.image_files import ON_ERROR
from polynet_keras.data.photo_facts import PhotoFacts
from polynet_keras.data.protocol import DECODINGS
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.evaluation import embedding_options
from polynet_keras.evaluation.pooling import POOLINGS, SCORES, Pooling
from polynet_keras.models.parts import PARTS
from polynet_keras.training.insertion_plan import NEW_PATHS, POSITIONS
from polynet_keras.training.recipes import optimizer, regularization
from polynet_keras.training.recipes.photos import recipe_from
from polynet_keras.training.recipes.presets import PRESETS
from polynet_keras.training.recipes.recipe import LOSSES, PRECISIONS, Recipe
from polynet_keras.training.recipes.schedule import SCHEDULES
from polynet_keras.training.runs.execution import Execution

OWN = {
    f"{section}.{name}": {kind: settings[name] for kind, settings in module.DEFAULTS.items() if name in settings}
    for section, module in (("optimizer", optimizer), ("regularization", regularization))
    for name in {name for settings in module.DEFAULTS.values() for name in settings}
}
"""Settings that only some optimizers or kinds of stochastic depth have: their defaults by kind."""

ALL_HELPS = """
import sys

for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None  # an import is an error

import importlib, pathlib
from polynet_keras.cli.main import COMMANDS, main

for path in pathlib.Path(sys.argv[1], "cli").glob("*.py"):
    importlib.import_module(f"polynet_keras.cli.{path.stem}")
assert main(["--help"]) == main(["--version"]) == main(["completion", "bash"]) == main(["help", "train"]) == 0
for command in COMMANDS:
    assert main([command, "--help"]) == 0, command
"""


def helps(capsys, command, flag="--helpfull"):
    assert main([command, flag]) == 0
    return capsys.readouterr().out


def flags_of(text):
    """What a help says of each flag, in one line."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"  --(\[no\])?(\w+) *(.*)", line):
            name = match[2]
            found[name] = match[3]
        elif line.startswith("   ") and found:
            found[name] = f"{found[name]} {line.strip()}".strip()
        elif line:
            name = None
    return found


def test_help_needs_neither_keras_nor_a_backend():
    package = Path(polynet_keras.__file__).parent
    done = subprocess.run([sys.executable, "-c", ALL_HELPS, package], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^usage: polynet {command}\b", done.stdout, re.MULTILINE)


def test_commands_are_grouped(capsys):
    assert main(["--help"]) == 0
    parts = capsys.readouterr().out.split("\n\n")
    assert parts[-1].startswith("Examples\n")
    assert parts[0] == "usage: polynet <command> [flags]"
    for part, (title, commands) in zip(parts[1:], GROUPS.items(), strict=False):
        heading, *lines = part.splitlines()
        assert heading == title
        assert [line.split()[0] for line in lines if not line.startswith("    ")] == list(commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_a_sentence(capsys, command):
    output = helps(capsys, command)
    assert re.match(rf"usage: polynet {command}\b", output)
    assert COMMANDS[command] in output
    for name, text in flags_of(output).items():
        assert re.search(r"\.( \[.+\])?$", text), name
        assert re.match(r"[A-Z`]", text), name
        assert not re.match(r"(Of|In|For|From|Between) ", text), f"{name}: a fragment"


def test_train_has_all_its_flags_under_headings(capsys):
    output = helps(capsys, "train")
    titles = [line for line in output.splitlines()[2:] if re.match(r"[A-Z]", line)]
    workers = ["Workers and machines", "Details of workers and machines"]
    last = ["Checkpoints and cached features", "Examples"]
    assert titles == ["Run", "Recipe", *SETTINGS, *workers, *last]
    values = flags.FlagValues()
    define_recipe_flags(values)
    define_execution_flags(values)
    assert sorted(flags_of(output)) == sorted([*values, "dry_run", "find_learning_rate", "output", "run_dir", "strict"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_says_its_default(capsys, command):
    for name, text in flags_of(helps(capsys, command)).items():
        assert text.endswith("]"), name


def test_rare_flags_are_in_the_full_help(capsys):
    short, full = helps(capsys, "train", "--help"), helps(capsys, "train")
    rare = flags_of(full).keys() - flags_of(short).keys()
    assert {"momentum", "gap_window", "communication_timeout"} <= rare
    assert not rare & {"epochs", "optimizer", "strategy"}
    assert (
        f"\n\n`polynet train --helpfull` lists {len(rare)} more flags, which are needed rarely.\n\nExamples\n" in short
    )
    assert "--helpfull" not in full
    assert "--helpfull" not in helps(capsys, "predict", "--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_commands(capsys, command):
    output = helps(capsys, command)
    examples = re.search(r"\n\nExamples?\n((?:  .+\n)+)$", output)[1].splitlines()
    assert 1 <= len(examples) <= 3
    for example in examples:
        words = shlex.split(example, comments=True)
        if ">" in words:
            words = words[: words.index(">")]
        if command == "completion":
            assert f"polynet {command} " in example
            continue
        assert words[:2] == ["polynet", command]
        values = flags.FlagValues()
        importlib.import_module(f"polynet_keras.cli.{command}").define_flags(values)
        parsed(command, values, words[2:])


@pytest.mark.parametrize("no_color", [None, "", "1"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_headings_are_bold_on_a_terminal(is_terminal, no_color):
    environment = {**os.environ, "TERM": "xterm"} | ({} if no_color is None else {"NO_COLOR": no_color})
    if no_color is None:
        environment.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from polynet_keras.cli.main import main; main(['crops', '--help'])"]
    with subprocess.Popen(command, env=environment, stdout=theirs if is_terminal else subprocess.PIPE) as process:
        os.close(theirs)
        text = process.stdout.read() if process.stdout else b""
        while is_terminal:
            try:
                text += os.read(ours, 10000)
            except OSError:  # the terminal has been left
                break
    os.close(ours)
    assert (b"\033[1mCrops\033[0m" in text) == (is_terminal and no_color != "1")
    assert (b"\033" in text) == (is_terminal and no_color != "1")


def test_defaults_of_a_recipe():
    """Written in the flags once more: they are the recipe's."""
    values = flags.FlagValues()
    define_recipe_flags(values)
    facts = Recipe().facts()
    assert sorted(facts) == sorted(setting for settings in SETTINGS.values() for setting in settings)
    for setting, fact in facts.items():
        default, text = values[flag_of(setting)].default, values[flag_of(setting)].help
        if setting in OWN:
            assert default is None
            given = {f"{value:g}" if isinstance(value, float) else f"{value}" for value in OWN[setting].values()}
            said = text[text.rindex("[") + 1 : -1]
            if len(given) == 1:
                assert {said} == given, setting
            else:
                assert said == ", ".join(f"{value:g} for {kind}" for kind, value in OWN[setting].items()), setting
        elif setting == "residual_scale":
            assert default == [fact]
        else:
            assert default == json.loads(fact), setting


def test_defaults_for_photographs(capsys):
    """Written in the flags once more: they are those of the preset, or chosen by the rules."""
    defaults, photos = Recipe().facts(), PRESETS["photos"].recipe.facts()
    _, chosen = recipe_from("photos", "auto", PhotoFacts(1000, 10.0, 2000, False))
    expected = {name: json.loads(fact) for name, fact in photos.items() if fact != defaults[name] and name != "data"}
    said = {name: "on" if value is True else str(value) for name, value in expected.items()}
    assert said | dict.fromkeys(chosen, "chosen") == recipe_flags.PHOTOGRAPHS
    texts = flags_of(helps(capsys, "train"))
    assert texts["image_size"].endswith(" [75; photographs: chosen]")
    assert texts["weight_decay"].endswith("photographs: 0.05]")
    assert texts["structure"].endswith("[poly-3]]")
    assert "photographs" not in helps(capsys, "ablation")


def test_defaults_of_an_execution():
    values = flags.FlagValues()
    define_execution_flags(values)
    values(["polynet train"])
    assert dataclasses.asdict(execution_of(values)) == dataclasses.asdict(Execution())


def test_defaults_of_a_pooling(capsys):
    for command in ("evaluate", "ensemble"):
        texts = flags_of(helps(capsys, command))
        for setting in dataclasses.fields(Pooling):
            assert texts[setting.name].endswith(f" [{setting.default}]")


@pytest.mark.parametrize(
    ("command", "flag", "choices"),
    [
        ("train", "recipe", PRESETS),
        ("train", "layout", LAYOUTS),
        ("train", "decoding", DECODINGS),
        ("train", "on_error", ON_ERROR),
        ("train", "loss", LOSSES),
        ("train", "precision", PRECISIONS),
        ("train", "remat", ("none", "stage_b", "all")),
        ("train", "frozen_through", PARTS[:-1]),
        ("train", "crop", RANDOM_CROPS),
        ("train", "policy", POLICIES),
        ("train", "optimizer", optimizer.DEFAULTS),
        ("train", "schedule", SCHEDULES),
        ("train", "stochastic_depth", regularization.DEFAULTS),
        ("train", "crops", map(str, CROPS)),
        ("train", "strategy", ("auto", "multi_worker", "mirrored", "tpu", "none")),
        ("train", "communication", ("auto", "ring", "nccl")),
        ("train", "gradient_dtype", GRADIENT_DTYPES),
        ("evaluate", "crops", map(str, CROPS)),
        ("evaluate", "layout", LAYOUTS),
        ("evaluate", "on_error", ON_ERROR),
        ("evaluate", "pooling", POOLINGS),
        ("evaluate", "on", SCORES),
        ("features", "pooling", embedding_options.POOLINGS),
        ("features", "on_error", ON_ERROR),
        ("crops", "crops", map(str, CROPS)),
        ("export", "format", FORMATS),
        ("export", "precision", {p for one in FORMATS.values() for p in one.precisions}),
        ("grow", "positions", POSITIONS),
        ("grow", "new_paths", NEW_PATHS),
        ("records", "layout", LAYOUTS),
        ("records", "on_error", ON_ERROR),
    ],
)
def test_help_names_every_choice(capsys, command, flag, choices):
    choices = list(choices)
    text = flags_of(helps(capsys, command))[flag]
    values = flags.FlagValues()
    importlib.import_module(f"polynet_keras.cli.{command}").define_flags(values)
    if flag != "recipe":  # or a file
        assert sorted(choices_of(values[flag])) == sorted(choices)
    for choice in choices:
        assert re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", text), choice


def test_names_of_presets():
    assert tuple(PRESETS) == recipe_flags.PRESETS


def test_the_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    values = flags.FlagValues()
    first = Heading(values, "First")
    first.string("name", None, "A text that is too long for one line of fifty, with a multi-worker.")
    first.number("rate", 0.0, "A number.")
    first.switch("on", True, "A switch.")
    second = Heading(values, "Second")
    second.list("of_a_name_that_fills_the_column", ["a", "b"], "A list.")
    second.list("none", [], "An empty list.")
    rare = Heading(values, "Rare", rare=True)
    rare.switch("off", False, "A rare switch.")
    second.old_name("former", "rate")
    assert flag_help(values, left_out=["former"], full=False) == (
        "First\n"
        "  --name                      A text that is too\n"
        "                              long for one line of\n"
        "                              fifty, with a\n"
        "                              multi-worker. [none]\n"
        "  --rate                      A number. [0]\n"
        "  --[no]on                    A switch. [on]\n"
        "\n"
        "Second\n"
        "  --of_a_name_that_fills_the_column\n"
        "                              A list. [a,b]\n"
        "  --none                      An empty list.\n"
        "                              [none]"
    )
    assert flag_help(values, left_out=["former"]).endswith(
        "\n\nRare\n  --[no]off                   A rare switch. [off]"
    )
    assert flag_help(flags.FlagValues()) == ""
