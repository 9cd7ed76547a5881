"""Published checkpoints on a machine: where they are looked for, that nothing unverified is used, what is kept."""

import dataclasses
import hashlib
import io
import shutil
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import h5py
import keras
import numpy as np
import pytest

from polynet_keras import applications
from polynet_keras.pretrained import download as download_module
from polynet_keras.pretrained import formats, load_weights_file, registry, state_dict, store, stored_arrays
from polynet_keras.pretrained.download import WrongHashError
from polynet_keras.pretrained.registry import published
from polynet_keras.pretrained.stored_arrays import Format
from tests.pretrained.small import STRUCTURE, infer, small, small_published

pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return small_published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def served(small_file, tmp_path, monkeypatch):
    """The small net as if it had been published by pretrainedmodels: in the registry, and on a server on loopback."""
    file, table, x, expected = small_file
    monkeypatch.setitem(stored_arrays.TABLES, Format.CADENE, lambda: table)
    folder = tmp_path / "served"
    folder.mkdir()
    shutil.copy(file, folder / "small.pth")
    digest = hashlib.sha256((folder / "small.pth").read_bytes()).hexdigest()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            pass

        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

    requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    record = dataclasses.replace(
        published("imagenet-cadene"),
        name="small",
        file="small.pth",
        urls=(f"{base}/small.pth",),
        digest=digest[:8],
        structure=STRUCTURE,
        width=0.1,
        classes=4,
        accuracies=(registry.Accuracy(50.0, None, "none", registry.Preprocessing(75, 86), "nobody"),),
    )
    monkeypatch.setattr(registry, "CHECKPOINTS", (*registry.CHECKPOINTS, record))
    monkeypatch.setattr(download_module, "BACKOFF", 0.001)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    for variable in (store.FOLDER_VARIABLE, store.MIRROR_VARIABLE, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    served = dataclasses.make_dataclass("Served", ["record", "folder", "base", "requests", "expected", "x", "cache"])
    yield served(record, folder, base, requests, expected, x, tmp_path / "home" / "models")
    server.shutdown()
    server.server_close()


def files(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_name_is_fetched_once_and_converted_once(served, monkeypatch):
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert len(served.requests) == 1
    assert files(served.cache) == {"small.pth", "small.weights.h5", "small.weights.h5.sha256"}
    (served.cache / "small.pth").unlink()
    monkeypatch.setattr(state_dict, "find_spec", lambda name: None)  # PyTorch is not needed any more
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert len(served.requests) == 1
    # The converted file is a weights file like any other.
    again = small()
    again.load_weights(served.cache / "small.weights.h5")
    np.testing.assert_allclose(infer(again, served.x), served.expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_without_the_top_and_with_other_classes(served, caplog):
    features = small(weights="small", include_top=False, pooling="avg")
    assert features.output_shape == (None, 200)
    assert (served.cache / "small.weights.h5").is_file()
    model = small(weights="small", classes=7)
    assert "was left out" in caplog.text
    np.testing.assert_array_equal(
        model.get_layer("stem_conv1").get_weights()[0], features.get_layer("stem_conv1").get_weights()[0]
    )


@pytest.mark.slow
def test_damaged_converted_files_are_made_anew(served):
    small(weights="small")
    path = served.cache / "small.weights.h5"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_damaged_cached_file_is_fetched_again(served):
    small(weights="small")
    (served.cache / "small.weights.h5").unlink()
    (served.cache / "small.pth").write_bytes(b"damaged")
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert len(served.requests) == 2


def test_another_file_than_the_published_one_is_never_used(served):
    (served.folder / "small.pth").write_bytes(b"another file")
    with pytest.raises(OSError, match=r"small.pth could not be fetched.*its sha256 is .*POLYNET_WEIGHTS_DIR"):
        small(weights="small")
    assert files(served.cache) == set()


def test_a_failed_fetch_says_what_to_fetch_by_hand_and_where_it_belongs(served):
    (served.folder / "small.pth").unlink()
    with pytest.raises(OSError, match="could not be fetched") as info:
        small(weights="small")
    (url,), told = served.record.urls, str(info.value)
    assert f"download {url} elsewhere, and save it as {served.cache}/small.pth, or in a folder" in told
    assert f"(the sha256 of the file begins with {served.record.digest})" in told
    assert "\n" not in told


@pytest.mark.slow
def test_folder_for_machines_without_network(served, tmp_path, monkeypatch):
    folder = tmp_path / "usb"
    folder.mkdir()
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(folder))
    with pytest.raises(FileNotFoundError, match=r"usb/small.pth does not exist; with POLYNET_WEIGHTS_DIR no"):
        small(weights="small")
    (folder / "small.pth").write_bytes(b"another file")
    with pytest.raises(WrongHashError, match=r"usb/small.pth is not the published small.pth: its sha256 is"):
        small(weights="small")
    (folder / "small.pth").write_bytes((served.folder / "small.pth").read_bytes())
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert served.requests == []
    assert files(folder) == {"small.pth"}


def test_a_cache_that_cannot_be_written(served, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(served.folder))
    (tmp_path / "home").write_text("a file where the folder should be")
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert "cannot be kept; it is converted at each use" in caplog.text


@pytest.mark.slow
def test_mirrors_are_tried_first(served, monkeypatch):
    monkeypatch.setenv(store.MIRROR_VARIABLE, f"{served.base}/nothing/ {served.base}")
    small(weights="small")
    assert served.requests == ["/nothing/small.pth", "/small.pth"]


@pytest.mark.slow
def test_half_precision_does_not_reach_the_converted_file(served):
    keras.config.set_dtype_policy("float16")
    try:
        model = small(weights="small")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stem_conv1").kernel.dtype == "float16"
    assert files(served.cache) == {"small.pth"}
    small(weights="small")
    (served.cache / "small.pth").unlink()
    keras.config.set_dtype_policy("float16")  # what was converted in float32 is good for it
    try:
        small(weights="small")
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(served.requests) == 1


@pytest.mark.slow
def test_the_first_use_draws_the_same_random_numbers_as_the_next(served):
    heads = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        heads.append(small(weights="small", classes=7).get_layer("predictions").get_weights()[0])
    np.testing.assert_array_equal(*heads)


@pytest.mark.slow
def test_what_an_older_version_converted_is_made_anew(served, monkeypatch):
    small(weights="small")
    before = (served.cache / "small.weights.h5").stat().st_mtime_ns
    small(weights="small")
    assert (served.cache / "small.weights.h5").stat().st_mtime_ns == before
    monkeypatch.setattr(store, "CONVERSION", store.CONVERSION + 1)
    small(weights="small")
    assert (served.cache / "small.weights.h5").stat().st_mtime_ns > before


def test_hash_of_the_file_in_an_archive(tmp_path):
    content = b"weights"
    record = dataclasses.replace(
        published("imagenet"), file="net.zip", algorithm="sha1", digest=hashlib.sha1(content).hexdigest()
    )
    path = tmp_path / "net.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anything", content)
    store.verify(path, record)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anything", b"others")
    with pytest.raises(WrongHashError, match=r"is not the published net.zip: its sha1 is [0-9a-f]{40}; that of the"):
        store.verify(path, record)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", content)
    with pytest.raises(WrongHashError, match="is not an archive of one file"):
        store.verify(path, record)
    path.write_bytes(b"no archive")
    with pytest.raises(WrongHashError, match="is not an archive of one file"):
        store.verify(path, record)


def as_archive(record, content, monkeypatch, tmp_path):
    """The record of an archive whose one file has the content's hash, as tf2cv publishes its own."""
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(tmp_path / "given"))
    (tmp_path / "given").mkdir(exist_ok=True)
    return dataclasses.replace(
        record, file="net.zip", algorithm="sha1", digest=hashlib.sha1(content).hexdigest(), hash_of="member"
    )


def with_one_array(value):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = [b"features"]
        file["features/x/kernel:0"] = np.full(3, value, "float32")
    return content.getvalue()


def test_what_is_hashed_is_what_is_loaded(monkeypatch, tmp_path):
    """A file that begins as one HDF5 file, and ends as the archive of another, must not pass as either."""
    genuine, other = with_one_array(1.0), with_one_array(666.0)
    record = as_archive(published("imagenet"), genuine, monkeypatch, tmp_path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("polynet.tf2.h5", genuine)
    path = tmp_path / "given" / "net.zip"
    path.write_bytes(archive.getvalue())
    with store.opened_source(record) as file:
        path.unlink()  # what the name stands for later does not matter
        path.write_bytes(other)
        assert formats.read_checkpoint(file).arrays["features/x/kernel"][0] == 1.0
        assert formats.hdf5_bytes(file) == genuine
    for spoiled in (other + archive.getvalue(), state_dict.TORCH_SIGNATURE + archive.getvalue(), other):
        path.write_bytes(spoiled)
        with (
            pytest.raises(WrongHashError, match=r"given/net.zip is not an archive of one file"),
            store.opened_source(record),
        ):
            pass
    path.write_bytes(archive.getvalue() + zipped(other))  # two archives: the last one is what counts, to both
    with pytest.raises(WrongHashError, match=r"is not the published net.zip"), store.opened_source(record):
        pass
    path.write_bytes(zipped(other) + archive.getvalue())
    with store.opened_source(record) as file:
        assert formats.read_checkpoint(file).arrays["features/x/kernel"][0] == 1.0


def zipped(content):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("polynet.tf2.h5", content)
    return archive.getvalue()


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.slow
def test_a_file_that_is_replaced_after_it_was_verified(served, monkeypatch, converted):
    """Neither the published file nor the converted one is looked for by name a second time."""
    small(weights="small")
    if not converted:
        (served.cache / "small.weights.h5").unlink()
    loaded = []

    def load(model, source):
        for path in served.cache.glob("small.*"):
            path.unlink()
            path.write_bytes(b"another file")
        loaded.append(source.path.name)
        return load_weights_file(model, source)

    monkeypatch.setattr(store, "load_weights_file", load)
    monkeypatch.setattr(applications, "load_weights_file", load)
    np.testing.assert_allclose(infer(small(weights="small"), served.x), served.expected, rtol=1e-5, atol=1e-6)
    assert loaded[0] == ("small.weights.h5" if converted else "small.pth")


@pytest.mark.slow
def test_home_folders_in_the_environment(served, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", "~/odd path, ünïcode")
    small(weights="small")
    cache = tmp_path / "somebody" / "odd path, ünïcode" / "models"
    assert files(cache) == {"small.pth", "small.weights.h5", "small.weights.h5.sha256"}
    monkeypatch.setenv(store.FOLDER_VARIABLE, "~/given")
    shutil.copytree(cache, tmp_path / "somebody" / "given")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty"))
    small(weights="small")
    small(weights="~/given/small.weights.h5")
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("kind", ["a file for the folder", "a folder for the file"])
def test_a_cache_that_cannot_be_fetched_into(served, tmp_path, kind):
    if kind == "a file for the folder":
        (tmp_path / "home").write_text("a file where the folder should be")
    else:
        (tmp_path / "home" / "models" / "small.pth").mkdir(parents=True)
    with pytest.raises(
        OSError, match=r"weights='small': .*small.pth cannot be written: .*Name another place with KERAS_HOME"
    ):
        small(weights="small")
    assert served.requests == []  # half a gigabyte, for nothing
