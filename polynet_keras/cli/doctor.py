"""`polynet doctor`: lists what is installed and what is missing, with the command that installs it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from polynet_keras.basics.extras import PACKAGES, install_line, missing_packages, require_extra
from polynet_keras.basics.names import number_of, shown
from polynet_keras.cli.backend import check_backend, chosen_backend
from polynet_keras.cli.installed import EXTRAS, missing_extras, versions

USAGE = ""
EXAMPLES = ("polynet doctor",)
TRAINS_WITH = ("PIL", "matplotlib", "tensorboard")
CARD = "/dev/nvidiactl"
"""This file exists if NVIDIA's driver sees a card."""


def define_flags(values: flags.FlagValues) -> None:
    pass


def run(values: flags.FlagValues, arguments: list[str]) -> int:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; doctor takes none")
    _print_facts("versions", versions())
    _print_facts("extras", ((extra, _state(extra)) for extra in PACKAGES))
    if lines := list(_install_lines()):
        _print_facts("to install, for all that these commands can do", lines)
    reasons = [str(error) for error in _obstacles()]
    if reasons:
        # No code that imports Keras can run.
        print("\n`polynet train` cannot run here:")
        for reason in reasons:
            print(f"  {reason}")
        return 1
    _print_facts("devices", _devices())
    _print_facts("weights", _weights())
    print("\n`polynet train` can run here")
    return 0


def _print_facts(title: str, facts) -> None:
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    print(f"{'' if title == 'versions' else chr(10)}{title}")
    for name, text in facts:
        print(f"  {name:<{width}}  {text}".rstrip())


def _state(extra: str) -> str:
    missing = missing_packages(extra)
    return f"missing: {', '.join(missing)}" if missing else "all there"


def _install_lines() -> Iterator[tuple[str, str]]:
    """Yields commands that lack packages with the line that installs them; commands with the same line together."""
    commands: dict[str, list[str]] = {}
    for command in EXTRAS:
        if lacking := missing_extras(command):
            commands.setdefault(install_line(lacking), []).append(command)
    return ((", ".join(names), line) for line, names in commands.items())


def _obstacles() -> Iterator[Exception]:
    """Yields the reasons why training is impossible here."""
    from polynet_keras.training.runs.checking import BACKENDS

    try:
        check_backend()
        if (backend := chosen_backend()).name not in BACKENDS:
            names = " and ".join(BACKENDS)
            yield ValueError(f"Keras's backend is {shown(backend.name)} ({backend.source}); runs train on {names}")
    except (ValueError, OSError) as error:
        yield error
    try:
        require_extra("data", *TRAINS_WITH)
    except ValueError as error:
        yield error
    try:
        import tensorflow  # noqa: F401
    except Exception as error:  # any error: TensorFlow is broken
        yield ValueError(f"TensorFlow cannot be imported: {type(error).__name__}: {error}")


def _devices() -> Iterator[tuple[str, str]]:
    import tensorflow as tf

    found = tf.config.list_physical_devices()
    cores = number_of(os.cpu_count() or 1, "core")
    for device in found:
        details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
        name = details.get("device_name") or (cores if device.device_type == "CPU" else "")
        yield device.name.removeprefix("/physical_device:"), name
    if os.path.exists(CARD) and not any(device.device_type == "GPU" for device in found):
        yield "GPU", "there is a driver, but TensorFlow finds no card: pip install 'tensorflow[and-cuda]'"


def _weights() -> Iterator[tuple[str, str]]:
    from polynet_keras.pretrained.registry import CHECKPOINTS
    from polynet_keras.pretrained.store import FOLDER_VARIABLE, SHIPPED_FOLDERS, cache_folder

    cache = cache_folder()
    yield "cache", f"{shown(cache)}, {_free(cache) / 1e9:,.1f} GB free"
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        yield FOLDER_VARIABLE, f"{shown(given)}{'' if os.path.isdir(given) else ', which is not a folder'}"
    for checkpoint in CHECKPOINTS:
        folders = (Path(given).expanduser(),) if given and checkpoint.urls else (*SHIPPED_FOLDERS, cache)
        file = next((folder / checkpoint.file for folder in folders if (folder / checkpoint.file).is_file()), None)
        yield checkpoint.name, f"not here, {checkpoint.file}" if file is None else shown(file)


def _free(folder: Path) -> int:
    """Returns the free bytes on the disk of a folder, which may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
