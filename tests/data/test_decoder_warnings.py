"""Damaged images are named once, by decoding them one by one."""

import contextlib
import io
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from polynet_keras.basics.stderr_filter import held_back, warned
from polynet_keras.data import decoder_warnings
from polynet_keras.data.decoder_warnings import log_damaged
from polynet_keras.data.sources import image_files
from tests.children import Child


def encoded(kind: str, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF" if kind == "tiff" else "JPEG", quality=95, compression="jpeg")
    data = file.getvalue()
    if kind == "damaged":
        return data[:-2] + bytes(40) + data[-2:]
    if kind == "without its end":
        return data[:-2] + bytes(40)
    return data


def photographs(folder, **kinds: str):
    """A folder of two classes: a file for each name, of the kind."""
    for number, (name, kind) in enumerate(kinds.items()):
        path = folder / ("cats" if number % 2 else "dogs") / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"" if kind == "empty" else encoded(kind, number))
    (examples,) = image_files(folder).values()
    return examples


@pytest.fixture
def said(monkeypatch):
    """The news and the warnings."""
    messages: list[str] = []
    for where, name in ((decoder_warnings, "tell"), (logging, "warning")):
        monkeypatch.setattr(where, name, lambda text, *arguments: messages.append(text % arguments))
    return messages


def decode_all(examples):
    """As a pipeline does it."""
    for index in range(len(examples)):
        data, _ = examples.read(tf.constant(index, tf.int64))
        if len(data.numpy()):
            tf.io.decode_jpeg(data)


def test_damaged_images_are_named_once(tmp_path, capfd, said):
    examples = photographs(tmp_path, a="whole", b="damaged", c="damaged", d="empty", e="whole")
    with held_back():
        decode_all(examples)
        assert warned()
        log_damaged(examples)
        assert not warned()  # what is decoded for the search is not passed on
    begun, listed = said
    assert begun.startswith("a decoder has warned of damaged images")
    first, *names = listed.split("\n")
    assert first == "2 of 5 images are damaged, and used as far as they can be decoded:"
    warning = r": corrupt JPEG data: \d\d extraneous bytes before marker 0xd9"
    for name, path in zip(sorted(names), ("cats/b", "dogs/c"), strict=True):
        assert re.fullmatch(f"  {re.escape(str(tmp_path))}/{path}.jpg{warning}", name)
    assert "JPEG" not in capfd.readouterr().err


def test_what_is_named_passes_the_filter(tmp_path, capfd):
    examples = photographs(tmp_path, a="whole", b="damaged", c="whole", d="whole")
    with held_back():
        decode_all(examples)
        os.write(2, decoder_warnings._warning(examples, examples_named(examples, "b")).encode())
    assert "extraneous bytes" in capfd.readouterr().err


def examples_named(examples, name: str) -> int:
    return next(i for i in range(len(examples)) if examples.name_of(i).endswith(f"{name}.jpg"))


def test_a_search_ends(tmp_path, said, monkeypatch):
    examples = photographs(tmp_path, a="whole", b="whole", c="damaged", d="damaged")
    monkeypatch.setattr(decoder_warnings, "SECONDS", 1e-9)
    with held_back():
        decode_all(examples)
        log_damaged(examples)
    assert said[1] == "none of the first 0 of 4 images is damaged"


def test_many_are_counted(tmp_path, said, monkeypatch):
    examples = photographs(tmp_path, **{f"image{i}": "damaged" for i in range(6)})
    monkeypatch.setattr(decoder_warnings, "LISTED", 4)
    with held_back():
        decode_all(examples)
        log_damaged(examples.subset(np.arange(2), "training"), examples.subset(np.arange(2, 6), "held out"))
    lines = said[1].split("\n")
    assert len(lines) == 6
    assert lines[0].startswith("6 of 6 images")
    assert lines[-1] == "  and 2 more"


def suppressed(function, *arguments):
    with contextlib.suppress(ValueError):
        function(*arguments)


def test_a_tiff_whose_library_warns(tmp_path, monkeypatch, capfd):
    examples = photographs(tmp_path, a="tiff", b="whole")

    def decode(data, channels, name):
        os.write(2, b"tempfile.tif: Warning, something is odd.\nof another thread\n")
        raise ValueError("and it cannot be read")

    monkeypatch.setattr(decoder_warnings, "decode_image", decode)
    index = examples_named(examples, "a")
    assert decoder_warnings._warning(examples, index) == ""  # it is refused, and named as such
    decode_and_refuse = decode
    monkeypatch.setattr(decoder_warnings, "decode_image", lambda *arguments: suppressed(decode_and_refuse, *arguments))
    assert decoder_warnings._warning(examples, index) == "warning, something is odd."
    assert capfd.readouterr().err == "of another thread\n" * 2


def test_jpegs_that_pillow_decides_about_are_not_named(tmp_path):
    examples = photographs(tmp_path, a="damaged", b="without its end")
    assert decoder_warnings._warning(examples, examples_named(examples, "a"))
    assert not decoder_warnings._warning(examples, examples_named(examples, "b"))


def test_without_a_temporary_folder_nothing_is_named(tmp_path, said, monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory")

    examples = photographs(tmp_path, a="damaged", b="whole")
    monkeypatch.setattr(decoder_warnings.tempfile, "TemporaryFile", nowhere)
    log_damaged(examples)
    assert "No usable temporary directory" in said[1]


def test_what_others_write_meanwhile_is_kept(tmp_path, monkeypatch, capfd):
    examples = photographs(tmp_path, a="damaged", b="whole")
    decode = tf.io.decode_jpeg

    def busy(data):
        os.write(2, b"of another thread\n")
        return decode(data)

    monkeypatch.setattr(tf.io, "decode_jpeg", busy)
    assert decoder_warnings._warning(examples, examples_named(examples, "a"))
    assert not decoder_warnings._warning(examples, examples_named(examples, "b"))
    assert capfd.readouterr().err == "of another thread\n" * 2


@pytest.mark.slow
def test_a_training_names_them_at_its_end(tmp_path):
    photographs(tmp_path / "photos", **{f"image{i}": "damaged" if i % 5 == 0 else "whole" for i in range(20)})
    program = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
    flags = ["--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--width=0.1", "--image_size=75", "--epochs=2"]
    arguments = ["train", f"--data={tmp_path}/photos", f"--run_dir={tmp_path}/run", *flags]
    child = Child(program, *arguments)
    output, error = child.communicate(timeout=300)
    assert child.returncode == 0, error
    assert "held-out accuracy" in output
    assert "Corrupt JPEG data" not in error
    assert error.count("4 of 20 images are damaged") == 1
    assert [f"image{i}.jpg: corrupt" in error for i in range(20)] == [i % 5 == 0 for i in range(20)]
