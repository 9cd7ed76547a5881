"""The clients of the model servers, against stand-ins that read their requests as the servers' documentation says."""

import base64
import importlib.util
import json
import re
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.deployment.artifact import artifact_path, load_exported
from polynet_keras.deployment.formats.saved_model import SAVED_MODEL
from polynet_keras.evaluation.loading import TrainedModel
from tests.deployment.exported import exported, protocol

SERVING = Path(__file__).parents[2] / "examples" / "serving"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, SERVING / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / "china.jpg", tmp_path / "flower.jpg"]
    for path in paths:
        Image.fromarray(load_sample_image(path.name)).save(path, quality=90)
    return paths


@contextmanager
def stand_in(answer):
    """A server whose `answer` makes of a path, headers and a body a status and a JSON value."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, value = answer(self.path, self.headers, body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            self.do_POST()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def expected_lines(paths):
    """What both clients print: the five best classes, by Keras."""
    _, model = exported()
    inputs = np.stack([protocol()(np.asarray(Image.open(path))) for path in paths])
    rows = model.predict_on_batch(inputs)
    best = [np.argsort(-row)[:5] for row in rows]
    return [
        (path, [f"class {i}" for i in order], row[order]) for path, order, row in zip(paths, best, rows, strict=True)
    ]


def check_printed(printed, paths):
    for line, (path, names, scores) in zip(printed.splitlines(), expected_lines(paths), strict=True):
        assert line.startswith(f"{path}   ")
        found = re.findall(r"(class \d) ([0-9.]+)%", line)
        assert [name for name, _ in found] == names
        np.testing.assert_allclose([float(score) / 100 for _, score in found], scores, atol=1e-3)


@pytest.mark.slow
def test_tensorflow_serving(tmp_path, photographs, capsys, monkeypatch):
    import tensorflow as tf

    _, model = exported()
    trained = TrainedModel("small", model, protocol(), tuple(f"class {i}" for i in range(10)))
    SAVED_MODEL.write(artifact_path(tmp_path, "saved_model"), model, trained, "float32", None)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["classify"]

    def answer(path, headers, body):
        content = json.loads(body)
        assert (path, content["signature_name"]) == ("/v1/models/polynet:predict", "classify")
        files = [base64.b64decode(instance["encoded"]["b64"], validate=True) for instance in content["instances"]]
        try:
            outputs = signature(encoded=tf.constant(files))
        except tf.errors.InvalidArgumentError as error:
            return 400, {"error": error.message}
        rows = zip(outputs["classes"].numpy().tolist(), outputs["scores"].numpy().tolist(), strict=True)
        return 200, {
            "predictions": [{"classes": [name.decode() for name in names], "scores": scores} for names, scores in rows]
        }

    client = loaded("tensorflow_serving_client")
    with stand_in(answer) as server:
        monkeypatch.setattr(sys, "argv", ["client", server, *map(str, photographs)])
        client.main()
        check_printed(capsys.readouterr().out, photographs)
        with pytest.raises(SystemExit, match="(?s)400: .*expected the bytes of a JPEG or a PNG"):
            client.classify(server, [b"text"])


def test_openvino_model_server(photographs, capsys, monkeypatch):
    folder, _ = exported()
    model = load_exported(folder)

    def answer(path, headers, body):
        if path == "/v2/models/polynet":
            return 200, {"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 75, 75, 3]}]}
        if path != "/v2/models/polynet/infer":
            return 404, {"error": "Model with requested name is not found"}
        length = int(headers["Inference-Header-Content-Length"])
        (about,) = json.loads(body[:length])["inputs"]
        assert (about["name"], about["datatype"]) == ("image", "FP32")
        assert about["parameters"]["binary_data_size"] == len(body) - length
        rows = model.run(np.frombuffer(body[length:], "<f4").reshape(about["shape"]))
        return 200, {"outputs": [{"shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}]}

    client = loaded("openvino_model_server_client")
    with stand_in(answer) as server:
        monkeypatch.setattr(sys, "argv", ["client", server, str(folder), *map(str, photographs)])
        client.main()
        check_printed(capsys.readouterr().out, photographs)
        with pytest.raises(Exception, match="404"):
            client.predict(server, np.zeros((1, 75, 75, 3), "float32"), "other")


def test_configurations_are_well_formed():
    (model,) = json.loads((SERVING / "config.json").read_text())["model_config_list"]
    assert (model["config"]["name"], model["config"]["base_path"]) == ("polynet", "/models/polynet")
    text = (SERVING / "models.config").read_text()
    assert 'name: "polynet"' in text
    assert 'base_path: "/models/polynet"' in text
    for name in ("models.config", "batching.config", "monitoring.config"):
        text = re.sub(r"#.*|\"[^\"]*\"", "", (SERVING / name).read_text())
        assert text.count("{") == text.count("}") > 0
    readme = (SERVING / "README.md").read_text()
    for file in SERVING.iterdir():
        assert file.is_dir() or file.name == "README.md" or file.name in readme
