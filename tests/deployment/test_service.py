"""The service over real connections: what it answers, what it refuses and how, and what it survives."""

import asyncio
import contextlib
import dataclasses
import gc
import io
import json
import logging
import select
import socket
import struct
import threading
import time
import weakref
import zlib
from pathlib import Path

import h11
import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.data.crops import crop_plan, least_side
from polynet_keras.data.image_files import decode_image, read_image
from polynet_keras.data.image_headers import MAX_PIXELS
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.deployment.serving import bodies, classification, preparation
from polynet_keras.deployment.serving.classification import Classifier
from polynet_keras.deployment.serving.refusal import RefusalError
from polynet_keras.deployment.serving.server import listen
from polynet_keras.deployment.serving.service import Service
from polynet_keras.deployment.serving.settings import ServingSettings
from polynet_keras.evaluation.pooling import pool
from tests.data.hostile import hostile_images
from tests.deployment.exported import CLASSES, exported, protocol
from tests.deployment.running import running
from tests.reference import views_of, watched_calls
from tests.waiting import wait_until

NAMES = [f"class {i}" for i in range(CLASSES)]


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, **options)
    return file.getvalue()


CHINA, FLOWER = (encoded(load_sample_image(f"{name}.jpg"), quality=90) for name in ("china", "flower"))


@pytest.fixture(autouse=True)
def _fresh_names():
    """No layer is named here: the session is not cleared, which takes a while where TensorFlow is."""
    return


def is_photograph(images):
    """And not the image of one colour with which the service tries the model."""
    return np.ptp(images, axis=(1, 2)).max() > 0.01


class Gate:
    """A model that waits until it is told, and raises while `broken`."""

    def __init__(self):
        self.open, self.entered, self.broken = threading.Event(), threading.Event(), False
        self.batches = []

    def __call__(self, images):
        if not is_photograph(images):  # warming up
            return np.full((len(images), CLASSES), 0.1, "float32")
        self.batches.append(len(images))
        self.entered.set()
        assert self.open.wait(30)
        if self.broken:
            raise RuntimeError("out of order")
        return np.eye(CLASSES, dtype="float32")[np.zeros(len(images), int)]


@pytest.fixture(scope="module")
def service():
    with running(header_timeout=0.5, body_timeout=0.5, max_bytes=300_000, max_batch_bytes=600_000, max_images=4) as it:
        yield it


def said(response, status):
    """The reason of a refusal, which has the status."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    return response.json()["error"]


# --- Answers ---


@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_are_those_of_predict(tmp_path, channels):
    """Of Keras, prepared as `polynet predict` does it, on photographs of several kinds."""
    _, model = exported(channels)
    photograph = load_sample_image("flower.jpg")
    files = {
        "china.jpg": CHINA,
        "flower.jpg": FLOWER,
        "tall.png": encoded(np.rot90(photograph)[:, 100:300], "PNG"),
        "tiny.png": encoded(photograph[100:130, 200:220], "PNG"),
        "large.webp": encoded(np.asarray(Image.fromarray(photograph).resize((1900, 1300))), "WEBP"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    inputs = [protocol(channels)(read_image(tmp_path / name, channels)) for name in files]
    expected = model.predict_on_batch(np.stack(inputs))
    assert np.ptp(expected, axis=0).max() > 0.1  # the images differ, for this net
    with running(channels=channels) as it:
        for row, content in zip(expected, files.values(), strict=True):
            answer = it.client.post("/v1/classify", content=content, params={"top": CLASSES}).json()
            assert answer["model"] == "small"
            order = [NAMES.index(one["class"]) for one in answer["top"]]
            found = [one["probability"] for one in answer["top"]]
            assert sorted(order) == list(range(CLASSES))
            assert found == sorted(found, reverse=True)
            np.testing.assert_allclose(found, row[order], atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resize": "shorter_side", "interpolation": "bicubic"},
        {"antialias": False},
        {"channel_order": "BGR"},
        {"decoding": "scaled"},
    ],
)
@pytest.mark.parametrize("crops", [1, 10, 144])
def test_preparation_is_the_protocol(options, crops):
    preprocessing = protocol(**options)
    found, size, _ = preparation.prepare(CHINA, "image", preparation.for_service(preprocessing), crops, 10**6)
    pixels = decode_image(CHINA, 3, "", least_side=least_side(preprocessing, crops))
    expected = preprocessing.normalize(views_of(pixels, preprocessing, crops))
    assert size == (427, 640)
    np.testing.assert_allclose(found, expected, atol=2e-4)  # 0.01 of 255, on the normalized scale


def test_crops_vote_and_are_pooled_as_evaluation_does(service):
    _, model = exported()
    answer = service.client.post("/v1/classify?crops=10&top=3", content=CHINA).json()
    pixels = np.asarray(Image.open(io.BytesIO(CHINA)))
    votes = model.predict_on_batch(protocol().normalize(views_of(pixels, protocol(), 10)))
    pooled = pool(np.log(votes)[np.newaxis])[0]
    best = np.argsort(-pooled)[:3]
    assert [one["class"] for one in answer["top"]] == [NAMES[i] for i in best]
    np.testing.assert_allclose([one["probability"] for one in answer["top"]], pooled[best], atol=1e-3)
    assert answer["image"] == {"width": 640, "height": 427}
    assert [crop["class"] for crop in answer["crops"]] == [NAMES[i] for i in votes.argmax(axis=1)]
    np.testing.assert_allclose([crop["probability"] for crop in answer["crops"]], votes.max(axis=1), atol=1e-3)
    np.testing.assert_allclose([crop["probabilities"] for crop in answer["crops"]], votes[:, best], atol=1e-3)
    assert [crop["mirrored"] for crop in answer["crops"]] == [False] * 5 + [True] * 5
    # The protocol brings 640 x 427 to 86 x 86 and cuts 75 x 75 of it.
    right, bottom = round(640 * 75 / 86, 2), round(427 * 75 / 86, 2)
    assert answer["crops"][0]["box"] == {"left": 0, "top": 0, "right": right, "bottom": bottom}
    assert answer["crops"][3]["box"] == {
        "left": round(640 * 11 / 86, 2),
        "top": round(427 * 11 / 86, 2),
        "right": 640,
        "bottom": 427,
    }


def test_boxes_are_of_the_upright_image(service):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(file, "JPEG", exif=exif)
    answer = service.client.post("/v1/classify?crops=10", content=file.getvalue()).json()
    assert answer["image"] == {"width": 427, "height": 640}
    assert max(crop["box"]["bottom"] for crop in answer["crops"]) == 640


def test_144_crops_where_the_limits_allow_them():
    with running(max_crops=144, max_queue=144) as it:
        assert len(it.client.post("/v1/classify?crops=144", content=FLOWER).json()["crops"]) == 144
        assert it.metric("queue_length") == 0


def test_forms_and_raw_bodies_are_the_same(service):
    raw = service.client.post("/v1/classify", content=CHINA).json()
    for kind in ("image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "IMAGE/*; q=1"):
        assert service.client.post("/v1/classify", content=CHINA, headers={"content-type": kind}).json() == raw
    form = service.client.post("/v1/classify", files={"photo": ("c.jpg", CHINA)}, data={"other": "field"})
    assert form.json() == raw
    chunked = service.client.post("/v1/classify", content=(CHINA[i : i + 5000] for i in range(0, len(CHINA), 5000)))
    assert chunked.json() == raw


def test_a_batch_has_a_result_or_an_error_for_each_in_order(service):
    files = [("a", ("c.jpg", CHINA)), ("b", ("text.txt", b"text")), ("a", ("f.jpg", FLOWER)), ("x", ("e.png", b""))]
    answer = service.client.post("/v1/classify/batch?top=1", files=files)
    assert answer.status_code == 200
    first, second, third, fourth = answer.json()["results"]
    for result, content in ((first, CHINA), (third, FLOWER)):
        alone = service.client.post("/v1/classify?top=1", content=content).json()
        assert result["top"][0]["class"] == alone["top"][0]["class"]
        assert result["top"][0]["probability"] == pytest.approx(alone["top"][0]["probability"], abs=1e-5)
    assert (first["name"], third["name"]) == ("c.jpg", "f.jpg")
    assert (second["status"], second["name"]) == (400, "text.txt")
    assert "its format is not one of JPEG, PNG" in second["error"]
    assert fourth["error"] == "e.png: cannot be read as an image: it is empty"
    crops = service.client.post("/v1/classify/batch?crops=10", files=[("a", ("c.jpg", CHINA))]).json()["results"]
    assert len(crops[0]["crops"]) == 10


def test_the_card_the_description_and_health(service):
    model = service.client.get("/v1/model").json()
    assert (model["name"], model["class_names"]) == ("small", NAMES)
    assert model["preprocessing"] == json.loads(json.dumps(dataclasses.asdict(protocol())))
    assert service.client.get("/healthz").json() == {"status": "alive"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    assert service.client.head("/readyz").status_code == 200
    description = service.client.get("/openapi.json").json()
    described = description["paths"]
    assert {"/v1/classify", "/v1/classify/batch", "/v1/model", "/healthz", "/readyz", "/metrics"} == set(described)
    schema = described["/v1/model"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    schemas = description["components"]["schemas"]
    assert schema == {"$ref": "#/components/schemas/ExportCard"}
    assert schemas["ExportCard"]["properties"].keys() == model.keys()
    assert schemas["Preprocessing"]["properties"].keys() == model["preprocessing"].keys()
    page = service.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere


def test_metrics_count(service):
    before = {name: service.metric(name) for name in ("images_total", "batch_size_sum", "model_seconds_total")}
    codes = {code: service.metric("requests_total", path="/v1/classify", code=code) for code in ("200", "400")}
    service.client.post("/v1/classify?crops=10", content=CHINA)
    service.client.post("/v1/classify", content=b"text")
    assert service.metric("images_total") == before["images_total"] + 1
    assert service.metric("batch_size_sum") == before["batch_size_sum"] + 10
    assert service.metric("model_seconds_total") > before["model_seconds_total"]
    for code, count in codes.items():
        assert service.metric("requests_total", path="/v1/classify", code=code) == count + 1
    service.client.get("/any/path")
    text = service.client.get("/metrics").text
    for line in ("polynet_queue_length 0.0", "polynet_ready 1.0", "polynet_buffered_bytes 0.0", 'path="other"'):
        assert line in text
    assert "polynet_request_seconds_bucket" in text
    assert 'polynet_rejected_total{reason="client"}' in text


# --- Refusals ---


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image(service):
    for image in hostile_images():
        response = service.client.post("/v1/classify", content=image.encoded)
        if image.pixels is not None and response.status_code == 200:
            continue
        reason = said(response, response.status_code)
        assert response.status_code in (400, 413, 422), image.name
        assert reason.startswith("image: ")
    assert said(service.client.post("/v1/classify"), 400) == "image: cannot be read as an image: it is empty"
    half = service.client.post("/v1/classify", content=CHINA[: len(CHINA) // 2])
    assert "cannot be read as an image" in said(half, 400)
    # A format that Pillow hands to another program.
    said(service.client.post("/v1/classify", content=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 400)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_service_sees_what_files_hold(channels):
    """Of what it reads, the pixels that a file is known to have; what it refuses has its code and reason."""
    plain = preparation.for_service(Preprocessing(8, 8, (0.0,) * channels, (1.0,) * channels))
    for image in hostile_images():
        if image.pixels is None:
            with pytest.raises(RefusalError, match=f"^image: .*{image.reason}") as refused:
                preparation.prepare(image.encoded, "image", plain, 1, MAX_PIXELS)
            assert refused.value.status == (413 if image.reason == "limit" else 400), image.name
        else:
            views, size, _ = preparation.prepare(image.encoded, "image", plain, 1, MAX_PIXELS)
            assert size == image.pixels.shape[:2]
            np.testing.assert_allclose(views[0], plain(image.pixels_of(channels)), atol=1e-6, err_msg=image.name)


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header(service, monkeypatch):
    monkeypatch.setattr("PIL.Image.open", None)  # no decoder is asked
    reason = said(service.client.post("/v1/classify", content=png_header(5001, 5000)), 413)
    assert reason == "image: 5001 x 5000 px is over the limit of 25,000,000 pixels"
    reason = said(service.client.post("/v1/classify", content=png_header(100_000, 100_000)), 413)
    assert reason == "image: 100000 x 100000 px is over the limit of 25,000,000 pixels"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00"
    reason = said(service.client.post("/v1/classify", content=CHINA[:-2] + 400 * scan), 413)
    assert "scans is over the limit of 100" in reason


@pytest.mark.parametrize("crops", [1, 10, 144])
def test_an_images_crops_are_planned_once(monkeypatch, crops):
    plans = watched_calls(monkeypatch, crop_plan, preparation.__name__, "polynet_keras.data.crops")
    preparation.prepare(CHINA, "china", preparation.for_service(protocol()), crops, MAX_PIXELS)
    assert [size for *size, _, _ in plans] == [[427, 640]]


def test_an_image_too_narrow_for_its_crops():
    with running(max_crops=144, max_queue=144) as it:
        line = encoded(np.zeros((1, 20_000, 3), "uint8"), "PNG")
        reason = said(it.client.post("/v1/classify?crops=144", content=line), 422)
        assert "20000 x 1 px with the shorter side brought to 86 is too large" in reason


def test_an_image_that_would_be_too_large_when_resized(monkeypatch):
    """A line of a hundred bytes, which the limit on the file's own pixels lets pass."""
    preprocessing = preparation.for_service(protocol(resize="shorter_side"))
    monkeypatch.setattr(preparation, "views", None)  # nothing is resized
    line = encoded(np.zeros((400, 4, 3), "uint8"), "PNG")
    for crops, size in ((1, "86 x 8600"), (10, "86 x 8600"), (144, "118 x 11800")):
        with pytest.raises(RefusalError) as refused:
            preparation.prepare(line, "line", preprocessing, crops, 700_000)
        assert refused.value.status == 422
        sizes = f"line: 4 x 400 px, resized to {size} px for its crops, is over the limit of 700,000 pixels"
        assert refused.value.reason == sizes


def test_queries_out_of_range(service):
    for query, reason in (
        ("crops=2", "crops=2 must be one of 1, 10, 144"),
        ("crops=144", "crops=144 is over the limit of 10"),
        ("crops=many", "crops=many: Input should be a valid integer"),
        ("top=0", "top=0: Input should be greater than or equal to 1"),
        ("top=x", "top=x: Input should be a valid integer"),
        ("topk=3", "topk is not a parameter of this path; known are crops, top"),
        ("top=2&top=3", "top is given 2 times"),
    ):
        assert reason in said(service.client.post(f"/v1/classify?{query}", content=CHINA), 422)


def test_a_batch_that_the_queue_never_takes():
    with running(max_queue=16) as it:
        files = [("a", ("c.jpg", CHINA))] * 2
        reason = said(it.client.post("/v1/classify/batch?crops=10", files=files), 422)
        assert reason == "2 images with 10 crops exceed the queue's limit of 16"


def test_methods_paths_and_kinds(service):
    response = service.client.get("/v1/classify")
    assert said(response, 405) == "GET is not allowed for this path"
    assert response.headers["allow"] == "POST"
    assert said(service.client.post("/metrics", content=CHINA), 405) == "POST is not allowed for this path"
    assert said(service.client.get("/none"), 404) == "no such path; POST an image to /v1/classify"
    for kind in ("application/json", "text/plain", "video/mp4"):
        response = service.client.post("/v1/classify", content=CHINA, headers={"content-type": kind})
        assert said(response, 415).startswith(f"Content-Type: {kind} is not accepted")
    response = service.client.post("/v1/classify", content=CHINA, headers={"content-encoding": "gzip"})
    assert said(response, 415) == "Content-Encoding: gzip is not accepted; send the file as it is"
    assert "a batch is multipart/form-data" in said(service.client.post("/v1/classify/batch", content=CHINA), 415)


def test_forms_that_are_none(service):
    form = {"content-type": "multipart/form-data; boundary=x"}
    post = service.client.post
    assert "Missing boundary" in said(post("/v1/classify", headers={"content-type": "multipart/form-data"}), 400)
    assert said(post("/v1/classify", headers=form, content=b"none"), 400).startswith("the form cannot be read")
    assert said(post("/v1/classify", headers=form, content=b"--x--\r\n"), 400) == "the form has no file"
    two = [("a", ("c.jpg", CHINA)), ("b", ("f.jpg", CHINA))]
    assert "Too many files. Maximum number of files is 1" in said(post("/v1/classify", files=two), 400)
    content = b'--x\r\nContent-Disposition: form-data; name="a"; filename="\\ud800"\r\n\r\nnone\r\n--x--\r\n'
    for charset in ("raw_unicode_escape", "undefined", "latin-1"):
        odd = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
        reason = f"Content-Type: charset={charset} is not accepted; send the form in utf-8"
        for path in ("/v1/classify", "/v1/classify/batch"):
            assert said(post(path, headers=odd, content=content), 415) == reason
    for charset in ("UTF-8", '"utf8"'):
        usual = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
        assert post("/v1/classify/batch", headers=usual, content=content).status_code == 200
    five = [("a", ("c.jpg", b"x"))] * 5
    assert "Maximum number of files is 4" in said(post("/v1/classify/batch", files=five), 400)


def test_bytes_over_the_limit(service):
    large, limit = bytes(400_000), "the body is over the limit of 300,000 bytes"
    assert said(service.client.post("/v1/classify", content=large), 413) == limit
    chunks = (bytes(1000) for _ in range(400))
    assert said(service.client.post("/v1/classify", content=chunks), 413) == limit
    assert "over the limit of" in said(service.client.post("/v1/classify", files={"a": ("a.png", large)}), 413)
    two = [("a", ("a.png", large)), ("b", ("b.png", large))]
    assert "over the limit of 600,000 bytes" in said(service.client.post("/v1/classify/batch", files=two), 413)
    one = service.client.post("/v1/classify/batch", files=[two[0], ("c", ("c.jpg", CHINA))]).json()["results"]
    assert one[0]["error"] == "a.png: 400,000 bytes are over the limit of 300,000"
    assert one[1]["top"]


def test_all_bodies_together_are_limited():
    with (
        running(Gate(), max_bytes=200_000, max_batch_bytes=200_000, max_buffered_bytes=200_000) as it,
        socket.create_connection(("127.0.0.1", it.port), timeout=30) as other,
    ):
        it.service._batcher._run.open.set()
        other.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 190000\r\n\r\n" + bytes(150_000))
        wait_until(lambda: it.metric("buffered_bytes") >= 100_000, "the body arrives")
        response = it.client.post("/v1/classify", content=CHINA)
        assert "too many requests are arriving: their bodies exceed 200,000 bytes" in said(response, 503)
        assert response.headers["retry-after"]
        other.close()
        wait_until(lambda: not it.metric("buffered_bytes"), "the body is let go of")
        assert it.client.post("/v1/classify", content=CHINA).status_code == 200
        assert it.metric("requests_total", path="/v1/classify", code="499") == 1


# --- Slow and malformed clients, on sockets ---


def received(connection, seconds=30):
    """All that comes until the other side closes the connection, within so many seconds."""
    deadline, answer = time.monotonic() + seconds, b""
    while data := connection.recv(65536):
        answer += data
        assert time.monotonic() < deadline, f"the connection is open after {seconds} s: {answer[-200:]}"
    return answer


def spoken(service, *parts):
    """What comes back for these bytes until the service closes the connection: status, headers, and the reason."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        answer = received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    return int(lines[0].split()[1]), lines[1:], json.loads(body)["error"] if body else ""


def test_a_head_that_does_not_arrive(service):
    for start in (b"", b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        status, headers, reason = spoken(service, start)
        assert (status, reason) == (408, "the head did not arrive within 0.5 s")
        assert "connection: close" in headers


def test_a_head_that_comes_a_byte_at_a_time(service):
    """Each byte is in time, the head is not."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.05) as connection:
        answer = b""
        for byte in b"GET / HTTP/1.1\r\nX-Slow: " + 1000 * b"a":  # 50 s of them
            with contextlib.suppress(TimeoutError):
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)
                break
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_does_not_arrive(service):
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    status, headers, reason = spoken(service, head, b"start of")
    assert (status, reason) == (408, "the body did not arrive within 0.5 s")
    assert "connection: close" in headers
    form = (
        b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nContent-Type: multipart/form-data; boundary=x"
    )
    assert spoken(service, form, b"\r\n\r\n--x\r\n")[0] == 408


def test_a_second_request_that_does_not_arrive(service):
    """Who is silent after an answer is not told so: it could be taken for the answer to the next request."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            data = connection.recv(65536)
            assert data, f"the connection was closed after {answer}"
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /heal")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_a_refused_body_is_not_read_forever(service, monkeypatch):
    monkeypatch.setattr("polynet_keras.deployment.serving.connections.DISCARD_SECONDS", 0.2)
    head = b"POST /none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head)
        answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert answer.endswith(b'/v1/classify"}')


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 9000 + b"\r\n\r\n", 400),
        (b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 431),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_no_http(service, request_, status):
    found, _, reason = spoken(service, request_)
    assert found == status
    assert reason.startswith("no valid HTTP request: ")


def test_connections_are_limited():
    """Of those that are being answered none has to go; who comes is refused."""
    gate = Gate()
    with running(gate, max_connections=3) as it:
        waiting = [in_thread(post_alone, it) for _ in range(3)]
        wait_until(lambda: it.metric("queue_length") == 3, "three are being answered")
        status, headers, reason = spoken(it)
        assert (status, reason) == (503, "more than 3 connections")
        assert "retry-after: 1" in headers
        gate.open.set()
        assert [one().status_code for one in waiting] == [200] * 3
        assert it.client.get("/healthz").status_code == 200


def test_silent_connections_keep_nobody_out():
    """The oldest has to go, of the client that has most of them; one that is answered stays, whatever others do."""
    gate = Gate()
    head = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n"
    with running(gate, max_connections=8) as it, contextlib.ExitStack() as stack:
        answered = in_thread(post_alone, it)
        assert gate.entered.wait(30)

        def connect(source):
            address = ("127.0.0.1", it.port)
            one = stack.enter_context(socket.create_connection(address, 30, source_address=(source, 0)))
            wait_until(lambda: len(it.connections) <= 8, "there is room")
            return one

        other = connect("127.0.0.2")
        wait_until(lambda: len(it.connections) == 2, "the other one is there")
        for number in range(30):  # heads and bodies that do not come
            connect("127.0.0.1").sendall(head if number % 2 else b"")
            assert httpx.get(f"{it.url}healthz").status_code == 200
        other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 200 " in other.recv(100)
        gate.open.set()
        assert answered().status_code == 200


def test_a_connection_between_two_requests_makes_room_without_a_word():
    """What came unasked would pass for the answer to its next request."""
    with running(Gate(), max_connections=2) as it, contextlib.ExitStack() as stack:
        ends = []
        for _ in range(4):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", it.port), 30))
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"alive"}'):
                more = one.recv(65536)
                assert more, answer
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 ")
            ends.append(one)
        assert ends[0].recv(65536) == b""


def first_of(it, content):
    """What comes back first: where more was sent than was read, the connection is reset behind it."""
    with socket.create_connection(("127.0.0.1", it.port), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(content)
        answer = connection.recv(65536)
        with contextlib.suppress(OSError):
            while len(answer) < 2000 and (more := connection.recv(65536)):
                answer += more
        return answer


def test_small_chunks_are_refused():
    """Each costs as much as a large one, and the thread that answers everybody does it."""
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running() as it:
        for size, count, status in ((1, 256, 400), (1, 257, 413), (512, 2000, 400), (400, 2000, 413)):
            chunks = b"%x\r\n%s\r\n" % (size, bytes(size)) * count
            answer = first_of(it, chunked + chunks + b"0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 %d " % status), (size, count, answer)
            assert (b"the chunks of the body are too small; send larger ones" in answer) is (status == 413)
        # Large chunks may come in two pieces each; small ones whose sizes come before them are counted too.
        for body, status in ((1500, 400), (1, 413)):
            refused = it.metric("requests_total", path="other", code="413")
            with socket.create_connection(("127.0.0.1", it.port), timeout=30) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(chunked)
                answer = b""
                with contextlib.suppress(OSError):
                    for _ in range(300):
                        connection.sendall(b"%x\r\n" % body + bytes(body > 1))
                        time.sleep(0.001)
                        connection.sendall(bytes(body - (body > 1)) + b"\r\n")
                        if select.select([connection], [], [], 0)[0]:
                            break
                    else:
                        connection.sendall(b"0\r\n\r\n")
                with contextlib.suppress(OSError):
                    answer = connection.recv(65536)
            # Who goes on sending may lose the answer on the way; the service knows what it was.
            assert it.metric("requests_total", path="other", code="413") == refused + (status == 413)
            assert answer.startswith(b"HTTP/1.1 %d " % status) or (status == 413 and not answer), (body, answer)
        # They are counted for each request.
        one = chunked.replace(b"Connection: close\r\n", b"") + b"1\r\nx\r\n" * 200 + b"0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", it.port), timeout=30) as connection:
            for _ in range(3):
                connection.sendall(one)
                answer = b""
                while not answer.endswith(b"}"):
                    answer += connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_flood_of_chunks_ends_at_the_first_of_them():
    """What was sent with them is not looked at: 10,000 chunks of one byte take some 0.3 s."""
    chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running() as it:
        events = []
        with pytest.MonkeyPatch.context() as patch:
            next_event = h11.Connection.next_event
            patch.setattr(h11.Connection, "next_event", lambda self: events.append(1) or next_event(self))
            assert first_of(it, chunked + b"1\r\nx\r\n" * 10_000).startswith(b"HTTP/1.1 413 ")
        assert len(events) < 300


def test_headers_are_counted(service):
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert first_of(service, get + b"a:\r\n" * 98 + b"\r\n").startswith(b"HTTP/1.1 200 ")
    assert first_of(service, get + b"a:\r\n" * 98 + b"\r\n" + get).startswith(b"HTTP/1.1 200 ")  # another's follow
    status, _, reason = spoken(service, get + b"a:\r\n" * 99 + b"\r\n")
    assert (status, reason) == (431, "no valid HTTP request: more than 100 headers")


def test_others_have_their_turn_while_a_form_is_parsed():
    async def body():
        yield b"x" * (2 * bodies.PIECE + 1)

    async def play():
        turns, sizes = [], []

        async def other():
            while True:
                turns.append(len(sizes))
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async for piece in bodies._pieces(body()):
            sizes.append(len(piece))
        task.cancel()
        return turns, sizes

    turns, sizes = asyncio.run(play())
    assert sizes == [bodies.PIECE, bodies.PIECE, 1]
    assert {1, 2, 3} <= set(turns)


@pytest.fixture
def small_buffers(monkeypatch):
    """The service's, so that a page has to be taken by the client."""

    def listen_small(*address):
        listening = listen(*address)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that the system allows
        return listening

    monkeypatch.setattr("tests.deployment.running.listen", listen_small)


@pytest.mark.usefixtures("small_buffers")
def test_who_takes_no_answer_keeps_nobody_out():
    with running(max_connections=8) as it, contextlib.ExitStack() as stack:
        page = b"GET / HTTP/1.1\r\nHost: x\r\n"
        for number in range(20):
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.connect(("127.0.0.1", it.port))
            # The end of an answer may be awaited, or that of a connection which is being closed.
            deaf.sendall(page + (b"Connection: close\r\n\r\n" if number % 2 else b"\r\n" + (page + b"\r\n") * 30))
            answered = min(number + 1, 8)
            wait_until(lambda n=answered: it.metric("requests_total", path="/", code="200") >= n, "it is answered")
        # One that came while all others were being answered was refused, and does not take that either.
        assert httpx.get(f"{it.url}healthz").status_code == 200


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("requests", [1, 300])
def test_an_answer_that_is_not_taken(requests):
    """Of one request uvicorn is rid, of many it waits with the next; neither may keep the connection."""
    with running(body_timeout=0.5) as it, socket.socket() as silent:
        page = it.client.get("/", headers={"connection": "close"}).content
        silent.settimeout(30)
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        silent.connect(("127.0.0.1", it.port))
        silent.sendall(requests * b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: it.metric("requests_total", path="/", code="200") >= 2, "the request is answered")
        wait_until(lambda: not it.connections, "the connection is closed", 15)
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while data := silent.recv(65536):
                taken += data
        assert len(taken) < len(page)  # or nothing was tested


# --- Overload, failures, the end ---


def in_thread(work, *arguments):
    """Begins work in a thread; the function that comes back waits for its result."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work(*arguments)), daemon=True)
    thread.start()

    def result():
        thread.join(60)
        assert not thread.is_alive(), "no result within 60 s"
        assert results, "the thread ended with an error"
        return results[0]

    return result


def post_alone(it):
    """On a connection of its own."""
    return httpx.post(f"{it.url}v1/classify", content=CHINA, timeout=30)


def post(it, content=CHINA):
    return httpx.post(f"{it.url}v1/classify", content=content, timeout=30)


def test_a_full_queue_answers_503_and_empties():
    gate = Gate()
    with running(gate, max_queue=16, max_batch_size=1) as it:
        waiting = [in_thread(post, it)]
        assert gate.entered.wait(30)
        waiting += [in_thread(post, it) for _ in range(15)]
        wait_until(lambda: it.metric("queue_length") >= 16, "the queue is full")
        response = post(it)
        assert said(response, 503) == "the queue is full: it takes 16"
        assert int(response.headers["retry-after"]) >= 1
        batch = it.client.post("/v1/classify/batch", files=[("a", ("c.jpg", CHINA))])
        assert batch.status_code == 503
        assert it.client.get("/healthz").status_code == 200
        gate.open.set()
        for result in waiting:
            assert result().status_code == 200
        assert it.metric("queue_length") == 0
        assert post(it).status_code == 200
        assert it.metric("rejected_total", reason="overload") == 2


def test_time_is_limited():
    gate = Gate()
    with running(gate, timeout=0.3) as it:
        response = post(it)
        assert said(response, 503) == "no answer within 0.3 s"
        assert response.headers["retry-after"] == "1"
        assert it.metric("queue_length") == 0
        gate.open.set()
        wait_until(lambda: not it.service.busy, "the model is done")
        assert post(it).status_code == 200


def test_a_model_that_hangs_is_said():
    gate = Gate()
    with running(gate, timeout=0.2) as it:
        post(it)
        wait_until(lambda: it.client.get("/healthz").status_code != 200, "the service says that it hangs")
        for response in (it.client.get("/healthz"), it.client.get("/readyz"), post(it)):
            reason = "the service must be restarted: a batch has been in the model for "
            assert said(response, 503).startswith(reason)
        gate.open.set()
        wait_until(lambda: it.client.get("/healthz").status_code != 503, "the service says that it is well")


def test_bytes_of_clients_that_left_are_not_kept(monkeypatch):
    """Neither while a thread is busy, nor while it is busy for one of them."""
    begun, goes_on = threading.Event(), threading.Event()

    def prepare(encoded, name, *rest):
        begun.set()
        assert goes_on.wait(30)
        raise RefusalError(400, name)

    class Encoded:
        """In place of bytes, which no weak reference can watch."""

    monkeypatch.setattr(classification, "prepare", prepare)

    async def play():
        classifier = Classifier(ExportCard.load(exported(3)[0]), ServingSettings(decode_threads=1), None)

        async def leave(*tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # the loop lets go of what was gathered: errors, and in them the images

        try:
            first = asyncio.create_task(classifier.classify(Encoded(), "first", 1))
            assert await asyncio.to_thread(begun.wait, 30), "no image is prepared"
            await leave(first)
            images = [Encoded() for _ in range(5)]
            kept = weakref.WeakSet(images)
            tasks = [asyncio.create_task(classifier.classify(image, "other", 1)) for image in images]
            await asyncio.sleep(0)
            await leave(*tasks)
            del images, tasks
            gc.collect()
            assert not kept
        finally:
            goes_on.set()
        with pytest.raises(RefusalError, match="last"):
            await classifier.classify(Encoded(), "last", 1)
        classifier.close()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_client_that_leaves_gives_its_place_back():
    gate = Gate()
    with running(gate, max_batch_size=1) as it:
        first = in_thread(post, it)
        assert gate.entered.wait(30)
        with socket.create_connection(("127.0.0.1", it.port), timeout=30) as leaving:
            head = f"POST /v1/classify?crops=10 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CHINA)}\r\n\r\n"
            leaving.sendall(head.encode() + CHINA)
            wait_until(lambda: it.service._batcher.waiting >= 10, "the crops wait")
        wait_until(lambda: it.metric("queue_length") == 1, "the places are given back")
        assert it.service._batcher.waiting == 0
        gate.open.set()
        assert first().status_code == 200
        assert gate.batches == [1]


def check_log(caplog, failure, *texts):
    """One entry has the name that the client got, what failed and where it is from."""
    (entry,) = [record for record in caplog.records if failure in record.getMessage()]
    text = logging.Formatter().format(entry)
    for part in (*texts, "Traceback (most recent call last)"):
        assert part in text


def test_a_model_that_fails_is_500_and_the_service_goes_on(caplog):
    gate = Gate()
    gate.open.set()
    with running(gate) as it:
        gate.broken = True
        caplog.clear()
        response = post(it)
        assert said(response, 500) == "the model failed on this batch"
        check_log(caplog, response.json()["failure"], "the model failed on this batch", "RuntimeError: out of order")
        files = [("a", ("c.jpg", CHINA)), ("a", ("c.jpg", CHINA))]
        caplog.clear()
        results = it.client.post("/v1/classify/batch", files=files).json()["results"]
        failures = {result.pop("failure") for result in results}
        assert results == [{"name": "c.jpg", "status": 500, "error": "the model failed on this batch"}] * 2
        for failure in failures:  # one for each batch of the model
            check_log(caplog, failure, "the model failed on this batch", "RuntimeError: out of order")
        assert caplog.text.count("Traceback") == len(failures)
        gate.broken = False
        assert post(it).status_code == 200
        assert it.metric("queue_length") == 0


def test_probabilities_that_are_none_are_500(caplog):
    def nan(images):
        return np.full((len(images), CLASSES), np.nan if is_photograph(images) else 0.1, "float32")

    with running(nan) as it:
        response = post(it)
        assert said(response, 500).startswith("the model's output is not probabilities: logits must be finite")
        check_log(caplog, response.json()["failure"], "is not probabilities", "ValueError: logits must be finite")


def test_an_error_of_ours_is_500_with_a_reason(monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("a mistake in the code")

    with running() as it:
        monkeypatch.setattr("polynet_keras.deployment.serving.classification.prepare", broken)
        response = post(it)
        assert said(response, 500) == "the service failed on this request"
        check_log(caplog, response.json()["failure"], "'POST' '/v1/classify'", "RuntimeError: a mistake in the code")
        assert it.metric("requests_total", path="/v1/classify", code="500") == 1
        monkeypatch.undo()
        assert post(it).status_code == 200
        assert caplog.text.count("Traceback") == 1  # uvicorn does not say it again


def test_until_the_model_is_loaded():
    gate = threading.Event()

    class Loading:
        def __call__(self, images):
            assert gate.wait(30)
            return np.full((len(images), CLASSES), 0.1, "float32")

    with running(Loading(), wait=False) as it:
        assert it.client.get("/healthz").status_code == 200
        assert said(it.client.get("/readyz"), 503) == "the model is being loaded"
        response = it.client.post("/v1/classify", content=CHINA)
        assert said(response, 503) == "the model is being loaded"
        assert response.headers["retry-after"] == "5"
        gate.set()
        wait_until(lambda: it.client.get("/readyz").status_code == 200, "the model is loaded")
        assert post(it).status_code == 200


@pytest.mark.parametrize(
    ("rows", "card", "message"),
    [
        (lambda n: np.full((n, CLASSES), np.nan), {}, "logits must be finite"),
        (lambda n: np.full((n, CLASSES + 1), 0.1), {}, r"returns 1 x 11 numbers for 1 image, "),
        (lambda n: np.full((1, CLASSES), 0.1), {}, r"returns 1 x 10 numbers for 8 images"),
        (lambda n: 1 / 0, {}, "division by zero"),
        (lambda n: np.full((n, CLASSES), 0.1), {"calibration": {"share": float("nan")}}, "not JSON compliant"),
        (lambda n: np.full((n, CLASSES), 0.1), {"versions": {"keras": b"3"}}, "bytes is not JSON serializable"),
    ],
)
def test_a_model_that_cannot_answer_is_never_ready(rows, card, message):
    card = dataclasses.replace(ExportCard.load(exported(3)[0]), **card)
    ready, failures = [], []

    async def play():
        service = Service(
            card,
            lambda: lambda images: rows(len(images)).astype("float32"),
            ServingSettings(),
            lambda: ready.append(True),
            failures.append,
        )
        service.start()
        await service._loading
        with pytest.raises(RefusalError, match="is being loaded"):
            service.check_ready()
        await service.stop()

    asyncio.run(play())
    assert not ready
    with pytest.raises(ValueError, match=f"the model cannot answer a request: .*{message}"):
        raise failures[0]


def test_a_queue_that_is_not_served_any_more_is_said():
    with running() as it:
        it.service._batcher._loop.call_soon_threadsafe(it.service._batcher._task.cancel)
        wait_until(lambda: it.client.get("/healthz").status_code != 200, "the service says that it is broken")
        for response in (it.client.get("/healthz"), it.client.get("/readyz"), post(it)):
            assert said(response, 503).startswith("the service must be restarted")


def test_what_is_in_flight_is_answered_at_the_end():
    gate = Gate()
    with running(gate) as it:
        waiting = in_thread(post, it)
        assert gate.entered.wait(30)
        threading.Timer(0.2, gate.open.set).start()
    assert waiting().status_code == 200


@pytest.mark.slow
def test_fuzz():
    """20 s of requests that are cut, spliced, repeated and mutated, seeded; honest clients are answered meanwhile."""
    random = np.random.default_rng(22)
    post = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\n"
    form = b"Content-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\n'
    corpus = [
        post + b"Content-Length: %d\r\n\r\n" % len(CHINA) + CHINA,
        post + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000,
        post + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + bytes(1024) + b"\r\n0\r\na: b\r\n\r\n",
        post + b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n\r\n1;" + b"e" * 9000 + b"\r\nx\r\n",
        post + form + b"Content-Length: 100000\r\n\r\n" + part + b"\r\n--" * 5000,
        post + form + b"Content-Length: 500000\r\n\r\n" + part * 10_000,
        post + form + b"Content-Length: 99999\r\n\r\n--b\r\n" + b"a: b\r\n" * 9000,
        post
        + b"Content-Type: multipart/form-data; boundary=\xff; charset=undefined\r\nContent-Length: 9\r\n\r\n123456789",
        post + b"Content-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 4000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/classify?top=%ff&crops=\xc3\x28 HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n",
    ]

    def mutated():
        content = corpus[random.integers(len(corpus))]
        kind = random.integers(5)
        if kind == 0:
            content = content[: random.integers(len(content))]
        elif kind == 1:
            other = corpus[random.integers(len(corpus))]
            content = content[: random.integers(len(content))] + other[random.integers(len(other)) :]
        elif kind == 2:
            changed = np.frombuffer(content, "uint8").copy()
            places = random.integers(min(len(changed), 300), size=random.integers(1, 6))
            changed[places] = random.integers(256, size=len(places))
            content = changed.tobytes()
        elif kind == 3:
            content *= random.integers(1, 20)
        return content

    with running(header_timeout=1, body_timeout=1) as it:
        end, slowest, sent = time.monotonic() + 20, 0.0, 0
        before = it.client.post("/v1/classify", content=CHINA).json()
        while time.monotonic() < end:
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    one = stack.enter_context(socket.create_connection(("127.0.0.1", it.port), timeout=0.2))
                    with contextlib.suppress(OSError):  # it was cut off, or nobody reads any more
                        one.sendall(mutated())
                    sent += 1
                start = time.monotonic()
                assert it.client.get("/healthz").status_code == 200
                slowest = max(slowest, time.monotonic() - start)
        print(f"{sent} requests; /healthz within {slowest:.2f} s")
        assert slowest < 5  # each of them is bounded, however slow the machine
        assert it.client.post("/v1/classify", content=CHINA).json() == before
        wait_until(lambda: it.metric("buffered_bytes") == 0, "nothing is held")
        assert it.metric("queue_length") == 0


# --- Settings ---


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_queue": 0}, "max_queue=0 must be at least 1"),
        ({"max_delay_ms": -1}, "max_delay_ms=-1 must be at least 0"),
        ({"threads": -1}, "threads=-1 must be at least 0"),
        ({"timeout": 0.0}, "timeout=0.0 must be a number of seconds above 0"),
        ({"body_timeout": float("nan")}, "body_timeout=nan must be a number of seconds above 0"),
        ({"max_crops": 12}, "max_crops=12 must be one of 1, 10, 144"),
        ({"max_pixels": 10**8}, "max_pixels=100000000 must be at most 89478485"),
        ({"max_bytes": 10**9}, "max_bytes=1000000000 must be at most 268435456"),
        ({"max_crops": 144}, "max_queue=128 is less than max_crops=144: such a request would never be answered"),
        ({"max_images": 200}, "max_queue=128 is less than max_images=200"),
        ({"max_buffered_bytes": 10**6}, "max_buffered_bytes=1000000 is less than max_bytes=10000000"),
    ],
)
def test_settings_that_contradict(values, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- the text is compared as it is
        ServingSettings(**values)
    assert message in str(error.value)


def test_limits_under_which_every_image_is_refused():
    card = ExportCard.load(exported(3)[0])
    for crops, pixels, size in ((10, 86**2, "86 x 86"), (144, 118**2, "118 x 118")):
        Service(card, lambda: None, ServingSettings(max_pixels=pixels, max_crops=crops, max_queue=144))
        with pytest.raises(ValueError, match=f"max_pixels={pixels - 1} must be at least {pixels}: .* to {size} px"):
            Service(card, lambda: None, ServingSettings(max_pixels=pixels - 1, max_crops=crops, max_queue=144))


def test_the_page_is_part_of_the_package():
    setup = (Path(__file__).parents[2] / "setup.py").read_text()
    assert '"deployment/serving/page.html"' in setup
    assert dataclasses.is_dataclass(ExportCard)
