"""`polynet serve`: serves an exported model over HTTP."""

import dataclasses
import os
from typing import Any

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.cli.headings import Heading
from polynet_keras.deployment.serving.settings import ServingSettings

USAGE = """MODEL_DIR [flags]

MODEL_DIR holds a program, which runs when it is loaded: serve only what you exported or trust."""
EXAMPLES = (
    "polynet serve exported",
    "polynet serve exported --host 0.0.0.0 --port 8080",
)


def define_flags(values: flags.FlagValues) -> None:
    service = Heading(values, "Service")
    service.string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    service.integer("port", 8000, "Port to listen on; 0 for any free one.")
    service.string("name", None, "Name of the model in answers, metrics and /v1/model. [that in card.json]")
    service.switch("verify", False, "Refuse files that differ from the hashes in card.json of MODEL_DIR.")
    log = Heading(values, "Access log")
    log.string("access_log", None, "File to which a line is appended for each request; - for standard output.")
    format = "`combined`, or `json` for a JSON object in each line."
    log.string("access_log_format", "combined", format, choices=("combined", "json"))
    proxies = "Addresses and networks of proxies whose X-Forwarded-For names the client in the log; * for any."
    log.list("forwarded_allow_ips", [], proxies)
    limits = Heading(values, "Limits", rare=True)
    for limit in dataclasses.fields(ServingSettings):
        default: Any = limit.default
        define = limits.integer if isinstance(default, int) else limits.number
        define(limit.name, default, limit.metadata["help"])


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one MODEL_DIR, the folder that `polynet export` wrote; got {len(arguments)}")
    limits = {limit.name: values[limit.name].value for limit in dataclasses.fields(ServingSettings)}
    settings = ServingSettings(**limits)
    check_integer("port", values.port, 0, 65535)

    # TensorFlow's own switch, for a process that does not train: with oneDNN, it converts the weights to oneDNN's
    # layout once, and not in every pass. One image then takes two thirds of the time (docs/performance.md).
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")

    from polynet_keras.deployment.serving.start import serve

    def ready(url: str) -> None:
        print(f"ready: {url}", flush=True)

    serve(
        arguments[0],
        settings,
        values.host,
        values.port,
        ready,
        verify=values.verify,
        name=values.name,
        access_log=values.access_log,
        access_log_format=values.access_log_format,
        forwarded_allow_ips=values.forwarded_allow_ips,
    )
