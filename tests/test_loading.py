"""Each kind of model by its name: what it predicts is what its own network gives; and what is said of wrong ones."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras import PolyNet, load_model
from polynet_keras.cli.main import main
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment import export
from polynet_keras.deployment.artifact import load_exported
from polynet_keras.evaluation import Pooling, TrainedModel, evaluate, image_outputs, predict, score
from polynet_keras.evaluation.outputs import gives_logits, logits_model
from polynet_keras.pretrained import ModelCard
from tests.data.arrays import examples_of, png, random_images
from tests.deployment.exported import exported

NAMES = ("cat", "dog", "über")
LAYERS = keras.layers


def network(*last, size=8, channels=3):
    """A small classifier that rescales its images itself, as tutorials have them."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((size, size, channels)),
            LAYERS.Rescaling(1 / 255),
            LAYERS.Conv2D(4, 3, activation="relu", kernel_initializer="random_normal"),
            LAYERS.GlobalAveragePooling2D(),
            LAYERS.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=9)),
            *last,
        ]
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    # Images come without tf.data, whose graph takes a second to make.
    monkeypatch.setattr(image_outputs, "_piped", image_outputs._plain)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\nüber\n", encoding="utf-8")
    Image.fromarray(random_images(1)[0]).save("photo.png")
    return tmp_path


def expected(model, size=8, mean=0.0, std=1 / 255):
    """Probabilities of the photograph, which is squashed."""
    inputs = Preprocessing(size, size, (mean,) * 3, (std,) * 3)(read_image("photo.png", 3))
    return model.predict_on_batch(inputs[None])[0]


def found(name, **about):
    (prediction,) = predict(load_model(name, **about), ["photo.png"])
    return np.array([dict(prediction.classes)[name] for name in NAMES])


def softmax(logits):
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


@keras.saving.register_keras_serializable(package="tests")
class OwnOptimizer(keras.optimizers.SGD):
    pass


def own_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def test_what_a_user_saved_after_compile_and_fit(here):
    model = network(LAYERS.Softmax())
    model.compile(OwnOptimizer(0.01), own_loss, metrics=["accuracy"])
    model.fit(np.zeros((2, 8, 8, 3)), np.zeros(2), verbose=0)
    model.save("own.keras")
    np.testing.assert_allclose(found("own.keras", class_names=NAMES, preprocessing="raw"), expected(model), rtol=1e-5)


@pytest.mark.parametrize(
    ("about", "mean", "std"),
    [
        pytest.param({"preprocessing": "unit"}, 0, 1, marks=pytest.mark.slow),
        ({"preprocessing": "symmetric"}, 0.5, 0.5),
        ({"preprocessing": ((0.1, 0.1, 0.1), (0.3,))}, 0.1, 0.3),
        ({"preprocessing": Preprocessing(8, 8, (0.2,) * 3, (0.4,) * 3)}, 0.2, 0.4),
    ],
)
def test_a_model_without_a_card_is_described(here, about, mean, std):
    model = network()
    model.save("own.keras")
    probabilities = softmax(expected(model, mean=mean, std=std))
    np.testing.assert_allclose(found("own.keras", class_names=NAMES, **about), probabilities, rtol=1e-5)


def test_images_that_are_rescaled_twice_are_told(here, caplog):
    network().save("own.keras")
    load_model("own.keras", class_names=NAMES, preprocessing="raw")
    assert "divides" not in caplog.text
    load_model("own.keras", class_names=NAMES, preprocessing="unit")
    assert "own.keras divides the values of images itself, after the preprocessing has" in caplog.text


def test_a_card_beside_a_model_is_taken(here):
    model = network()
    model.save("own.keras")
    ModelCard(NAMES, Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3), 0, 0).save("own.keras")
    assert (here / "own.json").is_file()
    np.testing.assert_allclose(found("own.keras"), softmax(expected(model, mean=0.5, std=0.5)), rtol=1e-5)
    with pytest.raises(ValueError, match="own.keras has a card with its description; leave class_names out"):
        load_model("own.keras", class_names=NAMES)


def test_a_weights_file_with_its_structure(here):
    structure = "1 x [ir] | 1 x [ir] | 1 x [ir]"
    model = PolyNet(weights=None, structure=structure, width=0.1, input_shape=(75, 75, 3), classes=3)
    model.save_weights("net.weights.h5")
    about = {"class_names": NAMES, "preprocessing": "symmetric", "structure": structure}
    trained = load_model("net.weights.h5", image_size=75, width=0.1, **about)
    assert (trained.structure, trained.preprocessing.image_size) == (structure, 75)
    for ours, theirs in zip(trained.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for wrong, message in (
        ({"class_names": NAMES}, "is a weights file: give its structure (--structure) with its class_names"),
        (about, "net.weights.h5 takes images of any size: give its image_size (--image_size)"),
        ({**about, "image_size": 75, "width": 0.2}, "its 'stem_conv3/0' is 3 x 3 x 8 x 8, the network's"),
        ({**about, "image_size": 75, "width": 0.1, "class_names": "ab"}, "has other classes than the 2 of class_names"),
        (
            {"structure": structure},
            "has no card: give its class_names (--classes: a file of them, one per line) and its",
        ),
        ({**about, "structure": "resnet"}, "structure='»resnet', column 1: unknown structure"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            load_model("net.weights.h5", **wrong)


@pytest.mark.parametrize(
    ("shape", "about", "message"),
    [
        (
            (8, 8, 3),
            {},
            "give its class_names (--classes: a file of them, one per line) and its preprocessing (--prepro",
        ),
        (
            (8, 8, 3),
            {"class_names": NAMES},
            "give its preprocessing (--preprocessing: imagenet, symmetric, unit, raw,",
        ),
        (
            (8, 8, 3),
            {"class_names": NAMES, "preprocessing": "vgg"},
            "preprocessing='vgg' must be one of imagenet, symm",
        ),
        ((8, 8, 1), {"class_names": NAMES, "preprocessing": "imagenet"}, "1 channel, the preprocessing imagenet has 3"),
        ((8, 8, 3), {"class_names": NAMES, "preprocessing": ((0.5,) * 2, (1,))}, "3 channels, the preprocessing mean"),
        ((8, 8, 3), {"class_names": "ab", "preprocessing": "raw"}, "2 classes are named"),
        ((8, 8, 3), {"class_names": NAMES, "preprocessing": "raw", "image_size": 9}, "takes images of 8 px; got image"),
        ((None, None, 3), {"class_names": NAMES, "preprocessing": "raw"}, "takes images of any size: give its image"),
        ((8, 9, 3), {"class_names": NAMES, "preprocessing": "raw"}, "takes images of 8 x 9 px; expected square ones"),
        ((8,), {"class_names": NAMES, "preprocessing": "raw"}, "takes inputs of any x 8"),
        ((8, 8, 3), {"class_names": NAMES, "preprocessing": "raw", "structure": "ir"}, "holds its network; structure"),
    ],
)
def test_what_a_model_without_a_card_lacks(here, shape, about, message):
    inputs = keras.Input(shape)
    x = LAYERS.GlobalAveragePooling2D()(inputs) if len(shape) == 3 else inputs
    keras.Model(inputs, LAYERS.Dense(3)(x)).save("own.keras")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_model("own.keras", **about)


@pytest.mark.slow
def test_an_export_is_predicted_with_and_evaluated(here, monkeypatch):
    folder, model = exported()
    trained = load_model(folder)
    examples = examples_of([png(image) for image in random_images(5)], [0, 1, 2, 3, 4], classes=10)
    by_keras = load_model_of(model, trained)
    for crops in (1, 10):
        ours, theirs = (score(one, examples, crops=crops).logits for one in (trained, by_keras))
        for pooling in (Pooling(), Pooling("max"), Pooling("mean", on="logits")):
            np.testing.assert_allclose(pooling(ours), pooling(theirs), atol=1e-5)
    result = evaluate(trained, examples).result
    assert result.top1_hits == evaluate(by_keras, examples).result.top1_hits
    assert (result.parameters, result.macs, result.model) == (0, 0, str(folder))
    assert re.fullmatch("[0-9a-f]{64}", result.weights_hash)
    assert result.weights_hash != by_keras.weights_hash
    with pytest.raises(ValueError, match="gives probabilities alone, which max pooling cannot take for logits"):
        evaluate(trained, examples, crops=10, pooling=Pooling("max", on="logits"))
    probabilities = dict(predict(trained, ["photo.png"], top=10)[0].classes)
    for name, probability in predict(by_keras, ["photo.png"], top=10)[0].classes:
        assert probabilities[name] == pytest.approx(probability, abs=1e-5)
    assert predict(folder, ["photo.png"]) == predict(trained, ["photo.png"])
    for exported_model in (trained, folder):
        with pytest.raises(ValueError, match="is exported: name the model that it was exported from"):
            export(exported_model, "again", "openvino")
    with pytest.raises(ValueError, match="has a card with its description; leave preprocessing out"):
        load_model(folder, preprocessing="unit")


def load_model_of(model, trained):
    return TrainedModel("keras", model, trained.preprocessing, trained.class_names)


def nested(last):
    base = network()
    base = keras.Model(base.inputs, LAYERS.Softmax()(base.outputs[0])) if last == "softmax" else base
    return keras.Sequential([keras.Input((8, 8, 3)), base])


def fully_convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            LAYERS.Conv2D(3, 8),
            LAYERS.Flatten(),
            LAYERS.Activation("softmax"),
            LAYERS.Dropout(0.5),
        ]
    )


def computed(end, *last):
    """A model with operations behind its last layer."""
    base = network(*last)
    return keras.Model(base.inputs, end(base.outputs[0]))


@pytest.mark.parametrize(
    ("make", "logits"),
    [
        (lambda: network(), True),
        (lambda: network(LAYERS.Softmax()), False),
        (lambda: network(LAYERS.Activation("softmax")), False),
        (lambda: network(LAYERS.Activation("linear")), True),
        (lambda: nested("logits"), True),
        (lambda: nested("softmax"), False),
        (fully_convolutional, False),
        (lambda: computed(keras.ops.softmax), False),
    ],
)
def test_whether_a_model_gives_logits_is_seen_at_its_end(make, logits):
    model = make()
    assert gives_logits(model) == logits
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype("float32")
    outputs, found = model.predict_on_batch(images), logits_model(model).predict_on_batch(images)
    for output, one in zip(outputs, found, strict=True):
        np.testing.assert_allclose(softmax(one), softmax(output) if logits else output, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (lambda: network(LAYERS.LayerNormalization()), "LayerNormalization;"),
        (lambda: network(LAYERS.Activation("sigmoid")), "Activation with the activation sigmoid;"),
        (lambda: computed(lambda logits: logits / 4), "TrueDivide;"),
        (lambda: computed(lambda output: keras.ops.clip(output, 0.1, 0.9), LAYERS.Softmax()), "Clip;"),
    ],
)
def test_an_end_that_tells_nothing_says_what_to_do(make, end):
    with pytest.raises(ValueError, match=f"ends in {end} .* save keras.Sequential.*Softmax"):
        gives_logits(make())


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (1, "the model's output is one number, as of a sigmoid; expected one for each of the 3 classes"),
        (4, "the model's output is 4, and 3 classes are named"),
        ((3, 3), "the model has 2 outputs; expected one"),
    ],
)
def test_an_output_that_is_not_of_the_classes(outputs, message):
    image = keras.Input((8, 8, 3))
    mean = LAYERS.GlobalAveragePooling2D()(image)
    heads = [LAYERS.Dense(n)(mean) for n in outputs] if isinstance(outputs, tuple) else LAYERS.Dense(outputs)(mean)
    model = keras.Model(image, heads)
    with pytest.raises(ValueError, match=message):
        TrainedModel("own", model, Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3), NAMES)


@pytest.mark.parametrize(
    ("last", "is_logit"),
    [
        ([LAYERS.Dense(1, "sigmoid", bias_initializer="ones", name="number")], False),
        ([LAYERS.Dense(1, bias_initializer="ones", name="number"), LAYERS.Activation("sigmoid")], False),
        ([LAYERS.Dense(1, bias_initializer="ones", name="number")], True),
    ],
)
def test_one_number_tells_two_classes(here, last, is_logit):
    """As in Keras's tutorial on cats and dogs: the number is of the second class."""
    model = network(*last)
    model.save("two.keras")
    (number,) = expected(model)
    dog = 1 / (1 + np.exp(-number)) if is_logit else number
    assert 0.01 < dog < 0.99
    trained = load_model("two.keras", class_names=("cat", "dog"), preprocessing="raw")
    (prediction,) = predict(trained, ["photo.png"])
    assert dict(prediction.classes) == pytest.approx({"cat": 1 - dog, "dog": dog}, rel=1e-5)


def test_one_number_of_another_end_is_told(here):
    network(LAYERS.Dense(1, "relu", name="number")).save("two.keras")
    with pytest.raises(ValueError, match="gives one number, and ends in Dense; expected a Dense layer or"):
        load_model("two.keras", class_names=("cat", "dog"), preprocessing="raw")


def test_the_card_command(here, capsys):
    model = network()
    model.save("own.keras")
    command = ["card", "own.keras", "--classes=classes.txt", "--mean=0.5", "--std=0.5"]
    assert main(command) == 0
    assert "own.json, of 3 classes and 8 px" in capsys.readouterr().out
    card = ModelCard.load("own.keras")
    assert (card.class_names, card.held_out, card.preprocessing.mean) == (NAMES, 0, (0.5,) * 3)
    np.testing.assert_allclose(found("own.keras"), softmax(expected(model, mean=0.5, std=0.5)), rtol=1e-5)
    before = (here / "own.json").read_text()
    assert main(command) == 1
    assert "own.json already exists; move it away or remove it" in capsys.readouterr().err
    assert (here / "own.json").read_text() == before
    assert main(["predict", "--model=own.keras", "photo.png"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("model: own.keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one MODEL, a .keras file; got 0"),
        (
            ["fashion_mnist"],
            "model='fashion_mnist' is a published checkpoint; a card is written beside a .keras file",
        ),
        (["own.keras"], "own.keras has no card: give its class_names (--classes: a file of them"),
        (["own.keras", "--classes=nope", "--preprocessing=raw"], "nope: cannot be read: No such file"),
        (["own.keras", "--classes=classes.txt", "--preprocessing=raw"], "not a readable Keras model"),
    ],
)
def test_mistakes_of_the_card_command(here, capsys, arguments, message):
    (here / "own.keras").write_text("no model")
    assert main(["card", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (here / "own.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logits", "mobile_net"])
def test_a_network_of_another_package_is_exported(here, kind):
    """With what it lacks: the first has no softmax."""
    if kind == "logits":
        model, size = network(), 8
    else:
        model, size = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=3), 32
    model.save("own.keras")
    trained = load_model("own.keras", class_names=NAMES, preprocessing="raw")
    export(trained, "net", "openvino")
    images = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    np.testing.assert_allclose(load_exported("net").run(images), trained.probabilities(images), atol=1e-4)
    photographs = examples_of([png(image) for image in random_images(3)], classes=3)
    names = tuple(f"class {i}" for i in range(3))
    by_name = load_model("own.keras", class_names=names, preprocessing="raw")
    assert evaluate(by_name, photographs).result.images == 3
