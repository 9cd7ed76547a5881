"""What the frozen part puts out is computed once for each key, by whoever comes, and never half."""

import dataclasses
import errno
import itertools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from polynet_keras.applications import PolyNet
from polynet_keras.data.examples import Source
from polynet_keras.engine.network import Network
from polynet_keras.training.features import computing
from polynet_keras.training.features.computing import run_features
from polynet_keras.training.features.files import CHUNK, FeatureFiles
from polynet_keras.training.features.frozen import end_of_frozen, frozen_part, weights_hash
from polynet_keras.training.fine_tuning import freeze
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs.preparation import preprocessing_of
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers, randomize

COUNT = 2 * CHUNK + 6
RECIPE = Recipe(epochs=3, batch_size=20, start=Start("any", frozen_through="stem", cache_features=1))
IMAGES = random_images(COUNT, 20)


def source_of(images, seed=""):
    training = dataclasses.replace(examples_of(images, np.arange(len(images)) % 3), name="training")
    held_out = dataclasses.replace(
        training.subset(np.arange(min(10, len(images))), "held out"), fingerprint=f"held out {seed}"
    )
    return Source(training, held_out)


SOURCE = source_of([png(image) for image in IMAGES])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    net = few_layers((75, 75, 3), 3)
    randomize(net, 0)
    return net


@pytest.fixture
def without_images(monkeypatch):
    """Images that are made at once, of their number and epoch: what becomes of them is the same."""

    all_labels = []

    def images_once(examples, preprocessing, indices, sizes, unreadable, *, epochs, seed, augmentation, labels):
        all_labels.append(labels)
        side = (preprocessing.image_size,) * 2

        def batches():
            places = np.cumsum([0, *sizes])
            for first, last in itertools.pairwise(places):
                of = indices[first:last]
                for index in of[(of == 3) & (unreadable.on_error == "skip")]:
                    unreadable.keep(int(index), ValueError("image 3 is broken"))
                shown = of + (0 if epochs is None else 100 * (1 + epochs[first:last]))
                images = np.broadcast_to(shown[:, None, None, None] / 100, (len(of), *side, 3))
                yield images.astype("float32"), of % 3, (of != 3) | (unreadable.on_error == "error")

        return SimpleNamespace(as_numpy_iterator=batches)

    monkeypatch.setattr(computing, "images_once", images_once)
    return all_labels


def run(model, folder, recipe=RECIPE, source=SOURCE):
    return run_features(model, recipe, source, preprocessing_of(recipe, source), folder, None)


def test_features_are_what_the_frozen_part_puts_out_for_a_centre_crop(tmp_path, model):
    features = run(model, tmp_path)
    plain = keras.Model(model.inputs, model.get_layer("stem_conv1_bn").output)  # Keras's own
    protocol = preprocessing_of(RECIPE, SOURCE)
    indices = np.array([0, CHUNK, COUNT - 1])
    expected = plain.predict_on_batch(np.stack([protocol(IMAGES[index]) for index in indices]))
    np.testing.assert_allclose(features.training[0].features(indices), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(features.training[0].facts()[0], np.arange(COUNT) % 3)
    assert features.training[0].facts()[1].all()
    assert (features.held_out.count, features.validation, len(features.training)) == (10, None, 1)
    np.testing.assert_array_equal(features.held_out.features(indices[:1]), features.training[0].features(indices[:1]))
    abouts = [json.loads(file.read_text()) for file in tmp_path.glob("*/about.json")]
    assert sorted(about["images"][0] for about in abouts) == ["held out", "training"]


def test_a_second_run_takes_what_the_first_one_computed(tmp_path, without_images, model, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    first = run(model, tmp_path)
    size = 73 * 73 * 4 * 4 * (COUNT + 10) / 1e6
    told = f"features of {COUNT + 10} images, each 73 x 73 x 4 numbers, {size:.1f} MB in {tmp_path}: they"
    assert f"{told} are computed once" in caplog.text
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 4
    monkeypatch.setattr(Network, "predict_on_batch", None)
    second = run(model, tmp_path)
    assert f"{told} already exist, and are used again" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files
    indices = np.array([40, 2])
    np.testing.assert_array_equal(first.training[0].features(indices), second.training[0].features(indices))


@pytest.mark.slow
def test_another_key_makes_others(tmp_path, without_images, model):
    def folders(recipe=RECIPE, source=SOURCE):
        features = run(model, tmp_path, recipe, source)
        return tuple(files.folder for files in (*features.training, features.held_out))

    before = folders()
    assert folders(dataclasses.replace(RECIPE, batch_size=7, epochs=9, seed=5)) == before  # which decide nothing
    other = source_of([png(image) for image in IMAGES], seed="other")
    (training, held_out), (same, another) = before, folders(source=other)
    assert training == same
    assert held_out != another
    seen = {*before, another}
    for settings in (
        {"image_size": 76},
        {"decoding": "scaled"},
        {"on_error": "skip"},
        {"start.frozen_through": "stem", "start.cache_features": 2},
        {"start.cache_features": 2, "seed": 1},
        {"start.cache_features": 2, "augmentation.flip": True},
    ):
        recipe = RECIPE.replaced(settings)
        resized = few_layers((76, 76, 3), 3) if recipe.image_size == 76 else model
        features = run_features(resized, recipe, SOURCE, preprocessing_of(recipe, SOURCE), tmp_path, None)
        made = {files.folder for files in features.training}
        assert not made & seen, settings
        seen |= made
    # Weights, moving statistics among them; what is behind the frozen part does not count.
    kernel, statistic = model.get_layer("stem_conv1").kernel, model.get_layer("stem_conv1_bn").moving_mean
    for variable, new in ((model.get_layer("predictions").kernel, 0), (kernel, 2), (statistic, 2)):
        value = keras.ops.convert_to_numpy(variable)
        variable.assign(2 * value + 1)
        made = set(folders())
        assert len(made - seen) == new
        seen |= made
        variable.assign(value)


def test_more_copies_take_those_that_are_there(tmp_path, without_images, model, caplog):
    two = run(model, tmp_path, RECIPE.replaced({"start.cache_features": 2}))
    caplog.set_level("INFO", logger="absl")
    three = run(model, tmp_path, RECIPE.replaced({"start.cache_features": 3}))
    assert [files.folder for files in three.training[:2]] == [files.folder for files in two.training]
    assert f"they are computed once; those of {2 * COUNT + 10} images exist" in caplog.text
    assert len({files.folder for files in three.training}) == 3
    each = [files.features(np.array([1]))[0].mean() for files in three.training]
    assert len(set(each)) == 3
    # Of copies that no epoch would see, none is made.
    many = run(model, tmp_path, RECIPE.replaced({"start.cache_features": 50}))
    assert [files.folder for files in many.training] == [files.folder for files in three.training]


def test_files_that_changed_are_others(tmp_path, without_images, model, monkeypatch):
    names = []
    for number in range(3):
        names.append(str(tmp_path / f"{number}.png"))
        Path(names[-1]).write_bytes(png(IMAGES[number]))
    files = examples_of([png(image) for image in IMAGES[:3]], names=names)
    files = dataclasses.replace(files, file_sizes=np.ones(3, "int64"))
    source = Source(files, SOURCE.held_out)
    asked, stat = [], os.stat
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path, **options: asked.append(path) or stat(path, **options))
        run(model, tmp_path / "features", RECIPE.replaced({"start.cache_features": 3}), source)
    assert [asked.count(name) for name in names] == [1, 1, 1]  # however many copies there are
    before = run(model, tmp_path / "features", source=source).training[0].folder
    assert run(model, tmp_path / "features", source=source).training[0].folder == before
    os.utime(names[1], ns=(1, 1))
    assert run(model, tmp_path / "features", source=source).training[0].folder != before
    os.remove(names[1])
    run(model, tmp_path / "features", source=source)


def test_what_was_interrupted_goes_on_where_it_was(tmp_path, without_images, model, monkeypatch):
    """After the first file: nothing but whole files is there, and nothing is computed twice."""
    write, written = FeatureFiles.write, []

    def break_off(self, chunk, *arrays):
        if written:
            raise KeyboardInterrupt
        written.append(chunk)
        write(self, chunk, *arrays)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "write", break_off)
        with pytest.raises(KeyboardInterrupt):
            run(model, tmp_path)
    (file,) = tmp_path.rglob("*.npy")
    time = file.stat().st_mtime_ns
    features = run(model, tmp_path)
    assert file.stat().st_mtime_ns == time
    expected = run(model, tmp_path / "whole")
    for found, wanted in ((features.training[0], expected.training[0]), (features.held_out, expected.held_out)):
        indices = np.arange(found.count)
        np.testing.assert_array_equal(found.features(indices), wanted.features(indices))


def test_workers_share_the_files_whoever_comes_first(tmp_path, without_images, model, monkeypatch):
    """The second one looks what is missing when the first one has written; a file that was there is nobody's."""
    alone = run(model, tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "shared")
    for file in sorted((tmp_path / "shared").rglob("*.npy"))[1:]:
        file.unlink()
    write, written = FeatureFiles.write, []
    monkeypatch.setattr(FeatureFiles, "write", lambda self, *what: written.append(1) or write(self, *what))
    monkeypatch.setattr(computing, "worker_count", lambda strategy: 2)
    monkeypatch.setattr(computing, "sum_over_workers", lambda strategy, number: number)
    monkeypatch.setattr(computing, "fail_together", lambda strategy, failure: None)
    monkeypatch.setattr(computing, "_wait_for", lambda passes, strategy: None)
    strategy = SimpleNamespace(num_replicas_in_sync=2)
    counts = []
    for worker in (1, 0):
        monkeypatch.setattr(computing, "worker_index", lambda strategy, worker=worker: worker)
        monkeypatch.setattr(computing, "is_chief", lambda strategy, worker=worker: worker == 0)
        protocol = preprocessing_of(RECIPE, SOURCE)
        found = run_features(model, RECIPE, SOURCE, protocol, tmp_path / "shared", strategy)
        counts.append(len(written))
    assert counts[0] in (1, 2)
    assert counts[1] == 3
    indices = np.arange(COUNT)
    # Their batches are smaller: on some processors sums are then of another order.
    of_both, of_one = (one.training[0].features(indices) for one in (found, alone))
    np.testing.assert_allclose(of_both, of_one, rtol=1e-5, atol=1e-6)


def test_images_that_cannot_be_read(tmp_path, without_images, model, caplog):
    features = run(model, tmp_path, dataclasses.replace(RECIPE, on_error="skip"))
    assert np.flatnonzero(~features.training[0].facts()[1]).tolist() == [3]
    assert f"skipped 1 of {COUNT} images that cannot be read:\n  image 3 is broken" in caplog.text


def test_what_replaces_an_image_in_an_augmented_copy_depends_on_the_sampling(tmp_path, without_images, model):
    def folders(**settings):
        recipe = dataclasses.replace(RECIPE.replaced({"start.cache_features": 2}), **settings)
        return [files.folder for files in run(model, tmp_path, recipe).training]

    folders(sampling="balanced", on_error="skip")
    np.testing.assert_array_equal(without_images[0], SOURCE.training.labels)
    assert without_images[1] is None  # of the held-out images none is replaced
    assert folders(sampling="balanced", on_error="skip") != folders(sampling="uniform", on_error="skip")
    assert folders(sampling="balanced") == folders(sampling="uniform")
    assert all(labels is None for labels in without_images[1:])


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named(tmp_path, model):
    broken = source_of([b"no image" if number == 3 else png(image) for number, image in enumerate(IMAGES[:5])])
    with pytest.raises(ValueError, match="image 3: "):
        run(model, tmp_path, source=broken)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_disk_without_room_is_told_first(tmp_path, without_images, model, monkeypatch):
    size = 73 * 73 * 4 * 4 * (COUNT + 10) / 1e6
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(ValueError, match=rf"has 1\.0 MB of free space, and the features .* take {size:.1f} MB: make"):
        run(model, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(size + 0.1) * 1e6))
    run(model, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    run(model, tmp_path)  # nothing is left to be written


def test_a_folder_that_cannot_be_written(tmp_path, without_images, model, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file' cannot be written: (Not a directory|File exists)"):
        run(model, tmp_path / "file")

    def save(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(ValueError, match="cannot be written: No space left on device"):
        run(model, tmp_path / "features")


def test_files_that_do_not_appear(tmp_path, without_images, model, monkeypatch):
    """As of another worker, whose storage is another one."""
    monkeypatch.setattr(computing, "APPEAR_SECONDS", 0.01)
    monkeypatch.setattr(FeatureFiles, "write", lambda *_: None)
    with pytest.raises(ValueError, match=r"lacks features that another worker computed: .* within 0\.01 s"):
        run(model, tmp_path)


@pytest.mark.slow
def test_where_each_part_ends():
    """What is before has nothing to train, no normalization that takes statistics; all that is trained is behind."""
    net = PolyNet(
        weights=None, input_shape=(75, 75, 3), classes=3, structure="1 x [ir] | 1 x [2-way] | 1 x [ir]", width=0.05
    )
    randomize(net, 1)
    images = np.random.default_rng(0).normal(size=(2, 75, 75, 3)).astype("float32")
    expected = net.predict_on_batch(images)
    hashes = set()
    for through in ("stem", "stage_a", "reduction_a", "stage_b", "reduction_b", "stage_c"):
        freeze(net, through)
        front, behind = frozen_part(net, through), Network(end_of_frozen(net, through), net.outputs)
        assert not front.trainable_weights
        assert all(not layer.trainable for layer in front.layers if isinstance(layer, keras.layers.BatchNormalization))
        assert [id(weight) for weight in behind.trainable_weights] == [id(weight) for weight in net.trainable_weights]
        assert {id(w) for w in front.weights}.isdisjoint({id(w) for w in behind.weights})
        assert len(front.weights) + len(behind.weights) == len(net.weights)
        features = front.predict_on_batch(images)
        np.testing.assert_allclose(front(images, training=True), features, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(behind.predict_on_batch(features), expected, rtol=1e-4, atol=1e-6)
        hashes.add(weights_hash(front))
    assert len(hashes) == 6
    assert frozen_part(net, "stage_c").output_shape == (None, 104)  # pooled
