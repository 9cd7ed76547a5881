import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from polynet_keras.basics.holding import Hold, holding
from polynet_keras.data.examples import Examples
from polynet_keras.data.folders import list_folder
from polynet_keras.data.records import shards as shard_writing
from polynet_keras.data.records import write as writing
from polynet_keras.data.records.manifest import MANIFEST, UNFINISHED, Manifest, load_manifest, verify_records
from polynet_keras.data.records.read import Features, record_offsets, record_reader
from polynet_keras.data.records.write import write_records
from polynet_keras.data.sources import open_splits
from tests.data.hostile import hostile_images

CLASSES = ("ant", "bee", "Ćma")


def make_images(folder, count, seed=0):
    generator = np.random.default_rng(seed)
    for index in range(count):
        path = folder / CLASSES[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (*generator.integers(1, 40, 2), 3), "uint8")).save(path)


@pytest.fixture
def images(tmp_path):
    make_images(tmp_path / "images", 23)
    return tmp_path / "images"


def write(folder, out, shards=5, processes=1, **arguments):
    return write_records(folder, out, shards=shards, processes=processes, **arguments)


def contents(folder):
    """The bytes of all files but the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def examples_of(path):
    """The parts of all records of a file, by TensorFlow's reader, which verifies their checksums."""
    for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        yield {name: (value.bytes_list.value or value.int64_list.value)[0] for name, value in feature.items()}


def test_records_hold_the_files_as_they_are(images, tmp_path):
    manifest = write(images, tmp_path / "out")
    files = [f"train-0000{shard}-of-00005.tfrecord" for shard in range(5)]
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", *files]
    found = [list(examples_of(tmp_path / "out" / file)) for file in files]
    assert [len(shard) for shard in found] == [5, 5, 5, 4, 4]
    by_path = {example["image/filename"].decode(): example for shard in found for example in shard}
    assert len(by_path) == 23
    for path, example in by_path.items():
        name = path.split("/")[0]
        with Image.open(images / path) as image:
            assert example == {
                "image/encoded": (images / path).read_bytes(),
                "image/class/label": CLASSES.index(name),
                "image/class/text": name.encode(),
                "image/filename": path.encode(),
                "image/height": image.height,
                "image/width": image.width,
            }
    assert load_manifest(tmp_path / "out") == manifest


def test_who_has_lost_the_folder_writes_no_manifest(images, tmp_path, monkeypatch):
    hold = Hold()
    monkeypatch.setattr(writing, "holding", lambda *_: contextlib.nullcontext(hold))

    def loses(shared, task):
        hold.is_lost = True
        return write_shard(shared, task)

    write_shard = shard_writing._write_shard
    monkeypatch.setattr(shard_writing, "_write_shard", loses)
    with pytest.raises(OSError, match="out: another process has taken it; this process no longer writes there"):
        write(images, tmp_path / "out")
    found = Manifest.load(tmp_path / "out" / UNFINISHED)
    assert found.splits["train"].shards == ()
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_manifest(images, tmp_path):
    write(images, tmp_path / "out", seed=3)
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    train = found["splits"].pop("train")
    assert found == {
        "format_version": 1,
        "class_names": list(CLASSES),
        "seed": 3,
        "splits": {},
        "channels": 3,
        "first_label": 0,
    }
    assert train["count"] == sum(shard["count"] for shard in train["shards"]) == 23
    assert train["fingerprint"] == list_folder(images).fingerprint
    for shard in train["shards"]:
        content = (tmp_path / "out" / shard["file"]).read_bytes()
        assert shard["bytes"] == len(content)
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
        assert shard["skipped"] == {}


def test_read_by_index(images, tmp_path):
    manifest = write(images, tmp_path / "out")
    paths = [tmp_path / "out" / shard.file for shard in manifest.splits["train"].shards]
    count, read, _ = record_reader(paths, Features(first_label=manifest.first_label), len(manifest.class_names))
    assert count == 23
    in_order = [example for path in paths for example in examples_of(path)]
    for index in (22, 0, 5, 17, 4):
        encoded, label = read(tf.constant(index, tf.int64))
        assert encoded.numpy() == in_order[index]["image/encoded"]
        assert label.numpy() == in_order[index]["image/class/label"]


def order(out):
    return [example["image/filename"] for path in sorted(out.glob("*.tfrecord")) for example in examples_of(path)]


def test_the_order_is_mixed_and_the_seed_s(images, tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write(images, tmp_path / name, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "same")
    assert order(tmp_path / "one") != order(tmp_path / "other")
    assert sorted(order(tmp_path / "one")) == sorted(order(tmp_path / "other"))
    assert order(tmp_path / "one") == sorted(
        (path.encode() for path in list_folder(images).paths), key=lambda path: hashlib.sha256(b"0:" + path).hexdigest()
    )


def test_splits_share_their_labels(tmp_path):
    make_images(tmp_path / "images" / "train", 9)
    make_images(tmp_path / "images" / "val", 4, seed=1)
    shutil.rmtree(tmp_path / "images" / "val" / "ant")
    manifest = write(tmp_path / "images", tmp_path / "out", shards=2)
    assert {name: split.count for name, split in manifest.splits.items()} == {"train": 9, "val": 2}
    (first,), (second,) = (list(examples_of(path)) for path in sorted((tmp_path / "out").glob("val-*")))
    assert {(e["image/filename"], e["image/class/label"]) for e in (first, second)} == {
        (b"bee/1.png", 1),
        ("Ćma/2.png".encode(), 2),
    }


def test_options(images, tmp_path, monkeypatch):
    manifest = write(images, tmp_path / "out", split="val_2", class_names=["bee", "x", "Ćma", "ant"])
    assert manifest.class_names == ("bee", "x", "Ćma", "ant")
    labels = {
        example["image/class/label"] for example in examples_of(tmp_path / "out" / "val_2-00000-of-00005.tfrecord")
    }
    assert labels <= {0, 2, 3}
    # The size decides how many shards there are: one of these few bytes, and none smaller than an image.
    assert write(images, tmp_path / "one", shards=None).splits["train"].shard_count == 1
    monkeypatch.setattr(writing, "SHARD_BYTES", list_folder(images).sizes.sum() // 3)
    assert write(images, tmp_path / "four", shards=None).splits["train"].shard_count == 4
    monkeypatch.setattr(writing, "SHARD_BYTES", 1)
    assert write(images, tmp_path / "many", shards=None).splits["train"].shard_count == 23


def test_hostile_images_are_skipped_and_listed_or_named(tmp_path):
    corpus = hostile_images()
    for index, image in enumerate(corpus):
        path = tmp_path / "images" / f"class{index % 2}" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encoded)
    expected = {image.name: image for image in corpus}
    manifest = write(tmp_path / "images", tmp_path / "out", shards=3, on_error="skip")
    listed = [path.name for path in (tmp_path / "images").glob("*/*")]
    skipped = {path.split("/")[1]: reason for path, reason in manifest.splits["train"].skipped.items()}
    assert set(skipped) == {name for name in listed if expected[name].pixels is None}
    for name, reason in skipped.items():
        assert expected[name].reason in reason
        assert str(tmp_path) not in reason
    found = [example for path in (tmp_path / "out").glob("*.tfrecord") for example in examples_of(path)]
    assert len(found) == manifest.splits["train"].count == len(listed) - len(skipped)
    for example in found:
        image = expected[example["image/filename"].decode().split("/")[1]]
        assert example["image/encoded"] == image.encoded
        assert (example["image/height"], example["image/width"]) == image.pixels.shape[:2]
    # The other policy names one of the files, and what it makes of the folder is not taken for whole.
    with pytest.raises(ValueError, match="/class[01]/(.*): ") as error:
        write(tmp_path / "images", tmp_path / "out", shards=3)
    assert any(name in str(error.value) for name in skipped)
    with pytest.raises(ValueError, match="/class[01]/"):
        write(tmp_path / "images", tmp_path / "other", shards=3)
    with pytest.raises(ValueError, match="other: its records are unfinished; run `polynet records` again"):
        load_manifest(tmp_path / "other")
    # What it left can be finished with the other policy, to the same files.
    write(tmp_path / "images", tmp_path / "other", shards=3, on_error="skip")
    assert contents(tmp_path / "other") == contents(tmp_path / "out")


def test_a_file_that_changes_meanwhile(images, tmp_path, monkeypatch):
    (images / "ant" / "0.png").with_suffix(".jpg").symlink_to(tmp_path / "nothing")
    real = shard_writing.read_encoded

    def read_encoded(path):
        return real(path) + b"more" * (path.name == "3.png")

    monkeypatch.setattr(shard_writing, "read_encoded", read_encoded)
    assert write(images, tmp_path / "out", on_error="skip").splits["train"].skipped == {
        "ant/0.jpg": "no such file",
        "ant/3.png": "has changed since the folder was listed; run the command again",
    }


KILLED = """
import os, pathlib, signal, sys, time
from polynet_keras.data.records import shards, write
written, record = [], shards._record
def killed(*arguments):
    written.append(arguments)
    if len(written) == 12:
        while "train-00001-of-00005" not in pathlib.Path(sys.argv[2], "manifest.partial.json").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return record(*arguments)
shards._record = killed
write.write_records(*sys.argv[1:], shards=5, processes=1)
"""


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next_in_more_processes(images, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, images, out], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    finished = [f"train-0000{shard}-of-00005.tfrecord" for shard in range(2)]
    assert sorted(contents(out)) == ["manifest.partial.json", *finished]
    before = [(out / file).stat() for file in finished]
    write(images, out, processes=2)
    after = [(out / file).stat() for file in finished]
    assert [(s.st_ino, s.st_mtime_ns) for s in before] == [(s.st_ino, s.st_mtime_ns) for s in after]
    write(images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_an_interrupt_leaves_what_is_finished(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_shard = shard_writing._write_shard

    def interrupted(shared, task):
        if task.target.name.startswith("train-00003"):
            # Python ignores an interrupt that it raises while it collects garbage; then a user presses Ctrl-C again.
            while not shared.stop.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                shared.stop.wait(5)
        return write_shard(shared, task)

    monkeypatch.setattr(shard_writing, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(images, out)
    monkeypatch.undo()
    names = {f"train-0000{shard}-of-00005.tfrecord" for shard in range(3)}
    assert set(contents(out)) == {"manifest.partial.json", *names}
    assert {shard.file for shard in Manifest.load(out / "manifest.partial.json").splits["train"].shards} <= names
    write(images, out)
    write(images, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_a_call_does_not_end_another_one_of_its_process(images, tmp_path, monkeypatch):
    """As where a script writes two sets of records at a time."""
    real = shard_writing.read_encoded

    def read_encoded(path):
        monkeypatch.undo()
        write(images, tmp_path / "meanwhile")
        return real(path)

    monkeypatch.setattr(shard_writing, "read_encoded", read_encoded)
    write(images, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "meanwhile")


def test_a_finished_folder_is_kept_and_repaired(images, tmp_path):
    out = tmp_path / "out"
    manifest = write(images, out)
    whole = contents(out)
    files = sorted(out.glob("*.tfrecord"))
    flipped = bytearray(files[0].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    files[0].write_bytes(flipped)
    files[2].unlink()
    files[3].write_bytes(files[3].read_bytes()[:-1])
    size = len(whole[files[3].name])
    assert verify_records(out) == (
        f"{files[0]}: its SHA-256 is not the one in the manifest",
        f"{files[2]}: is missing",
        f"{files[3]}: has {size - 1:,} bytes, not {size:,}",
    )
    kept = files[1].stat(), files[4].stat()
    assert write(images, out) == manifest
    assert contents(out) == whole
    assert verify_records(out) == ()
    assert kept == (files[1].stat(), files[4].stat())


def test_other_records_are_not_mixed_in(images, tmp_path):
    out = tmp_path / "out"
    write(images, out)
    whole = contents(out)
    with pytest.raises(ValueError, match=r"holds records with seed=0, not 1; 5 shards of 'train', not 4. Name a new"):
        write(images, out, seed=1, shards=4)
    with pytest.raises(ValueError, match="holds records with the splits train, not val"):
        write(images, out, split="val")
    with pytest.raises(ValueError, match="holds records with other class names; other images in 'train'"):
        write(images, out, class_names=["bee", "ant", "Ćma"])
    Image.new("RGB", (3, 3)).save(images / "ant" / "new.png")
    with pytest.raises(ValueError, match="holds records with other images in 'train'. Name a new folder"):
        write(images, out)
    assert contents(out) == whole


def test_out_must_be_free(images, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"used' holds 'thesis.tex' and no manifest; name a new or an empty folder"):
        write(images, tmp_path / "used")
    with pytest.raises(ValueError, match=r"thesis.tex' is not a folder"):
        write(images, tmp_path / "used" / "thesis.tex")
    with pytest.raises(ValueError, match=r"output='.*records' must not lie in the folder of the images, '.*images'"):
        write(images, images / "records")
    assert not (images / "records").exists()
    (tmp_path / "held").mkdir()
    with holding("out", tmp_path / "held"), pytest.raises(ValueError, match="held' is being written by process"):
        write(images, tmp_path / "held")


def test_out_that_cannot_be_written_is_named(images, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match="output='.*/link' is a link to 'nowhere', which is missing"):
        write(images, tmp_path / "link")
    with pytest.raises(ValueError, match="output='.*' cannot be written: File name too long"):
        write(images, tmp_path / ("n" * 256))

    def acquire(self, timeout):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.SoftFileLease.acquire", acquire)
    with pytest.raises(ValueError, match="output='.*/shut' cannot be written: Permission denied"):
        write(images, tmp_path / "shut")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "ignore"}, "on_error='ignore' must be one of error, skip"),
        ({"split": "a/b"}, "split='a/b' must be of letters, digits and underscores"),
        ({"shards": 0}, "shards=0 must be an integer of at least 1"),
        ({"shards": 24}, "shards=24 must be at most the 23 images of the split 'train'"),
        ({"seed": -1}, "seed=-1 must be an integer of at least 0"),
        ({"processes": True}, "processes=True must be an integer of at least 1"),
    ],
)
def test_mistakes(images, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write(images, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_labels_of_damaged_records(images, tmp_path):
    """Under `skip` they count for the class of the record before; a storage that fails is an error all the same."""
    write(images, tmp_path / "out", shards=1)
    (file,) = (tmp_path / "out").glob("*.tfrecord")
    whole = open_splits(tmp_path / "out")["train"].labelled()
    damaged, content = (0, 5, 6, 22), bytearray(file.read_bytes())
    for number in damaged:
        content[record_offsets(file)[number] + 20] ^= 1
    file.write_bytes(content)
    examples = open_splits(tmp_path / "out")["train"]
    with pytest.raises(ValueError, match=r"out, train: its labels cannot be read: .*corrupted record at"):
        examples.labelled()
    expected = whole.labels.copy()
    for number, other in zip(damaged, (1, 4, 4, 21), strict=True):
        expected[number] = whole.labels[other]
    assert examples.labelled("skip").labels.tolist() == expected.tolist()

    class NoNetwork(tf.errors.OpError):
        def __init__(self):
            super().__init__(None, None, "the network is down", 14)

    def label(self, index):
        raise NoNetwork

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Examples, "label", label)
        with pytest.raises(OSError, match="record 0: cannot be read: the network is down"):
            examples.labelled("skip")
    for offset in record_offsets(file):
        content[offset + 21] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="out, train: the label of none of its images can be read"):
        examples.labelled("skip")


def test_damaged_manifests(images, tmp_path):
    with pytest.raises(ValueError, match=r"holds no manifest.json; name a folder that `polynet records` has written"):
        load_manifest(tmp_path)
    write(images, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())

    def load_with(**changes):
        path.write_text(json.dumps({**content, **changes}))
        return load_manifest(tmp_path / "out")

    assert load_with().splits["train"].count == 23
    train = content["splits"]["train"]
    for changes, message in (
        (
            {"format_version": 2},
            r"manifest.json: not a manifest of records: its format_version is 2, this package reads",
        ),
        ({"splits": {"train": {**train, "count": 9}}}, r"the shards of 'train' have 23 records, not 9"),
        ({"splits": {"train": {**train, "shard_count": 6}}}, r"manifest.json: names 5 of 6 shards of 'train'"),
        ({"splits": []}, "manifest.json: not a manifest of records"),
        ({"more": 1}, "manifest.json: not a manifest of records: the field more is unknown"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"channels": 2}, "channels=2 must be one of 1, 3, 4"),
        ({"class_names": "ab"}, "class_names='ab' must be a list"),
        ({"splits": {"train": [1]}}, r"splits.train must be an object with fields, and is \[1\]"),
        ({"splits": {"train": {**train, "shards": 1}}}, "splits.train.shards=1 must be a list of shards"),
        *(
            ({"splits": {"train": {**train, "shards": [{**train["shards"][0], **changed}]}}}, message)
            for changed, message in (
                (
                    {"file": "/etc/hostname"},
                    r"shards\[0\].file='/etc/hostname' must be the name of a file in the manif",
                ),
                ({"file": "../other.tfrecord"}, "must be the name of a file in the manifest's folder"),
                ({"file": ".."}, "must be the name of a file in the manifest's folder"),
                ({"file": ""}, "must be the name of a file in the manifest's folder"),
                ({"file": "a\0b"}, "must be the name of a file in the manifest's folder"),
                ({"bytes": 1.5}, r"shards\[0\].bytes=1.5 must be a whole number"),
                ({"count": True}, "count=True must be a whole number"),
                ({"skipped": {"a": 1}}, "skipped={'a': 1} must be an object of reasons by path"),
                ({"sha256": None}, "sha256=None must be a text"),
            )
        ),
    ):
        with pytest.raises(ValueError, match=message):
            load_with(**changes)
    path.write_text("[]")
    with pytest.raises(ValueError, match="manifest.json: not a manifest of records"):
        load_manifest(tmp_path / "out")
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="manifest.json: not a manifest of records: it is nested too deeply"):
        load_manifest(tmp_path / "out")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_full_disk(images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".train-00000-of-00001.tfrecord").symlink_to("/dev/full")
    with pytest.raises(OSError, match="train-00000-of-00001.tfrecord: cannot be written: .*No space left on device"):
        write(images, tmp_path / "out", shards=1)
    assert set(contents(tmp_path / "out")) == {"manifest.partial.json"}
