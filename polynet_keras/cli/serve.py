"""`polynet serve`: an exported model as a service over HTTP."""

import dataclasses
import os

from absl import flags

from polynet_keras.basics.extras import PACKAGES, require_extra
from polynet_keras.deployment.serving.settings import Settings

USAGE = """MODEL_DIR [flags]

MODEL_DIR holds a program, which runs when it is loaded: serve only what you exported or trust."""


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.", flag_values=values)
    flags.DEFINE_integer("port", 8000, "Port to listen on; 0 for any that is free.", flag_values=values)
    flags.DEFINE_bool(
        "verify", False, "Refuse files that differ from the hashes in MODEL_DIR's card.json.", flag_values=values
    )
    for limit in dataclasses.fields(Settings):
        define = flags.DEFINE_integer if isinstance(limit.default, int) else flags.DEFINE_float
        define(limit.name, limit.default, limit.metadata["help"], flag_values=values)


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
