"""Each example runs as it stands and prints what its header says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_stochastic_depth():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "stochastic_depth.py"],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "epoch 1: paths inactive",
        "epoch 2: paths inactive",
        "epoch 3: paths active",
        "epoch 4: paths active",
    ]
    assert len({re.search(r"traced (\d+) time", line)[1] for line in lines}) == 1
