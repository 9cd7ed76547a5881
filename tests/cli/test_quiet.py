"""Standard error of commands, started with next to nothing in the environment: our own lines, and no others."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import polynet_keras
from polynet_keras.cli import main
from polynet_keras.cli.main import COMMANDS

PACKAGE = Path(polynet_keras.__file__).parent.parent
TENSORFLOW = """
import os
os.write(2, b"I0000 00:00:1795996901.128650    2551 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"W0000 00:00:1795996901.128650    2551 allocator.cc:1] level %s\\n" % os.environb[b"TF_CPP_MIN_LOG_LEVEL"])
os.write(2, b"no line feed")
"""
MISTAKES = {
    "train": ["--epochs=many"],
    "launch": [],
    "recipes": ["a", "b"],
    "grow": [],
    "ablation": [],
    "predict": ["--top=x"],
    "explain": [],
    "features": [],
    "evaluate": ["x"],
    "results": ["a", "b"],
    "ensemble": ["a"],
    "export": [],
    "serve": [],
    "records": [],
    "benchmark": [],
    "crops": [],
    "summary": ["x"],
    "card": [],
    "weights": ["a", "b"],
    "convert": [],
    "doctor": ["x"],
    "completion": [],
}
"""By command: what ends it before it imports TensorFlow."""
EACH = """
import sys
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None  # an import is an error
from polynet_keras.cli.main import main
for command, words in {mistakes}.items():
    assert main([command, *words]) == 1
"""


def polynet(*argv, folder, program=None, **variables):
    """Runs a command with an environment of a path and a home only."""
    start = program or "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(PACKAGE), **variables}
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, argv)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_mistake_is_one_line(tmp_path):
    assert MISTAKES.keys() == COMMANDS.keys()
    done = polynet(folder=tmp_path, program=EACH.format(mistakes=MISTAKES))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(COMMANDS)
    assert all(line.startswith("polynet: ") for line in lines)


@pytest.mark.parametrize("level", [None, "0", "3"])
def test_tensorflow_greets_nobody_and_warns(tmp_path, level):
    """Of a TensorFlow that only writes what it writes as it is imported."""
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)
    program = """
import sys
sys.path.insert(0, "")
from polynet_keras.cli import main, results
def run(values, arguments):
    import tensorflow
    print("of Python", file=sys.stderr)
    raise ValueError("a mistake")
results.run = run
sys.exit(main.main(["results"]))
"""
    done = polynet(folder=tmp_path, program=program, **({} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}))
    assert done.returncode == 1
    assert ("oneDNN" in done.stderr) == (level == "0")
    assert f"allocator.cc:1] level {level or 1}\n" in done.stderr
    assert "no line feed" in done.stderr
    assert "of Python\n" in done.stderr
    assert done.stderr.endswith("polynet: a mistake\n")


def test_nor_do_the_processes_that_write_records(tmp_path):
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)
    program = """
import subprocess, sys
from polynet_keras.cli import main
from polynet_keras.data.records import write
def write_records(*_, **__):
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True)
    raise ValueError("a mistake")
write.write_records = write_records
sys.exit(main.main(["records", "photos", "--output=out"]))
"""
    lines = polynet(folder=tmp_path, program=program).stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("allocator.cc:1] level 1")
    assert lines[1] == "no line feedpolynet: a mistake"


@pytest.mark.parametrize(
    ("path", "level", "is_news"),
    [
        (main.__file__, logging.INFO, True),
        (logging.__file__, logging.INFO, False),
        (logging.__file__, logging.WARNING, True),
    ],
)
def test_information_of_other_packages_is_left_out(path, level, is_news):
    assert main._is_news(logging.makeLogRecord({"pathname": path, "levelno": level})) is is_news


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_one_line(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(b"no image")
    small = ["--epochs=1", "--width=0.1", "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]"]
    done = polynet("train", "--data=photos", "--run_dir=run", *small, folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"\npolynet: photos/(cat|dog)/\d.jpg: cannot be read as an image: [^\n]*\n$", done.stderr)


@pytest.mark.slow
def test_real_commands_say_what_is_ours(tmp_path):
    """Training, and using and exporting what was trained."""
    small = ["--epochs=1", "--width=0.1", "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]"]
    ours = re.compile(
        r"digits: 10 classes, .*|       to train on  held out|  (?:\d|all) [ \d,]+|held out: .*|image sizes: .*"
        r"|.*; run folder run|epoch 1/1: .*|--run_dir=run holds no run yet: .*|the first step compiles the network, .*|"
    )
    for argv in (
        ["train", *small, "--run_dir=run"],
        ["predict", "--model=run"],
        ["evaluate", "--model=run"],
        ["export", "--model=run", "--format=onnx", "--output=onnx"],
        ["export", "--model=run", "--format=openvino", "--output=openvino"],
        ["doctor"],
        ["predict", "nowhere.png"],
    ):
        if argv[0] == "predict" and "nowhere.png" not in argv:
            argv += sorted(tmp_path.glob("run/**/*.png"))[:1]
        done = polynet(*argv, folder=tmp_path)
        strange = [line for line in re.split("[\\r\\n]+", done.stderr) if not ours.fullmatch(line)]
        if argv[-1] == "nowhere.png":
            assert done.returncode == 1
            assert [line.partition(" ")[0] for line in strange] == ["polynet:"]
        else:
            assert done.returncode == 0, done.stderr
            assert strange == [], argv


@pytest.mark.slow
def test_workers_of_a_launch_say_what_is_ours(tmp_path):
    small = ["--epochs=1", "--width=0.1", "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--run_dir=run"]
    done = polynet("launch", "--workers=2", "--", "train", *small, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"oneDNN|cudart|InitializeLog|cuInit", done.stderr + done.stdout)
    assert not re.search(r"^(?:\[?\w+\]?:? *)?I\d{4} ", done.stderr, re.MULTILINE)
