"""The GPUs of a machine, as a fake nvidia-smi lists them and CUDA_VISIBLE_DEVICES chooses them."""

import os
import re
import time

import pytest

from polynet_keras.cluster import gpus
from polynet_keras.cluster.gpus import visible_gpus

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-a1b2c3d4-0000)
GPU 1: NVIDIA H200 (UUID: GPU-b1b2c3d4-0000)
  MIG 1g.18gb     Device  0: (UUID: MIG-c1b2c3d4-0000)
GPU 2: NVIDIA H200 (UUID: GPU-d1b2c3d4-0000)
"""


@pytest.fixture
def machine(tmp_path):
    """Returns the environment of a machine whose nvidia-smi is a shell script."""

    def make(script, **variables):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **variables}

    return make


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, ["0", "1", "2"]),
        ("0,1,2", ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("GPU-b1,1,MIG-c1b2c3d4-0000", ["GPU-b1", "1", "MIG-c1b2c3d4-0000"]),
        ("1,3,0", ["1"]),  # as CUDA: what comes after a GPU that is not there does not count
        ("1,-1,0", ["1"]),
        ("1,,0", ["1"]),
        ("1,1,0", ["1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("GPU-e", []),
    ],
)
def test_gpus_that_are_visible(machine, chosen, seen):
    variables = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert visible_gpus(machine(f"test \"$*\" = -L && cat <<'END'\n{LISTED}END", **variables)) == seen


@pytest.mark.parametrize("script", ["echo No devices were found; exit 6", "echo 'GPU 0: ?'; exit 9", "exit 0"])
def test_a_driver_without_gpus(machine, script):
    assert visible_gpus(machine(script)) == []
    assert visible_gpus(machine(script, CUDA_VISIBLE_DEVICES="0")) == []


def test_a_machine_without_a_driver(tmp_path):
    assert visible_gpus({"PATH": str(tmp_path)}) == []
    assert visible_gpus({"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1"}) == []


def test_a_driver_that_hangs(machine, monkeypatch):
    monkeypatch.setattr(gpus, "SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(ValueError, match=re.escape("`nvidia-smi -L` did not answer within 0.2 s; check the GPUs, or")):
        visible_gpus(machine("exec sleep 60"))
    assert time.monotonic() - start < 30
    assert visible_gpus(machine("exec sleep 60", CUDA_VISIBLE_DEVICES="-1")) == []
