import dataclasses

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.cli.main import main
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.studies import input_benchmark
from polynet_keras.studies.input_benchmark import InputBenchmark, benchmark_input
from polynet_keras.training.recipes.recipe import Recipe


@pytest.mark.parametrize(
    ("read", "decode", "step", "bound"),
    [
        (1000, 500, 20, "step"),
        (1000, 500, 700, "decode"),
        (510, 500, 700, "disk"),
        (10, 9, 8.9, "step"),
        (10, 100, 50, "disk"),
    ],
)
def test_what_a_run_waits_for(read, decode, step, bound):
    assert InputBenchmark(read, decode, step).bound == bound


@pytest.mark.slow
def test_parts_are_measured_apart(monkeypatch):
    """With a reader that is made slow, reading and the pipeline are, and the steps are not."""
    recipe = Recipe(structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1)
    quick = benchmark_input(recipe, 0.5)
    assert quick.bound == "step"
    opened = input_benchmark.open_source

    def open_slowly(*arguments):
        import time

        import tensorflow as tf

        source = opened(*arguments)

        def read(index):
            def wait(index):
                time.sleep(0.05)
                return index

            return source.training.read(tf.ensure_shape(tf.numpy_function(wait, [index], tf.int64), ()))

        return dataclasses.replace(source, training=dataclasses.replace(source.training, read=read))

    monkeypatch.setattr(input_benchmark, "open_source", open_slowly)
    slow = benchmark_input(recipe, 0.5)
    assert slow.read < quick.read / 5
    assert slow.decode < quick.decode / 5


def test_command(capsys, monkeypatch):
    monkeypatch.setattr(input_benchmark, "benchmark_input", lambda recipe, seconds: InputBenchmark(1234.5, 200, 300))
    assert main(["benchmark", "input", "--crop=random_resized"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["read", "1,234.5"]
    assert lines[-1].startswith("decode-bound: decoding and augmentation are too slow")
    smaller = {"--decoding=scaled": 300.0, "polynet records --max_side=600": 1500.0}
    large = InputBenchmark(1000, 200, 300, (4000, 3000), smaller)
    monkeypatch.setattr(input_benchmark, "benchmark_input", lambda recipe, seconds: large)
    assert main(["benchmark", "input"]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "the images are larger than the network needs: 4,000 x 3,000 px in the median.",
        "With fewer pixels to decode:",
        "  --decoding=scaled: 300.0 images/s, 1.5 times as many",
        "  polynet records --max_side=600: 1,500.0 images/s, 7.5 times as many",
    ]
    for argv, message in (
        ([], "expected `input`, what to measure; got nothing"),
        (["output"], "got output"),
        (["input", "--epochs=0"], "epochs=0 must be"),
    ):
        assert main(["benchmark", *argv]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoding", "first"), [pytest.param("exact", ["--decoding=scaled"], marks=pytest.mark.slow), ("scaled", [])]
)
def test_large_images_are_measured_smaller(tmp_path, decoding, first):
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    for index, name in enumerate("aabb"):
        (tmp_path / name).mkdir(exist_ok=True)
        photograph.save(tmp_path / name / f"{index}.jpg")
    recipe = Recipe(data=str(tmp_path), batch_size=2, decoding=decoding)
    source = input_benchmark.open_source(recipe.data, 0, "auto")
    assert input_benchmark._median_size(source.training) == (640, 427)
    found = input_benchmark._smaller(recipe, source, Unreadable(), 0.01)
    assert list(found) == [*first, "polynet records --max_side=200"]
    assert min(found.values()) > 0


def test_no_time():
    with pytest.raises(ValueError, match="seconds=0 must be a finite number > 0"):
        benchmark_input(Recipe(), 0)
