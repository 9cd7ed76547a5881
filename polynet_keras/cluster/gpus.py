"""The GPUs that workers can have, counted by nvidia-smi: nothing here opens a device."""

import os
import re
import subprocess
from collections.abc import Mapping

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
SECONDS = 60.0
"""The time for nvidia-smi, which may have to start the driver of each GPU."""


def visible_gpus(environ: Mapping[str, str] | None = None) -> list[str]:
    """Returns the GPUs that a process with this environment sees, each as CUDA_VISIBLE_DEVICES names it.

    As for CUDA, these are all of the machine, or those of CUDA_VISIBLE_DEVICES (indices or UUIDs) up to the first one
    that is not there or repeated.

    Args:
        environ: the environment; by default this process's.

    Raises:
        ValueError: nvidia-smi does not answer.
    """
    environ = os.environ if environ is None else environ
    chosen = [name.strip() for name in environ[GPUS_VARIABLE].split(",")] if GPUS_VARIABLE in environ else None
    if chosen is not None and chosen[0] in ("", "-1"):
        return []
    listed = _listed(environ)
    # Below a GPU, its MIG devices are listed. Both can be chosen by the beginning of their UUID.
    uuids = re.findall(r"\(UUID: ([^)\s]+)\)", listed)
    indices = [str(index) for index in range(len(re.findall(r"^GPU \d+:", listed, re.MULTILINE)))]
    if chosen is None:
        return indices
    found: list[str] = []
    for name in chosen:
        is_there = name in indices or (name and any(uuid.startswith(name) for uuid in uuids))
        if not is_there or name in found:
            break
        found.append(name)
    return found


def _listed(environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except OSError:  # no driver of NVIDIA's
        return ""
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"`nvidia-smi -L` did not answer within {SECONDS:g} s; check the GPUs, or set {GPUS_VARIABLE}=-1 to train "
            "without them"
        ) from None
    return done.stdout if done.returncode == 0 else ""
