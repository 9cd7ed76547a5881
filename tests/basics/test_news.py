"""News of the package: in the log if it shows information, else on standard error."""

import sys
from logging import ERROR

import keras
import pytest
from absl import logging

from polynet_keras.basics.news import tell, without_logs


@pytest.fixture
def verbosity():
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


def test_a_plain_script_is_told_on_standard_error(capsys, verbosity):
    verbosity(logging.WARNING)
    tell("epoch %d of %d", 1, 3)
    tell("100 %")
    assert capsys.readouterr() == ("", "epoch 1 of 3\n100 %\n")


def test_a_log_that_shows_information_has_it(capsys, caplog, verbosity):
    verbosity(logging.INFO)
    tell("epoch %d of %d", 1, 3)
    assert caplog.messages == ["epoch 1 of 3"]
    assert caplog.records[0].pathname == __file__
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_work_without_logs_tells_nothing(capsys, caplog, verbosity, level):
    verbosity(level)
    with without_logs():
        tell("epoch 1")
    assert not caplog.messages
    assert capsys.readouterr() == ("", "")
    tell("epoch 2")
    assert [*caplog.messages, *capsys.readouterr().err.split("\n")].count("epoch 2") == 1


def test_without_keras_interactive_logging_nothing_is_told(capsys, verbosity):
    verbosity(logging.WARNING)
    keras.config.disable_interactive_logging()
    try:
        tell("epoch 1")
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr() == ("", "")


class Gone:
    """A stream whose reader is gone."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def test_news_that_nobody_reads_end_nothing(monkeypatch, verbosity):
    verbosity(logging.WARNING)
    monkeypatch.setattr("sys.stderr", Gone())
    tell("epoch 1")


def test_a_log_without_a_handler_shows_nothing(monkeypatch, capsys, verbosity):
    verbosity(logging.INFO)
    monkeypatch.setattr(logging.get_absl_logger(), "hasHandlers", lambda: False)
    tell("epoch 1")
    assert capsys.readouterr().err == "epoch 1\n"


def test_before_keras_is_imported_news_are_shown(monkeypatch, capsys, verbosity):
    verbosity(logging.WARNING)
    monkeypatch.delitem(sys.modules, "keras")
    tell("epoch 1")
    assert capsys.readouterr().err == "epoch 1\n"


def test_work_without_logs_may_overlap():
    level = logging.get_absl_logger().level
    first, second = without_logs(), without_logs()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.get_absl_logger().level == ERROR
    second.__exit__(None, None, None)
    assert logging.get_absl_logger().level == level
