"""What TensorFlow's errors say."""

import errno

import pytest

from polynet_keras.basics.tensorflow_errors import plain_message, without_place

PLACE = "{{function_node __wrapped__ReadFile_device_/job:localhost/replica:0/task:0/device:CPU:0}} "


class OpError(Exception):
    """As TensorFlow's: with a message of its own."""

    def __init__(self, message):
        super().__init__(None, None, message)
        self.message = message


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OpError(f"{PLACE}/a; No such file or directory [Op:ReadFile]"), "/a; No such file or directory"),
        (OpError(f"{PLACE}/a; No such file [Op:ReadFile] name: "), "/a; No such file"),
        (
            OpError("Empty.\n\t [[{{node DecodeJpeg}}]]\n\t [[IteratorGetNext]] [Op:IteratorGetNext]"),
            "Empty.",
        ),
        (OpError("Input is empty. [[{{node DecodeJpeg}}]] name: "), "Input is empty."),
        (OpError("no data, name: "), "no data,"),
        (OpError(f"{PLACE}\nsecond line"), "second line"),
        (OpError(f"{PLACE}[Op:ReadFile]"), "OpError"),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "No space left on device"),
        (ValueError("first\nsecond"), "first"),
        (KeyError(), "KeyError"),
    ],
)
def test_a_message_is_one_line_without_the_graph(error, text):
    assert plain_message(error) == text


def test_a_text_without_its_place():
    assert without_place(f"{PLACE}/job:worker/task:1 is gone\n [[node]]") == "/job:worker/task:1 is gone\n [[node]]"
