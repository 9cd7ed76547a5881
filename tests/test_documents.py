"""Every code block of README.md, CONTRIBUTING.md and docs/ is executed here, or says on the line before it why not.

The `python` blocks of a page run in order in one namespace, the `bash` blocks line by line in one folder. What is large
is made small beside the page, not in it: the fixtures below say how, and `SMALLER` what follows a command.
"""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import sklearn.datasets
import sklearn.utils
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from polynet_keras import PolyNet, preprocess_input
from polynet_keras.cli import launch
from polynet_keras.cli.main import main
from polynet_keras.data import fashion_mnist
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.records.write import write_records
from polynet_keras.deployment.formats.onnx import ONNX
from polynet_keras.models.structure import STRUCTURES, Structure
from polynet_keras.pretrained import registry, store
from polynet_keras.pretrained.stored_arrays import Format
from tests.data.records.test_describe import write
from tests.deployment.exported import exported, protocol, save_card
from tests.documents import (
    EXECUTED,
    OTHERS,
    PAGES,
    REASONS,
    ROOT,
    SMALL,
    SMALLER,
    Shell,
    blocks,
    check_flags,
    commands,
    run_program,
)

BLOCKS = [block for page in PAGES for block in blocks(page)]
TUTORIALS = sorted({block.page for block in BLOCKS if block.page.startswith("docs/tutorials/")})
SMALL_STRUCTURES = {
    "polynet-g5": "1 x [2-way] | 2 x [ir] | 1 x [ir]",
    "ir-10-20-10": "1 x [ir] | 2 x [ir] | 1 x [ir]",
}
RUN = (ROOT / ".ci" / "run").read_text()
GATE = re.findall(r"^step (\S+) ", RUN, re.MULTILINE)
GATE_PAGES = re.findall(r"\S+\.md", re.search(r"^    ' (.*\.md)$", RUN, re.MULTILINE)[1])
"""The pages whose marked blocks .ci/run runs."""


def test_every_block_is_executed_or_says_why_not():
    for block in BLOCKS:
        assert block.language in (*EXECUTED, *OTHERS), f"{block} is neither {' nor '.join(EXECUTED)} nor json"
        if not block.language:
            line = re.search(r"^(\$ |polynet [a-z]|pip |python |import |from \w+ import ).*", block.code, re.MULTILINE)
            assert not line, f"{block} does not say what {line[0]!r} is: bash or python"
        if block.marker:
            kind, text = block.marker
            assert block.language in EXECUTED, f"{block} is not executed anyway"
            if kind == "no output":
                assert block.page in TUTORIALS, f"{block}: only tutorials are notebooks"
            elif kind == "ci":
                assert block.page in GATE_PAGES, f"{block}: .ci/run reads {' and '.join(GATE_PAGES)} alone"
                assert text in GATE, f"{block}: .ci/run has no step {text}"
            else:
                assert text in REASONS, f"{block}: {text!r} is none of the reasons {REASONS}"
    given = {block.marker[1] for block in BLOCKS if block.marker and block.marker[0] == "not run"}
    assert given == set(REASONS), "a reason that no block has any more"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "bash" and b.is_left_out], ids=str)
def test_flags_of_commands_that_are_not_executed(block):
    for words in commands(block.code):
        check_flags(words)


def photograph(size: int, number: int = 0) -> np.ndarray:
    """A square of one of scikit-learn's two photographs."""
    image = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
    top, left = 20 * number % 90, 37 * number % 300
    return np.asarray(Image.fromarray(image[top : top + 331, left : left + 331]).resize((size, size)))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The named structures have few units, and `fit` ends after an epoch."""
    for name in STRUCTURES:
        monkeypatch.setitem(STRUCTURES, name, Structure.parse(SMALL_STRUCTURES.get(name, SMALL)))
    fit = keras.Model.fit

    @functools.wraps(fit)
    def one_epoch(*arguments, initial_epoch=0, epochs=1, **settings):
        return fit(*arguments, initial_epoch=initial_epoch, epochs=min(epochs, initial_epoch + 1), **settings)

    monkeypatch.setattr(keras.Model, "fit", one_epoch)


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    PolyNet(weights=None, structure=SMALL_STRUCTURES["polynet-g5"]).save_weights(file)
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def imagenet(small_weights, monkeypatch):
    """What `"imagenet"` names is small, has random weights, and is here."""
    file, digest = small_weights
    published = registry.published("imagenet")
    accuracy = dataclasses.replace(published.accuracies[0], preprocessing=Preprocessing(75, 86))
    where = {"file": file.name, "urls": (), "format": Format.KERAS}
    known_by = {"algorithm": "sha256", "digest": digest, "hash_of": "file"}
    small = dataclasses.replace(published, accuracies=(accuracy,), **where, **known_by)
    checkpoints = tuple(small if one is published else one for one in registry.CHECKPOINTS)
    monkeypatch.setattr(registry, "CHECKPOINTS", checkpoints)
    monkeypatch.setattr(store, "SHIPPED_FOLDERS", (file.parent, *store.SHIPPED_FOLDERS))
    monkeypatch.setattr(keras.applications, "ResNet50", functools.partial(keras.applications.ResNet50, weights=None))


@pytest.fixture
def clothes(monkeypatch, tmp_path):
    """Fashion-MNIST's files, with few images: scikit-learn's digits."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    digits = load_digits()
    images = np.pad(digits.images.repeat(3, 1).repeat(3, 2) * 15, ((0, 0), (2, 2), (2, 2))).astype("uint8")
    for part, chosen in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        for kind, header, values in (("images-idx3", 16, images), ("labels-idx1", 8, digits.target.astype("uint8"))):
            content = gzip.compress(bytes(header) + values[chosen].tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(fashion_mnist, "FOLDER", folder)


@pytest.fixture
def few_digits(monkeypatch):
    """In place of 1,797."""
    digits = load_digits()
    few = sklearn.utils.Bunch(images=digits.images[:60], target=digits.target[:60], target_names=digits.target_names)
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)


def save_photographs(folder, classes=("cat", "dog"), count=5):
    """A folder of images for each class."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            image = Image.fromarray(photograph(96, 2 * number + label))
            image.save(folder / name / f"{number}.jpg")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with `photos` and a run on them."""
    folder = tmp_path_factory.mktemp("trained")
    save_photographs(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = [*SMALLER["train"], f"--structure={SMALL}"]
        assert main(["train", "--data=photos", "--run_dir=runs/photos", *small]) == 0
    return folder


def batches(images, labels, size=2):
    return tf.data.Dataset.from_tensor_slices((images.astype("float32"), labels)).batch(size)


def readme_names():
    images, photographs = (np.stack([photograph(size, i) for i in range(2)]) for size in (331, 128))
    yield {"images": images, "photographs": photographs / 255, "labels": np.arange(2)}


def polynet_names():
    yield {}
    yield {}
    yield next(readme_names())


def distribution_names():
    yield {"dataset": batches(np.stack([photograph(331, i) for i in range(2)]) / 255, np.arange(2))}


def evaluation_names():
    save_photographs(Path("classes"), ("n01440764", "n01443537"), 2)
    write_records("classes", "imagenet_records", split="val", processes=1)
    yield {}


def fine_tuning_names():
    images = preprocess_input(np.stack([photograph(331, i) for i in range(2)]))
    yield {"training": batches(images, np.arange(2)), "held_out": batches(images, np.arange(2))}


def input_names():
    save_photographs(Path("photos"))
    layers = [keras.Input((331, 331, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    yield {"model": model}


def predicting_names():
    save_photographs(Path("photos"))
    yield {}


def protocols_names():
    yield {"photograph": photograph(331)}


def training_names():
    model = PolyNet(weights=None, structure=SMALL, width=0.1, input_shape=(75, 75, 3), classes=2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = batches(np.stack([photograph(75, i) for i in range(2)]) / 255, np.arange(2))
    yield {"model": model, "training": data, "held_out": data}


def weights_names():
    yield {"images": photograph(331)[np.newaxis]}
    yield {"image": photograph(28)[..., :1]}


NAMES = {
    "README.md": readme_names,
    "docs/distribution.md": distribution_names,
    "docs/evaluation.md": evaluation_names,
    "docs/explaining.md": predicting_names,
    "docs/features.md": predicting_names,
    "docs/fine_tuning.md": fine_tuning_names,
    "docs/howto/features.md": predicting_names,
    "docs/input.md": input_names,
    "docs/polynet.md": polynet_names,
    "docs/predicting.md": predicting_names,
    "docs/protocols.md": protocols_names,
    "docs/training.md": training_names,
    "docs/weights.md": weights_names,
}
"""What the `python` blocks of a page find there, block by block."""


def evaluation_files(folder):
    save_photographs(folder / "val_photos", count=3)
    save_photographs(folder / "classes", ("n01440764", "n01443537"), 2)
    write_records(folder / "classes", folder / "imagenet_records", split="val", processes=1)
    for name in ("a", "b"):
        shutil.copytree("runs/photos", folder / name)
    for name in ("a", "b"):
        assert main(["evaluate", f"--run_dir={name}", "--data=val_photos", f"--scores={name}_fit.npz"]) == 0


def export_files(folder):
    save_photographs(folder / "photographs", count=20)


def growth_files(folder):
    shutil.copytree("runs/photos", folder / "runs" / "small")


def csv_files(folder):
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.glob("photos/*/*.jpg"))]
    (folder / "photos.csv").write_text("\n".join(["path,label", *rows, ""]))


def resume_files(folder):
    """A run that Ctrl-C ended after its first step."""

    def interrupt(self, batch, logs=None):
        raise KeyboardInterrupt

    shutil.rmtree(folder / "runs" / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_test_batch_end", interrupt)
        small = [*SMALLER["train"], f"--structure={SMALL}", "--save_every_steps=1"]
        assert main(["train", "--data=photos", "--run_dir=runs/photos", *small]) == 130
    assert (folder / "runs" / "photos").is_dir()


def input_files(folder):
    (folder / "imagenet").mkdir()
    write(folder / "imagenet", range(1, 13))


def models_files(folder):
    scaled = keras.layers.Rescaling(1 / 255)
    layers = [keras.Input((8, 8, 3)), scaled, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    keras.Sequential(layers).save(folder / "photos.keras")
    (folder / "names.txt").write_text("cat\ndog\n")
    Image.fromarray(photograph(96)).save(folder / "photo.jpg")


def serving_files(folder):
    Image.fromarray(photograph(96)).save(folder / "photo.jpg")


def training_files(folder):
    shutil.copy("runs/photos/model.keras", "runs/photos/last_good.keras")
    for name in ("imagenet", "IMAGENET"):
        save_photographs(folder / name)
    (folder / "weights.csv").write_text("class,weight\ncat,2.5\n")


def finetune_files(folder):
    save_photographs(folder / "photos")


FILES = {
    "docs/evaluation.md": evaluation_files,
    "docs/export.md": export_files,
    "docs/growth.md": growth_files,
    "docs/howto/csv.md": csv_files,
    "docs/howto/resume.md": resume_files,
    "docs/input.md": input_files,
    "docs/models.md": models_files,
    "docs/serving.md": serving_files,
    "docs/training.md": training_files,
    "docs/tutorials/finetune.md": finetune_files,
}
"""What the `bash` blocks of a page find in their folder, beside `photos` and a run on them."""

EXPORT = "docs/export.md"


def work_alone(job):
    """In place of the workers of `polynet launch` one, in this process; tests/cluster has several."""
    program, *arguments = job.command
    if "train" in arguments:
        return main(arguments[arguments.index("train") :])
    assert Path(program).name == "python"
    run_program(*arguments)
    return 0


@pytest.fixture
def one_process(monkeypatch):
    """Commands run as where the environment of the tests is activated, on no cluster, and workers in this process."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(launch, "supervise", work_alone)


def executed(page, *languages):
    return [b for b in BLOCKS if b.page == page and b.language in languages and not b.is_left_out]


def pages(language):
    """Those with blocks that are executed, but for the tutorials."""
    found = dict.fromkeys(b.page for b in BLOCKS if b.language == language and not b.is_left_out)
    return [page for page in found if page not in TUTORIALS]


def run_block(block, names):
    code = "\n" * block.line + block.code  # so that a traceback has the page's lines
    exec(compile(code, block.page, "exec"), names)


def run_python(page, prepared):
    """Runs a page's blocks, with names prepared for each, and returns the names that they leave."""
    names = {"__name__": "__main__"}
    for block in executed(page, "python"):
        names |= next(prepared, {})
        run_block(block, names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages("python") if page != EXPORT])
def test_the_python_of_a_page(page, imagenet, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run_python(page, NAMES[page]() if page in NAMES else iter(()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {}),
        (1, {}),
        (3, {"resize": "shorter_side", "interpolation": "bicubic", "channel_order": "BGR"}),
        (3, {"decoding": "scaled"}),
    ],
)
def test_the_python_of_the_page_on_export(monkeypatch, tmp_path, channels, options):
    """Its lines that prepare an image without this package do it as the package does."""
    monkeypatch.chdir(tmp_path)
    folder, model = exported(channels)
    shutil.copytree(folder, "clothes")
    card = save_card(Path("clothes"), protocol(channels, **options))
    Path("clothes-onnx/1").mkdir(parents=True)
    ONNX.write(Path("clothes-onnx/1/model.onnx"), model, None, "float32", None)
    Image.fromarray(load_sample_image("china.jpg")[:416]).save("photograph.jpg")  # sides that 4 divides
    pixels = read_image("photograph.jpg", channels, card.preprocessing.least_side)
    prepared = card.preprocessing(pixels)[np.newaxis]
    names = run_python(EXPORT, iter([{"model": model}, {"images": prepared}]))
    np.testing.assert_allclose(names["x"], prepared[0], atol=1e-3)
    np.testing.assert_allclose(names["probabilities"], names["exported"].run(prepared), atol=1e-3)
    np.testing.assert_allclose(names["by_onnx"], names["probabilities"], atol=1e-4)
    np.testing.assert_allclose(names["fused"].predict_on_batch(prepared), names["probabilities"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("bash"))
def test_the_commands_of_a_page(page, imagenet, clothes, trained, one_process, monkeypatch, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(trained, folder)
    (folder / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(folder)
    if page in FILES:
        FILES[page](folder)
    with contextlib.closing(Shell()) as shell:
        for block in executed(page, "bash"):
            shell.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_the_steps_of_a_tutorial(page, imagenet, few_digits, one_process, monkeypatch, tmp_path):
    """All its blocks in one folder, which is empty at first but for the reader's own photographs."""
    monkeypatch.chdir(tmp_path)
    if page in FILES:
        FILES[page](tmp_path)
    names = {"__name__": "__main__"}
    with contextlib.closing(Shell()) as shell:
        for block in executed(page, "python", "bash"):
            if block.language == "python":
                run_block(block, names)
            else:
                shell.run(block)
