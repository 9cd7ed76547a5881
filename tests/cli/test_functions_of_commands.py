"""Every command calls a public function with the same arguments: flags and parameters have one name, type and default.

Where they differ, the table says why, and docs/command_line.md has the same table.
"""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from absl import flags

from polynet_keras.cli.flag_names import FLAGS
from polynet_keras.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Called:
    """What a command calls.

    Attributes:
        functions: public ones, whose parameters the flags are.
        settings: what else is called for arguments of those, with flags for its own.
        others: public names that the command is composed of besides; their parameters are not compared.
        renamed: by flag: the parameter, where it has another name.
        differ: by flag: why its type or default is not the parameter's.
        flags_only: by flag: why no parameter is the same.
        parameters_only: by parameter: where the command has it from.
    """

    functions: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    differ: Mapping[str, str] = field(default_factory=dict)
    flags_only: Mapping[str, str] = field(default_factory=dict)
    parameters_only: Mapping[str, str] = field(default_factory=dict)


WRITTEN = "a file that the command writes besides, of what the function returns"
PRINTED = "how the command prints what the function returns"
ARGUMENT = "the command's argument"
OF_FLAGS = "made of the flags"
RECIPE = "a preset or a file; in Python a Recipe, PRESETS[...].recipe or Recipe.load(...)"
OF_A_RECIPE = {
    "recipe": RECIPE,
    "learning_rate_factors": "PART=NUMBER, split by commas; in Python a mapping",
    "unfreezing": "PART:EPOCHS:LEARNING_RATE, split by commas; in Python PhaseSettings",
}
CLASSES = {"classes": "class_names"}
A_FILE = "a file, which Python's caller has read"
A_PAIR = "with the other one, preprocessing=(mean, std)"
OF_THE_RUN = "the run's own value, which evaluate does not know of an open model"

TABLE = {
    "train": Called(
        ("training.train", "training.dry_run", "training.find_learning_rate"),
        ("training.Recipe", "training.Execution"),
        differ=OF_A_RECIPE,
        flags_only={**dict.fromkeys(("dry_run", "find_learning_rate"), "chooses the function"), "output": WRITTEN},
        parameters_only={"attempt": "POLYNET_ATTEMPT, which a supervisor sets"},
    ),
    "launch": Called(
        flags_only=dict.fromkeys(
            ("workers", "pin", "max_restarts", "grace_seconds", "log_dir", "event_log"),
            "of processes, which a program starts in its own way",
        ),
    ),
    "recipes": Called(others=("training.PRESETS",)),
    "grow": Called(
        ("training.grown",),
        others=("load_model",),
        renamed={"model": "source"},
        differ={"model": "a name, of what load_model loads"},
        flags_only={"output": "what grown(...).save takes", "seed": "what keras.utils.set_random_seed takes"},
        parameters_only={"width": "in the model's card"},
    ),
    "ablation": Called(
        ("studies.ablation",),
        ("training.Recipe",),
        others=("studies.ablation_table", "studies.paired_table", "studies.plot_ablation"),
        differ={**OF_A_RECIPE, "learning_rates": "NET=NUMBER, split by commas; in Python a mapping"},
        parameters_only={"structure": "is what the study varies"},
    ),
    "predict": Called(
        ("evaluation.predict",),
        ("load_model", "evaluation.Pooling"),
        renamed=CLASSES,
        differ={"classes": A_FILE},
        flags_only={"mean": A_PAIR, "std": A_PAIR, "output": WRITTEN, "html": WRITTEN},
        parameters_only={"images": ARGUMENT},
    ),
    "explain": Called(
        ("evaluation.explain",),
        ("load_model",),
        renamed={**CLASSES, "class_name": "class_index"},
        differ={
            "classes": A_FILE,
            "class_name": "a name, whose index Python takes",
            **dict.fromkeys(("stage", "method"), "several, where a function takes one"),
        },
        flags_only={"mean": A_PAIR, "std": A_PAIR, "output": WRITTEN},
        parameters_only={"images": "the command's arguments, prepared as the model's card says"},
    ),
    "features": Called(
        ("evaluation.extract_features",),
        ("load_model",),
        renamed=CLASSES,
        differ={"classes": A_FILE},
        flags_only={"mean": A_PAIR, "std": A_PAIR, "output": "what Features.save takes"},
        parameters_only={"images": ARGUMENT},
    ),
    "evaluate": Called(
        ("evaluation.evaluate", "evaluation.compare"),
        ("load_model", "data.open_split", "evaluation.Pooling"),
        renamed=CLASSES,
        differ={
            "classes": A_FILE,
            "crops": OF_THE_RUN,
            "on_error": OF_THE_RUN,
            "layout": OF_THE_RUN,
        },
        flags_only={
            **{"mean": A_PAIR, "std": A_PAIR, "json": PRINTED},
            **{"results": WRITTEN, "report": WRITTEN},
        },
        parameters_only={"examples": "what open_split returns"},
    ),
    "results": Called(
        flags_only={"filter": PRINTED, "sort": PRINTED, "format": PRINTED, "plot": WRITTEN},
    ),
    "ensemble": Called(
        ("evaluation.evaluate_ensemble",),
        ("evaluation.Pooling",),
        differ={"fit": "files of scores, which Python's caller has"},
        flags_only={
            name: "what open_split and score take, of members that are models"
            for name in ("data", "split", "layout", "crops", "batch_size")
        },
        parameters_only={"members": ARGUMENT},
    ),
    "export": Called(
        ("deployment.export",),
        ("load_model", "deployment.Calibration"),
        renamed=CLASSES,
        differ={"classes": A_FILE, "calibration": "data, whose training images are the Calibration's examples"},
        flags_only={"mean": A_PAIR, "std": A_PAIR, "layout": "what open_source takes, with --calibration"},
        parameters_only={
            **{name: "what open_source opens, of --calibration" for name in ("examples", "held_out")},
            "on_error": "as the recipe of the run says",
        },
    ),
    "serve": Called(
        ("deployment.serve",),
        ("deployment.ServingSettings",),
        parameters_only={"model_dir": ARGUMENT, "on_ready": "prints the address"},
    ),
    "records": Called(
        ("data.write_records", "data.verify_records", "data.describe_records"),
        differ={"class_names": A_FILE},
        flags_only={"verify": "chooses the function", "describe": "chooses the function"},
        parameters_only={"folder": ARGUMENT},
    ),
    "benchmark": Called(("studies.benchmark_input",), ("training.Recipe",), differ=OF_A_RECIPE),
    "crops": Called(
        ("evaluation.save_contact_sheet",),
        ("data.Preprocessing",),
        differ={
            "output": "a function names its file",
            "image_size": "PolyNet's, and Preprocessing is of any net",
            "resize": "is not to be said with 144 crops",
        },
        parameters_only={
            "source": ARGUMENT,
            **dict.fromkeys(
                ("mean", "std", "antialias", "interpolation", "channel_order", "decoding"),
                "does not change where the crops are",
            ),
        },
    ),
    "summary": Called(
        ("models.network_cost",),
        others=("list_structures",),
        flags_only=dict.fromkeys(("image_size", "channels"), "input_shape=(image_size, image_size, channels)"),
        parameters_only={"input_shape": OF_FLAGS},
    ),
    "card": Called(
        ("load_model",),
        others=("pretrained.ModelCard",),
        renamed=CLASSES,
        differ={"classes": A_FILE},
        flags_only={"mean": A_PAIR, "std": A_PAIR},
        parameters_only={
            "model": ARGUMENT,
            **dict.fromkeys(("structure", "width"), "of a weights file, which has no card"),
        },
    ),
    "weights": Called(
        ("pretrained.published",),
        others=("pretrained.list_published",),
        flags_only={"cards": WRITTEN},
        parameters_only={"name": ARGUMENT},
    ),
    "convert": Called(("evaluation.convert",), parameters_only={"source": ARGUMENT}),
    "doctor": Called(),
    "completion": Called(),
}
WITHIN = {
    "evaluation.predict": "predictions",
    "evaluation.explain": "explanations",
    "evaluation.extract_features": "embed",
    "load_model": "find_model",
}
"""By function: what a command calls that the function does no more than call: it prints as it goes, or checks the names
before it imports Keras."""
PASSED_ON = {
    "execution": "training.Execution",
    "pooling": "evaluation.Pooling",
    "preprocessing": "data.Preprocessing",
    "settings": "deployment.ServingSettings",
}
"""By parameter of a function: the settings that it takes, if the table names these."""


class Parameter(NamedTuple):
    name: str
    kind: Any
    default: Any
    """`inspect.Parameter.empty` of one that has to be said."""


def public(name: str) -> Any:
    room, _, short = name.rpartition(".")
    return getattr(importlib.import_module(f"polynet_keras.{room}".rstrip(".")), short)


def parameters_of(called: Any, section: str = "") -> list[Parameter]:
    """Those of a function, or of a dataclass with its sections, by name."""
    if not dataclasses.is_dataclass(called):
        hints = typing.get_type_hints(called)
        return [
            Parameter(one.name, hints[one.name], one.default) for one in inspect.signature(called).parameters.values()
        ]
    hints, found = typing.get_type_hints(called), []
    for one in dataclasses.fields(called):
        kind = hints[one.name]
        if one.default_factory is kind:  # a section
            found += parameters_of(kind, one.name)
        else:
            name = section if section and one.name == "name" else one.name
            default = inspect.Parameter.empty if one.default is dataclasses.MISSING else one.default
            found.append(Parameter(name, kind, default))
    return found


def all_parameters(called: Called, command: str) -> dict[str, list[Parameter]]:
    """Of all that is called, by the name of the flag."""
    found: dict[str, list[Parameter]] = {}
    its_flags = flags_of(command)
    for name in (*called.functions, *called.settings):
        for parameter in parameters_of(public(name)):
            if name in called.settings or PASSED_ON.get(parameter.name) not in called.settings:
                names = (parameter.name, FLAGS.get(parameter.name, ""))
                name_of_flag = next((one for one in names if one in its_flags), parameter.name)
                found.setdefault(name_of_flag, []).append(parameter)
    return found


def flags_of(command: str) -> dict[str, flags.Flag]:
    values = flags.FlagValues()
    importlib.import_module(f"polynet_keras.cli.{command}").define_flags(values)
    return {name: values[name] for name in values}


def takes(kind: Any, flag: flags.Flag) -> bool:
    """Whether a parameter of this annotation takes what the flag says."""
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    parsed = flag.parser.parse("1")
    if isinstance(parsed, list):
        plain = (str, int, float)
        return any(
            typing.get_origin(member) in (Sequence, tuple, list) and set(typing.get_args(member)) - {...} <= set(plain)
            for member in members
        )
    accepted = {str: {str, os.PathLike, Path}}.get(type(parsed), {type(parsed)})
    return bool(accepted & set(members))


def same_default(parameter: Any, flag: Any) -> bool:
    """Of a list, each as text: `--depths=1,2,1`; a flag without a default is one that has to be said, too."""
    if parameter is inspect.Parameter.empty:
        return flag is None
    if isinstance(flag, list):
        values = parameter if isinstance(parameter, (tuple, list)) else (parameter,)
        return [str(value) for value in values] == flag
    return parameter == flag and type(parameter) is type(flag)


def differences(called: Called, command: str) -> dict[str, list[str]]:
    """By flag that is a parameter: how they differ."""
    parameters, found = all_parameters(called, command), {}
    for name, flag in flags_of(command).items():
        for parameter in parameters.get(called.renamed.get(name, name), ()):
            if not takes(parameter.kind, flag):
                found.setdefault(name, []).append(f"{parameter.kind} takes no {flag.parser.syntactic_help or 'text'}")
            if not same_default(parameter.default, flag.default):
                found.setdefault(name, []).append(f"{parameter.default!r} is not {flag.default!r}")
    return found


def test_every_command_is_in_the_table():
    assert list(TABLE) == list(COMMANDS)


@pytest.mark.parametrize("command", TABLE)
def test_flags_and_parameters_have_the_same_names(command):
    called = TABLE[command]
    parameters = set(all_parameters(called, command))
    as_parameters = {called.renamed.get(name, name): name for name in flags_of(command)}
    assert sorted(as_parameters[name] for name in as_parameters.keys() - parameters) == sorted(called.flags_only)
    assert sorted(parameters - as_parameters.keys()) == sorted(called.parameters_only)


@pytest.mark.parametrize("command", TABLE)
def test_flags_and_parameters_have_the_same_types_and_defaults(command):
    called = TABLE[command]
    found = differences(called, command)
    assert {name: how for name, how in found.items() if name not in called.differ} == {}
    assert sorted(called.differ) == sorted(found), "they do not differ any more"


@pytest.mark.parametrize("command", TABLE)
def test_a_command_calls_its_functions(command):
    tree = ast.parse((ROOT / "polynet_keras" / "cli" / f"{command}.py").read_text())
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for function in TABLE[command].functions:
        names = {function.rpartition(".")[2], WITHIN.get(function, "")}
        assert names & named or function == "load_model", function


def test_the_page_has_the_same_table():
    page = (ROOT / "docs" / "command_line.md").read_text()
    rows = re.findall(r"(?m)^\| `(\w+)` \| ([^|]*) \|", page.partition("## In Python\n")[2])
    listed = {command: tuple(re.findall(r"`([\w.]+)`", calls)) for command, calls in rows}
    assert listed == {command: (*called.functions, *called.others) for command, called in TABLE.items()}
    for calls in listed.values():
        for name in calls:
            public(name)
