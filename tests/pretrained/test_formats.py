"""What a file is, its content tells; what it is not, an error says in one line."""

import contextlib
import io
import os
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.pretrained import archives, hdf5, state_dict
from polynet_keras.pretrained.formats import read_checkpoint
from polynet_keras.pretrained.state_dict import TORCH_SIGNATURE
from polynet_keras.pretrained.stored_arrays import Format

torch = pytest.importorskip("torch", reason="writes the .pth files (extra `parity`)")

SMALL = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1, "input_shape": (75, 75, 3), "classes": 4}
CADENE = {"stem.conv1.0.conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "last_linear.weight": torch.ones(4, 5)}
PYTORCHCV = {
    "features.init_block.conv1.conv.weight": torch.ones(2, 3, 1, 1),
    "features.init_block.conv1.bn.running_mean": torch.ones(2),
    "features.init_block.conv1.bn.num_batches_tracked": torch.tensor(7),
}


def saved(state, **options):
    content = io.BytesIO()
    torch.save(state, content, **options)
    return content.getvalue()


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def layer_wise():
    """As Keras 2 writes it; names longer than an attribute may be are in numbered ones."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["layer_names"] = [b"features", b"output1"]
        names = [
            "net/features/features/init_block/init_block/conv1/conv/conv/kernel:0",
            "features/init_block/conv1/bn/gamma:0",
        ]
        group = file.create_group("features")
        for number, name in enumerate(names):
            group.attrs[f"weight_names{number}"] = [name.encode()]
            group[name] = np.full(3, number, "float32")
        group = file.create_group("output1")
        group.attrs["weight_names"] = [b"fc/bias:0"]
        group["fc/bias:0"] = np.full(3, 9.0, "float32")
    return content.getvalue()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize("in_archive", [False, True])
@pytest.mark.parametrize("name", ["net.pth", "net.weights.h5", "net"])
def test_state_dicts_under_any_name(tmp_path, options, in_archive, name):
    path = tmp_path / name
    for state, expected in ((CADENE, Format.CADENE), (PYTORCHCV, Format.PYTORCHCV)):
        content = saved(state, **options)
        path.write_bytes(zipped(inside=content) if in_archive else content)
        checkpoint = read_checkpoint(path)
        assert checkpoint.format is expected
        assert checkpoint.arrays.keys() == {key for key in state if not key.endswith("num_batches_tracked")}
    path.write_bytes(saved(CADENE))
    found = read_checkpoint(path).arrays
    kernel = CADENE["stem.conv1.0.conv.weight"].permute(2, 3, 1, 0)
    np.testing.assert_array_equal(found["stem.conv1.0.conv.weight"], kernel)
    assert found["last_linear.weight"].shape == (5, 4)


def test_state_dicts_as_training_scripts_save_them(tmp_path):
    state = {f"module.{key}": value for key, value in CADENE.items()}
    (tmp_path / "net").write_bytes(saved({"state_dict": state, "epoch": 3}))
    assert read_checkpoint(tmp_path / "net").arrays.keys() == CADENE.keys()


@pytest.mark.parametrize("in_archive", [False, True])
def test_layer_wise_hdf5(tmp_path, in_archive):
    path = tmp_path / "net"
    path.write_bytes(zipped(anything=layer_wise()) if in_archive else layer_wise())
    checkpoint = read_checkpoint(path)
    assert checkpoint.format is Format.TF2CV
    assert {key: array[0] for key, array in checkpoint.arrays.items()} == {
        "features/init_block/conv1/conv/kernel": 0,
        "features/init_block/conv1/bn/gamma": 1,
        "output1/fc/bias": 9,
    }


@pytest.mark.slow
def test_files_of_this_package_under_any_name(tmp_path):
    model = PolyNet(weights=None, **SMALL)
    model.save_weights(tmp_path / "net.weights.h5")
    model.save(tmp_path / "net.keras")
    for name in ("net.weights.h5", "net.keras"):
        shutil.copy(tmp_path / name, tmp_path / "weights")
        checkpoint = read_checkpoint(tmp_path / "weights")
        assert checkpoint.format is Format.KERAS
        np.testing.assert_array_equal(checkpoint.arrays["stem_conv1/0"], model.get_layer("stem_conv1").kernel)
        PolyNet(weights=tmp_path / "weights", **SMALL)


EXPLOITED = Path(tempfile.mkdtemp(), "exploited")


class Exploit:
    """What a hostile file would have: code that runs as it is unpickled."""

    def __reduce__(self):
        return (open, (str(EXPLOITED), "w"))


def hdf5_of_something_else():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["numbers"] = np.ones(3)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a checkpoint; expected a .weights.h5"),
        (b"no weights at all, only text", "is not a checkpoint"),
        (pickle.dumps({"a": 1}), "is not a checkpoint"),
        (saved({"stem": Exploit()}), "damaged, or holds more than tensors; neither is loaded"),
        (saved({"a": Exploit()}, _use_new_zipfile_serialization=False), "damaged, or holds more than tensors"),
        (saved(CADENE)[:-200], "cannot be read|damaged"),
        (saved(CADENE, _use_new_zipfile_serialization=False)[:200], "damaged, or holds more than tensors"),
        (saved([torch.ones(2)]), "not a state dict"),
        (saved({}), "not a state dict"),
        (saved({"state_dict": [CADENE], "epoch": 3}), "not a state dict"),
        (saved({"a.num_batches_tracked": torch.tensor(1)}), "another network: it begins with 'a.num_batches_tracked'"),
        (saved({"conv.weight": torch.ones(2)}), "is a state dict of another network: it begins with 'conv.weight'"),
        (layer_wise()[:1000], "cannot be read"),
        (hdf5_of_something_else(), r"is an HDF5 file with \['numbers'\]"),
        (zipped(a=b"1", b=b"2"), "is an archive of 2 files, not of one checkpoint"),
        (zipped(a=zipped(b=saved(CADENE))), "is an archive of 1 file"),
        (zipped(a=b"text"), "is not a checkpoint"),
        (zipped(a=layer_wise())[:600], "cannot be read"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights='{path}' .*({message})") as info:
        read_checkpoint(path)
    assert "weights_only" not in str(info.value)
    assert not EXPLOITED.exists()
    assert "\n" not in str(info.value)


def test_damage_inside_an_archive(tmp_path):
    content = bytearray(zipped(a=np.random.default_rng(0).bytes(10_000) + layer_wise()))
    content[5_000] ^= 0xFF
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(tmp_path / "net")


def test_members_are_bounded(tmp_path):
    (tmp_path / "net").write_bytes(zipped(a=bytes(201)))
    with pytest.raises(ValueError, match="is an archive whose 'a' is larger than 200 bytes"):
        read_checkpoint(tmp_path / "net", budget=100)


def test_directories_of_archives_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_DIRECTORY", 1000)
    (tmp_path / "net").write_bytes(zipped(**{f"member{number}": b"" for number in range(100)}))
    with pytest.raises(ValueError, match="is an archive whose list of members is larger than 1,000 bytes"):
        read_checkpoint(tmp_path / "net")


def claim_terabytes(variables, tmp_path):
    variables.create_dataset("0", shape=(10**6, 10**6), dtype="float32")


def be_in_chunks(variables, tmp_path):
    variables.create_dataset("0", shape=(3, 3), dtype="float32", chunks=(1, 3))


def be_compressed(variables, tmp_path):
    variables.create_dataset("0", data=np.zeros((1000, 1000), "float32"), compression="gzip")


def be_virtual(variables, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "float64")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (3,))
    variables.create_virtual_dataset("0", layout)


def have_a_long_name(variables, tmp_path):
    variables.attrs["name"] = "x" * 1001
    variables["0"] = np.ones(3)


def have_many_names(variables, tmp_path):
    variables.attrs["name"] = [b"stem_conv1"] * 2
    variables["0"] = np.ones(3)


def be_elsewhere(variables, tmp_path):
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")
    variables.create_dataset("0", shape=(4,), dtype="float32", external=[(str(tmp_path / "secret"), 0, 16)])


def link_to_another_file(variables, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(3)
    variables["0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")


def link_inside(variables, tmp_path):
    variables["0"] = h5py.SoftLink("/elsewhere")


def hold_text(variables, tmp_path):
    variables["0"] = "text"


def hold_a_group(variables, tmp_path):
    variables.create_group("0")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (claim_terabytes, r"conv2d/vars/0' claims to be 1000000 x 1000000, which it does not hold"),
        (be_in_chunks, "conv2d/vars/0' of 3 x 3 is compressed or in chunks, .*h5repack -l CONTI .* readable"),
        (be_compressed, "conv2d/vars/0' of 1000 x 1000 is compressed or in chunks, .* makes it readable"),
        (be_virtual, "conv2d/vars/0' is in another file"),
        (have_a_long_name, "a layer's name is not a text of at most 1000 characters"),
        (have_many_names, "a layer's name is not a text of at most 1000 characters"),
        (be_elsewhere, "conv2d/vars/0' is in another file"),
        (link_to_another_file, "conv2d/vars/0' is a link"),
        (link_inside, "conv2d/vars/0' is a link"),
        (hold_text, "conv2d/vars/0' is not an array of numbers"),
        (hold_a_group, "conv2d/vars/0' is not an array of numbers"),
    ],
)
def test_hdf5_that_would_take_more_than_its_own_numbers(tmp_path, fill, message):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        variables = file.create_group("layers/conv2d/vars")
        variables.attrs["name"] = "stem_conv1"
        fill(variables, tmp_path)
    with pytest.raises(ValueError, match=f"^weights='{tmp_path}/net.h5' is an HDF5 file .*{message}$"):
        read_checkpoint(tmp_path / "net.h5")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_of_other_compressions(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "net", "w", compression) as archive:
        archive.writestr("a", np.random.default_rng(0).bytes(10_000))
    content = bytearray((tmp_path / "net").read_bytes())
    content[40:5_000] = bytes(len(content[40:5_000]))
    (tmp_path / "net").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_checkpoint(tmp_path / "net")


def test_damaged_pickles(tmp_path):
    """Whatever the unpickler makes of them, it is one line; some damage only changes numbers."""
    rng = np.random.default_rng(0)
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        whole = saved(PYTORCHCV, **options)
        for _ in range(200):
            content = bytearray(whole)
            for position in rng.integers(0, len(content), 3):
                content[position] = rng.integers(0, 256)
            (tmp_path / "net").write_bytes(content)
            with contextlib.suppress(ValueError):
                read_checkpoint(tmp_path / "net")


def test_old_pytorch(tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(saved(CADENE))
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(ValueError, match=r"PyTorch 2.5.1\+cu124 does not read safely: pip install 'torch>=2.6'"):
        read_checkpoint(tmp_path / "net.pth")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    for name in (tmp_path / "link", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device, not a file"):
            read_checkpoint(name)


def test_home_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net.pth").write_bytes(saved(CADENE))
    assert read_checkpoint("~/net.pth").format is Format.CADENE


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1, dtype=torch.float16).as_strided((250_000, 1000), (0, 0)), "claims to be 250000 x 1000"),
        (torch.zeros(1).expand(10**6), "claims to be 1000000, which it does not hold"),
        (torch.zeros(4, dtype=torch.complex64), "is not a plain array of numbers"),
        (torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (10**5, 10**5)), "is not a plain array"),
        (torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), "is not a plain array"),
        (torch.empty(10**9, device="meta"), "is not a plain array|damaged"),
    ],
    ids=["strided", "expanded", "complex", "sparse", "quantized", "meta"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_tensors_that_claim_more_than_they_hold(tmp_path, options, tensor, message):
    (tmp_path / "net.pth").write_bytes(saved({**CADENE, "bomb": tensor}, **options))
    with pytest.raises(ValueError, match=rf"net.pth' is a PyTorch file .*({message})"):
        read_checkpoint(tmp_path / "net.pth")


def test_compressed_pytorch_archives(tmp_path):
    """PyTorch itself would unpack any member to the size that it claims."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(CADENE))) as source, zipfile.ZipFile(content, "w") as target:
        for member in source.infolist():
            compression = zipfile.ZIP_DEFLATED if member.filename.endswith("/0") else zipfile.ZIP_STORED
            target.writestr(member.filename, source.read(member), compression)
    (tmp_path / "net.pth").write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="not as PyTorch writes it: its archive is compressed, or prefixed"):
        read_checkpoint(tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes(saved(CADENE)[:4] + saved(CADENE))
    with pytest.raises(ValueError, match="not as PyTorch writes it: its archive is compressed, or prefixed"):
        read_checkpoint(tmp_path / "net.pth")


def test_files_that_can_only_be_read_whole_are_bounded(tmp_path):
    state = {**CADENE, "more": torch.zeros(1000)}
    (tmp_path / "net.pth").write_bytes(saved(state, _use_new_zipfile_serialization=False))
    with pytest.raises(ValueError, match="can only be read whole, and 4,000 are allowed for its network"):
        read_checkpoint(tmp_path / "net.pth", budget=4000)
    (tmp_path / "net.pth").write_bytes(saved(state))
    with pytest.raises(ValueError, match="holds 4,176 bytes of numbers, more than 4,000"):
        read_checkpoint(tmp_path / "net.pth", budget=4000)


def test_keras_2_files_whose_groups_go_in_circles(tmp_path):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = [b"features"]
        group = file.create_group("features")
        for number in range(60):  # two ways to each next one: 2^60 paths
            following = group.create_group(f"a{number}")
            group[f"b{number}"] = following
            group = following
        group["back"] = file["features"]
        group["kernel:0"] = np.ones(3)
    assert len(read_checkpoint(tmp_path / "net.h5").arrays) == 1


@pytest.mark.parametrize("place", ["group", "attribute", "array", "entry"])
def test_names_that_are_not_utf8(tmp_path, place):
    """h5py gives their bytes."""
    with h5py.File(tmp_path / "net.h5", "w") as file:
        if place == "group":
            file.create_group("layers").create_group(b"conv\xff")
        elif place == "attribute":
            h5py.h5a.create(file.id, b"layer_names\xff", h5py.h5t.NATIVE_INT32, h5py.h5s.create(h5py.h5s.SCALAR))
        elif place == "array":
            file.attrs["layer_names"] = [b"features"]
            file.create_group("features")[b"kernel\xff"] = np.ones(3)
        else:
            file[b"numbers\xff"] = np.ones(3)
    with pytest.raises(ValueError, match=r"is an HDF5 file with the name 'b.*\\xff.*', which is not UTF-8 text$"):
        read_checkpoint(tmp_path / "net.h5")


def test_types_that_numpy_has_not(tmp_path):
    with h5py.File(tmp_path / "net.h5", "w") as file:
        variables = file.create_group("layers/conv2d/vars")
        h5py.h5a.create(variables.id, b"name", h5py.h5t.UNIX_D32LE, h5py.h5s.create(h5py.h5s.SCALAR))
        variables["0"] = np.ones(3)
    with pytest.raises(ValueError, match=r"^weights='.*net.h5' cannot be read: No NumPy equivalent"):
        read_checkpoint(tmp_path / "net.h5")


def test_reasons_that_repeat_a_long_name(tmp_path):
    content = bytearray(zipped(**{"n" * 10_000: layer_wise()}))
    content[30] = ord("\r")  # the name in front of the member, not that in the list
    (tmp_path / "net.h5").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read: File name in directory 'nnn") as info:
        read_checkpoint(tmp_path / "net.h5")
    assert len(str(info.value)) < 1000
    assert "\n" not in str(info.value)


def test_too_many_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "MAX_ENTRIES", 5)
    (tmp_path / "net.h5").write_bytes(layer_wise())
    with pytest.raises(ValueError, match="is an HDF5 file of more than 5 groups and arrays"):
        read_checkpoint(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        for number in range(6):
            file.create_group(f"layers/conv{number}")
    with pytest.raises(ValueError, match="with 6 names in one group, more than 5"):
        read_checkpoint(tmp_path / "net.h5")


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (b"\x89HDF\r\n\x1a\n" + zipped(a=b"1"), None),
        (TORCH_SIGNATURE + zipped(a=b"1"), None),
        (b"more" + zipped(a=b"1"), None),
        (zipped(a=b"1", b=b"2"), None),
        (zipped(a=b"1") + zipped(a=b"2"), b"2"),
        (zipped(a=b"1"), b"1"),
    ],
)
def test_an_archives_one_member(content, member):
    """What is hashed is what is loaded: a file that begins as another one is no archive to either."""
    if member is None:
        with (
            pytest.raises(ValueError, match="is not an archive of one file"),
            archives.only_member(io.BytesIO(content)),
        ):
            pass
    else:
        with archives.only_member(io.BytesIO(content)) as file:
            assert file.read() == member


def test_without_pytorch(tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(saved(CADENE))
    monkeypatch.setattr(state_dict, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"PyTorch is not installed: pip install 'torch>=2.6'"):
        read_checkpoint(tmp_path / "net.pth")


def test_heaps_that_hdf5_would_read_for_ever(tmp_path):
    """In HDF5's library this is an endless loop, which no signal ends."""
    with h5py.File(tmp_path / "net.h5", "w") as file:
        variables = file.create_group("layers/conv2d/vars")
        variables.attrs["name"] = "stem_conv1"
        variables["0"] = np.ones(3)
    content = bytearray((tmp_path / "net.h5").read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16 + 16 + 16  # after the heap's own head, and the name with its head
    assert content[free : free + 8] == bytes(8)
    assert read_checkpoint(tmp_path / "net.h5").arrays.keys() == {"stem_conv1/0"}
    content[free + 8 : free + 16] = bytes(8)
    (tmp_path / "net.h5").write_bytes(content)
    with pytest.raises(ValueError, match="is an HDF5 file with a damaged heap"):
        read_checkpoint(tmp_path / "net.h5")
