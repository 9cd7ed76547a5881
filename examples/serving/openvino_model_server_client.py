"""Asks OpenVINO Model Server for the classes of image files: the KServe interface, version 2, with binary inputs.

    python examples/serving/openvino_model_server_client.py http://localhost:8000 model china.jpg flower.jpg

where `model` is the folder that the server serves, or a copy of its card: the artifact takes prepared images, and the
card says how they are prepared and what the classes are called. It prints for each file

    china.jpg   palace 61.20%   ...
"""

import argparse
import json
from pathlib import Path

import numpy as np
import requests

from polynet_keras.data import read_image
from polynet_keras.deployment import ExportCard


def predict(server: str, images: np.ndarray, model: str = "polynet") -> np.ndarray:
    """Probabilities (batch, classes) of prepared images, float32 (batch, height, width, channels)."""
    url = f"{server}/v2/models/{model}"
    described = requests.get(url, timeout=60)
    described.raise_for_status()
    (image,) = described.json()["inputs"]
    raw = np.ascontiguousarray(images, "<f4").tobytes()
    about = {"name": image["name"], "shape": images.shape, "datatype": "FP32"}
    head = json.dumps({"inputs": [{**about, "parameters": {"binary_data_size": len(raw)}}]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    answer = requests.post(f"{url}/infer", data=head + raw, headers=headers, timeout=60)
    if not answer.ok:
        raise SystemExit(f"{answer.status_code}: {answer.json().get('error', answer.reason)}")
    (output,) = answer.json()["outputs"]
    return np.reshape(np.array(output["data"], "float32"), output["shape"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("model", type=Path, help="folder with the card")
    parser.add_argument("images", nargs="+", type=Path)
    arguments = parser.parse_args()
    card = ExportCard.load(arguments.model)
    prepared = [card.preprocessing(read_image(path, card.preprocessing.channels)) for path in arguments.images]
    for path, row in zip(arguments.images, predict(arguments.server, np.stack(prepared)), strict=True):
        best = np.argsort(-row, kind="stable")[:5]
        print(f"{path}   " + "   ".join(f"{card.class_names[i]} {row[i]:.2%}" for i in best))


if __name__ == "__main__":
    main()
