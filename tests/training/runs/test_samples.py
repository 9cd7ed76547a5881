import os
from pathlib import Path

import numpy as np
import pytest
from absl import logging
from PIL import Image

from polynet_keras.data.examples import Source
from polynet_keras.data.sources import open_split
from polynet_keras.training.runs.samples import held_out_samples
from tests.data.arrays import examples_of, png, random_images


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def source_of(held_out):
    return Source(held_out, held_out)


def in_memory(count, broken=(), class_name="a/b"):
    encoded = [b"no image" if i in broken else png(image) for i, image in enumerate(random_images(count))]
    names = [f"train-{i}.tfrecord, record 0" for i in range(count)]
    examples = examples_of(encoded, labels=np.zeros(count, int), classes=1, names=names)
    object.__setattr__(examples, "class_names", (class_name,))
    return examples


def test_samples_are_evenly_spaced_and_readable_again(tmp_path):
    files = held_out_samples(source_of(in_memory(28)), tmp_path / "samples", set())
    assert [int(Path(file).name.split(".")[0][6:]) for file in files] == list(range(0, 28, 3))
    for i, file in zip(range(0, 28, 3), files, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), random_images(28)[i])


def test_what_was_skipped_is_no_sample(tmp_path, warned):
    broken = set(range(0, 20, 2))
    files = held_out_samples(source_of(in_memory(20, broken)), tmp_path, broken)
    assert [int(Path(file).name.split(".")[0][6:]) for file in files] == list(range(1, 20, 2))
    assert not warned


def test_what_cannot_be_read_any_more_costs_no_run(tmp_path, warned):
    """What another worker skipped, and what has vanished since."""
    files = held_out_samples(source_of(in_memory(5, {0, 3})), tmp_path, set())
    assert len(files) == 3
    assert [line.split(": ")[1] for line in warned] == [f"train-{i}.tfrecord, record 0" for i in (0, 3)]
    assert held_out_samples(source_of(in_memory(2, {0, 1})), tmp_path, {0, 1}) == ()


def test_samples_of_a_folder_are_copies_of_its_files(tmp_path, warned):
    for name in ("cat", "dog", "dog/deep"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), (i, 0, 0)).save(tmp_path / "data" / name / f"{i}.jpeg")
    held_out = open_split(tmp_path / "data")
    (tmp_path / "data" / "cat" / "0.jpeg").write_text("no image")
    (tmp_path / "data" / "dog" / "2.jpeg").unlink()
    files = held_out_samples(source_of(held_out), tmp_path / "samples", set())
    names = ["1-is-cat", "2-is-cat", "0-is-dog", "1-is-dog", "0-6-is-dog", "1-7-is-dog", "2-is-dog"]
    assert files == tuple(f"{tmp_path}/samples/{name}.jpeg" for name in names)
    for file, index in zip(files, (1, 2, 3, 4, 6, 7, 8), strict=True):
        assert Path(file).read_bytes() == Path(held_out.name_of(index)).read_bytes()
    assert len(warned) == 2


@pytest.mark.parametrize("class_name", ["x" * 255, "猫" * 85, "caf\udce9"])
def test_names_of_any_length(tmp_path, class_name):
    (file,) = held_out_samples(source_of(in_memory(1, class_name=class_name)), tmp_path, set())
    assert len(os.fsencode(os.path.basename(file))) < 255
    assert Path(file).is_file()


def test_a_folder_that_cannot_be_written_costs_no_run(tmp_path, warned):
    (tmp_path / "samples").write_text("no folder")
    assert held_out_samples(source_of(in_memory(2)), tmp_path / "samples", set()) == ()
    assert len(warned) == 2
