"""docs/files.md names the files, fields, columns and limits that the package has."""

import dataclasses
import re
from pathlib import Path

import pytest

from polynet_keras.basics import json_fields
from polynet_keras.checkpoints import files as checkpoint_files
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.records import manifest
from polynet_keras.data.records.features import Features as RecordFeatures
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.evaluation import features, scores
from polynet_keras.evaluation.results import COLUMNS
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.training.runs.folder import FILES, FOLDERS

PAGE = (Path(__file__).parent.parent / "docs" / "files.md").read_text()


def section(title: str) -> str:
    return re.search(rf"(?ms)^##+ {re.escape(title)}.*?\n(.*?)(?=^##|\Z)", PAGE)[1]


def names(text: str) -> list[str]:
    """The names that bullets begin with."""
    heads = re.findall(r"(?m)^\* ((?:`[\w.]+`(?:, )?)+):", text)
    return [name for head in heads for name in re.findall(r"`([\w.]+)`", head)]


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Run folder", {*FILES, *FOLDERS}),
        ("Model card", fields(ModelCard)),
        ("The object `preprocessing`", fields(Preprocessing)),
        ("Records", {*fields(manifest.Manifest), "format_version"}),
        ("Export folder", fields(ExportCard)),
    ],
)
def test_a_list_has_the_names(title, expected):
    assert set(names(section(title))) == expected


def test_the_required_fields_of_a_card_come_first():
    required, optional = section("Model card").split("These fields are optional:")
    given = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(ModelCard)}
    assert set(names(required)) == {name for name, is_required in given.items() if is_required}
    assert set(names(optional)) == {name for name, is_required in given.items() if not is_required}


def test_splits_and_shards_have_the_fields():
    (text,) = re.findall(r"(?ms)^\* `splits`: (.*?)\n\n", PAGE)
    assert set(re.findall(r"`(\w+)`", text)) == {*fields(manifest.Split), *fields(manifest.Shard), "count"}


@pytest.mark.parametrize(
    ("title", "module", "kind"), [("Scores", scores, "Scores"), ("Features", features, "Features")]
)
def test_arrays_have_the_fields(title, module, kind):
    (text,) = re.findall(rf"(?ms)^\* {title} \(.*?\): (.*?)(?=^\*|\n\n)", PAGE)
    arrays, about = text.split("`about` has")
    assert re.findall(r"`(\w+)`", arrays) == list(module.ARRAYS)
    assert set(re.findall(r"`(\w+)`", about)) == fields(getattr(module, kind)) - set(module.ARRAYS)


def test_the_table_of_results_has_the_columns():
    (text,) = re.findall(r"(?ms)^\* `results.csv`: (.*?)(?=^\*)", PAGE)
    assert re.findall(r"`(\w+)`", text) == list(COLUMNS)


def test_artifacts_have_the_names():
    assert re.findall(r"`(\w+\.\w+)`", section("Export folder").split(" by format")[0]) == [
        format.file for format in FORMATS.values()
    ]


def test_records_have_the_parts():
    assert f"`{RecordFeatures.image}`" in section("Records")
    assert f"`{RecordFeatures.label}`" in section("Records")


def test_limits_and_formats_are_those_of_the_readers():
    assert f"Cards have at most {json_fields.MAX_BYTES >> 20} MiB, manifests {manifest.MAX_BYTES >> 20} MiB" in PAGE
    assert f"at most {json_fields.MAX_CLASSES:,} classes" in PAGE
    assert f"at most {json_fields.MAX_CLASS_NAME} characters" in PAGE
    assert f"`format`, which is {checkpoint_files.FORMAT}." in PAGE
    assert f"`format_version`: {manifest.FORMAT_VERSION}." in PAGE
    assert f"`{manifest.UNFINISHED}`" in PAGE
