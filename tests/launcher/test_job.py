"""The values of a job."""

import re

import pytest

from polynet_keras.launcher.job import Job


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"workers": 3, "gpus": [*"01234567"]}, "workers=3 cannot share 8 GPUs equally; choose 1, 2, 4 or 8, or other"),
        ({"workers": 2, "gpus": ["0"]}, "workers=2 cannot share 1 GPU equally; choose 1, or other GPUs in CUDA"),
        ({"max_restarts": -1}, "max_restarts=-1 must be at least 0"),
        ({"grace_seconds": 0.0}, "grace_seconds=0.0 must be a finite number > 0"),
        ({"grace_seconds": float("nan")}, "grace_seconds=nan must be a finite number > 0"),
        ({"workers": 100_000, "pin": True}, "100000 workers cannot each have a core: this process has"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Job(**{"command": ["true"], "workers": 2, **settings})
