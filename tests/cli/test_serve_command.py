"""`polynet serve` as a process: the line that says where it is, the end by a signal, and one line for each mistake."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from sklearn.datasets import load_sample_image

from polynet_keras.deployment.artifact import ExportCard, verify_files
from tests.children import Child
from tests.cli.outcomes import fails, succeeds
from tests.deployment.exported import exported
from tests.deployment.test_service import CHINA, encoded

SECONDS = 60


@pytest.fixture
def started():
    """Starts the command; what is still there after a minute, or in the end, is killed."""
    processes = []

    def start(*arguments, before="", first="ready: http://127.0.0.1:"):
        script = f"{before}import sys; from polynet_keras.cli.main import main; sys.exit(main())"
        process = Child(script, "serve", *map(str, arguments))
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        processes.append((process, timer))
        line = process.stdout.readline()
        assert line.startswith(first), line
        return process, line.split()[-1]

    yield start
    for process, timer in processes:
        timer.cancel()
        process.end()


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refused(url):
    try:
        httpx.get(url)
    except httpx.TransportError:
        return True
    return False


def test_it_serves_until_it_is_told_to_end(started):
    folder, _ = exported()
    flags = ("--port=0", "--max_pixels=300000", "--name=flowers", "--access_log=-", "--access_log_format=json")
    process, url = started(folder, *flags)
    assert httpx.get(f"{url}v1/model").json()["name"] == "flowers"
    assert 'polynet_model_info{format="openvino",name="flowers",precision="float32"} 1.0' in (
        httpx.get(f"{url}metrics").text
    )
    assert httpx.get(f"{url}readyz").status_code == 200
    answer = httpx.post(f"{url}v1/classify", content=CHINA).json()
    assert (answer["model"], len(answer["top"])) == ("flowers", 5)
    large = encoded(load_sample_image("china.jpg").repeat(2, axis=0))
    assert httpx.post(f"{url}v1/classify", content=large).status_code == 413

    # A request is on its way when the signal comes: it is answered, and then the process ends well.
    port = int(url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CHINA)}\r\n\r\n"
        connection.sendall(head.encode() + CHINA[:-10])
        until(lambda: "polynet_buffered_bytes 0.0" not in httpx.get(f"{url}metrics").text)
        process.send_signal(signal.SIGTERM)
        until(lambda: refused(f"{url}healthz"))  # new ones, from then on
        connection.sendall(CHINA[-10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert process.wait(30) == 0
    lines = [json.loads(line) for line in process.stdout.read().splitlines()]
    asked = [(line["path"], line["status"]) for line in lines if line["path"] in ("/v1/model", "/v1/classify")]
    said = process.stderr.read()
    assert "flowers: openvino, float32, loaded" in said
    assert "ready" not in said  # once, on standard output
    assert asked == [("/v1/model", 200), ("/v1/classify", 200), ("/v1/classify", 413), ("/v1/classify", 200)]


HANGING = """
import time
from polynet_keras.deployment.serving import server, service

def load(*arguments):
    run = load_artifact(*arguments)
    return lambda images: time.sleep(3600) if images[0].std((0, 1)).max() > 0.01 else run(images)

load_artifact, server.load_artifact = server.load_artifact, load
service.END_SECONDS = 0.2
"""


FAILING = """
from polynet_keras.deployment.serving import server

def load(*arguments):
    run = load_artifact(*arguments)

    def failing(images):
        if images[0].std((0, 1)).max() > 0.01:
            raise RuntimeError("out of order")
        return run(images)

    return failing

load_artifact, server.load_artifact = server.load_artifact, load
"""


LOADING = """
import os, time
from polynet_keras.deployment.serving import server, service

def load(*arguments):
    print("weights frozen:", os.environ["TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"], flush=True)
    time.sleep({seconds})
    return load_artifact(*arguments)

load_artifact, server.load_artifact = server.load_artifact, load
service.END_SECONDS = {patience}
"""


@pytest.mark.parametrize(("seconds", "patience", "code"), [(0.5, 60, 0), (3600, 0.2, 1)])
def test_told_to_end_while_the_model_is_loaded(started, seconds, patience, code):
    folder, _ = exported()
    before = LOADING.format(seconds=seconds, patience=patience)
    process, value = started(folder, "--port=0", before=before, first="weights frozen: ")
    assert value == "1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == code
    assert process.stdout.read() == ""


def test_told_to_end_before_the_server_listens(started):
    folder, _ = exported()
    before = """
import os, signal
import uvicorn
run = uvicorn.Server.run

def early(*arguments, **options):
    print("told", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    run(*arguments, **options)

uvicorn.Server.run = early
"""
    process, _ = started(folder, "--port=0", before=before, first="told")
    assert process.wait(60) == 0
    assert process.stdout.read() == ""


def test_it_ends_without_a_model_that_hangs(started):
    folder, _ = exported()
    process, url = started(folder, "--port=0", "--timeout=0.5", before=HANGING)
    assert httpx.post(f"{url}v1/classify", content=CHINA).json()["error"] == "no answer within 0.5 s"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1


def test_mistakes_are_one_line(capsys, tmp_path):
    folder, _ = exported()
    assert "expected one MODEL_DIR, the folder that `polynet export` wrote; got 0" in fails(capsys, "serve")
    assert "is a folder without model.keras (of a run) and card.json (of" in fails(capsys, "serve", str(tmp_path))
    (tmp_path / "card.json").write_text("{}")
    assert "card.json: not the card of an exported model" in fails(capsys, "serve", str(tmp_path))
    shutil.copy(folder / "card.json", tmp_path)
    assert "model.xml: no such file, which the card beside it describes" in fails(capsys, "serve", str(tmp_path))
    os.mkdir(tmp_path / "1")
    (tmp_path / "1" / "model.xml").write_text("no model")
    assert "model.xml: cannot be loaded as openvino" in fails(capsys, "serve", str(tmp_path), "--port=0")
    for flag, message in (
        ("--port=70000", "--port=70000 must be an integer from 0 to 65535"),
        ("--port=x", "--port=x"),
        ("--host=none.invalid", "cannot listen on none.invalid port 8000: "),
        ("--max_queue=0", "max_queue=0 must be at least 1"),
        ("--timeout=0", "timeout=0.0 must be a number of seconds above 0"),
        ("--max_pixels=7000", "max_pixels=7000 must be at least 7396"),
        ("--max_crops=144", "max_queue=128 is less than max_crops=144"),
        ("--name=", "--name='' must be 1 to 500 printable characters"),
        ("--name=a\nb", r"--name='a\nb' must be 1 to 500 printable characters"),
        ("--access_log=no/log", "--access_log='no/log' cannot be written: No such file or directory"),
        ("--access_log_format=json", "--access_log_format='json' needs an access log; name its file with access_log"),
        ("--access_log_format=xml", "--access_log_format='xml' must be one of combined, json"),
        ("--forwarded_allow_ips=proxy", "--forwarded_allow_ips='proxy' is not an IP address or network ('proxy'"),
        (
            "--forwarded_allow_ips=10.0.0.1/8",
            "--forwarded_allow_ips='10.0.0.1/8' is not an IP address or network (10",
        ),
        ("--forwarded_allow_ips=10.0.0.1,*", "--forwarded_allow_ips='*' is not an IP address or network"),
    ):
        assert message in fails(capsys, "serve", str(folder), flag)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = fails(capsys, "serve", str(folder), f"--port={port}")
        assert f"cannot listen on 127.0.0.1 port {port}: it is in use; --port=0 takes any free one" in told


def test_what_is_no_export_is_told_how_to_become_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "my photos"
    run.mkdir(parents=True)
    (run / "model.keras").touch()
    for given, kind, arguments in (
        ("runs/my photos", "a run folder", "'--model=runs/my photos' '--output=my photos-export'"),
        ("runs/my photos/model.keras", "a .keras file", "'--model=runs/my photos/model.keras' --output=model-export"),
        ("fashion_mnist", "a published checkpoint", "--model=fashion_mnist --output=fashion_mnist-export"),
    ):
        told = f"{given} is {kind}, not an export; export it first: polynet export {arguments}"
        assert fails(capsys, "serve", given) == f"polynet: {told}"
    told = fails(capsys, "serve", "nope")
    assert told == "polynet: nope does not exist; this exports the newest run to it: polynet export --output=nope"


WITHOUT_KERAS = """
import contextlib, io, os, signal, socket, sys
from polynet_keras.cli.main import main
from polynet_keras.deployment import serve

folder, told = sys.argv[1], io.StringIO()
with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.redirect_stderr(told):
    assert main(["serve", folder, f"--port={taken.getsockname()[1]}"]) == 1
assert "it is in use" in told.getvalue()
assert "openvino" not in sys.modules
serve(folder, port=0, on_ready=lambda url: os.kill(os.getpid(), signal.SIGTERM))
assert "openvino" in sys.modules
assert not {"keras", "tensorflow"} & sys.modules.keys()
"""


def test_a_port_that_is_taken_is_told_first_and_a_service_of_openvino_needs_no_keras():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, str(exported()[0])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_card_of_another_model(capsys, tmp_path):
    folder, _ = exported()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    card = (tmp_path / "card.json").read_text().replace('"class 9"\n', '"class 9", "class 10"\n')
    (tmp_path / "card.json").write_text(card)
    told = fails(capsys, "serve", str(tmp_path), "--port=0")
    reason = "it returns 1 x 10 numbers for 1 image, but its card names 11 classes; export it again"
    assert f"{tmp_path}: the model cannot answer a request: {reason}" in told


def test_a_card_whose_hashes_are_none(capsys, tmp_path):
    folder, _ = exported()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    values = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**values, "files": ["1/model.bin"]}))
    told = fails(capsys, "serve", str(tmp_path), "--verify")
    assert "card.json: not the card of an exported model: files=['1/model.bin'] must be an object of" in told


@pytest.mark.parametrize("name", [r'"\udcff"', "3", "null"])
def test_a_card_with_a_name_that_no_answer_can_have(capsys, tmp_path, name):
    folder, _ = exported()
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    card = (tmp_path / "card.json").read_text().replace('"class 9"', name)
    (tmp_path / "card.json").write_text(card)
    told = fails(capsys, "serve", str(tmp_path), "--port=0")
    assert "card.json: not the card of an exported model: class_names[9]=" in told
    assert "must be a text of 1 to 500 characters that UTF-8 can write" in told


def test_a_failure_is_in_the_log_with_its_cause(started):
    """As a process writes it, by the name that the client got."""
    folder, _ = exported()
    process, url = started(folder, "--port=0", before=FAILING)
    response = httpx.post(f"{url}v1/classify", content=CHINA)
    assert response.status_code == 500
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = process.stderr.read()
    assert f"error: failure {response.json()['failure']}: the model failed on this batch\n" in log
    assert ", in failing\nRuntimeError: out of order" in log


def test_files_that_are_not_what_was_exported(capsys, tmp_path):
    """Changed, missing, added, and a card of before there were hashes; without --verify nobody looks."""

    def copy(change):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(exported()[0], folder)
        change(folder)
        return str(folder)

    def without_hashes(folder):
        card = ExportCard.load(folder)
        dataclasses.replace(card, files={}).save(folder)

    for change, message in (
        (lambda folder: (folder / "1/model.bin").write_bytes(b""), "1/model.bin: differs from what card.json says"),
        (lambda folder: (folder / "1/model.bin").unlink(), "1/model.bin: is missing, but in what card.json says"),
        (lambda folder: (folder / "1/more").touch(), "1/more: is not in what card.json says was exported"),
        (lambda folder: (folder / "1/link").symlink_to("/dev/null"), "1/link: is not a plain file"),
        (lambda folder: os.mkfifo(folder / "1/fifo"), "1/fifo: is not a plain file"),
        (without_hashes, "card.json: names no hashes of its files, so nothing can be verified; export it again"),
    ):
        assert message in fails(capsys, "serve", copy(change), "--verify", "--port=0")
    card = ExportCard.load(exported()[0])
    verify_files(copy(lambda folder: None), card)
    assert set(card.files) == {"1/model.bin", "1/model.xml"}
    assert card.files["1/model.bin"] == hashlib.sha256((exported()[0] / "1/model.bin").read_bytes()).hexdigest()


def test_all_missing_extras_are_named_at_once(capsys, monkeypatch):
    folder = str(exported()[0])
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    packages = ["pillow", "fastapi", "prometheus-client", "python-multipart", "starlette", "uvicorn", "openvino"]
    assert fails(capsys, "serve", folder) == (
        f"polynet: not installed: {', '.join(packages)}; the extras `serve` and `deploy` have them: "
        f"pip install {' '.join(packages)}"
    )
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None if module == "PIL" else module)
    assert "not installed: pillow; the extra `serve` has it" in fails(capsys, "serve", folder)


def test_help_has_every_limit(capsys):
    told = succeeds(capsys, "serve", "--helpfull")
    assert "MODEL_DIR holds a program, which runs when it is loaded: serve only what you exported or trust." in told
    for text in (
        "Largest number of pixels of an image, by its header and after resizing.",
        "--port",
        "--max_queue",
        "--timeout",
    ):
        assert text in " ".join(told.split())
