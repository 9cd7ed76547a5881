"""The table of results: nothing is lost or changed on the way, and what is no such table is left alone."""

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import re
import struct
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from polynet_keras.basics.holding import Hold
from polynet_keras.evaluation import identity, results
from polynet_keras.evaluation.identity import environment, weights_hash
from polynet_keras.evaluation.plots import plot_results
from polynet_keras.evaluation.results import COLUMNS, Result, append, read
from tests.children import Child


def a_result(**fields):
    defaults = {field.name: field.name for field in dataclasses.fields(Result) if field.type is str}
    numbers = {
        "crops": 1,
        "images": 1000,
        "skipped": 0,
        "top1_hits": 905,
        "top5_hits": 999,
        "loss": 0.1 + 0.2,
        "ece": 1 / 3,
        "seconds": 12.5,
        "parameters": 95_366_600,
        "macs": 34_699_000_000,
    }
    return Result(**(defaults | numbers | fields))


AWKWARD = '1 x [ir] | "quoted", é 汉\nsecond line; {"mean": [0.5]}'


def test_rows_come_back_as_they_were(tmp_path):
    rows = [a_result(), a_result(model=AWKWARD, structure="", loss=1e-300, macs=0), a_result(top1_hits=0, top5_hits=0)]
    file = tmp_path / "new" / "results.csv"
    for count, row in enumerate(rows, 1):
        append(row, file)
        assert read(file) == rows[:count]
    assert [type(value) for value in vars(read(file)[0]).values()] == [type(value) for value in vars(rows[0]).values()]
    assert [path.name for path in file.parent.iterdir()] == ["results.csv"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "results.csv").symlink_to("shared/table.csv")
    for count in (1, 2):
        append(a_result(), tmp_path / "results.csv")
        assert (tmp_path / "results.csv").is_symlink()
        assert len(read(tmp_path / "shared" / "table.csv")) == count


def test_derived_columns_follow_from_the_counts(tmp_path):
    append(a_result(images=50_000, top1_hits=40_620, top5_hits=47_800, seconds=400), tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    low, high = binomtest(40_620, 50_000).proportion_ci(0.95, method="wilson")
    found = [float(row[name]) for name in ("top1", "top1_low", "top1_high", "top5", "images_per_second")]
    np.testing.assert_allclose(found, [81.24, 100 * low, 100 * high, 95.6, 125])
    assert tuple(row) == COLUMNS


def test_a_speed_that_was_not_measured(tmp_path):
    append(a_result(seconds=0.0), tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["seconds"], row["images_per_second"]) == ("0.0", "")
    assert read(tmp_path / "results.csv") == [a_result(seconds=0.0)]
    assert (a_result(seconds=0.0).images_per_second, a_result(seconds=0.0).speed) == (None, "not measured")


def test_a_spreadsheet_may_have_saved_it(tmp_path):
    file = tmp_path / "results.csv"
    append(a_result(), file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    append(a_result(crops=10), file)
    assert read(file) == [a_result(), a_result(crops=10)]


def test_files_may_be_named_by_any_path_like_object(tmp_path):
    """Of an `os.DirEntry`, `str` is another text than its path."""
    append(a_result(), str(tmp_path / "results.csv"))
    (entry,) = (entry for entry in os.scandir(tmp_path) if entry.name == "results.csv")
    append(a_result(crops=10), entry)
    assert read(entry) == [a_result(), a_result(crops=10)]
    Path(entry).write_text("")
    with pytest.raises(ValueError, match=f"^{re.escape(entry.path)}: not the columns"):
        read(entry)


def test_a_write_that_fails_leaves_the_older_table(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    append(a_result(), file)

    def fill_the_disk(path, data):
        path.open("wb").close()
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        append(a_result(crops=10), file)
    assert read(file) == [a_result()]


def test_what_another_process_wrote_meanwhile_stays(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    append(a_result(), file)
    monkeypatch.setattr(results, "locked", lambda path: contextlib.nullcontext(Hold(is_lost=True)))
    with pytest.raises(OSError, match="results.csv: another process has written to it; nothing is added"):
        append(a_result(crops=10), file)
    assert read(file) == [a_result()]


def test_names_that_are_not_text(tmp_path):
    append(a_result(dataset="photos\udcff"), tmp_path / "results.csv")
    assert read(tmp_path / "results.csv")[0].dataset == r"photos\udcff"


def test_other_files_are_refused_and_left_as_they_were(tmp_path):
    append(a_result(), tmp_path / "good.csv")
    header, row = (tmp_path / "good.csv").read_text().splitlines()
    cases = {
        "": "lacks date, lacks model, ",
        "name,top1\nresnet,76\n": "it lacks date, .* and 24 more; name another file for new results, and keep this one",
        f"{header},extra\n{row},1\n": "it has extra; name another file",
        f"{header},\n{row},\n": "it has one without a name; ",
        ",".join(reversed(header.split(","))) + "\n": "it has another order; ",
        f"{header}\n{row}\n{row},1\n": f"line 3: {len(COLUMNS) + 1} values; there are {len(COLUMNS)} columns",
        f"{header}\n{row.replace('905', 'many')}\n": "line 2: .*'many'",
        f"{header}\n{row.replace(',999,', ',1001,')}\n": "line 2: top1_hits=905, top5_hits=1001, images=1000",
        f'{header}\n"{"x" * 200_000}"\n': "cannot be read as a table of results: field larger",
    }
    file = tmp_path / "results.csv"
    for content, message in cases.items():
        file.write_text(content)
        for use in (read, lambda file: append(a_result(), file)):
            with pytest.raises(ValueError, match=f"results.csv[:,].*{message}"):
                use(file)
        assert file.read_text() == content
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="results.csv: cannot be read as a table of results: 'utf-8'"):
        read(file)
    with pytest.raises(ValueError, match="none.csv: no such file; `polynet evaluate --results FILE` writes one"):
        read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="cannot be read as a table of results: .*Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"top1_hits": -1},
        {"top1_hits": 1000},
        {"top5_hits": 1001},
        {"images": 0, "top1_hits": 0, "top5_hits": 0},
        {"seconds": -1.0},
        {"seconds": float("nan")},
    ],
)
def test_counts_that_cannot_be(fields):
    with pytest.raises(ValueError, match="must be 0 <= top1_hits <= top5_hits <= images"):
        a_result(**fields)


def test_counts_that_can_be():
    """All images may be among the best five, and a second need not have passed."""
    found = a_result(top1_hits=1000, top5_hits=1000, seconds=0.5)
    assert (found.top1, found.top5, found.images_per_second) == (100, 100, 2000)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.images = 0


def a_net(name="net", activation="relu"):
    layers = [keras.Input((3,)), keras.layers.Dense(2, activation=activation, name=f"{name}_dense")]
    layers += [keras.layers.Dropout(0.5), keras.layers.BatchNormalization(name=f"{name}_norm")]
    return keras.Sequential(layers, name=name)


KERNEL = [[1.0, 2.0], [3.0, 4.0], [5.0, -6.5]]


def test_weights_hash_is_of_dtypes_shapes_and_little_endian_values():
    model = a_net()
    model.layers[0].set_weights([np.array(KERNEL), np.array([0.25, -0.5])])
    digest = hashlib.sha256(b"float32 (3, 2)\n" + struct.pack("<6f", 1, 2, 3, 4, 5, -6.5))
    digest.update(b"float32 (2,)\n" + struct.pack("<2f", 0.25, -0.5))
    for value in (1, 0, 0, 1):  # gamma, beta, moving mean, moving variance
        digest.update(b"float32 (2,)\n" + struct.pack("<2f", value, value))
    assert weights_hash(model) == digest.hexdigest()


def test_weights_hash_knows_no_names_and_no_file_format(tmp_path):
    model = a_net()
    expected = weights_hash(model)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    assert weights_hash(keras.saving.load_model(tmp_path / "model.keras")) == expected
    other = a_net("other", "tanh")
    assert weights_hash(other) != expected
    other.set_weights(model.get_weights())
    assert weights_hash(other) == expected
    other = a_net()
    other.load_weights(tmp_path / "model.weights.h5")
    assert weights_hash(other) == expected


def test_weights_hash_is_the_same_however_arrays_lie_in_memory(monkeypatch):
    model = a_net()
    expected = weights_hash(model)
    to_numpy = keras.ops.convert_to_numpy
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda weight: np.asfortranarray(to_numpy(weight)))
    assert weights_hash(model) == expected


def test_weights_hash_sees_any_change():
    model = a_net()
    hashes = {weights_hash(model)}
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight).copy()
        value.flat[-1] = np.nextafter(value.flat[-1], np.float32(9))
        weight.assign(value)
        hashes.add(weights_hash(model))
    assert len(hashes) == 1 + len(model.weights)


def test_environment(monkeypatch):
    monkeypatch.setattr(identity, "_accelerators", lambda backend: [f"first of {backend}", "second"])
    found = environment()
    assert found["python"] == platform.python_version()
    for package in ("keras", "numpy", "polynet_keras"):
        assert found[package] == importlib.metadata.version(package)
    backend = keras.backend.backend()
    assert found["backend"].split("+")[0] == f"{backend} {importlib.metadata.version(backend)}".split("+")[0]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(found["date"])) < timedelta(hours=1)
    assert found["date"].endswith("+00:00")
    processor = identity._processor(Path("/proc/cpuinfo"))
    assert found["device"] == f"{processor}; first of {backend}; second"
    assert a_result(**found)  # they are fields


def test_device(tmp_path, monkeypatch):
    (tmp_path / "x86").write_text("processor\t: 0\nmodel\t\t: 1\nmodel name\t: A CPU: fast\n\nmodel name\t: Another\n")
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 243.75\n")
    monkeypatch.setattr(identity.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert identity._processor(tmp_path / "x86") == "A CPU: fast, 6 cores"
    assert identity._processor(tmp_path / "arm") == "aarch64, 6 cores"
    assert identity._processor(tmp_path / "none") == "aarch64, 6 cores"
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6")  # as on Windows
    assert identity._processor(tmp_path / "none") == "Intel64 Family 6, 6 cores"
    devices = SimpleNamespace(list_devices=lambda: ["cpu:0", "gpu:0", "gpu:1"])
    monkeypatch.setattr(keras, "distribution", devices)
    assert identity._accelerators("jax") == ["gpu:0", "gpu:1"]
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert identity._accelerators("torch") == ["GPU 0", "GPU 1"]


@pytest.fixture
def figure_of(monkeypatch):
    """Draws results, and gives the figure that would be saved."""
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))

    def figure_of(rows):
        plot_results(rows, "plot.png")
        return drawn[-1]

    return figure_of


def test_plot(figure_of):
    """The points and intervals that are drawn are those of the results, whatever the texts are."""
    figure = figure_of(
        [
            a_result(model="a$^$", dataset="one$_$", macs=100, crops=10, parameters=7),
            a_result(model="b", dataset="two", macs=25, crops=2, parameters=9, top1_hits=500),
            a_result(model="c", dataset="one$_$", macs=0, parameters=5, top1_hits=800),
        ]
    )
    by_macs, by_parameters = figure.axes
    points = [line for line in by_parameters.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([point.get_xydata()[0] for point in points], [(7, 9.5), (9, 50), (5, 20)])
    assert points[0].get_color() == points[2].get_color() != points[1].get_color()
    xs = [
        line.get_xdata()[0] for line in by_macs.lines if line.get_marker() == "o" and np.isfinite(line.get_ydata()[0])
    ]
    assert xs == [1000, 50]
    assert [text.get_text() for text in by_parameters.texts] == ["a$^$, 10 crops", "b, 2 crops", "c"]
    ((low, high),) = (bar.get_segments()[0][:, 1] for bar in by_macs.collections[:1])
    interval = binomtest(905, 1000).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([low, high], [100 - 100 * interval.high, 100 - 100 * interval.low])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one$_$", "two"]


def test_axes_of_the_plot(figure_of):
    """What they show is written at them. They reach from half of the least to twice the most, and share the errors."""
    by_macs, by_parameters = figure_of(
        [a_result(macs=100, parameters=7), a_result(macs=2000, parameters=9), a_result(macs=0, top1_hits=1)]
    ).axes
    assert by_macs.get_xlabel() == "multiply-accumulates of an image, all crops"
    assert by_parameters.get_xlabel() == "parameters"
    assert by_macs.get_ylabel() == "top-1 error in %, 95 % interval"
    assert by_macs.get_xscale() == by_parameters.get_xscale() == "log"
    assert by_macs.get_xlim() == (50, 4000)
    assert by_parameters.get_xlim() == (3.5, 2 * 95_366_600)
    assert by_macs.get_ylim() == by_parameters.get_ylim()
    assert by_macs.get_ylim()[1] > 99.9
    grid = [line for axis in (by_macs.xaxis, by_macs.yaxis) for line in axis.get_gridlines()]
    assert {(line.get_visible(), line.get_alpha()) for line in grid} == {(True, 0.3)}  # fainter than what is drawn


@pytest.mark.parametrize(
    ("most", "labels"),
    [(499, ["5", "10", "20", "50", "100", "200", "500"]), (500, ["10", "100", "1 k"])],
)
def test_ticks_of_the_plot(figure_of, most, labels):
    """Powers of ten; from 5 to under 1000, which is 200 times as much, their double and their fivefold too."""
    figure = figure_of([a_result(macs=10), a_result(macs=most)])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    texts = [label.get_text() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert [text.replace("\N{NARROW NO-BREAK SPACE}", " ") for text in texts] == labels
    assert not len(axes.get_xticks(minor=True))


def test_names_in_the_plot_are_on_the_side_with_more_room(figure_of):
    axes, _ = figure_of([a_result(macs=macs) for macs in (10, 99, 101, 1000)]).axes
    assert [(text.xyann, text.get_ha()) for text in axes.texts] == [((8, 3), "left")] * 2 + [((-8, 3), "right")] * 2


def test_plot_is_a_picture(tmp_path):
    rows = [a_result(model="a$^$", dataset="one$_$"), a_result(macs=0), a_result(macs=1, parameters=1)]
    for count in (1, 3):
        plot_results(rows[:count], tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as picture:
            assert picture.size == (1320, 540)
    with warnings.catch_warnings(action="error"):
        plot_results([a_result(macs=0)], str(tmp_path / "plot.svg"))
    assert "<svg" in Path(tmp_path / "plot.svg").read_text()
    with pytest.raises(ValueError, match="there is no result to draw"):
        plot_results([], tmp_path / "plot.png")
    with pytest.raises(ValueError, match="Format 'txt' is not supported"):
        plot_results(rows, tmp_path / "plot.txt")


def test_plot_needs_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: matplotlib"):
        plot_results([a_result()], tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


APPEND_MANY = """
import sys, time
from pathlib import Path
from polynet_keras.evaluation.results import Result, append

print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
for number in range(15):
    append(Result(**{**eval(sys.argv[3]), "crops": number}), Path(sys.argv[1]))
"""


def test_processes_at_once_lose_no_row(tmp_path):
    file, go = tmp_path / "results.csv", tmp_path / "go"
    rows = [dataclasses.asdict(a_result(model=model)) for model in ("a", "b")]
    processes = [Child(APPEND_MANY, str(file), str(go), repr(row)) for row in rows]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        go.touch()
        for process in processes:
            assert process.wait(60) == 0
    finally:
        for process in processes:
            process.end()
    found = read(file)
    assert len(found) == 30
    for model in ("a", "b"):
        assert [row.crops for row in found if row.model == model] == list(range(15))
