"""The files for Slurm and Kubernetes: they are well formed, and fit the commands that they run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from polynet_keras.basics.exits import EXIT_RESTART
from polynet_keras.cli import launch, train
from polynet_keras.cli.execution_flags import execution_of
from polynet_keras.cli.recipe_from_flags import recipe_of
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.signed_lines import SECRET_VARIABLE
from polynet_keras.pretrained.model_card import CARD_FILE

CLUSTER = Path(__file__).parents[2] / "examples" / "cluster"
SBATCH, YAML = CLUSTER / "train.sbatch", CLUSTER / "train.yaml"

SRUN = """#!{python} -IS
# As Slurm's srun with four tasks: their output goes to --output, and it ends with the highest exit code.
import os, subprocess, sys
codes = []
while sys.argv[1].startswith("--"):
    option = sys.argv.pop(1)
    if option.startswith("--output="):
        output = option.removeprefix("--output=")
for task in map(str, range(4)):
    with open(output.replace("%t", task), "a") as log:
        environment = dict(os.environ, SLURM_PROCID=task)
        codes.append(subprocess.run(sys.argv[1:], env=environment, stdout=log, stderr=log).returncode)
sys.exit(max(codes))
"""

POLYNET = """#!{python} -IS
import json, os, sys
with open("calls.jsonl", "a") as file:
    print(json.dumps({{"argv": sys.argv[1:], "parent": os.getppid(), "environment": dict(os.environ)}}), file=file)
code = json.loads(os.environ.get("CODES", "[0, 0, 0, 0]"))[int(os.environ.get("SLURM_PROCID", 0))]
if code == 1:
    print("polynet: epochs=0 must be an integer of at least 1", file=sys.stderr)
sys.exit(abs(code))
"""

GETENT = """#!{python} -IS
import sys
assert sys.argv[1] == "hosts"
"""

SCONTROL = """#!{python} -IS
import sys
print("scontrol", *sys.argv[1:])
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command of `bash` where srun, scontrol and polynet are stand-ins; polynet leaves how it was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("polynet", POLYNET), ("getent", GETENT)):
        (programs / name).write_text(text.format(python=sys.executable))
        (programs / name).chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)

    def run_bash(*arguments, **environment):
        path = f"{programs}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", *arguments],
            env={**os.environ, "PATH": path, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = tmp_path / "calls.jsonl"
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return run_bash


@pytest.fixture
def documents():
    yaml = pytest.importorskip("yaml")
    service, policy, job = yaml.safe_load_all(YAML.read_text())
    return service, job, policy


def check_train(argv, run_dir):
    """As `polynet train` reads its flags, without training: PolyNet G5, with as many images on each of the 32 GPUs."""
    assert argv[0] == "train"
    values = flags.FlagValues()
    train.define_flags(values)
    assert values(["polynet train", *argv[1:]])[1:] == []
    recipe = recipe_of(values)
    assert (recipe.structure, recipe.width, recipe.image_size) == ("polynet-g5", 1.0, 331)
    assert recipe.synchronized
    assert recipe.batch_size % (4 * 8) == 0
    execution_of(values)
    assert values.run_dir == run_dir


def slurm(run, codes, restarts="0"):
    environment = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "polynet-g5",
        "SLURM_CPUS_PER_TASK": "8",
        "CODES": json.dumps(codes),
    }
    if restarts != "0":  # Slurm sets it from the first restart on
        environment["SLURM_RESTART_COUNT"] = restarts
    return run(str(SBATCH), **environment)


def test_the_batch_script_is_bash():
    done = subprocess.run(["bash", "-n", SBATCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_slurm_starts_polynet_train(run):
    done, calls = slurm(run, [0] * 4, "3")
    assert done.returncode == 0, done.stderr
    assert len(calls) == 4
    check_train(calls[0]["argv"], "runs/polynet-g5-7")
    # srun starts it itself: to a shell in between, SIGTERM would come in its place.
    assert len({call["parent"] for call in calls}) == 1
    assert calls[0]["environment"]["POLYNET_ATTEMPT"] == "3"
    assert "scontrol" not in done.stdout


@pytest.mark.parametrize(("restarts", "number"), [pytest.param("0", 1, marks=pytest.mark.slow), ("19", 20)])
@pytest.mark.parametrize("codes", [[75] * 4, [0, 75, 0, 0], [75, 137, 75, 75], [70, 75, 75, 75], [143, 0, 0, 0]])
def test_slurm_starts_a_job_again(run, codes, restarts, number):
    done, _ = slurm(run, codes, restarts)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"srun exited with {max(codes)}; restart {number} of 20"]
    assert done.stdout == "scontrol requeue 7\n"


def test_slurm_does_not_start_a_job_again_for_ever(run):
    done, _ = slurm(run, [75, 137, 75, 75], "20")
    assert done.returncode == 137
    assert done.stderr.splitlines() == ["srun exited with 137; no restart is left of 20"]
    assert done.stdout == ""


@pytest.mark.parametrize("codes", [[1] * 4, [75, 1, 75, 75], [75, 1, 137, 0]])
def test_a_mistake_ends_a_job_of_slurm(run, codes):
    done, _ = slurm(run, codes)
    assert done.returncode == 1
    *mistakes, last = done.stderr.splitlines()
    assert mistakes == [
        f"polynet-g5-7-attempt-0-worker-{task}.log:polynet: epochs=0 must be an integer of at least 1"
        for task, code in enumerate(codes)
        if code == 1
    ]
    assert last == f"srun exited with {max(codes)}; a restart would not fix that"
    assert done.stdout == ""


def test_srun_itself_may_fail(run):
    done, _ = slurm(run, [-1] * 4)  # with 1, and no worker says a word
    assert done.stderr.splitlines() == ["srun exited with 1; restart 1 of 20"]


@pytest.mark.parametrize("code", [2, 127])
def test_no_such_program_ends_a_job_of_slurm(run, code):
    done, _ = slurm(run, [code] * 4)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_an_interrupt_ends_a_job_of_slurm(run):
    done, _ = slurm(run, [130] * 4)
    assert done.returncode == 130
    assert "scontrol" not in done.stdout


def test_slurm_leaves_time_to_save():
    text = SBATCH.read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert options["signal"] == "TERM@120"  # no B: in front: it goes to the workers
    assert options["nodes"] == "4"
    assert options["ntasks-per-node"] == options["gpus-per-node"] == "8"
    assert options["cpus-per-task"] == "8"
    assert "requeue" in options


def pod(documents):
    return documents[1]["spec"]["template"]["spec"]


def container(documents):
    (found,) = pod(documents)["containers"]
    return found


def kubernetes(run, documents, tmp_path, **environment):
    """What the container of a pod does, with its volume in a folder here."""
    environment |= {entry["name"]: entry.get("value", "from a Secret") for entry in container(documents)["env"]}
    (script,) = container(documents)["args"]
    assert container(documents)["command"] == ["bash", "-ec"]
    return run("-ec", script.replace("/runs/", f"{tmp_path}/"), **environment)


def test_kubernetes_starts_polynet_train(run, documents, tmp_path):
    for index in range(4):
        done, calls = kubernetes(run, documents, tmp_path, JOB_COMPLETION_INDEX=str(index))
        assert done.returncode == 0, done.stderr
    clusters = [Cluster.from_environment(call["environment"]) for call in calls]
    assert [cluster.index for cluster in clusters] == [0, 1, 2, 3]
    # The job's name and the index are a pod's name, the Service's is its domain.
    names = [documents[1]["metadata"]["name"], documents[0]["metadata"]["name"]]
    assert {cluster.workers for cluster in clusters} == {
        tuple(f"{names[0]}-{index}.{names[1]}:8888" for index in range(4))
    }
    command, *options = calls[0]["argv"][: calls[0]["argv"].index("--")]
    values = flags.FlagValues()
    launch.define_flags(values)
    assert (command, values(["polynet launch", *options])[1:]) == ("launch", [])
    assert (values.workers, values.max_restarts) == (None, 0)
    assert values.grace_seconds < pod(documents)["terminationGracePeriodSeconds"]
    check_train(calls[0]["argv"][len(options) + 2 :], f"{tmp_path}/polynet-g5")


def test_kubernetes_tells_a_restart(run, documents, tmp_path):
    assert "POLYNET_ATTEMPT" not in os.environ
    kubernetes(run, documents, tmp_path, JOB_COMPLETION_INDEX="1")
    (tmp_path / "polynet-g5" / "checkpoints").mkdir(parents=True)
    _, calls = kubernetes(run, documents, tmp_path, JOB_COMPLETION_INDEX="1")
    assert [call["environment"].get("POLYNET_ATTEMPT") for call in calls] == [None, "1"]


def test_kubernetes_does_not_train_a_finished_run_again(run, documents, tmp_path):
    (tmp_path / "polynet-g5").mkdir()
    (tmp_path / "polynet-g5" / CARD_FILE).touch()
    done, calls = kubernetes(run, documents, tmp_path, JOB_COMPLETION_INDEX="1")
    assert (done.returncode, calls) == (0, [])
    assert done.stdout == f"{tmp_path}/polynet-g5 holds a finished run\n"


def test_a_pod_without_an_index_does_not_train_alone(run, documents, tmp_path):
    done, calls = kubernetes(run, documents, tmp_path)
    assert done.returncode != 0
    assert "JOB_COMPLETION_INDEX" in done.stderr
    assert calls == []


def test_kubernetes_restarts_by_exit_code(documents):
    spec = documents[1]["spec"]
    name = container(documents)["name"]
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == name
            assert rule["onExitCodes"]["operator"] == "In"
            actions |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
    assert actions == {1: "FailJob", 2: "FailJob", 126: "FailJob", 127: "FailJob", EXIT_RESTART: "Ignore"}
    assert pod(documents)["restartPolicy"] == "Never"  # else the policy is refused


def test_the_parts_for_kubernetes_fit(documents):
    service, job, policy = documents
    environment = {entry["name"]: entry.get("value") for entry in container(documents)["env"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(environment["WORKERS"]) == 4
    assert service["metadata"]["name"] == pod(documents)["subdomain"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert container(documents)["resources"]["limits"]["nvidia.com/gpu"] == "8"
    mounted = {mount["name"] for mount in container(documents)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod(documents)["volumes"]}
    assert pod(documents)["terminationGracePeriodSeconds"] >= 120
    # TensorFlow's servers run what anybody sends them: the job's own pods alone reach them.
    pods = {"podSelector": {"matchLabels": service["spec"]["selector"]}}
    assert policy["spec"] == {**pods, "policyTypes": ["Ingress"], "ingress": [{"from": [pods]}]}


def test_kubernetes_has_a_secret_of_the_job(documents):
    """The one that the file's own first lines say how to make."""
    (entry,) = (entry for entry in container(documents)["env"] if entry["name"] == SECRET_VARIABLE)
    reference = entry["valueFrom"]["secretKeyRef"]
    made = (
        f"kubectl create secret generic {reference['name']} --from-literal={reference['key']}=$(openssl rand -hex 32)"
    )
    assert made in YAML.read_text()
    assert made in (CLUSTER / "README.md").read_text()


def test_slurm_makes_a_secret_of_the_job(run):
    secrets = []
    for _ in range(2):
        _, calls = slurm(run, [0] * 4)
        secrets += [call["environment"][SECRET_VARIABLE] for call in calls[-4:]]
    assert len(set(secrets)) == 2  # one for the four workers of each start
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)
