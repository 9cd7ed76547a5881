"""Two workers that were given two folders, or one, are told before they train."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from polynet_keras.cluster import shared_folder
from polynet_keras.cluster.shared_folder import check_shared_folder
from tests.processes import run_workers

SCRIPT = """
import sys
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.failures import peer_failures
from polynet_keras.cluster.shared_folder import check_shared_folder
from polynet_keras.cluster.communication import Communication
from polynet_keras.cluster.strategies import open_strategy

cluster = Cluster.from_environment()
with peer_failures(cluster):
    strategy = open_strategy("auto", cluster, Communication(timeout_seconds=20))
    try:
        check_shared_folder(sys.argv[1 + cluster.index], strategy)
    except ValueError as error:
        print("REFUSED", error)
    else:
        print("SHARED")
"""


@pytest.mark.slow
def test_folders_that_are_not_one_are_refused(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    chief, other = run_workers(2, SCRIPT, *map(str, folders))
    assert "REFUSED 1 of 2 workers cannot continue" in chief.output
    assert f"REFUSED the chief's run folder is not '{folders[1]}' here" in other.output
    assert "did not appear within 10 s" in other.output  # before the chief, who waits for 20, gives up
    assert not list(tmp_path.glob("*/.*"))

    (tmp_path / "mounted elsewhere").symlink_to(folders[0])
    for worker in run_workers(2, SCRIPT, str(folders[0]), str(tmp_path / "mounted elsewhere")):
        assert "SHARED" in worker.output
    assert not list(tmp_path.glob("*/.*"))


@pytest.fixture
def check(monkeypatch):
    """Calls `check_shared_folder` as the chief, or as the other worker after it; returns its error."""
    told: list[int] = []

    def fail(strategy, failure):
        if failure is not None:
            raise failure

    def touch(self):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", touch)
    monkeypatch.setattr(shared_folder, "worker_count", lambda strategy: 2)
    monkeypatch.setattr(shared_folder, "half_a_wait", lambda strategy, seconds: 0.0)
    monkeypatch.setattr(shared_folder, "look_again", lambda folder: None)
    monkeypatch.setattr(shared_folder, "fail_together", fail)
    monkeypatch.setattr(shared_folder, "is_chief", lambda strategy: strategy.chief)
    monkeypatch.setattr(shared_folder, "sum_over_workers", lambda strategy, number: told.append(number) or max(told))

    def called(folder, chief):
        strategy: Any = SimpleNamespace(chief=chief)
        try:
            check_shared_folder(folder, strategy, "folder of features")
        except ValueError as error:
            return str(error)
        return None

    return called


def test_a_folder_that_is_read_only_has_a_file_already(tmp_path, check):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "0123456789abcdef").mkdir()
    assert check(tmp_path / "one", True) is None
    assert check(tmp_path / "one", False) is None
    assert "the chief's folder of features is not" in check(tmp_path / "other", False)


def test_a_folder_that_is_read_only_and_empty_is_told_together(tmp_path, check):
    """As a failure that all workers hear of, and not an error of the chief alone, which the others would wait for."""
    assert check(tmp_path, True) == f"the folder of features {str(tmp_path)!r} cannot be written: Read-only file system"
