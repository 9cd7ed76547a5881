import gc
import os
import pickle
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CI", "true")  # else OpenVINO's converter reports each conversion to its makers
# Tests on the JAX backend compile for most of their time, and the same functions again and again.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import pytest

from tests.options import pytest_addoption, pytest_collection_modifyitems, pytest_configure  # noqa: F401

# What TensorFlow and Keras made at their import is traversed again and again otherwise, a tenth of the tests' seconds.
gc.set_threshold(50_000, 20, 20)

# What a shell starts in the background, or `nohup` does, ignores these and hands that on; some tests send them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_finish(session):
    """What was imported stays, so that it need not be looked at again.

    In runs of many tests the server of children imports TensorFlow beside the first ones, and none waits for it.
    """
    gc.freeze()
    children = sys.modules.get("tests.children")
    many = hasattr(session.config, "workerinput")  # of pytest-xdist
    if children and many and _backend() == "tensorflow":
        children.start_server()


def _backend():
    # Not imported on top: pytest-xdist's own process runs no test, and needs no Keras.
    import keras

    return keras.backend.backend()


@pytest.fixture(autouse=True, scope="session")
def _untuned_datasets():
    """Datasets of tests, and those that Keras makes of arrays, are not tuned: `basics.tuning` says what would wait."""
    if _backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    from polynet_keras.basics.tuning import untuned, usual_threads

    def of_test(dataset):
        return dataset if dataset.options().autotune.enabled is False else untuned(dataset, usual_threads())

    with pytest.MonkeyPatch.context() as patch:
        # All ways to iterate begin with this method of a dataset.
        patch.setattr(tf.data.Dataset, "_apply_debug_options", of_test)
        yield


@pytest.fixture(autouse=True)
def _fresh_names():
    """Auto-numbered names start anew, and the data format a test sets is the test's own."""
    import keras

    data_format = keras.config.image_data_format()
    keras.backend.clear_session(free_memory=False)  # a collection after each test would take a second
    yield
    keras.config.set_image_data_format(data_format)


DIGITS_RUN = """
import pickle, sys
from pathlib import Path
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.train import train

recipe = Recipe(structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)
Path(sys.argv[2]).write_bytes(pickle.dumps(train(recipe, sys.argv[1])))
"""


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, pytestconfig):
    """A run of an epoch on the digits, for all tests that look at what a run leaves. All workers share it.

    It has a process of its own: the module that asks first may have replaced parts of the training.
    """
    from filelock import FileLock

    from tests import children

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if hasattr(pytestconfig, "workerinput") else folder
    result = folder / "digits_run.pickle"
    with FileLock(folder / "digits_run.lock"):
        if not result.exists():
            done = children.run(DIGITS_RUN, str(folder / "digits_run"), str(result), timeout=600)
            assert done.returncode == 0, done.stderr
        return pickle.loads(result.read_bytes())
