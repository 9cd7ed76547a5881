"""Grad-CAM, Grad-CAM++ and occlusion, beside a float64 evaluation of the papers' formulas; on every backend."""

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.fusing import fuse
from polynet_keras.evaluation import TrainedModel, explain
from polynet_keras.evaluation.cut_model import CutModel
from polynet_keras.evaluation.explaining import View, explained
from polynet_keras.evaluation.explanation_methods import METHODS
from polynet_keras.evaluation.loading import Runtime
from polynet_keras.evaluation.occlusion import occlusion
from polynet_keras.evaluation.outputs import two_class_model
from tests.reference import conv2d, need_channels_first_convolutions, randomize, relu

HEIGHT, WIDTH, CLASSES = 11, 9, 4
CAMS = METHODS[:2]
L = keras.layers


def tiny(end="softmax", size=(HEIGHT, WIDTH)):
    """Two convolutions; the first one's output is a map of half the image's size."""
    first = keras.config.image_data_format() == "channels_first"
    image = keras.Input((3, *size) if first else (*size, 3))
    x = L.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="seen")(image)
    x = L.Conv2D(6, 3, padding="same", name="later")(x)
    x = L.GlobalAveragePooling2D()(L.ReLU()(x))
    keras.utils.set_random_seed(0)
    if end == "layer":
        x = L.Softmax()(L.Dense(CLASSES, name="scores", bias_initializer="random_normal")(x))
    elif end == "operation":
        x = keras.ops.softmax(L.Dense(CLASSES, name="scores", bias_initializer="random_normal")(x))
    else:
        x = L.Dense(CLASSES, end, name="scores", bias_initializer="random_normal")(x)
    return keras.Model(image, x)


def pictures(count=3, size=(HEIGHT, WIDTH)):
    return np.random.default_rng(1).normal(size=(count, *size, 3)).astype("float32")


def weights(model):
    return [keras.ops.convert_to_numpy(one).astype("float64") for one in model.weights]


def enlarged(image, size):
    """Bilinear: pixel i is at i + 1/2, and the outermost ones go on."""
    for axis, (large, small) in enumerate(zip(size, image.shape, strict=True)):
        places = ((np.arange(large) + 0.5) * small / large - 0.5).clip(0, small - 1)
        low = np.floor(places).astype(int).clip(0, max(0, small - 2))
        share = (places - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, small - 1)
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image / image.max() if image.max() > 0 else image


def expected(model, images, classes, method):
    """Place by place, as the papers write it."""
    kernel, bias, later, later_bias, dense, dense_bias = weights(model)
    maps = []
    for image, label in zip(images.astype("float64"), classes, strict=True):
        a = relu(conv2d(image[None], kernel)[:, ::2, ::2] + bias)
        inner = conv2d(a, later) + later_bias
        score = relu(inner).mean(axis=(1, 2)) @ dense + dense_bias
        back = (inner > 0) * dense[:, label] / inner[0, ..., 0].size
        g = conv2d(back, later[::-1, ::-1].transpose(0, 1, 3, 2))[0]
        a, y = a[0], np.exp(score[0, label])
        total = np.zeros(a.shape[:2])
        for k in range(a.shape[-1]):
            if method == "grad-cam":
                weight = g[..., k].sum() / g[..., k].size
            else:
                second, third = y * g[..., k] ** 2, y * g[..., k] ** 3
                alpha = second / (2 * second + a[..., k].sum() * third)
                weight = (alpha * relu(y * g[..., k])).sum()
            total += weight * a[..., k]
        maps.append(enlarged(relu(total), image.shape[:2]))
    return np.stack(maps)


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("end", ["softmax", None, "layer", "operation"])
def test_it_is_what_the_papers_say(end, method):
    """The logits' gradient, wherever the softmax is."""
    model, images = tiny(end), pictures()
    most_probable = model.predict_on_batch(images).argmax(1)
    for class_index, classes in ((None, most_probable), (2, [2, 2, 2]), ([0, 3, 1], [0, 3, 1])):
        found = explain(model, images, class_index, "seen", method)
        assert found.shape == (3, HEIGHT, WIDTH)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(model, images, classes, method), atol=2e-5)


def in_another(inside):
    image = keras.Input(inside.input_shape[1:])
    return keras.Model(image, inside(L.Rescaling(2.0, 0.5)(image), training=False))


@pytest.mark.parametrize("wrap", [in_another, lambda inside: keras.Sequential([L.Rescaling(2.0, 0.5), inside])])
def test_a_model_inside(wrap):
    """Its softmax is left out, too."""
    inside, images = tiny(), pictures()
    model = wrap(inside)
    model.build((None, HEIGHT, WIDTH, 3))
    for method in CAMS:
        found = explain(model, images, 1, "seen", method)
        np.testing.assert_allclose(found, explain(inside, images * 2 + 0.5, 1, "seen", method), atol=1e-5)


def branched():
    """A net of three branches, through one of which the image goes as it is."""
    image = keras.Input((8, 8, 3))
    left, right = L.Conv2D(4, 3, name="left")(image), L.Conv2D(4, 3, name="right")(image)
    joined = L.Concatenate(name="joined")([left, right, L.Cropping2D(1)(image)])
    model = keras.Model(image, L.Dense(3, name="scores")(L.GlobalAveragePooling2D()(joined)))
    randomize(model, 0)
    return model


def test_what_does_not_depend_on_the_layer_is_no_part_of_the_gradient():
    model = branched()
    images = pictures(2, (8, 8))
    a = keras.ops.convert_to_numpy(model.get_layer("left")(images))
    _, _, _, _, dense, _ = weights(model)
    cam = relu(a @ dense[:4, 1])
    np.testing.assert_allclose(
        explain(model, images, 1, "left"), [enlarged(one, (8, 8)) for one in cam.astype("float64")], atol=1e-5
    )


@pytest.fixture(scope="module")
def polynets():
    """A net with a softmax, the same without, and the first one fused."""
    arguments = {"weights": None, "structure": "1 x [2-way] | 1 x [poly-2] | 1 x [ir]", "width": 0.1, "classes": 3}
    net = PolyNet(input_shape=(107, 107, 3), **arguments)
    randomize(net, 0)
    plain = PolyNet(input_shape=(107, 107, 3), classifier_activation=None, **arguments)
    plain.set_weights(net.get_weights())
    return {"softmax": net, "logits": plain, "fused": fuse(net)}


@pytest.fixture(scope="module")
def of_polynet(polynets):
    images = pictures(2, (107, 107))
    return {
        stage: explained(polynets["softmax"], images, None, [View(stage, method) for method in CAMS])[1]
        for stage in ("stem", "stage_a", "stage_b", "stage_c", "reduction_a", "stage_b_01_f_concat")
    }


@pytest.mark.slow
def test_every_stage_of_a_polynet(of_polynet):
    for found in of_polynet.values():
        for maps in found:
            assert maps.shape == (2, 107, 107)
            assert maps.min() >= 0
            np.testing.assert_array_equal(maps.max(axis=(1, 2)), 1)
    flat = [found[0].ravel() for found in of_polynet.values()]
    assert not any(np.allclose(one, other) for i, one in enumerate(flat) for other in flat[:i])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["logits", "fused"])
def test_polynets_that_compute_the_same_look_at_the_same(polynets, of_polynet, kind):
    images = pictures(2, (107, 107))
    for stage in ("stem", "stage_a", "stage_c"):
        found = explained(polynets[kind], images, None, [View(stage, method) for method in CAMS])[1]
        np.testing.assert_allclose(found, of_polynet[stage], atol=1e-3)


def test_the_stage_that_is_taken_where_none_is_named(polynets, of_polynet):
    """Of an image of 107 px stage C has 2 x 2 places, and stage B 5 x 5."""
    _, (found,) = explained(polynets["softmax"], pictures(2, (107, 107)), None, [View(None, "grad-cam")])
    np.testing.assert_array_equal(found, of_polynet["stage_b"][0])
    assert CutModel(polynets["fused"]).stage == "stage_b"
    assert CutModel(tiny()).stage.startswith("re_lu")
    assert CutModel(branched()).stage == "joined"
    open_sides = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            L.Conv2D(4, 3, name="fine"),
            keras.Sequential([keras.Input((None, None, 4)), L.Conv2D(4, 5, name="inside")]),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )
    # By the size of the images, which the model leaves open.
    for side, stage in ((12, "inside"), (8, "fine")):
        assert CutModel(open_sides, sides=(side, side)).stage == stage
        _, (found,) = explained(open_sides, pictures(1, (side, side)), None, [View(None, "grad-cam")])
        _, (named,) = explained(open_sides, pictures(1, (side, side)), None, [View(stage, "grad-cam")])
        np.testing.assert_array_equal(found, named)
    coarse = keras.Sequential([keras.Input((9, 9, 3)), L.Conv2D(4, 7, name="coarse"), L.Flatten(), L.Dense(3)])
    assert CutModel(coarse).stage == "coarse"


@pytest.mark.parametrize("method", METHODS)
def test_images_of_a_batch_are_independent(method):
    model, images = tiny(), pictures(9)  # more than are looked at at once
    together = explain(model, images, 1, "seen", method)
    assert together.min() >= 0
    assert together.max() <= 1
    for i in (0, 8):
        np.testing.assert_allclose(together[i], explain(model, images[i : i + 1], 1, "seen", method)[0], atol=1e-5)


def test_where_nothing_speaks_for_a_class_the_map_is_zero():
    model = tiny(None)
    scores = model.get_layer("scores")
    scores.kernel.assign(-np.abs(scores.kernel))
    later = model.get_layer("later")
    later.kernel.assign(np.abs(later.kernel))
    for method in CAMS:
        np.testing.assert_array_equal(explain(model, pictures(1), 0, "seen", method), np.zeros((1, HEIGHT, WIDTH)))


def brightest(size=16):
    """A model that says how bright the upper left quarter is, and how bright the lower right one."""
    image = keras.Input((size, size, 1))
    x = L.Flatten()(L.AveragePooling2D(size // 2, name="quarters")(image))
    dense = L.Dense(2, name="scores", use_bias=False)
    model = keras.Model(image, L.Softmax()(dense(x)))
    dense.kernel.assign([[9.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 9.0]])
    return model


def test_occlusion_finds_what_a_class_needs():
    images = np.zeros((2, 16, 16, 1), "float32")
    images[0, 2:4, 4:6] = images[1, 12:14, 10:12] = 16
    probabilities, (maps,) = explained(brightest(), images, None, [View("", "occlusion")])
    assert probabilities.argmax(1).tolist() == [0, 1]
    for one, place in zip(maps, ((slice(2, 4), slice(4, 6)), (slice(12, 14), slice(10, 12))), strict=True):
        assert one[place].min() > 0.8
        assert one.max() == 1
        far = one[8:, 8:] if place[0].start == 2 else one[:8, :8]
        assert far.max() < 0.2


def test_occlusion_is_by_how_much_the_probability_falls():
    """By hand, of a square in a corner, which no other place hides."""
    model, images = tiny(size=(16, 16)), pictures(1, (16, 16))
    hidden = images.copy()
    hidden[0, :4, :4] = images[0].mean(axis=(0, 1))
    before, after = (model.predict_on_batch(one)[0] for one in (images, hidden))
    label = int((before - after).argmax())
    _, maps = occlusion(model.predict_on_batch, images, np.array([label]))
    assert maps.shape == (1, 8, 8)
    np.testing.assert_allclose(maps[0, 0, 0], before[label] - after[label], atol=1e-6)


def test_both_classes_of_a_model_of_one_number_can_be_explained():
    model, images = tiny(None), pictures(2)
    one = keras.Model(model.inputs, L.Dense(1, "sigmoid", name="number")(model.layers[-2].output))
    two = two_class_model(one)
    found = explain(two, images, 1, "seen"), explain(two, images, 0, "seen")
    assert all(maps.max() == 1 for maps in found)
    assert not np.allclose(*found)


def test_channels_first():
    need_channels_first_convolutions()
    model, images = tiny(), pictures(2)
    found = [explain(model, images, 1, "seen", method) for method in METHODS]
    keras.config.set_image_data_format("channels_first")
    other = tiny()
    other.set_weights(model.get_weights())
    for method, maps in zip(METHODS, found, strict=True):
        first = explain(other, np.moveaxis(images, -1, 1), 1, "seen", method)
        np.testing.assert_allclose(first, maps, atol=1e-4)


def test_a_trained_model():
    model, images = tiny(size=(9, 9)), pictures(2, (9, 9))
    trained = TrainedModel("it", model, Preprocessing(9, 9), tuple("abcd"))
    for method in METHODS:
        found = explain(trained, images, 1, "seen", method)
        np.testing.assert_allclose(found, explain(model, images, 1, "seen", method), atol=1e-4)


def test_an_export_can_be_looked_at_by_occlusion_alone():
    model, images = tiny(size=(9, 9)), pictures(2, (9, 9))
    export = TrainedModel("it", Runtime(model.predict_on_batch, "0"), Preprocessing(9, 9), tuple("abcd"))
    found = explain(export, images, 1, method="occlusion")
    np.testing.assert_allclose(found, explain(model, images, 1, method="occlusion"), atol=1e-3)
    with pytest.raises(ValueError, match="it is exported: name the model that it was exported from"):
        explain(export, images, 1)


def shared():
    image = keras.Input((HEIGHT, WIDTH, 3))
    again = L.Conv2D(3, 3, padding="same", name="again")
    return keras.Model(image, L.Dense(CLASSES)(L.Flatten()(L.ReLU(name="behind")(again(again(image))))))


def no_map():
    return keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), L.Flatten(), L.Dense(CLASSES)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gradcam"}, "method='gradcam' must be one of grad-cam, grad-cam[+][+], occlusion; did you mean"),
        (
            {"stage": "stage_c"},
            "stage='stage_c' must be a layer of .* from the last one they are '.*', 'later', '",
        ),
        ({"stage": "sen"}, "did you mean seen?"),
        ({"model": shared, "stage": "again"}, "stage='again' is called 2 times by model '.*'; name a layer behind it"),
        ({"model": no_map}, "has no layer that puts out a map"),
        ({"class_index": 4}, "class_index=4 must be an integer from 0 to 3"),
        ({"class_index": -1}, "class_index=-1 must be an integer from 0 to 3"),
        ({"class_index": [0, 7, 1]}, "class_index=7 must be an integer from 0 to 3"),
        ({"class_index": [0, 1]}, "class_index names 2 classes for 3 images; name one for all, or for each"),
        ({"images": pictures(1)[0]}, "images are 11 x 9 x 3; expected a batch of at least one, .* batch x 11 x 9 x 3"),
        ({"images": pictures(1, (9, 9))}, "images are 1 x 9 x 9 x 3; expected"),
        ({"images": pictures(0)}, "images are 0 x 11 x 9 x 3; expected a batch of at least one"),
        ({"model": "nope"}, "model='nope' is not a file or folder"),
    ],
)
def test_mistakes(arguments, message):
    arguments = {"model": tiny, "images": pictures(), "stage": "seen", **arguments}
    if callable(arguments["model"]):
        arguments["model"] = arguments["model"]()
    with pytest.raises(ValueError, match=message):
        explain(**arguments)


def test_the_stages_of_a_polynet_are_listed(polynets):
    """Those that have more than one place: of an image of 75 px stage C has one."""
    small = PolyNet(weights=None, input_shape=(75, 75, 3), structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1)
    with pytest.raises(ValueError, match="stage='stage_c' must be one of stem, stage_a, reduction_a, stage_b, or a "):
        explain(small, pictures(1, (75, 75)), stage="stage_c")
    message = "must be one of stem, stage_a, reduction_a, stage_b, reduction_b, stage_c, or a layer .*; did you mean"
    with pytest.raises(ValueError, match=f"stage='stage_d' {message} stage_c"):
        explain(polynets["softmax"], pictures(1, (107, 107)), stage="stage_d")
