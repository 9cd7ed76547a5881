import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import ks_2samp

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.distortion import Distortion, Mixing, example_seed, random_crop, random_resized_box


def seeds(count, seed=0):
    return [example_seed(seed, tf.constant(0, tf.int64), tf.constant(i, tf.int64)) for i in range(count)]


def mapped(function, count):
    """A function of a seed, in a graph, for many seeds."""
    dataset = tf.data.Dataset.range(count).map(
        tf.autograph.experimental.do_not_convert(lambda i: function(example_seed(0, tf.constant(0, tf.int64), i)))
    )
    return list(dataset.as_numpy_iterator())


@pytest.mark.slow
def test_random_crop_is_uniform_over_positions():
    rows = tf.tile(tf.reshape(tf.range(10), (10, 1, 1)), (1, 10, 1))
    position = tf.concat([rows, tf.transpose(rows, (1, 0, 2))], axis=-1)
    corners = np.array([random_crop(position, 7, tf.constant([i, 3]))[0, 0] for i in range(1600)])
    counts = np.bincount(corners[:, 0] * 4 + corners[:, 1], minlength=16)
    assert len(counts) == 16
    # Multinomial counts of mean 100: six standard deviations.
    assert (np.abs(counts - 100) < 6 * np.sqrt(100 * 15 / 16)).all()


def test_the_least_area_of_a_random_resized_crop():
    boxes = np.array([random_resized_box(300, 400, tf.constant([i, 3]), 0.6) for i in range(50)])
    assert (boxes[:, 2] * boxes[:, 3] > 0.59 * 300 * 400).all()
    assert len({tuple(box) for box in boxes}) > 40


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(375, 500), *((*size,) for size in ((500, 200), (64, 64)))])
def test_random_resized_boxes_are_those_of_tensorflows_sampler(height, width):
    """Two-sample Kolmogorov-Smirnov tests of position, area and aspect ratio against the stateful sampler."""
    count = 2000
    ours = np.array(mapped(lambda seed: tf.stack(random_resized_box(height, width, seed)), count))
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    theirs = []
    for _ in tf.data.Dataset.range(count):
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            (height, width, 3),
            tf.zeros((1, 0, 4)),
            seed=1,
            min_object_covered=0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1),
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        theirs.append([*begin[:2].numpy(), *size[:2].numpy()])
    theirs = np.array(theirs)
    for statistic in (
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
    ):
        assert ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-4


def distorted(augmentation, image, count):
    distort = Distortion(augmentation, image.shape[-1])
    return mapped(lambda seed: distort(tf.constant(image), seed), count)


IMAGE = np.random.default_rng(0).uniform(0, 255, (16, 16, 3)).astype("float32")


def test_without_augmentation_nothing_changes():
    for image in distorted(Augmentation(), IMAGE, 5):
        np.testing.assert_array_equal(image, IMAGE)


def test_half_of_the_images_are_mirrored():
    mirrored = [np.array_equal(image, IMAGE[:, ::-1]) for image in distorted(Augmentation(flip=True), IMAGE, 400)]
    assert abs(sum(mirrored) - 200) < 6 * 10  # binomial, standard deviation 10


def test_erasing_has_its_probability_and_area():
    changed = np.array([(x != IMAGE).all(axis=-1).mean() for x in distorted(Augmentation(erasing=0.3), IMAGE, 400)])
    assert abs((changed > 0).sum() - 120) < 6 * np.sqrt(400 * 0.3 * 0.7)
    assert changed.max() < 0.45


@pytest.mark.slow
@pytest.mark.parametrize(
    "augmentation", [Augmentation(color_jitter=0.4), Augmentation(policy="rand_augment"), Augmentation(erasing=0.5)]
)
def test_keras_layers_are_functions_of_the_seed(augmentation):
    """Bit by bit, in another graph and another order, and within the range of pixels; other seeds, other images."""
    first = distorted(augmentation, IMAGE, 12)
    again = distorted(augmentation, IMAGE, 12)
    np.testing.assert_array_equal(first, again)
    distort = Distortion(augmentation, 3)
    backwards = tf.data.Dataset.range(11, -1, -1).map(
        tf.autograph.experimental.do_not_convert(
            lambda i: distort(tf.constant(IMAGE), example_seed(0, tf.constant(0, tf.int64), i))
        ),
        num_parallel_calls=4,
    )
    np.testing.assert_array_equal(first[::-1], list(backwards.as_numpy_iterator()))
    assert np.min(first) >= 0
    assert np.max(first) <= 255
    assert len({image.tobytes() for image in first}) > 4


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["trivial_augment_wide", "rand_augment_increasing"])
def test_a_policy_has_its_own_draws(policy):
    """It distorts most images, and its draws are not those of flips."""
    alone = distorted(Augmentation(policy=policy), IMAGE, 20)
    joined = distorted(Augmentation(policy=policy, flip=True), IMAGE[:, ::-1].copy(), 20)
    assert sum(not np.array_equal(image, IMAGE) for image in alone) > 8
    assert 0 < sum(np.array_equal(a, b) for a, b in zip(alone, joined, strict=True)) < 20


def test_a_draw_is_not_moved_by_another():
    """Flips stay where they are when erasing joins in."""
    alone = distorted(Augmentation(flip=True), IMAGE, 20)
    joined = distorted(Augmentation(flip=True, erasing=1.0), IMAGE, 20)
    for a, b in zip(alone, joined, strict=True):
        assert (a == b).mean() > 0.5


@pytest.mark.slow
def test_color_jitter_is_as_far_as_keras_layer_goes():
    """The same distribution of mean brightness as the layer alone, outside of any pipeline."""
    ours = [image.mean() for image in distorted(Augmentation(color_jitter=0.4), IMAGE, 300)]
    layer = keras.layers.RandomColorJitter(
        brightness_factor=0.4,
        contrast_factor=0.4,
        saturation_factor=(3 / 8, 7 / 12),
        seed=1,
        data_format="channels_last",
    )
    theirs = [float(tf.reduce_mean(layer(IMAGE[None], training=True))) for _ in range(300)]
    assert ks_2samp(ours, theirs).pvalue > 1e-4


@pytest.mark.parametrize("jitter", [0.1, 0.3])
def test_color_jitter_varies_colours_around_those_of_the_image(jitter):
    """Brightness moves all channels alike, and contrast leaves an even image: the channels' spread has the saturation's
    factor, from 1 - jitter to 1 + jitter."""
    image = np.broadcast_to(np.array([120, 100, 90], "float32"), (8, 8, 3))
    factors = []
    for distorted_image in distorted(Augmentation(color_jitter=jitter), image, 60):
        pixel = distorted_image[0, 0]
        assert 0 <= pixel.min() <= pixel.max() <= 255
        factors.append((pixel.max() - pixel.min()) / 30)
    assert 1 - jitter - 1e-5 <= min(factors) < 1 - 0.7 * jitter
    assert 1 + 0.7 * jitter < max(factors) <= 1 + jitter + 1e-5
    assert np.mean(factors) == pytest.approx(1, abs=0.3 * jitter)


PAIR = np.stack([np.zeros((16, 16, 3)), np.full((16, 16, 3), 255.0)]).astype("float32")


def mixed(augmentation, count, images=PAIR):
    mixing = Mixing(augmentation, 4)
    labels = tf.range(1, 1 + len(images), dtype=tf.int64)
    return mapped(lambda seed: mixing(tf.constant(images), labels, seed), count)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_mixup_weighs_image_and_label_alike(alpha):
    shares = []
    for images, labels in mixed(Augmentation(mixup=alpha), 300):
        assert labels[:, [0, 3]].sum() == 0
        # The dark image's class is 1, the bright one's 2.
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)) / 255, labels[:, 2], atol=1e-5)
        assert images.std(axis=(1, 2, 3)).max() < 1e-3
        shares += labels[:, 2].tolist()
    expected = np.random.default_rng(0).beta(alpha, alpha, 600)
    assert ks_2samp(shares, expected).pvalue > 1e-4


def test_cutmix_pastes_a_rectangle_of_the_labels_share():
    for images, labels in mixed(Augmentation(cutmix=1.0), 100):
        assert set(np.unique(images)) <= {0, 255}
        for image, share in zip(images, labels[:, 2], strict=True):
            # A side of the rectangle is drawn in fractions of a pixel.
            assert abs(image.mean() / 255 - share) < 2 / 16
    assert any(0.2 < labels[0, 1] < 0.8 for _, labels in mixed(Augmentation(cutmix=1.0), 20))


def test_both_mixings_share_the_pairs():
    pasted = [set(np.unique(images)) <= {0, 255} for images, _ in mixed(Augmentation(mixup=1.0, cutmix=1.0), 200)]
    assert abs(sum(pasted) - 100) < 6 * np.sqrt(50)


@pytest.mark.parametrize("augmentation", [Augmentation(mixup=1.0), Augmentation(cutmix=1.0)])
def test_an_image_alone_stays_as_it_is(augmentation):
    for images, labels in mixed(augmentation, 5, PAIR[1:]):
        np.testing.assert_allclose(images, PAIR[1:], rtol=1e-6)
        np.testing.assert_allclose(labels, [[0, 1, 0, 0]], rtol=1e-6)


def test_colours_need_three_channels():
    for augmentation in (Augmentation(color_jitter=0.1), Augmentation(policy="trivial_augment_wide")):
        with pytest.raises(ValueError, match=r"are for RGB images; these have 1 channel"):
            Distortion(augmentation, 1)
