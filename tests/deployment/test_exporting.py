"""Exported models: what each runtime computes, what the card says, and that a bad export leaves nothing."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.basics.holding import Hold, holding
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment import classify_signature, comparing, exporting
from polynet_keras.deployment.artifact import CARD_FILE, ExportCard, artifact_path, load_artifact, load_exported
from polynet_keras.deployment.comparing import photographs
from polynet_keras.deployment.exporting import export
from polynet_keras.deployment.formats import FORMATS
from polynet_keras.evaluation.identity import weights_hash
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.outputs import logits_model
from tests.reference import randomize

ROOT = Path(__file__).parents[2]
FLOATS = [
    pytest.param(name, precision, marks=() if (name, precision) == ("openvino", "float32") else pytest.mark.slow)
    for name, format in FORMATS.items()
    for precision in format.precisions
    if format.backend == "tensorflow" and precision != "int8"
]


def trained():
    preprocessing = Preprocessing(75, 86, mean=(0.5,) * 3, std=(0.25,) * 3)
    structure = "1 x [2-way] | 1 x [poly-2] | 1 x [ir]"
    model = PolyNet(weights=None, structure=structure, width=0.1, input_shape=(75, 75, 3), classes=6)
    randomize(model, 0)
    head = model.get_layer("predictions")
    head.kernel.assign(np.asarray(head.kernel) * 0.02)  # probabilities, not certainties
    return TrainedModel("net", model, preprocessing, tuple(f"class {i}" for i in range(6)), structure)


@pytest.fixture(scope="module")
def net():
    return trained()


def of_few_layers(channels=3, resize="square"):
    """For what an export does around the network, which takes the longest."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, channels), name="image")
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(6, "softmax", name="predictions")(x))
    preprocessing = Preprocessing(16, 18, resize=resize, mean=(0.5,) * channels, std=(0.25,) * channels)
    return TrainedModel("net", model, preprocessing, tuple(f"class {i}" for i in range(6)))


@pytest.fixture(scope="module")
def few_layers():
    return of_few_layers()


@pytest.mark.parametrize(("format", "precision"), FLOATS)
def test_every_runtime_computes_the_same(net, tmp_path, format, precision):
    card = export(net, tmp_path / "net", format, precision)
    assert ExportCard.load(tmp_path / "net") == card
    assert (card.format, card.precision) == (format, precision)
    assert card.source_hash == weights_hash(net.model)
    assert card.comparison.images == 20
    assert "keras" in card.versions
    files = [file for file in (tmp_path / "net" / "1").rglob("*") if file.is_file()]
    assert card.size == sum(file.stat().st_size for file in files)
    hashes = {f"{file.relative_to(tmp_path / 'net')}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert card.files == hashes
    loaded = load_exported(tmp_path / "net", threads=1)
    x = np.random.default_rng(1).normal(size=(3, 75, 75, 3)).astype("float32")
    expected = net.model.predict_on_batch(x)
    tolerance = {"float32": 1e-4, "float16": 1e-2, "dynamic": 0.1}[precision]
    for images, wanted in ((x, expected), (x[:1], expected[:1])):
        found = loaded.run(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=tolerance)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net"]


def test_one_export_at_a_time_makes_a_folder(few_layers, tmp_path, monkeypatch):
    with holding("folder", tmp_path / "net", beside=True):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError, match=rf"net' is being written by process {os.getpid()} on .*, since 20\d\d-"):
            export(few_layers, f"{tmp_path}/net/", "saved_model")
        assert sorted(tmp_path.iterdir()) == before

    def another_ends(*arguments, **options):
        (tmp_path / "net").mkdir()
        return holding(*arguments, **options)

    monkeypatch.setattr(exporting, "holding", another_ends)
    with pytest.raises(ValueError, match="net' already exists; name a new folder"):
        export(few_layers, tmp_path / "net", "saved_model")
    assert [path.name for path in tmp_path.rglob("*")] == ["net"]


@pytest.mark.slow
def test_who_has_lost_the_folder_puts_nothing_there(few_layers, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "holding", lambda *_, **__: contextlib.nullcontext(Hold(is_lost=True)))
    with pytest.raises(OSError, match="net: another process has taken it; this process no longer writes there"):
        export(few_layers, tmp_path / "net", "saved_model")
    assert not list(tmp_path.iterdir())


def unchanged(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.slow
def test_an_export_is_overwritten_when_that_is_asked_for(few_layers, tmp_path):
    """And nothing else: neither what somebody put there, nor an artifact that somebody changed."""
    folder, other = tmp_path / "net", tmp_path / "other"
    export(few_layers, folder, "saved_model")
    with pytest.raises(ValueError, match="net' already exists; name a new folder, or replace .* with --overwrite"):
        export(few_layers, folder, "onnx")
    renamed = dataclasses.replace(few_layers, name="renamed")
    card = export(renamed, folder, "onnx", overwrite=True)
    assert ExportCard.load(folder) == card
    assert card.name == "renamed"
    assert [path.name for path in (folder / "1").iterdir()] == ["model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]

    os.symlink(folder, tmp_path / "link")
    for path in (tmp_path / "link", tmp_path / "link/"):
        with pytest.raises(ValueError, match="link is a link, which cannot be overwritten"):
            export(few_layers, path, "onnx", overwrite=True)
    other.mkdir()
    with pytest.raises(ValueError, match="other holds no export, and nothing else is overwritten; name a new"):
        export(few_layers, other, "onnx", overwrite=True)
    for change, named in (
        (lambda: (folder / "notes.txt").touch(), "notes.txt"),
        (lambda: shutil.copytree(folder / "1", folder / "2"), "2/model.onnx"),
        (lambda: (folder / "1/model.onnx").write_bytes(b"mine"), "1/model.onnx"),
    ):
        change()
        before = unchanged(folder)
        with pytest.raises(ValueError, match=f"net is not overwritten: {named} in it is not from `polynet export`"):
            export(few_layers, folder, "onnx", overwrite=True)
        assert unchanged(folder) == before
        shutil.rmtree(folder)
        export(few_layers, folder, "onnx")


@pytest.mark.slow
def test_what_is_put_into_an_export_while_the_next_is_written_stays(few_layers, tmp_path, monkeypatch):
    folder = tmp_path / "net"
    export(few_layers, folder, "onnx")

    def meanwhile(*arguments):
        (folder / "notes.txt").touch()
        return compare(*arguments)

    compare = exporting.compare
    monkeypatch.setattr(exporting, "compare", meanwhile)
    with pytest.raises(ValueError, match="net is not overwritten: notes.txt in it"):
        export(few_layers, folder, "onnx", overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "card.json", "notes.txt"]


def names_of(folder, format):
    """Of the input and the output, as the format's runtime shows them."""
    path = artifact_path(folder, format)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if format == "openvino":
        import openvino

        model = openvino.Core().read_model(path)
        return [one.any_name for one in (*model.inputs, *model.outputs)]
    if format == "litert":
        from ai_edge_litert.interpreter import Interpreter

        names = Interpreter(str(path)).get_signature_list()["serving_default"]
        return [*names["inputs"], *names["outputs"]]
    import tensorflow as tf

    signature = tf.saved_model.load(str(path.parent)).signatures["serving_default"]
    return [*signature.structured_input_signature[1], *signature.structured_outputs]


@pytest.mark.parametrize("format", ["saved_model", "onnx", "openvino", pytest.param("tflite", marks=pytest.mark.slow)])
def test_inputs_and_outputs_have_the_same_names_everywhere(few_layers, tmp_path, format):
    """LiteRT goes by its old name here, TensorFlow Lite; no card has it."""
    image = keras.Input((16, 16, 3), name="pixels")
    net = keras.Model(image, few_layers.model(image))
    card = export(dataclasses.replace(few_layers, model=net), tmp_path / "net", format)
    assert card.format == ("litert" if format == "tflite" else format)
    assert names_of(tmp_path / "net", card.format) == ["image", "predictions"]


@pytest.mark.parametrize(
    ("resize", "channels"),
    [
        ("square", 1),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("square", 3), ("shorter_side", 3), ("square", 4))),
    ],
)
def test_a_saved_model_takes_files_and_gives_names(tmp_path, resize, channels):
    import tensorflow as tf
    from sklearn.datasets import load_sample_images

    net = of_few_layers(channels, resize)
    export(net, tmp_path / "net", "saved_model")
    classify = tf.saved_model.load(str(tmp_path / "net" / "1")).signatures["classify"]
    china, flower = load_sample_images().images
    files = [tf.io.encode_jpeg(china).numpy(), tf.io.encode_png(flower[:, :301]).numpy()]
    found = classify(encoded=tf.constant(files))
    inputs = np.stack([net.preprocessing(decode_image(file, channels, "photograph")) for file in files])
    probabilities = net.model.predict_on_batch(inputs)
    best = np.argsort(-probabilities, axis=1)[:, :5]
    np.testing.assert_allclose(found["scores"], np.take_along_axis(probabilities, best, 1), atol=1e-4)
    assert found["classes"].numpy().tolist() == [[f"class {i}".encode() for i in row] for row in best]
    bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (10**5).to_bytes(4, "big") * 2 + bytes(40)
    for bad, reason in (
        (b"", "JPEG or a PNG"),
        (b"text", "JPEG or a PNG"),
        (files[1][:20], "ends in"),
        (bomb, "pixels"),
        (files[0][:-2] + 100 * b"\xff\xda\0\x08\1\1\0\0\x3f\0" + files[0][-2:], "over 100 scans"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            classify(encoded=tf.constant([bad]))


@pytest.mark.parametrize(
    "channels", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(4, marks=pytest.mark.slow)]
)
def test_a_saved_model_decodes_as_pillow_does(channels):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from polynet_keras.deployment.classify_signature import decode

    photograph = Image.fromarray(load_sample_image("flower.jpg"))
    with_alpha = photograph.copy()
    with_alpha.putalpha(photograph.getchannel(0))
    for image in (photograph, photograph.convert("L"), photograph.convert("P"), with_alpha):
        for format in ("PNG",) if image.mode in ("P", "RGBA") else ("PNG", "JPEG"):
            file = io.BytesIO()
            image.save(file, format)
            expected = decode_image(file.getvalue(), channels, "photograph")
            np.testing.assert_array_equal(decode(file.getvalue(), channels), expected, f"{image.mode} {format}")


def test_a_saved_model_refuses_an_image_that_would_grow_too_large():
    import tensorflow as tf

    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    trained = TrainedModel("net", net, Preprocessing(8, 90, resize="shorter_side"), ("a", "b", "c"))
    classify = tf.function(classify_signature.classifier(net, trained), [tf.TensorSpec((None,), tf.string)])
    short, long = (tf.io.encode_png(np.zeros((2, width, 3), "uint8")).numpy() for width in (20, 60_000))
    assert classify(tf.constant([short]))["scores"].shape == (1, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the image is too narrow to be resized"):
        classify(tf.constant([long]))


@pytest.mark.parametrize("name", ["decode_png", "decode_and_crop_jpeg"])
def test_a_saved_model_refuses_too_many_pixels_before_it_decodes_them(monkeypatch, name):
    """In a file that is whole: one whose header lies, TensorFlow would refuse itself."""
    import tensorflow as tf

    place = tf.io if name == "decode_png" else tf.image
    image, ran, decode = np.zeros((5, 9, 3), "uint8"), [], getattr(place, name)
    encoded = (tf.io.encode_png if name == "decode_png" else tf.io.encode_jpeg)(image)

    def note(contents):
        ran.append(name)
        return contents

    def watched(contents, *arguments, **options):
        # Without state: tf.function would keep two operations that have some in order by itself.
        contents = tf.numpy_function(note, [contents], tf.string, stateful=False)
        return decode(tf.ensure_shape(contents, ()), *arguments, **options)

    monkeypatch.setattr(place, name, watched)
    monkeypatch.setattr(classify_signature, "MAX_PIXELS", 45)
    assert tf.function(classify_signature.decode)(encoded, 3).shape == (5, 9, 3)
    assert ran == [name]
    monkeypatch.setattr(classify_signature, "MAX_PIXELS", 44)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the image is over 44 pixels"):
        tf.function(classify_signature.decode)(encoded, 3)
    assert ran == [name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image[::-1], "the signature classify differs from Keras on 4 image files: scores by"),
        pytest.param(lambda image: image[:0], "the signature classify fails: ", marks=pytest.mark.slow),
    ],
)
def test_a_signature_that_gives_other_names_is_not_written(few_layers, tmp_path, monkeypatch, change, message):
    def decode(*arguments):
        return change(decoding(*arguments))

    decoding = classify_signature.decode
    monkeypatch.setattr(classify_signature, "decode", decode)
    with pytest.raises(ValueError, match=message):
        export(few_layers, tmp_path / "net", "saved_model")
    assert not list(tmp_path.iterdir())


class Harm:
    """What a pickle of it runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_pickle_in_a_pytorch_export_is_not_run(tmp_path):
    """PyTorch reads it a second time otherwise, whatever it holds; a good export is loaded, and runs."""
    torch = pytest.importorskip("torch")
    good, bad, ran = (tmp_path / name for name in ("good.pt2", "bad.pt2", "ran"))
    example = torch.zeros(2, 3)
    torch.export.save(torch.export.export(torch.nn.Softmax(1), (example,)), good)
    np.testing.assert_allclose(load_artifact(good, "torch")(example.numpy()), np.full((2, 3), 1 / 3))
    pickled = io.BytesIO()
    torch.save(Harm(ran), pickled)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        names = [name for name in source.namelist() if name.endswith("sample_inputs/model.pt")]
        for name in source.namelist():
            target.writestr(name, pickled.getvalue() if name in names else source.read(name))
    assert names
    with pytest.raises(ValueError, match=r"bad.pt2: cannot be loaded as torch"):
        load_artifact(bad, "torch")
    assert not ran.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


ON_PYTORCH = """
import sys
import numpy as np
from polynet_keras.deployment.exporting import export
from polynet_keras.deployment.artifact import load_exported
from polynet_keras import load_model
trained = load_model("fashion_mnist")
export(trained, sys.argv[1], "torch")
x = np.random.default_rng(0).normal(size=(3, 75, 75, 1)).astype("float32")
found, expected = load_exported(sys.argv[1]).run(x), trained.model.predict_on_batch(x)
assert np.abs(found - expected).max() < 1e-4
"""


@pytest.mark.slow
def test_torch_export(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", ON_PYTORCH, str(tmp_path / "net")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ExportCard.load(tmp_path / "net").format == "torch"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "certain", "message"),
    [
        ("float32", False, "probabilities differ by"),
        ("dynamic", True, "names the same class for 0 of"),
        ("dynamic", False, "correlates with Keras's by -0"),
    ],
)
def test_a_bad_export_fails_and_leaves_nothing(net, tmp_path, monkeypatch, precision, certain, message):
    """As if the runtime computed something else: another class's numbers. Keras may be sure of its own, or not."""

    def shifted(*arguments):
        run = loading(*arguments)
        return lambda images: np.roll(run(images), 1, axis=1)

    loading = exporting.load_artifact
    monkeypatch.setattr(exporting, "load_artifact", shifted)
    if certain:
        net = trained()
        head = net.model.get_layer("predictions")
        head.kernel.assign(np.asarray(head.kernel) * 50)
    with pytest.raises(ValueError, match=message):
        export(net, tmp_path / "net", "litert", precision)
    assert not list(tmp_path.iterdir())


def constant_class(images, expected):
    return np.tile(np.eye(expected.shape[1], dtype="float32")[0], (len(images), 1))


def mean_of_all(images, expected):
    return np.tile(expected.mean(axis=0), (len(images), 1))


def certainty(images, expected):
    """The right order of the classes, and of the images, ten times too sure."""
    power = expected**10
    return power / power.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            constant_class,
            r"moves 0\.[7-9]. of an image's probability, .* correlates with Keras's by 0\.00; dynamic may",
        ),
        (mean_of_all, r"moves 0\.0. of an image's probability, .* correlates with Keras's by -?0\.00"),
        (certainty, r"moves 0\.[3-9]. of an image's probability, .* correlates with Keras's by 1\.00"),
    ],
)
def test_a_bad_export_fails_where_keras_is_sure_of_nothing(net, broken, message):
    images = photographs(net.preprocessing)
    expected = net.model.predict_on_batch(images)
    second, best = np.sort(expected, axis=1)[:, -2:].T
    assert (best - second).max() < comparing.CLEAR_MARGIN
    found = broken(images, expected)
    with pytest.raises(ValueError, match=message):
        comparing.compare(net, lambda part: found[:1] if len(part) == 1 else found[1:], "dynamic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "caffe"}, "format='caffe' must be one of saved_model, onnx, openvino, litert, torch"),
        ({"format": "litert", "precision": "int8"}, "precision='int8' must be one of float32, dynamic for litert"),
        ({"format": "openvino", "precision": "int8"}, "precision='int8' needs calibration"),
        ({"format": "torch"}, "Keras writes torch on the torch backend; this is tensorflow: set KERAS_BACKEND=torch"),
        ({"format": "openvino", "output": "there"}, "output='there' already exists; name a new folder"),
        ({"format": "openvino", "output": "file/"}, "output='file/?' already exists; name a new folder"),
        ({"format": "openvino", "output": "no/net"}, "no/net is in a folder that does not exist"),
        ({"format": "openvino", "output": ""}, "output='' has no name of its own; name a new folder"),
        ({"format": "openvino", "output": "."}, "output='.' has no name of its own; name a new folder"),
        ({"format": "openvino", "output": "/"}, "output='/' has no name of its own; name a new folder"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(net, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("file").touch()
    with pytest.raises(ValueError, match=message):
        export(net, **{"output": "net", **arguments})


def test_logits_are_exported_with_a_softmax(few_layers, tmp_path):
    logits = dataclasses.replace(few_layers, model=logits_model(few_layers.model))
    export(logits, tmp_path / "net", "openvino")
    images = photographs(few_layers.preprocessing)
    found = load_exported(tmp_path / "net").run(images)
    np.testing.assert_allclose(found, few_layers.model.predict_on_batch(images), atol=1e-5)


def test_a_missing_package_is_named(few_layers, tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    told = (
        "not installed: openvino, pillow, scikit-learn; the extras `deploy` and `data` have them: "
        "pip install openvino pillow scikit-learn"
    )
    with pytest.raises(ValueError, match=told):
        export(few_layers, tmp_path / "net", "openvino")


def test_a_runtime_may_be_installed_under_another_name(few_layers, tmp_path, monkeypatch):
    """As onnxruntime-gpu is, which has the module `onnxruntime`."""
    import openvino

    def version(name):
        if name == "openvino":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    found = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    card = export(few_layers, tmp_path / "net", "openvino")
    assert card.versions["openvino"] == openvino.__version__
    assert card.versions["keras"] == found("keras")


def test_a_folder_that_is_no_export(few_layers, tmp_path):
    with pytest.raises(ValueError, match=r"no card of an exported model can be read: .*`polynet export` writes one"):
        load_exported(tmp_path)
    export(few_layers, tmp_path / "net", "openvino")
    with pytest.raises(ValueError, match=r"float64, 1 x 16 x 16 x 3, must be float32 \(batch, 16, 16, 3\)"):
        load_exported(tmp_path / "net").run(np.zeros((1, 16, 16, 3)))
    (tmp_path / "net" / "1" / "model.bin").rename(tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"cannot be loaded as openvino: .*bin file") as raised:
        load_exported(tmp_path / "net")
    assert "\n" not in str(raised.value)
    (tmp_path / "net" / "1" / "model.xml").write_text("<net")
    with pytest.raises(ValueError, match=r"model.xml: cannot be loaded as openvino: "):
        load_exported(tmp_path / "net")
    (tmp_path / "net" / "1" / "model.xml").unlink()
    with pytest.raises(ValueError, match=r"model.xml: no such file, which the card beside it describes"):
        load_exported(tmp_path / "net")
    card = json.loads((tmp_path / "net" / CARD_FILE).read_text())
    (tmp_path / "net" / CARD_FILE).write_text(json.dumps({**card, "format": "caffe"}))
    with pytest.raises(ValueError, match="format='caffe' must be one of"):
        load_exported(tmp_path / "net")
    (tmp_path / "net" / CARD_FILE).write_text("[]")
    with pytest.raises(ValueError, match="not the card of an exported model"):
        load_exported(tmp_path / "net")
