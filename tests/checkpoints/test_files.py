"""Files of checkpoints: whatever happens to them, what is read is what was written, or an error names the file."""

import os
import resource
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.checkpoints.files import CheckpointFiles

DATA = ".data-00000-of-00001"


def tensors(seed):
    rng = np.random.default_rng(seed)
    return {
        "model/00000": rng.normal(size=(5, 3)).astype("float32"),
        "model/00001": tf.cast(rng.normal(size=(4,)), "bfloat16"),
        "optimizer/00000": np.asarray(7 + seed, "int64"),
        "empty": np.zeros((0, 2), "float16"),
    }


def facts(seed):
    return {"logs": {"loss": 0.1 + seed, "nan": float("nan")}, "number": np.float32(seed)}


@pytest.fixture
def files(tmp_path):
    """Two checkpoints."""
    files = CheckpointFiles(tmp_path / "checkpoints", keep=2)
    files.prepare()
    for seed in (1, 2):
        assert files.write(facts(seed), tensors(seed)) == seed
    return files


def is_whole(saved, seed):
    return all(np.array_equal(saved.tensor(name), np.asarray(value)) for name, value in tensors(seed).items())


def test_what_is_written_is_read(files):
    saved = files.newest()
    assert saved.number == 2
    assert is_whole(saved, 2)
    assert saved.tensor("model/00001").dtype == tf.bfloat16.as_numpy_dtype
    assert saved.facts["logs"]["loss"] == 2.1  # to the last bit
    assert np.isnan(saved.facts["logs"]["nan"])
    assert saved.facts["number"] == 2
    assert is_whole(files.open(1), 1)


def test_no_folder_no_checkpoint(tmp_path):
    assert CheckpointFiles(tmp_path / "none", keep=1).newest() is None


def test_the_newest_are_kept(files):
    assert files.write(facts(3), tensors(3)) == 3
    assert files.numbers() == [2, 3]
    assert {path.name for path in files.folder.iterdir()} == {
        f"checkpoint-{number}{ending}" for number in (2, 3) for ending in (".index", DATA)
    }


@pytest.mark.parametrize("ending", [".index", DATA])
def test_a_flipped_bit_anywhere_does_not_go_unnoticed(files, ending):
    path = files.folder / f"checkpoint-2{ending}"
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            saved = files.open(2)
        except ValueError as error:
            noticed += "checkpoint-2" in str(error)
            continue
        # Some bytes of the index only fill it up, or are of a part that bundles do not use.
        assert is_whole(saved, 2)
        assert saved.facts["logs"]["loss"] == 2.1
    assert noticed > 0.7 * len(whole) if ending == ".index" else noticed == len(whole)


@pytest.mark.parametrize("ending", [".index", DATA])
@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "garbage"])
def test_a_damaged_newest_falls_back_and_is_named(files, ending, damage, caplog):
    path = files.folder / f"checkpoint-2{ending}"
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :]
    path.write_bytes({"cut": whole[:-9], "emptied": b"", "flipped": flipped, "garbage": b"no checkpoint" * 99}[damage])
    saved = files.newest()
    assert saved.number == 1
    assert is_whole(saved, 1)
    assert f"{path} cannot be read: " in caplog.text
    assert "falling back to the checkpoint before it" in caplog.text
    # The next one is newer than the damaged one, which is not kept in place of a good one.
    assert files.write(facts(3), tensors(3)) == 3
    assert files.numbers() == [1, 3]


def test_without_its_data_a_checkpoint_is_none(files, caplog):
    path = files.folder / f"checkpoint-2{DATA}"
    path.unlink()
    assert files.newest().number == 1
    assert f"{path} cannot be read: " in caplog.text
    assert "No such file" in caplog.text


def test_without_its_index_a_checkpoint_is_not_there(files):
    (files.folder / "checkpoint-2.index").unlink()
    assert files.newest().number == 1


def test_none_can_be_read(files):
    for number in (1, 2):
        (files.folder / f"checkpoint-{number}.index").write_bytes(b"")
    with pytest.raises(ValueError, match="has 2 checkpoints, but none can be read .*checkpoint-1.index") as error:
        files.newest()
    assert "name another folder, or empty this one to start anew" in str(error.value)


def test_of_another_format(files, tmp_path):
    files.write({"format": 99}, {})
    with pytest.raises(ValueError, match="checkpoint-3.index has format 99; this version reads 1"):
        files.open(3)


def test_tensorflow_checkpoint_of_somebody_else(files):
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(files.folder / "checkpoint-7"))
    assert files.newest().number == 2


def test_what_a_killed_process_left_is_removed(files):
    left = ["checkpoint-3.data-00000-of-00001", "checkpoint-3.index.tempstate42", "checkpoint-4" + DATA + ".tempstate1"]
    for name in left:
        (files.folder / name).write_bytes(b"torn")
    others = ["notes.txt", "checkpoint-best.keras"]
    for name in others:
        (files.folder / name).write_text("somebody's")
    assert files.newest().number == 2
    files.prepare()
    names = {path.name for path in files.folder.iterdir()}
    assert not names & set(left)
    assert names >= set(others)
    assert files.numbers() == [1, 2]


def test_a_file_too_large_leaves_all_as_it_was(files):
    before = {path: path.read_bytes() for path in files.folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(tf.errors.OpError, match="File too large"):
            files.write(facts(3), {"model/00000": np.ones(100_000, "float32")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in files.folder.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
    """A folder with 200 KiB of space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs the rights to mount")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_all_as_it_was(small_disk):
    files = CheckpointFiles(small_disk, keep=3)
    files.prepare()
    assert files.write(facts(1), {"model/00000": np.ones(20_000, "float32")}) == 1  # 80 kB
    with pytest.raises(tf.errors.OpError, match="No space left on device"):
        files.write(facts(2), {"model/00000": np.ones(40_000, "float32")})
    assert {path.name for path in small_disk.iterdir()} == {"checkpoint-1.index", "checkpoint-1" + DATA}
    assert files.newest().number == 1
    assert files.write(facts(2), {"model/00000": np.ones(5_000, "float32")}) == 2


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder='.*file' cannot be written: "):
        CheckpointFiles(tmp_path / "file", keep=1).prepare()
    with pytest.raises(ValueError, match="folder='.*file' cannot be read: Not a directory"):
        CheckpointFiles(tmp_path / "file", keep=1).newest()


def test_a_worker_waits_for_files_and_says_what_it_waited_for(files):
    with pytest.raises(ValueError, match="checkpoint-9.index cannot be read: .* the chief could .* waited 0.1 s"):
        files.wait_for(9, seconds=0.1)
    assert files.wait_for(2, seconds=0.0).number == 2
