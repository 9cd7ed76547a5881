"""`polynet serve`: an exported model as a service over HTTP."""

import dataclasses
import os
from typing import Any

from absl import flags

from polynet_keras.basics.extras import PACKAGES, require_extra
from polynet_keras.cli.headings import Heading
from polynet_keras.deployment.serving.settings import Settings

USAGE = """MODEL_DIR [flags]

MODEL_DIR holds a program, which runs when it is loaded: serve only what you exported or trust."""


def define_flags(values: flags.FlagValues) -> None:
    service = Heading(values, "Service")
    service.string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    service.integer("port", 8000, "Port to listen on; 0 for any that is free.")
    service.switch("verify", False, "Refuse files that differ from the hashes in card.json of MODEL_DIR.")
    limits = Heading(values, "Limits")
    for limit in dataclasses.fields(Settings):
        default: Any = limit.default
        define = limits.integer if isinstance(default, int) else limits.number
        define(limit.name, default, limit.metadata["help"])


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one MODEL_DIR, the folder that `polynet export` left; got {len(arguments)}")
    settings = Settings(**{limit.name: values[limit.name].value for limit in dataclasses.fields(Settings)})
    require_extra("serve", *PACKAGES["serve"])
    require_extra("data", "PIL")
    # TensorFlow's own switch, for a process that does not train: where it uses oneDNN, it brings the weights into its
    # layout once, and not at every pass. One image takes two thirds of the time then (docs/performance.md).
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")

    from polynet_keras.deployment.serving.server import serve

    def ready(url: str) -> None:
        print(f"ready: {url}", flush=True)

    serve(arguments[0], settings, values.host, values.port, ready, values.verify)
