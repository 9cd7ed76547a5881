"""Exports in int8: what they are calibrated on and compared on, how many images they lose, what stays in float."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli.main import main
from polynet_keras.data.fashion_mnist import CLASSES, FOLDER
from polynet_keras.data.pipeline import evaluation_batches, validation_data
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sources import digits, open_source
from polynet_keras.deployment import comparing
from polynet_keras.deployment.artifact import ExportCard, artifact_path, load_exported
from polynet_keras.deployment.calibration import Calibration
from polynet_keras.deployment.comparing import photographs
from polynet_keras.deployment.exporting import export
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.paired import Paired
from polynet_keras.loading import load_model

PROTOCOL = Preprocessing(8, 8, mean=(0.5,) * 3, std=(0.25,) * 3)


def shades(folder, count=24):
    """Dark and bright images of 8 x 8 px; with noise, since a range is the mean of those of single images."""
    generator = np.random.default_rng(0)
    for name, shade in (("bright", 160), ("dark", 95)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = (shade + generator.integers(-60, 61, (8, 8, 3))).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


def by_a_small_channel(loud=3000.0):
    """Tells bright from dark by one of two channels, the other of which is so loud that int8 hears nothing else."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(2, 1, name="first")(image)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(2, 1, name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="predictions")(x))
    first = np.zeros((1, 1, 3, 2), "float32")
    first[0, 0, :, 1] = 1 / 3
    first[0, 0, 0, 0] = loud
    second = np.zeros((1, 1, 2, 2), "float32")
    second[0, 0, 1] = 3, -3
    for name, kernel, bias in (
        ("first", first, [1.5 * loud, 1.5]),
        ("second", second, [-4.5, 4.5]),
        ("predictions", np.eye(2, dtype="float32"), [0, 0]),
    ):
        model.get_layer(name).set_weights([kernel, np.array(bias, "float32")])
    return TrainedModel("shades", model, PROTOCOL, ("bright", "dark"))


def test_calibration_is_checked():
    source = open_source("digits", 0)
    for argument, least in (("images", 1), ("comparison_images", 2)):
        with pytest.raises(ValueError, match=f"{argument}={least - 1} must be an integer of at least {least}"):
            Calibration(source.training, source.held_out, **{argument: least - 1})
    with pytest.raises(ValueError, match="max_drop=-1 must be a finite number ≥ 0 and < 100"):
        Calibration(source.training, source.held_out, max_drop=-1)
    with pytest.raises(ValueError, match="digits would be calibrated on and compared on; name other images for one"):
        Calibration(digits(), digits())
    one, two, three = (source.held_out.subset(np.arange(count), f"first {count}") for count in (1, 2, 3))
    assert Calibration(source.training, two).facts(()) == {"data": "digits, training", "images": 300, "keep_float": []}
    with pytest.raises(ValueError, match="first 1 has 1 image; int8 needs at least 2"):
        Calibration(source.training, one)
    with pytest.raises(ValueError, match="first 3 has 3 images; int8 needs at least 4"):
        Calibration(source.training, three, max_drop=1)
    with pytest.raises(ValueError, match="none has 0 images; int8 needs at least 1"):
        Calibration(source.training.subset(np.arange(0), "none"), two)


@pytest.mark.parametrize(
    ("max_drop", "compared", "sizes"),
    [(None, 1000, (5, 359, 0)), (None, 50, (5, 50, 0)), (1.0, 1000, (5, 180, 179)), (1.0, 30, (5, 30, 30))],
)
def test_nobody_is_calibrated_chosen_and_compared_on(monkeypatch, max_drop, compared, sizes):
    """Images told apart by their names."""
    taken = []

    def prepared(self, examples, preprocessing, batch_size):
        taken.append([examples.name_of(i) for i in range(len(examples))])
        yield np.zeros((1, 8, 8, 1)), np.zeros(1, "int64")

    monkeypatch.setattr(Calibration, "_prepared", prepared)
    source = open_source("digits", 0)
    net = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    trained = TrainedModel("net", net, Preprocessing(8, 8, mean=(0.5,), std=(0.5,)), source.class_names)
    calibration = Calibration(source.training, source.held_out, 5, compared, max_drop=max_drop)
    calibration.batches(trained.preprocessing)
    assert all(labels is not None for _, labels in calibration.to_compare(trained))
    if max_drop is not None:
        calibration.to_choose(trained)
    assert tuple(map(len, [*taken, [], []][:3])) == sizes
    assert sum(sizes) == len({name for part in taken for name in part})
    training = {source.training.name_of(i) for i in range(len(source.training))}
    assert set(taken[0]) <= training
    assert not training.intersection(*taken[1:])


@pytest.mark.slow
def test_the_card_counts_what_both_get_right(tmp_path):
    """Of a runtime that takes one dark image for a bright one."""
    source = open_source(shades(tmp_path / "shades", 50), 0)
    trained = by_a_small_channel()
    wrong = []

    def run(images):
        found = trained.model.predict_on_batch(images)
        dark = np.flatnonzero(found[:, 1] > 0.5)
        if len(dark) and not wrong:
            wrong.append(dark[0])
            found[dark[0]] = found[dark[0], ::-1]
        return found

    comparison = comparing.compare(trained, run, "int8", Calibration(source.training, source.held_out))
    lost = 1
    assert (comparison.images, comparison.data) == (20, source.held_out.name)
    assert (comparison.top1.original, comparison.top1.exported) == (20, 20 - lost)
    assert comparison.top1.drop == pytest.approx(100 * lost / 20)
    low, high = Paired(20 - lost, lost, 0, 0).interval()
    assert (comparison.top1.drop_low, comparison.top1.drop_high) == (100 * low, 100 * high)
    assert comparison.top1_agreement == pytest.approx(1 - lost / 20)


@pytest.mark.slow
def test_images_of_other_classes_tell_no_top1(tmp_path, caplog):
    source = open_source(shades(tmp_path / "shades", 12), 0)
    trained = by_a_small_channel()
    trained = TrainedModel("net", trained.model, PROTOCOL, ("day", "night"))
    run = trained.model.predict_on_batch
    calibration = Calibration(source.training, source.held_out, max_drop=1)
    assert comparing.compare(trained, run, "int8", calibration).top1 is None
    assert "the accuracy of int8 is not measured: " in caplog.text
    assert "has 2 classes that net does not know: 'bright', 'dark'" in caplog.text
    with pytest.raises(ValueError, match="has 2 classes that net does not know"):
        calibration.to_choose(trained)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_named(tmp_path):
    source = open_source(shades(tmp_path / "shades", 8), 0)
    calibration, trained = Calibration(source.training, source.held_out), by_a_small_channel()
    assert len(calibration.batches(PROTOCOL)) == 12
    assert [len(images) for images, _ in calibration.to_compare(trained)] == [4]
    for path in tmp_path.glob("shades/*/*"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    for images in (calibration.batches, lambda _: list(calibration.to_compare(trained))):
        with pytest.raises(ValueError, match=r"/\d.png: cannot be read as an image"):
            images(PROTOCOL)


@pytest.mark.slow
def test_images_that_cannot_be_read_are_skipped_as_in_the_run(tmp_path):
    source = open_source(shades(tmp_path / "shades", 8), 0)
    calibration = Calibration(source.training, source.held_out, on_error="skip")
    broken = source.training.name_of(3)
    (tmp_path / "shades" / broken if not os.path.isabs(broken) else Path(broken)).write_bytes(b"no image")
    assert len(calibration.batches(PROTOCOL)) == 11
    for path in tmp_path.glob("shades/*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="has no image that can be read"):
        calibration.batches(PROTOCOL)


def float_layers(folder, format):
    """The layers whose kernels an artifact has in float, read from the file."""
    path = artifact_path(folder, format)
    if format == "onnx":
        import onnx

        graph = onnx.load(path).graph
        kinds = {node.output[0]: node.op_type for node in graph.node}
        with_kernel = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
        names = ("first", "second", "predictions")
        return {
            next(name for name in names if name in node.name)
            for node in with_kernel
            if kinds.get(node.input[1]) != "DequantizeLinear"
        }
    import openvino

    operations = openvino.Core().read_model(path).get_ops()
    return {
        operation.get_friendly_name().rpartition("/")[0]
        for operation in operations
        if operation.get_type_name() in ("Convolution", "MatMul")
        and operation.input(1).get_source_output().get_node().get_type_name() == "Constant"
    }


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_layers_that_are_named_stay_in_float(tmp_path, format):
    """And no others: of convolutions, whose names the conversion to OpenVINO loses, too."""
    source, trained = open_source(shades(tmp_path / "shades"), 0), by_a_small_channel(loud=2.0)
    for number, (kept, in_float) in enumerate(
        [((), set()), (("fir",), {"first"}), (("second", "predictions"), {"second", "predictions"})]
    ):
        folder = tmp_path / f"net{number}"
        card = export(trained, folder, format, "int8", Calibration(source.training, source.held_out, keep_float=kept))
        assert float_layers(folder, format) == in_float
        assert card.calibration == {"data": source.training.name, "images": 38, "keep_float": list(kept)}
        assert card.comparison.images == 10
        assert card.comparison.top1.original == card.comparison.top1.exported == 10
        assert ExportCard.load(folder) == card
    calibration = Calibration(source.training, source.held_out, keep_float=("econd",))
    with pytest.raises(ValueError, match="keep_float='econd' is not how the name of a layer of the fused network beg"):
        export(trained, tmp_path / "net", format, "int8", calibration)


@pytest.mark.slow
def test_layers_go_back_to_float_until_little_is_lost(tmp_path):
    source, trained = open_source(shades(tmp_path / "shades"), 0), by_a_small_channel()
    with pytest.raises(ValueError, match="that Keras is sure of; int8 must keep 90%"):
        export(trained, tmp_path / "net", "openvino", "int8", Calibration(source.training, source.held_out))
    assert not (tmp_path / "net").exists()
    calibration = Calibration(source.training, source.held_out, max_drop=0)
    card = export(trained, tmp_path / "net", "openvino", "int8", calibration)
    given_back = card.calibration["given_back"]
    assert (card.calibration["max_drop"], card.calibration["chosen_on"]) == (0, 5)
    assert "second" in given_back
    assert set(given_back) == float_layers(tmp_path / "net", "openvino") < {"first", "second", "predictions"}
    assert (card.comparison.images, card.comparison.top1.drop) == (5, 0)


@pytest.mark.slow
def test_a_drop_that_no_int8_keeps_to_is_said(tmp_path):
    """The layers that may go back are not the one that loses the images, or are all that there are."""
    source, trained = open_source(shades(tmp_path / "shades"), 0), by_a_small_channel()
    calibration = Calibration(source.training, source.held_out, keep_float=("first", "predictions"), max_drop=0)
    with pytest.raises(ValueError, match=r"max_drop=0: of the 5 held-out images .* whichever of the 3 layers go back"):
        export(trained, tmp_path / "net", "openvino", "int8", calibration)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shades"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "onnx"])
def test_a_run_is_compared_on_what_it_held_out(digits_run, tmp_path, monkeypatch, capsys, format):
    output, seen = tmp_path / "net", []
    compare = comparing.compare

    def watched(trained, run, precision, calibration):
        seen.append(calibration)
        return compare(trained, run, precision, calibration)

    monkeypatch.setattr("polynet_keras.deployment.exporting.compare", watched)
    command = ["export", f"--run_dir={digits_run.folder}", f"--output={output}", f"--format={format}"]
    command += ["--keep_float=stem,predictions"]  # one epoch trains too little for a net that is int8 throughout
    assert main([*command, "--precision=int8", "--calibration=digits", "--calibration_images=60"]) == 0
    printed = capsys.readouterr().out
    card = ExportCard.load(output)
    assert seen[0].held_out.fingerprint == digits_run.card.held_out_fingerprint
    assert card.comparison.images == digits_run.card.held_out
    assert card.comparison.top1.original == digits_run.card.held_out_correct
    assert f" points lost, 95 % interval {card.comparison.top1.drop_low:.2f} to " in printed
    assert card.calibration["images"] == 60
    run = load_model(output)
    assert np.isfinite(run.model.run(photographs(run.preprocessing))).all()
    # What evaluates and predicts with an export does so with this one.
    results = tmp_path / "results.csv"
    assert main(["evaluate", f"--model={output}", f"--results={results}"]) == 0
    top1 = f"top-1:       {100 * card.comparison.top1.exported / card.comparison.images:.2f} %"
    assert top1 in capsys.readouterr().out
    assert main(["predict", f"--model={output}", *digits_run.samples[:1]]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "onnx"])
@pytest.mark.skipif(not FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_int8_of_fashion_mnist_is_as_accurate(tmp_path, format):
    """All 10,000 test images: within 0.3 points of float32."""
    checkpoint = load_model("fashion_mnist")
    source = open_source("fashion_mnist", seed=0)
    calibration = Calibration(source.training, source.held_out, comparison_images=100)
    export(checkpoint, tmp_path / "net", format, "int8", calibration)
    run = load_exported(tmp_path / "net").run
    count = right = right_in_int8 = 0
    for images, labels in validation_data(evaluation_batches(source.held_out, checkpoint.preprocessing, 250)):
        images, labels = images.numpy(), labels.numpy()
        count += len(labels)
        right += int((checkpoint.model.predict_on_batch(images).argmax(axis=1) == labels).sum())
        right_in_int8 += int((run(images).argmax(axis=1) == labels).sum())
    print(f"float32: {right} of {count}, {format} int8: {right_in_int8}")
    assert (count, len(CLASSES)) == (10_000, len(checkpoint.class_names))
    assert abs(right - right_in_int8) <= 30
