"""Two workers that were given two folders, or one, are told before they train."""

import pytest

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
    assert "REFUSED 1 of 2 workers cannot go on" in chief.output
    assert f"REFUSED the chief's run folder is not '{folders[1]}' here" in other.output
    assert "did not appear within 10 s" in other.output  # before the chief, who waits for 20, gives up
    assert not list(tmp_path.glob("*/.*"))

    (tmp_path / "mounted elsewhere").symlink_to(folders[0])
    for worker in run_workers(2, SCRIPT, str(folders[0]), str(tmp_path / "mounted elsewhere")):
        assert "SHARED" in worker.output
    assert not list(tmp_path.glob("*/.*"))
