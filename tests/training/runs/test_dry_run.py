"""The estimates of a dry run; tests/cli/test_train_command.py has the command."""

import pytest

from polynet_keras.training.runs.dry_run import validation_seconds
from polynet_keras.training.runs.progress import short_duration


@pytest.mark.parametrize(
    ("times", "batches", "seconds"),
    [
        ([10, 12], 1, 2),
        ([10, 12], 3, 6),  # fewer held-out images than a batch, and more that choose the epoch
        ([10, 12, 12.5, 13, 14], 4, 2 + 3 * 0.5),
        ([10, 12, 12.5, 13, 14], 1, 2),
        ([10, 12, 12.5, 13, 14], 101, 2 + 100 * 0.5),
    ],
)
def test_a_validation_is_its_first_batch_and_the_others(times, batches, seconds):
    assert validation_seconds(times, batches) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0284, "0.028 s"), (12.3, "12 s"), (59.6, "1 min 0 s"), (123.4, "2 min 3 s")]
)
def test_short_durations(seconds, text):
    assert short_duration(seconds) == text
