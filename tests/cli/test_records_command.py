import re

import pytest
from PIL import Image

from tests.cli.outcomes import fails_in_the_end, succeeds


@pytest.fixture
def images(tmp_path):
    for index in range(6):
        path = tmp_path / "images" / ("cat" if index % 2 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (index + 1, 4)).save(path)
    return tmp_path / "images"


def test_write_verify_and_repair(capsys, images, tmp_path):
    out = tmp_path / "out"
    command = (images, "--output", out, "--shards=2", "--processes=1")
    output = succeeds(capsys, "records", *command)
    assert re.fullmatch(rf"{out}: 2 classes\ntrain: 6 images, 2 shards, 0.0 MB\n", output)
    assert succeeds(capsys, "records", "--verify", out) == f"{out}: 2 shards read, nothing has changed\n"
    (out / "train-00001-of-00002.tfrecord").unlink()
    output, line = fails_in_the_end(capsys, "records", "--verify", out)
    assert output == f"{out}/train-00001-of-00002.tfrecord: is missing\n"
    assert line == (f"polynet: 1 of 2 shards in {out} is damaged; the command that wrote them can write them again")
    succeeds(capsys, "records", *command)
    succeeds(capsys, "records", "--verify", out)


def test_skipped_images_are_listed(capsys, images, tmp_path):
    (images / "cat" / "page.jpg").write_text("<html>")
    command = (images, f"--output={tmp_path}/out", "--processes=1")
    assert "page.jpg: cannot be read as an image" in fails_in_the_end(capsys, "records", *command)[1]
    output = succeeds(capsys, "records", *command, "--on_error=skip")
    _, train, skipped, page = output.splitlines()
    assert train.startswith("train: 6 images, 1 shard, ")
    assert skipped == "train: 1 image skipped, all listed in the manifest:"
    assert page.startswith("  cat/page.jpg: cannot be read as an image: ")
    for index in range(30):
        (images / "cat" / f"{index}.jpg").touch()
    output = succeeds(capsys, "records", images, f"--output={tmp_path}/other", "--processes=1", "--on_error=skip")
    assert "train: 31 images skipped, all listed" in output
    assert sum(line.startswith("  cat/") for line in output.splitlines()) == 20


def test_class_names_of_a_file(capsys, images, tmp_path):
    (tmp_path / "names.txt").write_text("dog\nemu\ncat\n")
    names = f"--class_names={tmp_path}/names.txt"
    output = succeeds(capsys, "records", images, f"--output={tmp_path}/out", "--processes=1", names, "--split=test")
    assert "out: 3 classes\ntest: 6 images" in output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected one FOLDER; got 0 arguments"),
        (["one"], "--output is missing: the folder to write"),
        (["one", "two", "three"], "expected one FOLDER; got 3 arguments"),
        (["one", "two", "--output=out"], "expected one FOLDER; got 2 arguments"),
        (["--verify"], "expected one RECORDS; got 0 arguments"),
        (
            ["--verify", "one", "--output=two"],
            "--output is for a folder of images; --verify and --describe take RECORDS",
        ),
        (["--verify", "nowhere"], "nowhere: holds no manifest.json; name a folder that `polynet records` has written"),
        (
            ["nowhere", "--output=out"],
            "FOLDER_OR_TABLE='nowhere' is not there; expected a folder with one folder of images for each class",
        ),
        (["nowhere", "--output=out", "--class_names=none"], "none: cannot be read: No such file or directory"),
        (["nowhere", "--output=out", "--on_error=x"], "on_error='x' must be one of error, skip"),
        (["nowhere", "--output=out", "--shards=0"], "shards=0 must be an integer of at least 1"),
        (["nowhere", "--output=out", "--split=a b"], "split='a b' must be of letters, digits and underscores"),
    ],
)
def test_mistakes(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails_in_the_end(capsys, "records", *argv)[1]
