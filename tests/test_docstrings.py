"""Every public name has an example in its docstring, and the examples run.

They find the names of their room and those of `polynet_keras` imported, and what `names` prepares; docs/reference.md
tells readers of it.
"""

import doctest
import functools
import importlib
import inspect
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras import PolyNet
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import converting
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.pretrained import ModelCard, stored_arrays
from polynet_keras.pretrained.stored_arrays import Format
from polynet_keras.studies import ablation_runs
from polynet_keras.studies.ablation_outcomes import Outcome
from tests.pretrained.small import STRUCTURE, small_published
from tests.studies.test_ablation_runs import finish
from tests.test_public_names import ROOMS, imports_of

EXEMPT = {
    "polynet_keras.__version__": "a constant",
    "polynet_keras.checkpoints.Preempted": "an exception, which only this package raises",
    "polynet_keras.cluster.PeerFailure": "an exception, which only this package raises",
    "polynet_keras.training.PRESETS": "a constant; the example of `Preset` takes one of them",
}
PUBLIC = [f"{room}.{name}" for room, stub in ROOMS.items() for name, module in imports_of(stub).items() if module]
EXAMPLES = sorted(set(PUBLIC) - set(EXEMPT))


def examples_of(name):
    """The examples in the docstring of a public name, as one test of doctest."""
    room, _, short = name.rpartition(".")
    public = getattr(importlib.import_module(room), short)
    (found,) = doctest.DocTestFinder(recurse=False, exclude_empty=False).find(public, name)
    return found


def test_exempt_names_are_public():
    assert set(EXEMPT) <= set(PUBLIC)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_example(room):
    for name in EXAMPLES:
        if name.rpartition(".")[0] != room:
            continue
        found = examples_of(name)
        assert found.examples, f"{name} has no example: add a section `Examples:` at the end of its docstring"
        # griffe, which renders the page, knows this word alone; with another one the lines would be a quotation.
        before, _, section = inspect.cleandoc(found.docstring).rpartition("\nExamples:\n")
        assert before, f"{name}: the examples are in no section `Examples:`"
        assert section.count(">>> ") == len(found.examples), f"{name}: an example is before the section `Examples:`"
        assert any(example.want for example in found.examples), f"{name}: the example shows no result"
        options = [example.source for example in found.examples if example.options]
        assert not options, f"{name}: a result is compared as it stands, without options: {options}"


def save_photos(folder):
    """Five reddish cats and five bluish dogs."""
    for name, color in (("cat", (210, 120, 60)), ("dog", (60, 120, 210))):
        (folder / name).mkdir(parents=True)
        for number in range(1, 6):
            noise = np.random.default_rng(number).integers(-40, 40, (24, 24, 3))
            Image.fromarray((noise + color).astype("uint8")).save(folder / name / f"{number}.jpg")


def trained():
    """A model that tells red from blue."""
    layers = [keras.layers.Conv2D(3, 1, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    net = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.Dense(2, "softmax")])
    net.set_weights([np.eye(3)[None, None], np.zeros(3), np.array([[2, -2], [0, 0], [-2, 2]]), np.zeros(2)])
    return TrainedModel("pets", net, Preprocessing(16, 18), ("cat", "dog"))


def outcomes():
    """Of a study with two nets and two seeds; the errors are invented."""
    nets = (("ir 1-1-1", "", "", (20, 20)), ("A 2-way", "A", "ir 1-1-1", (15, 18)))
    return [
        Outcome(name, stage, baseline, baseline, STRUCTURE, seed, 10**5, 10**7, 60.0, 359, wrong, 0.002)
        for name, stage, baseline, errors in nets
        for seed, wrong in enumerate(errors)
    ]


def released(folder, monkeypatch):
    """A file as pretrainedmodels publishes it; a small network takes the place of the released one."""
    published = small_published(folder)
    monkeypatch.setitem(stored_arrays.TABLES, Format.CADENE, lambda: published.table)
    net = functools.partial(PolyNet, structure=STRUCTURE, width=0.1, input_shape=(75, 75, 3))
    monkeypatch.setattr(converting, "PolyNet", net)
    return published.file


def not_trained(recipe, folder):
    """In place of `train`, for the eleven nets of a study: tests/studies trains them."""
    finish(folder, recipe)
    return SimpleNamespace(card=ModelCard.load(folder))


def names(name, folder, monkeypatch):
    """What the examples of a public name find."""
    room = name.rpartition(".")[0]
    save_photos(folder / "photos")
    (folder / "empty").mkdir()
    found = {"keras": keras, "np": np, "folder": folder / "empty", "photos": folder / "photos"}
    for public in PUBLIC:
        module, _, short = public.rpartition(".")
        if module in ("polynet_keras", room):
            found[short] = getattr(importlib.import_module(module), short)
    if room in ("polynet_keras.evaluation", "polynet_keras.deployment"):
        found["trained"] = trained()
    if name == "polynet_keras.evaluation.convert":
        found["released"] = released(folder, monkeypatch)
    if room == "polynet_keras.studies":
        found["outcomes"] = outcomes()
        monkeypatch.setattr(ablation_runs, "train", not_trained)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_the_examples_run(room, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    said = []
    for name in EXAMPLES:
        if name.rpartition(".")[0] == room:
            example = examples_of(name)
            folder = tmp_path / name
            folder.mkdir()
            example.globs = names(name, folder, monkeypatch)
            doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not said, "".join(said)
