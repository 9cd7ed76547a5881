import contextlib
import json
import time
from dataclasses import replace
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.crops import crop_plan
from polynet_keras.data.examples import Examples
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sampling import evaluation_share
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.engine.network import Network
from polynet_keras.evaluation.comparing import compare
from polynet_keras.evaluation.evaluating import evaluate
from polynet_keras.evaluation.identity import weights_hash
from polynet_keras.evaluation.judging import judged
from polynet_keras.evaluation.loading import Runtime, TrainedModel
from polynet_keras.evaluation.metrics import Counts
from polynet_keras.evaluation.outputs import logits_model
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.scores import Scores
from polynet_keras.evaluation.scoring import Pace, fitted_to, score, scored
from tests.data.arrays import examples_of, png, random_images
from tests.reference import need_channels_first_convolutions, views_of, watched_calls

PREPROCESSING = Preprocessing(12, 14)
IMAGES = random_images(11)
LABELS = np.arange(11) % 3


def small_model(activation="softmax", size=12, classes=3, seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, activation, kernel_initializer="random_normal")(x))


def trained(**arguments):
    return TrainedModel("small", small_model(**arguments), PREPROCESSING, ("class 0", "class 1", "class 2"))


@pytest.fixture(scope="module")
def unnormalized():
    """A model that gives logits: for all tests, so that it is compiled once."""
    return trained(activation="linear")


def examples(broken=()):
    return examples_of([b"" if i in broken else png(image) for i, image in enumerate(IMAGES)], LABELS)


def probabilities_of(model, crops=1):
    """Image by image, without any pipeline: (images, crops, classes), in float64."""
    inputs = [PREPROCESSING.normalize(views_of(image, PREPROCESSING, crops)) for image in IMAGES]
    outputs = np.stack([model.predict_on_batch(batch) for batch in inputs]).astype("float64")
    if model.layers[-1].activation is keras.activations.softmax:
        return outputs
    return np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)


# One image a batch, a last batch that is not full, none but a full one, and one that is larger than all images.
@pytest.mark.parametrize(
    ("batch_size", "workers"),
    [
        (1, 2),
        pytest.param(4, 1, marks=pytest.mark.slow),
        pytest.param(4, 3, marks=pytest.mark.slow),
        pytest.param(11, 1, marks=pytest.mark.slow),
        pytest.param(32, 2, marks=pytest.mark.slow),
    ],
)
def test_every_image_counts_once(unnormalized, batch_size, workers):
    model = unnormalized
    expected = Counts.of(probabilities_of(model.model)[:, 0], LABELS)
    counted = []
    for worker in range(workers):
        for logits, labels, _ in scored(
            model, examples(), Unreadable(), batch_size=batch_size, workers=workers, worker=worker
        ):
            counted.append(Counts.of(Pooling()(logits), labels))
    total = sum(counted[1:], counted[0])
    total.check_complete(11)
    np.testing.assert_array_equal(total.confusion, expected.confusion)
    assert total.top5_hits == expected.top5_hits
    assert total.loss == pytest.approx(expected.loss, abs=1e-5)


def at_once(*_, **__):
    """What stands for `scored` where images and model are not what is tested: a pipeline takes a second to make."""
    yield np.random.default_rng(0).normal(size=(11, 1, 3)).astype("float32"), LABELS, np.arange(11)


def test_a_mistake_whose_image_is_gone_costs_no_evaluation(unnormalized, monkeypatch, caplog):
    monkeypatch.setattr("polynet_keras.evaluation.evaluating.scored", at_once)
    monkeypatch.setattr(Examples, "image", Mock(side_effect=ValueError("x.png: gone")))
    evaluation = evaluate(unnormalized, examples())
    assert evaluation.counts.images == 11
    assert evaluation.judged.mistakes == evaluation.judged.unsure == ()
    assert "x.png: gone" in caplog.text


def test_what_an_evaluation_says():
    model = trained()
    start = time.perf_counter()
    evaluation = evaluate(model, examples(), batch_size=4)
    assert 0 < evaluation.result.seconds < time.perf_counter() - start
    probabilities = probabilities_of(model.model)[:, 0]
    result = evaluation.result
    right = probabilities.argmax(axis=1) == LABELS
    assert 0 < right.sum() < 11
    assert (result.images, result.top1_hits, result.top5_hits, result.skipped) == (11, right.sum(), 11, 0)
    assert result.loss == pytest.approx(-np.log(probabilities[np.arange(11), LABELS]).mean(), abs=1e-5)
    assert result.parameters == 4 * 28 + 3 * 5
    assert result.macs == 10 * 10 * 27 * 4 + 4 * 3
    assert Preprocessing(**json.loads(result.protocol)) == PREPROCESSING
    assert (result.model, result.dataset, result.crops, result.pooling) == ("small", "arrays", 1, "")
    # The worst first, each with its picture.
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(probabilities[wrong, LABELS[wrong]])]
    assert [mistake.name for mistake in evaluation.judged.mistakes] == [f"image {i}" for i in worst]
    for mistake, i in zip(evaluation.judged.mistakes, worst, strict=True):
        np.testing.assert_array_equal(mistake.image, IMAGES[i])
        np.testing.assert_allclose(mistake.probabilities, probabilities[i], atol=1e-6)
    two_best = np.sort(probabilities, axis=1)[:, -2:]
    unsure = np.argsort(two_best[:, 1] - two_best[:, 0])
    assert [picture.name for picture in evaluation.judged.unsure] == [f"image {i}" for i in unsure]
    np.testing.assert_array_equal(evaluation.judged.right, right)
    np.testing.assert_array_equal(evaluation.judged.indices, np.arange(11))


@pytest.mark.parametrize(
    ("crops", "pooling"),
    [
        (10, "mean"),
        pytest.param(10, "max", marks=pytest.mark.slow),
        pytest.param(10, "selective", marks=pytest.mark.slow),
        pytest.param(144, "selective", marks=pytest.mark.slow),
    ],
)
def test_crops_are_pooled(unnormalized, crops, pooling):
    model = unnormalized
    evaluation = evaluate(model, examples(), batch_size=50, crops=crops, pooling=Pooling(pooling, 0.3))
    scores = np.sort(probabilities_of(model.model, crops), axis=1)
    share = {"mean": crops, "max": 1, "selective": round(0.3 * crops)}[pooling]
    pooled = scores[:, -share:].mean(axis=1)
    pooled /= pooled.sum(axis=1, keepdims=True)
    assert evaluation.result.loss == pytest.approx(-np.log(pooled[np.arange(11), LABELS]).mean(), abs=1e-5)
    assert evaluation.result.top1_hits == (pooled.argmax(axis=1) == LABELS).sum()
    assert evaluation.result.crops == crops
    assert evaluation.result.pooling.startswith(pooling)


def test_the_pictures_of_all_batches_are_kept():
    """Forty images of class 0, each taken for class 1, in batches of any order; of equal ones the first come first."""
    data = Mock(spec=Examples, shown_name=str, image=lambda index: index)
    sure = np.repeat(np.arange(20.0), 2)[::-1]  # of the wrong class: two images are equally bad
    logits = np.stack([np.zeros(40), sure], axis=1)[:, np.newaxis]
    order = np.random.default_rng(0).permutation(40)
    batches = [(logits[part], np.zeros(len(part), int), part) for part in np.split(order, 8)]
    found = judged(batches, Pooling(), data)
    assert found.counts.images == 40
    assert [picture.image for picture in found.mistakes] == list(range(24))
    least_sure_first = [image for pair in range(38, -1, -2) for image in (pair, pair + 1)]
    assert [picture.image for picture in found.unsure] == least_sure_first[:24]
    assert all(type(picture.image) is int for picture in found.mistakes + found.unsure)
    np.testing.assert_array_equal(found.indices, order)


def test_an_image_that_is_not_counted_is_an_error(unnormalized, monkeypatch):
    def without_the_last(*arguments, **options):
        for logits, labels, indices in at_once(*arguments, **options):
            yield logits[:-1], labels[:-1], indices[:-1]

    monkeypatch.setattr("polynet_keras.evaluation.evaluating.scored", without_the_last)
    with pytest.raises(ValueError, match="evaluated 10 of 11 images"):
        evaluate(unnormalized, examples(), batch_size=11)


@pytest.mark.slow
def test_the_progress_is_that_of_a_worker(unnormalized, monkeypatch):
    totals, done = [], []

    @contextlib.contextmanager
    def progress(images):
        totals.append(images)
        yield done.append

    monkeypatch.setattr("polynet_keras.evaluation.scoring.progress", progress)
    for workers in (1, 2, 3):
        list(scored(unnormalized, examples(broken=(2,)), Unreadable("skip"), workers=workers))
    assert totals == [11, 6, 4]
    shares = [(evaluation_share(11, 32, workers, 0) >= 0).sum() for workers in (1, 2, 3)]
    assert done == shares  # of images that cannot be read, too


def test_skipped_images_are_counted_and_left_out(unnormalized, caplog):
    evaluation = evaluate(unnormalized, examples(broken=(2, 5)), batch_size=4, on_error="skip")
    assert (evaluation.result.images, evaluation.result.skipped) == (9, 2)
    assert sorted(evaluation.skipped) == [2, 5]
    assert "skipped 2 of 11 images that cannot be read:\n  image 2: cannot be read" in caplog.text
    with pytest.raises(ValueError, match="arrays has no image that can be read"):
        evaluate(unnormalized, examples(broken=range(11)), on_error="skip")


@pytest.mark.slow
def test_scores_of_no_image(unnormalized):
    with pytest.raises(ValueError, match="arrays has no image that can be read"):
        score(unnormalized, examples(broken=range(11)), unreadable=Unreadable("skip"))


@pytest.mark.parametrize("crops", [pytest.param(1, marks=pytest.mark.slow), 10])
def test_an_image_that_cannot_be_read_is_named(unnormalized, crops):
    with pytest.raises(ValueError, match="image 2: cannot be read as an image: it is empty"):
        evaluate(unnormalized, examples(broken=(2,)), crops=crops)


def test_an_images_crops_are_planned_once(monkeypatch):
    plans = watched_calls(monkeypatch, crop_plan, "polynet_keras.evaluation.scoring", "polynet_keras.data.crops")
    evaluate(trained(), examples(), crops=10)
    assert [size for *size, _, _ in plans] == [list(image.shape[:2]) for image in IMAGES]


@pytest.mark.slow
def test_weights_are_hashed_once(tmp_path, monkeypatch):
    hashes = watched_calls(monkeypatch, weights_hash, "polynet_keras.evaluation.loading")
    model = trained()
    for options in ({}, {"scores": tmp_path / "scores.npz"}, {"scores": tmp_path / "scores.npz"}):
        hashes.clear()
        evaluate(model, examples(), **options)
        assert len(hashes) == 1


def test_scores_are_kept_and_taken_again(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("polynet_keras.evaluation.evaluating.tell", lambda text, *values: said.append(text % values))
    model, path = trained(), tmp_path / "scores.npz"
    data = examples(broken=(4,))
    first = evaluate(model, data, crops=10, scores=path, on_error="skip")
    scores = Scores.load(path)
    assert scores.logits.shape == (10, 10, 3)
    assert list(first.skipped) == [4]
    assert scores.indices.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    with monkeypatch.context() as patch:
        patch.setattr("polynet_keras.evaluation.evaluating.score", None)  # no forward pass
        again = evaluate(model, data, crops=10, scores=path, on_error="skip")
        assert again.result.loss == first.result.loss
        assert again.result.skipped == 1
        assert [type(index) for index in again.skipped] == [int]
        assert again.result.seconds == first.result.seconds  # that the network took
        other = evaluate(model, data, crops=10, scores=path, on_error="skip", pooling=Pooling("max"))
        assert other.result.loss != first.result.loss
        with pytest.raises(ValueError, match="image 4: could not be read when it was scored"):
            evaluate(model, data, crops=10, scores=path)
        assert f"scores of 10 images taken from {path}" in said
    evaluate(model, data, scores=tmp_path / "single.npz", on_error="skip")
    with pytest.raises(ValueError, match="scores of other crops"):  # 1 of each of 10 images
        evaluate(model, data, crops=10, scores=tmp_path / "single.npz")
    larger = replace(model.preprocessing, resize_size=model.preprocessing.resize_size + 1)
    for arguments, message in (
        ({"model": trained(seed=1)}, "scores of other weights"),
        ({"crops": 1}, "scores of other crops"),
        ({"crops": 1, "examples": data.subset(np.arange(10), "others")}, "scores of other images and crops"),
        ({"model": replace(model, preprocessing=larger)}, "scores of other protocol"),
        ({"scores": tmp_path / "scores.csv"}, "must end in .npz"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(**{"model": model, "examples": data, "crops": 10, "scores": path, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crops": 7}, "^crops=7 must be one of"),
        ({"batch_size": 0, "crops": 10}, "^batch_size=0 must be an integer of at least 1"),
        pytest.param({}, "^image 4: ", marks=pytest.mark.slow),  # unreadable images are errors
    ],
    ids=["crops", "batch size", "image"],
)
def test_scores_that_cannot_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(trained(), examples(broken=(4,)), **arguments)


@pytest.mark.parametrize(("sizes", "seconds"), [((4, 4, 2), 15.0), ((4,), 0.0)])
def test_the_first_batch_is_not_counted_in_the_speed(monkeypatch, sizes, seconds):
    """It takes 100 s, as it is traced, each other one 1.5 s an image; of one batch nothing is known."""
    now = [0.0]
    monkeypatch.setattr("polynet_keras.evaluation.scoring.time", Mock(perf_counter=lambda: now[0]))
    pace = Pace()
    batches = [(np.zeros((size, 1, 3)), np.zeros(size), np.arange(size)) for size in sizes]
    for _, seconds_of_it in zip(pace.of(batches), (100, 6, 3), strict=False):
        now[0] += seconds_of_it
    assert pace.seconds == seconds


def test_scores_are_the_logits_of_every_crop():
    model = trained()
    start = time.perf_counter()
    scores = score(model, examples(), batch_size=3, crops=10)
    assert 0 < scores.seconds <= time.perf_counter() - start
    found = np.exp(scores.logits.astype("float64"))
    np.testing.assert_allclose(found / found.sum(-1, keepdims=True), probabilities_of(model.model, 10), atol=1e-6)
    assert scores.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.slow
def test_a_polynet_in_both_data_formats(data_format):
    if data_format == "channels_first":
        need_channels_first_convolutions()
    keras.config.set_image_data_format(data_format)
    keras.utils.set_random_seed(0)
    shape = (75, 75, 3) if data_format == "channels_last" else (3, 75, 75)
    arguments = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1, "classes": 3}
    net = PolyNet(weights=None, input_shape=shape, classifier_activation=None, **arguments)
    model = TrainedModel("net", net, Preprocessing(75, 86), ("class 0", "class 1", "class 2"))
    one, ten = (score(model, examples(), crops=crops).logits for crops in (1, 10))
    assert (one.shape, ten.shape) == ((11, 1, 3), (11, 10, 3))
    # The fifth of ten crops is the centre.
    np.testing.assert_allclose(one[:, 0], ten[:, 4], atol=1e-4 * np.abs(one).max())


def softmax_layer():
    model = small_model(None)
    return keras.Model(model.inputs, keras.layers.Softmax()(model.output))


def activation_layer():
    model = small_model(None)
    return keras.Model(model.inputs, keras.layers.Activation("softmax")(model.output))


@pytest.mark.parametrize("make", [small_model, softmax_layer, activation_layer])
def test_logits_of_models_that_end_in_a_softmax(make):
    keras.utils.set_random_seed(0)
    model = make()
    x = np.random.default_rng(0).normal(size=(5, 12, 12, 3)).astype("float32")
    logits = logits_model(model).predict_on_batch(x)
    assert np.abs(logits.sum(axis=1)).max() > 1e-3
    np.testing.assert_allclose(
        np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), model.predict_on_batch(x), rtol=1e-5
    )
    linear = small_model("linear")
    assert logits_model(linear) is linear
    network = Network(model.inputs, model.outputs)
    assert type(logits_model(network)) is Network
    assert not isinstance(logits_model(model), Network)


@pytest.mark.filterwarnings("error")
def test_logits_take_the_structure_of_inputs_that_the_model_takes():
    """Otherwise Keras warns at each call, on the PyTorch backend."""
    model = small_model()
    logits_model(keras.Model(model.input, model.output))(np.zeros((1, 12, 12, 3), "float32"))


def test_models_of_which_logits_cannot_be_told():
    with pytest.raises(ValueError, match="ends in Dense with the activation sigmoid; expected a softmax, or a Dense"):
        logits_model(small_model("sigmoid"))
    model = small_model(None)
    rectified = keras.Model(model.inputs, keras.layers.Activation("relu")(model.output))
    with pytest.raises(ValueError, match="ends in Activation with the activation relu"):
        logits_model(rectified)
    rows = keras.layers.Reshape((1, 3))(model.output)
    convolved = keras.Model(model.inputs, keras.layers.Conv1D(3, 1, activation="softmax")(rows))
    with pytest.raises(ValueError, match="ends in Conv1D; expected a softmax"):
        logits_model(convolved)


def test_classes_are_told_by_their_names():
    data = examples()
    model = TrainedModel("small", small_model(classes=4), PREPROCESSING, ("class 2", "other", "class 0", "class 1"))
    relabelled = fitted_to(model, data)
    assert relabelled.class_names == model.class_names
    assert [relabelled.label(i) for i in range(3)] == [2, 3, 0]
    assert relabelled.labels[:3].tolist() == [2, 3, 0]
    assert evaluate(model, data).counts.class_images.tolist() == [3, 0, 4, 4]
    turned = TrainedModel("small", small_model(), PREPROCESSING, data.class_names[::-1])
    assert [fitted_to(turned, data).label(i) for i in range(3)] == [2, 1, 0]
    stranger = TrainedModel("small", small_model(), PREPROCESSING, ("class 0", "class 1", "cat"))
    with pytest.raises(ValueError, match="arrays has 1 class that small does not know: 'class 2'; it knows"):
        evaluate(stranger, data)


def test_imagenet_may_be_named_by_wordnet():
    from polynet_keras.data.imagenet import imagenet_classes

    names = tuple(name for _, name in imagenet_classes())
    model = TrainedModel("imagenet", small_model(classes=1000), PREPROCESSING, names)
    names = replace(examples(), class_names=("tench", "goldfish", "great_white_shark"))
    assert [fitted_to(model, names).label(i) for i in range(3)] == [0, 1, 2]
    folders = replace(examples(), class_names=("n02012849", "n03126707", "n01440764"))  # a crane, a crane, a tench
    assert [fitted_to(model, folders).label(i) for i in range(3)] == [134, 517, 0]
    with pytest.raises(ValueError, match="has 1 class that imagenet knows more than once: 'crane'"):
        fitted_to(model, replace(examples(), class_names=("tench", "crane", "goldfish")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crops": 5}, "crops=5 must be one of"),
        ({"batch_size": 0}, "batch_size=0 must be an integer of at least 1"),
        ({"on_error": "ignore"}, "on_error='ignore' must be one of"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(trained(), examples(), **arguments)


def test_models_that_do_not_fit_their_card_or_the_images():
    with pytest.raises(ValueError, match=r"takes images of 20 x 20 x 3, its protocol gives 12 x 12 x 3"):
        trained(size=20)
    with pytest.raises(ValueError, match="the model's output is 4, and 3 classes are named"):
        trained(classes=4)
    inputs = keras.Input((12,))
    flat = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    with pytest.raises(ValueError, match=r"flat: the model takes images of 12, its protocol"):
        TrainedModel("flat", flat, PREPROCESSING, ("a", "b", "c"))
    assert trained().structure == ""  # nobody knows which network it is


@pytest.mark.slow
def test_images_of_other_channels_are_converted():
    grey = random_images(3, channels=1)
    data = examples_of([png(image) for image in grey], [0, 1, 2], channels=1)
    model = trained()
    expected = [model.model.predict_on_batch(PREPROCESSING(np.repeat(image, 3, -1))[None])[0] for image in grey]
    found = np.exp(score(model, data).logits[:, 0])
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("crops", [1, 10, 144])
def test_a_narrow_image_is_named_or_skipped(unnormalized, crops):
    narrow = np.zeros((2, 60_000, 3), "uint8")
    data = examples_of([png(narrow), png(IMAGES[0])], [0, 1], classes=3)
    model = replace(unnormalized, preprocessing=Preprocessing(12, 100, resize="shorter_side"))
    if crops == 144:  # whose scales are smaller: 14 to 19 px
        data = examples_of([png(np.zeros((1, 3_000_000, 3), "uint8")), png(IMAGES[0])], [0, 1], classes=3)
    with pytest.raises(ValueError, match="image 0: .* is too large"):
        evaluate(model, data, crops=crops)
    evaluation = evaluate(model, data, crops=crops, on_error="skip")
    assert (evaluation.result.images, evaluation.result.skipped) == (1, 1)
    assert [(type(index), index) for index in evaluation.skipped] == [(int, 0)]


@pytest.mark.parametrize("arguments", [("median",), ("mean", 0.0), ("mean", 0.3, "scores")])
def test_poolings_that_there_are_not(arguments):
    with pytest.raises(ValueError, match="must be"):
        Pooling(*arguments)


def test_a_comparison_that_cannot_be_is_refused_before_a_model_is_run():
    def run(images):
        raise AssertionError("the model was run")

    protocol = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
    names = ("class 0", "class 1")
    one, other = (TrainedModel("net", Runtime(run, "0"), protocol, classes) for classes in (names, ("cat", "dog")))
    examples = examples_of([png(image) for image in random_images(2)], classes=2)
    with pytest.raises(ValueError, match="2 classes that net does not know: 'class 0', 'class 1'"):
        compare(one, other, examples)
