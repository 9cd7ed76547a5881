"""How much an example of each class counts: computed, and read from files."""

import numpy as np
import pytest

from polynet_keras.data.class_weights import check_class_weights, read_class_weights, weights_by_label

NAMES = ("cat", "dog", "emu")


@pytest.mark.parametrize("counts", [(1, 1, 1), (10, 1, 4), (7, 30, 2)])
def test_balanced_weights_are_scikit_learns(counts):
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(3), counts)
    weights = weights_by_label("balanced", NAMES, labels)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-15)
    assert weights[labels].mean() == pytest.approx(1)


def test_a_class_without_an_image_is_none_of_the_classes_that_are_balanced():
    assert weights_by_label("balanced", NAMES, np.array([0, 0, 0, 2])).tolist() == [2 / 3, 1, 2]


def test_classes_that_are_not_named_weigh_one():
    labels = np.array([0, 1, 2])
    assert weights_by_label({"emu": 2.5}, NAMES, labels).tolist() == [1, 1, 2.5]
    with pytest.raises(ValueError, match=r"name the class 'dgo', which is none of .*; did you mean dog\?"):
        weights_by_label({"dgo": 2.5}, NAMES, labels)
    with pytest.raises(ValueError, match="leave nothing to train on"):
        weights_by_label({"dog": 0.0}, NAMES, np.array([1, 1]))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", '{"cat": 2.5, "dog, asleep": 0}'),
        ("a.csv", 'class,weight\ncat,2.5\n"dog, asleep",0\n'),
        ("A.CSV", '\ufeffWeight, Class\r\n2.5, cat\r\n\r\n0, "dog, asleep"\r\n'),
    ],
)
def test_files_of_weights(tmp_path, file, text):
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert read_class_weights(tmp_path / file) == {"cat": 2.5, "dog, asleep": 0}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.txt", "", "is neither 'balanced' nor a file ending in .json or .csv"),
        ("balancd", "", "did you mean balanced?"),
        ("none.json", None, "cannot be read: No such file"),
        ("a.json", "{", "is not JSON: "),
        ("a.json", "[1, 2]", "holds no object"),
        ("a.json", "{}", "names no class"),
        ("a.json", '{"cat": "2"}', "the weight of 'cat' is not a number"),
        ("a.json", '{"cat": NaN}', "the weight of 'cat' is not a number"),
        ("a.json", '{"cat": {"a": 1}}', "the weight of 'cat' is not a number"),
        ("a.json", '{"cat": 1, "cat": 2}', "has the class 'cat' twice"),
        ("a.json", "\xff", "is not UTF-8 text"),
        ("a.csv", "", "its first line must be class,weight"),
        ("a.csv", "class,weight\n", "names no class"),
        ("a.csv", "class,weight\ncat,1,2\n", "line 2 does not have two fields"),
        ("a.csv", "class,weight\ncat,much\n", "line 2: the weight 'much' is not a number"),
        ("a.csv", "class,weight\ncat,inf\n", "line 2: the weight 'inf' is not a number"),
        ("a.csv", "class,weight\ncat,1\ncat,1\n", "has the class 'cat' twice"),
    ],
)
def test_files_that_are_none(tmp_path, file, text, message):
    if text is not None:
        (tmp_path / file).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=f"^class_weights='.*{file}'.*{message}"):
        read_class_weights(tmp_path / file)


@pytest.mark.parametrize("weights", ["equal", 2, {"cat": -1}, {"cat": "2"}, {"cat": np.inf}, {1: 1}, {}])
def test_what_is_refused(weights):
    with pytest.raises(ValueError, match="^class_weights"):
        check_class_weights(weights)


def test_a_class_may_count_for_nothing():
    """The others, which nobody names, weigh 1."""
    check_class_weights({"cat": 0})
    assert weights_by_label({"cat": 0}, NAMES, np.arange(3)).tolist() == [0, 1, 1]
