import argparse
import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

# What a shell starts in the background, or `nohup` does, ignores these and hands that on; some tests send them.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def part(text):
    """Reads "K/N"."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N with 1 <= K <= N, such as 2/6")
    return int(index), int(count)


def pytest_addoption(parser):
    parser.addoption("--part", type=part, metavar="K/N", help="run the K-th of N parts of the selected tests")


# After -m and -k have selected.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """The longest tests first: on several workers the others fill the time beside them."""
    items.sort(key=lambda item: "backends" not in item.keywords)
    if chosen := config.getoption("--part"):
        index, count = chosen
        others = [item for i, item in enumerate(items) if i % count != index - 1]
        config.hook.pytest_deselected(items=others)
        items[:] = items[index - 1 :: count]


@pytest.fixture(autouse=True)
def _fresh_names():
    """Auto-numbered names start anew, and the data format a test sets is the test's own."""
    data_format = keras.config.image_data_format()
    keras.backend.clear_session(free_memory=False)  # a collection after each test would take a second
    yield
    keras.config.set_image_data_format(data_format)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run of one epoch on the digits, for all tests that look at what a run leaves."""
    from polynet_keras.training.recipe import Recipe
    from polynet_keras.training.run import train

    recipe = Recipe(structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)
    return train(recipe, tmp_path_factory.mktemp("run"))
