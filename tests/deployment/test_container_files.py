"""The Dockerfile, and the files for Compose, Kubernetes and nginx: ports, paths and flags are the service's, and agree.

No image is built here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from absl import flags

from polynet_keras.cli import serve
from polynet_keras.deployment.serving.metrics import PATHS
from polynet_keras.deployment.serving.service import END_SECONDS
from polynet_keras.deployment.serving.settings import ServingSettings

SERVING = Path(__file__).parents[2] / "examples" / "serving"
PAUSE = 5
"""Seconds of the pod's end in which it still answers."""


def instructions():
    """Of the Dockerfile: pairs of an instruction's name and what follows it, in order."""
    lines = [line for line in (SERVING / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in whole.splitlines() if line]


IMAGE = dict(instructions())
ENTRYPOINT = json.loads(IMAGE["ENTRYPOINT"])
(COMPOSED,) = yaml.safe_load((SERVING / "compose.yaml").read_text())["services"].values()
DEPLOYMENT, ADDRESS = yaml.safe_load_all((SERVING / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ARGUMENTS = {
    "Dockerfile": json.loads(IMAGE["CMD"]),
    "compose.yaml": COMPOSED["command"],
    "kubernetes.yaml": CONTAINER["args"],
}


def flags_of(arguments):
    """As `polynet serve` reads them in the image; where the model is, and the settings."""
    assert ENTRYPOINT[:2] == ["polynet", "serve"]
    values = flags.FlagValues()
    serve.define_flags(values)
    (_, model_dir) = values([*ENTRYPOINT[1:], *arguments])
    settings = ServingSettings(**{name: values[name].value for name in ServingSettings.__dataclass_fields__})
    return values, model_dir, settings


@pytest.mark.parametrize("file", ARGUMENTS)
def test_the_command_is_the_service_s(file):
    values, model_dir, _ = flags_of(ARGUMENTS[file])
    assert model_dir == "/model"
    assert values.host == "0.0.0.0"
    assert values.port == values["port"].default == int(IMAGE["EXPOSE"])
    assert values.access_log == "-"


def test_the_image():
    names = [name for name, _ in instructions()]
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-\w+", IMAGE["FROM"])
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")
    assert int(IMAGE["USER"]) > 0
    assert f"--uid {IMAGE['USER']} " in IMAGE["RUN"]
    assert {"HOME=/tmp", "PIP_NO_CACHE_DIR=1"} < set(IMAGE["ENV"].split())
    probe = re.search(r"CMD (\[.*\])$", IMAGE["HEALTHCHECK"])[1]
    (program,) = json.loads(probe)[2:]
    (url,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", program)
    assert url == (IMAGE["EXPOSE"], "/healthz")
    compile(program, "HEALTHCHECK", "exec")


def test_ports_probes_and_the_user_agree():
    port = int(IMAGE["EXPOSE"])
    assert [mapping.rsplit(":", 1)[1] for mapping in COMPOSED["ports"]] == [str(port)]
    (named,) = CONTAINER["ports"]
    assert named == {"name": "http", "containerPort": port}
    assert [one["targetPort"] for one in ADDRESS["spec"]["ports"]] == ["http"]
    assert ADDRESS["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"]
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: (probe["path"], probe["port"]) for name, probe in probes.items()} == {
        "startup": ("/readyz", "http"),
        "readiness": ("/readyz", "http"),
        "liveness": ("/healthz", "http"),
    }
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port)
    assert {"/healthz", "/readyz", annotations["prometheus.io/path"]} < set(PATHS)
    assert POD["securityContext"]["runAsUser"] == int(IMAGE["USER"])
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {"model": ENTRYPOINT[2], "tmp": "/tmp"}
    assert COMPOSED["volumes"] == [f"../../model:{ENTRYPOINT[2]}:ro"]
    assert {volume["name"] for volume in POD["volumes"]} == mounts.keys()


def test_there_is_time_to_end_in():
    """What is there is answered, and the last batch is waited for."""
    for file, seconds in (
        ("compose.yaml", int(COMPOSED["stop_grace_period"].removesuffix("s"))),
        ("kubernetes.yaml", POD["terminationGracePeriodSeconds"] - PAUSE),
    ):
        _, _, settings = flags_of(ARGUMENTS[file])
        assert seconds > settings.body_timeout + settings.timeout + END_SECONDS
    assert CONTAINER["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(PAUSE)]


def test_limits_fit_the_container():
    _, _, settings = flags_of(ARGUMENTS["kubernetes.yaml"])
    resources = CONTAINER["resources"]["limits"]
    assert settings.threads == int(resources["cpu"])
    memory = int(resources["memory"].removesuffix("Gi")) * 2**30
    decoded = 23 * settings.max_pixels * settings.decode_threads  # docs/serving.md
    assert settings.max_buffered_bytes + decoded < memory / 2


def test_nginx_takes_what_the_service_takes():
    text = re.sub(r"#.*", "", (SERVING / "nginx.conf").read_text())
    values = dict(line.split(maxsplit=1) for line in re.findall(r"^\s+(\w+ [^{};]+);", text, re.MULTILINE))
    limits = ServingSettings()
    assert values["proxy_pass"] == f"http://127.0.0.1:{IMAGE['EXPOSE']}"
    assert int(values["client_max_body_size"]) == limits.max_batch_bytes
    seconds = {name: int(value.removesuffix("s")) for name, value in values.items() if name.endswith("_timeout")}
    assert seconds["client_header_timeout"] == limits.header_timeout
    assert seconds["client_body_timeout"] == limits.body_timeout
    assert seconds["proxy_read_timeout"] > limits.body_timeout + limits.timeout
    assert re.search(r"location = (\S+)", text)[1] in PATHS


def test_compose_s_schema():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, SERVING / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
