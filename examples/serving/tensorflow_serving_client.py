"""Asks TensorFlow Serving for the classes of image files: its REST interface, the signature `classify`.

    python examples/serving/tensorflow_serving_client.py http://localhost:8501 china.jpg flower.jpg

sends the files as they are, JPEG or PNG; the protocol is inside the SavedModel. It prints for each file

    china.jpg   palace 61.20%   ...
"""

import argparse
import base64
from pathlib import Path

import requests


def classify(server: str, images: list[bytes], model: str = "polynet") -> list[list[tuple[str, float]]]:
    """(class, probability) pairs for each image, best first."""
    instances = [{"encoded": {"b64": base64.b64encode(image).decode()}} for image in images]
    content = {"signature_name": "classify", "instances": instances}
    answer = requests.post(f"{server}/v1/models/{model}:predict", json=content, timeout=60)
    if not answer.ok:
        raise SystemExit(f"{answer.status_code}: {answer.json().get('error', answer.reason)}")
    return [list(zip(row["classes"], row["scores"], strict=True)) for row in answer.json()["predictions"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("images", nargs="+", type=Path)
    arguments = parser.parse_args()
    results = classify(arguments.server, [path.read_bytes() for path in arguments.images])
    for path, pairs in zip(arguments.images, results, strict=True):
        print(f"{path}   " + "   ".join(f"{name} {probability:.2%}" for name, probability in pairs))


if __name__ == "__main__":
    main()
