import sys

import pytest

from polynet_keras.data.sources import open_splits


def test_without_tensorflow_datasets_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"for tfds:mnist; pip install tensorflow-datasets, or the extra"):
        open_splits("tfds:mnist")
