"""Package metadata; the tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "polynet_keras" / "version.py").read_text())[1]

# Some packages have an upper bound, since this package uses parts of them that are private there: a new version may
# change those without a word. The highest version that is admitted is one that the tests ran with. Before you raise a
# bound, run `pytest tests/contracts` with the new version: each of those tests is of one private part, and says which
# of our files needs it.

DATA = [
    "matplotlib>=3.8",  # the curves of a run
    "pillow>=10.3",  # decodes image files
    "scikit-learn>=1.4",  # ships the digits
    "scipy>=1.11",  # fits the weights of an ensemble; scikit-learn brings it
    "tensorboard>=2.20",  # TensorFlow 2.21 no longer brings it
]
DEPLOY = [
    "ai-edge-litert>=2.1",  # runs what was exported to LiteRT
    "nncf>=3",  # int8, for OpenVINO
    "onnx>=1.18",
    "onnxruntime>=1.22",  # runs what was exported to ONNX
    "onnxscript>=0.5",  # Keras's way to ONNX on the PyTorch backend
    "openvino>=2025.4",
    "tf2onnx>=1.17",  # and on TensorFlow's
]
SERVE = [
    "fastapi>=0.115",  # the service over HTTP
    "pillow>=10.3",  # decodes and resizes what it is sent
    "prometheus-client>=0.21",  # its metrics
    "python-multipart>=0.0.18,<0.1",  # the uploads of forms
    "starlette>=0.46,<1.11",  # what FastAPI is made of: its form parser with `max_part_size` and `spool_max_size`
    "uvicorn>=0.32,<0.55",  # the server that runs it
]
TABLES = [
    "pyarrow>=16",  # writes predictions as Parquet; CSV and JSON lines need nothing
]
PARITY = [
    # Published PolyNets to compare with, pinned to what the numbers were measured with. A third one, pretrainedmodels,
    # would bring what its other networks need: `pip install --no-deps pretrainedmodels==0.7.4`.
    "pytorchcv==0.0.74",
    "tf2cv==0.0.18",
    "tf-keras>=2.20,<2.22",  # Keras 2, which tf2cv is written for
    "torch==2.13.0",  # reads .pth files and runs pytorchcv; also the PyTorch backend of Keras
]

setup(
    name="polynet_keras",
    version=VERSION,
    description="PolyNet (CVPR 2017) for Keras 3: network, training, evaluation",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=[*find_packages(include=["polynet_keras", "polynet_keras.*"]), "polynet_keras.weights"],
    package_dir={"polynet_keras.weights": "weights"},  # the checkpoints that were trained here, and all cards
    package_data={
        "": ["*.pyi"],  # each room's public names, which its __init__.py imports when they are asked for
        "polynet_keras": [
            "py.typed",
            "data/imagenet_class_index.json",
            "deployment/serving/page.html",
            "evaluation/report.html",
        ],
        "polynet_keras.weights": ["*.weights.h5", "*.md"],
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2.1",  # flags and logging
        "filelock>=3.30",  # one writer of a run folder (its leases), one fetch of a weights file
        # Since 3.14 a `keras.Function` can begin inside a network, as `remat` needs. `polynet export` needs 3.15 for
        # PyTorch, and beside some versions of Python and TensorFlow: deployment/formats/.
        "keras>=3.14,<3.16",
        "numpy>=1.26",
        "lazy_loader>=0.4",  # what you import of a room is imported then, and not Keras and TensorFlow at once
        "requests>=2.32",  # fetches weights files: proxies, redirects, timeouts; TensorFlow needs it too
        "tensorflow>=2.20,<2.22",
        # Weights files are read before they are loaded. It stands after TensorFlow, since uv takes the newest of what
        # is named first: with the newest h5py it would take TensorFlow 2.20.
        "h5py>=3.11",
        "tqdm>=4.66",  # shows how far a fetch is
    ],
    extras_require={
        "data": DATA,
        # official.vision.ops.augment and the ImageNet record decoder; its last release needs TensorFlow 2.20.
        "model-garden": [
            "tensorflow>=2.20,<2.21",
            "tf-models-official==2.20.*",
            # What pip does not find by itself: later ones of it want absl-py 1, this one NumPy 1.
            "tensorflow-model-optimization==0.7.3",
            "numpy<2",
            "importlib_resources>=6",  # tensorflow-datasets 4.9 imports it; etils brought it before 1.15
        ],
        "deploy": DEPLOY,
        "serve": SERVE,
        "tables": TABLES,
        "parity": PARITY,
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=0.27"],
        "test": [
            *DATA,
            *DEPLOY,
            *PARITY,
            *SERVE,
            *TABLES,
            "check-jsonschema>=0.30",  # the workflow of GitHub
            "codespell>=2.4",  # misspelt words; pure Python, without a dependency
            "httpx>=0.27",  # asks the service
            "hypothesis>=6.100",  # properties of the algebra
            "import-linter>=2.0",  # the direction of imports
            "ipykernel>=6.29",  # runs the cells of the notebooks
            "jax>=0.4.30",  # the JAX backend of Keras
            "jupytext>=1.16",  # the tutorials as notebooks
            "mypy>=1.11",
            "nbclient>=0.10",  # executes them
            "pytest>=8",
            "pyyaml>=6",  # reads the Kubernetes manifest
            "pytest-timeout>=2.3",  # a test that hangs is named, and the others go on
            "pytest-xdist>=3.5",  # the tests on two cores
            "ruff>=0.6",
            "selenium>=4.25",  # the service's page in a browser
        ],
    },
    entry_points={"console_scripts": ["polynet = polynet_keras.cli.main:program"]},
)
