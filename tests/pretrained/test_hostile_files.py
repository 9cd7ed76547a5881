"""Weights files that claim more than they hold, and files that are damaged at random: one line, soon."""

import base64
import hashlib
import json
import subprocess
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest

from tests.children import Child

torch = pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")

MIB = 1 << 20
BOMB = 100_000_000
"""Values, of a network's 200: 400 MB."""


def small_net():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(8, name="second")(keras.layers.Dense(20, name="first")(inputs))
    return keras.Model(inputs, outputs)


def write_keras(path, fill):
    """A file as Keras writes one, in which `fill` writes the first kernel."""
    small_net().save_weights(path)
    with h5py.File(path, "r+") as file:
        variables = file["layers/dense/vars"]
        del variables["0"]
        fill(variables, "0")


HDF5_BOMBS = {
    "another shape, never written": lambda v, n: v.create_dataset(n, shape=(BOMB,), dtype="f4"),
    "another shape, in chunks": lambda v, n: v.create_dataset(n, shape=(BOMB,), dtype="f4", chunks=(MIB,)),
    "the shape, one chunk of any size": lambda v, n: v.create_dataset(
        n, shape=(4, 20), dtype="f4", chunks=(10_000, 10_000), maxshape=(None, None), compression="gzip"
    ),
    "the shape, compressed": lambda v, n: v.create_dataset(n, data=np.zeros((4, 20), "f4"), compression="gzip"),
    "zeros, compressed": lambda v, n: v.create_dataset(n, data=np.zeros(BOMB // 4, "f4"), compression="gzip"),
    "one value, filled": lambda v, n: v.create_dataset(n, shape=(BOMB,), dtype="f4", fillvalue=7.0),
    "another file": lambda v, n: v.create_dataset(n, shape=(BOMB,), dtype="f4", external=[("/dev/zero", 0, 4 * BOMB)]),
    "link": lambda v, n: v.__setitem__(n, h5py.ExternalLink("/dev/zero", "/x")),
    "wide values": lambda v, n: v.create_dataset(n, shape=(4, 20), dtype="S1000000"),
}


def hdf5_bomb(name):
    return lambda path: write_keras(path, HDF5_BOMBS[name])


def archive_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("model.weights.h5", "w") as member:
        for _ in range(300):
            member.write(bytes(MIB))


def many_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(150_000):
            archive.writestr(f"{number:060}", b"")


def tensors(tensor, **options):
    def write(path):
        torch.save(
            {"stem.conv1.0.conv.weight": torch.zeros(1), **{f"t{i}": tensor for i in range(12)}}, path, **options
        )

    return write


def unused_tensors(path):
    torch.save({"stem.conv1.0.conv.weight": torch.zeros(1), "other": torch.zeros(BOMB)}, path)


def unused_tensors_of_an_old_file(path):
    torch.save(
        {"stem.conv1.0.conv.weight": torch.zeros(1), "other": torch.zeros(BOMB)},
        path,
        _use_new_zipfile_serialization=False,
    )


def safetensors(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [BOMB], "data_offsets": [0, 4 * BOMB]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def numpy_archive(path):
    with open(path, "wb") as file:
        np.savez_compressed(file, a=np.zeros(BOMB, "f4"))


BOMBS = {
    **{f"hdf5, {name}": hdf5_bomb(name) for name in HDF5_BOMBS},
    "archive": archive_bomb,
    "many members": many_members,
    "strided": tensors(torch.zeros(1, dtype=torch.float16).as_strided((250_000, 1000), (0, 0))),
    "strided, old": tensors(torch.zeros(1).expand(BOMB), _use_new_zipfile_serialization=False),
    "unused tensors": unused_tensors,
    "unused tensors, old": unused_tensors_of_an_old_file,
    "safetensors": safetensors,
    "npz": numpy_archive,
}

MEASURE = """
import json, resource, sys
import keras
from polynet_keras.pretrained import load_weights_file
from tests.pretrained.test_hostile_files import peak, small_net, large_net

model = {"small": small_net, "large": large_net}[sys.argv[1]]()
for path in sys.argv[2:]:
    before = peak()
    try:
        load_weights_file(model, path)
        said = "loaded"
    except ValueError as error:
        said = str(error)
    print(json.dumps([said, peak() - before]), flush=True)
"""


def peak():
    """The most bytes that this process has had in memory."""
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measured(net, *paths):
    child = Child(MEASURE, net, *map(str, paths))
    try:
        output, _ = child.communicate(300)
    finally:
        child.end()
    return [json.loads(line) for line in output.splitlines() if line.startswith("[")]


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path, name):
    """A network of 1 kB: at most 200 MB, most of which is PyTorch's own."""
    path = tmp_path / "net.weights.h5"
    BOMBS[name](path)
    ((said, grown),) = measured("small", path)
    assert said.startswith(f"weights='{path}'")
    assert "\n" not in said
    assert len(said) < 600
    assert grown < 200 * MIB


def large_net():
    """150 MB in three layers."""
    x = inputs = keras.Input((3600,))
    for number in range(3):
        x = keras.layers.Dense(3600, name=f"dense_number_{number}")(x)
    return keras.Model(inputs, x)


@pytest.mark.slow
def test_loading_takes_the_networks_size_again(tmp_path):
    model = large_net()
    size = 4 * model.count_params()
    model.save_weights(tmp_path / "net.weights.h5")
    model.save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(tmp_path / "net.weights.h5")
    for name in ("net.weights.h5", "net.keras", "net.zip"):
        ((said, grown),) = measured("large", tmp_path / name)
        assert said == "loaded"
        assert grown < size + 200 * MIB, name


MOST_SHOWN = 40_000


def evidence(path):
    """The file that a child read last, in a text that it can be made again from."""
    if not path.exists():
        return "no file was read"
    content = path.read_bytes()
    packed = base64.b64encode(zlib.compress(content, 9)).decode()
    shown = packed if len(packed) <= MOST_SHOWN else f"too large to be shown, {len(packed):,} characters"
    return (
        f"the last file has {len(content):,} bytes with the SHA-256 {hashlib.sha256(content).hexdigest()}; "
        f"zlib.decompress(base64.b64decode(...)) makes it of: {shown}"
    )


def test_a_file_that_a_child_failed_on_can_be_made_again(tmp_path):
    assert evidence(tmp_path / "net") == "no file was read"
    content = b"\x89HDF" + bytes(2_000_000) + b"damaged"
    (tmp_path / "net").write_bytes(content)
    text = evidence(tmp_path / "net")
    assert len(text) < 5000
    assert f"2,000,011 bytes with the SHA-256 {hashlib.sha256(content).hexdigest()}; " in text
    assert zlib.decompress(base64.b64decode(text.rpartition(" ")[2])) == content
    (tmp_path / "net").write_bytes(np.random.default_rng(0).bytes(MOST_SHOWN))
    assert "makes it of: too large to be shown, 53," in evidence(tmp_path / "net")


@pytest.mark.slow
def test_files_that_are_damaged_at_random(tmp_path):
    """Seeded, for 20 seconds: whatever a file has become, it is loaded or refused in one line, and soon."""
    corpus = []
    for number, (name, write) in enumerate(BOMBS.items()):
        if name not in ("many members", "unused tensors", "unused tensors, old"):
            write(tmp_path / f"corpus{number}.weights.h5")
            corpus.append(tmp_path / f"corpus{number}.weights.h5")
    model = small_net()
    model.save_weights(tmp_path / "good.weights.h5")
    model.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "good.weights.h5", "net.h5")
    for old in (False, True):
        torch.save(
            {"stem.conv1.0.conv.weight": torch.zeros(2, 3, 2, 2)},
            tmp_path / f"good{old}.pth",
            _use_new_zipfile_serialization=not old,
        )
    corpus += sorted(tmp_path.glob("good*"))
    child = Child(FUZZ, str(tmp_path / "fuzzed"), *map(str, corpus))
    try:
        output, errors = child.communicate(120)
        assert child.wait(10) == 0, f"{errors[-4000:]}\n{output[-2000:]}\n{evidence(tmp_path / 'fuzzed')}"
    except subprocess.TimeoutExpired:
        pytest.fail(f"no end after 120 s\n{evidence(tmp_path / 'fuzzed')}")
    finally:
        child.end()
    count, loaded, slowest, grown = json.loads(output.splitlines()[-1])
    assert count > 200
    assert 0 < loaded < count
    assert slowest < 5
    assert grown < 400 * MIB


FUZZ = """
import json, random, sys, time, warnings
from pathlib import Path
from polynet_keras.pretrained import load_weights_file
from tests.pretrained.test_hostile_files import peak, small_net

warnings.simplefilter("ignore")
target, *files = map(Path, sys.argv[1:])
contents = [file.read_bytes() for file in files]
rng = random.Random(0)
model = small_net()
weights = model.get_weights()
count = loaded = slowest = 0
before, ends = peak(), time.monotonic() + 20
while time.monotonic() < ends:
    content = bytearray(rng.choice(contents))
    for _ in range(rng.choice((0, 1, 2, 5, 50))):
        kind, place = rng.randrange(5), rng.randrange(max(1, min(len(content), 8192)))
        if kind == 0:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            claim = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
            content[place : place + 8] = claim.to_bytes(8, "little")
        elif kind == 2:
            del content[rng.randrange(len(content) + 1) :]
        elif kind == 3:
            content[place:place] = content[place : place + rng.randrange(200)]
        else:
            content = bytearray(rng.choice(contents)[: rng.randrange(4096)]) + content
    target.write_bytes(content)
    start = time.monotonic()
    try:
        load_weights_file(model, target)
        loaded += 1
    except ValueError as error:
        text = str(error)
        assert text.startswith(f"weights={str(target)!r}") and "\\n" not in text and len(text) < 1000, text[:2000]
    slowest = max(slowest, time.monotonic() - start)
    count += 1
print(json.dumps([count, loaded, slowest, peak() - before]))
"""
