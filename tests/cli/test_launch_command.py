"""`polynet launch` as a user meets it: what it starts, where the run goes, and one line for each mistake."""

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polynet_keras.cli import launch
from polynet_keras.cli.main import main
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.data.sources import open_source
from polynet_keras.evaluation import evaluate
from polynet_keras.launcher.job import cores
from polynet_keras.loading import load_model
from polynet_keras.pretrained import ModelCard
from tests import children

POLYNET = Path(sys.executable).parent / "polynet"


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """The jobs that were to be supervised, and what that returns; nothing is started."""
    jobs, code = [], [0]

    def supervise(job):
        jobs.append(job)
        return code[0]

    monkeypatch.setattr(launch, "supervise", supervise)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # as on a machine without GPUs
    return jobs, code


@pytest.fixture
def four_gpus(monkeypatch, tmp_path_factory):
    """A machine with four GPUs, as nvidia-smi lists them."""
    program = tmp_path_factory.mktemp("driver") / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor gpu in 0 1 2 3; do echo "GPU $gpu: H200 (UUID: GPU-$gpu)"; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def polynet(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [POLYNET, *arguments], capture_output=True, text=True, check=False, timeout=240, env=environment, **options
    )


def test_what_follows_the_dashes_belongs_to_train(launched):
    jobs, _ = launched
    assert main(["launch", "--workers", "3", "--nopin", "--", "train", "--epochs", "3", "--nosynchronized"]) == 0
    (job,) = jobs
    assert job.workers == 3
    program, *_, name, run_dir, epochs, number, synchronized = job.command
    assert program == sys.executable
    assert (name, epochs, number, synchronized) == ("train", "--epochs", "3", "--nosynchronized")
    assert re.fullmatch(r"--run_dir=runs/digits-\d{8}-\d{6}", run_dir)
    assert job.mistakes == {1, 2}


def test_the_recipe_for_photographs_is_told_by_the_chief_alone(launched, caplog):
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (80, 80)).save(Path("photos", name, f"{number}.png"))
    caplog.set_level("INFO", logger="absl")
    assert main(["launch", "--", "train", "--data=photos"]) == 0
    assert "all workers" in caplog.text
    assert "recipe for photos" not in caplog.text


def test_flags_of_launch_become_the_job(launched):
    jobs, _ = launched
    flags = ["--workers=1", "--max_restarts=5", "--grace_seconds=7.5", "--pin", "--log_dir=logs", "--event_log=events"]
    assert main(["launch", *flags, "--", "train"]) == 0
    (job,) = jobs
    assert (job.workers, job.max_restarts, job.grace_seconds, job.pin) == (1, 5, 7.5, True)
    assert (job.log_dir, job.event_log) == (Path("logs"), Path("events"))


def test_a_folder_of_logs_that_cannot_be_made(launched, capsys):
    jobs, _ = launched
    Path("link").symlink_to("nowhere")
    assert main(["launch", "--log_dir=link", "--", "train"]) == 1
    assert "polynet: --log_dir='link' is a link to 'nowhere', which is missing" in capsys.readouterr().err
    assert not jobs
    assert not Path("runs").exists()


def test_a_run_folder_that_is_named_is_kept(launched):
    jobs, _ = launched
    assert main(["launch", "--", "train", "--run_dir", "mine"]) == 0
    assert [word for word in jobs[0].command if "run_dir" in word] == ["--run_dir"]


@pytest.mark.parametrize("kept", [False, True])
def test_an_empty_folder_of_runs_goes_only_if_it_was_made_here(launched, kept):
    if kept:
        Path("runs").mkdir()
    assert main(["launch", "--", "train"]) == 0
    assert Path("runs").exists() == kept
    assert not list(Path().glob("runs/*"))


@pytest.mark.parametrize(("code", "told"), [(75, True), (0, False), (1, False), (137, False)])
def test_how_to_go_on(launched, monkeypatch, code, told):
    jobs, result = launched
    result[0] = code
    lines = []
    monkeypatch.setattr(launch.logging, "info", lambda text, *values: lines.append(text % values))
    assert main(["launch", "--", "train"]) == code
    run_dir = next(word for word in jobs[0].command if word.startswith("--run_dir="))
    assert lines[0] == f"all workers, and their restarts, use {run_dir}"
    assert lines[1:] == [f"to resume the run, use the same command and {run_dir}"] * told


def test_a_program_is_run_as_it_is_named(launched):
    jobs, _ = launched
    assert main(["launch", "--workers=2", "--", "sh", "-c", "exit 3", "--", "--workers=9"]) == 0
    (job,) = jobs
    assert Path(job.command[0]).name == "sh"
    assert list(job.command[1:]) == ["-c", "exit 3", "--", "--workers=9"]
    assert job.workers == 2
    assert job.mistakes == {2}


def test_workers_have_cores_of_their_own_where_there_are_enough(launched):
    jobs, _ = launched
    for workers in (len(cores()), len(cores()) + 1):
        assert main(["launch", f"--workers={workers}", "--", "train"]) == 0
    assert [job.pin for job in jobs] == [hasattr(os, "sched_setaffinity"), False]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "nothing to launch; as in: polynet launch --workers 2 -- train --data photos"),
        (["--"], "nothing to launch"),
        (["--workers", "0", "--", "train"], "workers=0 must be at least 1"),
        (["--workers", "two", "--", "train"], "--workers=two"),
        (["--max_restarts", "-1", "--", "train"], "max_restarts=-1 must be at least 0"),
        (["--grace_seconds", "0", "--", "train"], "grace_seconds=0.0 must be a finite number > 0"),
        (["--workers", "9999", "--pin", "--", "train"], "9999 workers cannot each have a core"),
        (["--", "evaluate"], "`evaluate` works in one process; launch starts train, or a program that reads TF_CONFIG"),
        (["--", "trian"], "'trian' is neither `train` nor a program that can be found"),
        (["--", "./missing.sh"], "'./missing.sh' is neither `train` nor a program that can be found"),
        (["--", "train", "--epoch", "3"], "unknown flag --epoch of polynet train; did you mean --epochs?"),
        (["--", "train", "--epochs", "0"], "epochs=0 must be an integer of at least 1"),
        (["--", "train", "--communication", "mpi"], "--communication='mpi' must be one of"),
        (["--", "train", "--find_learning_rate"], "--find_learning_rate runs on one worker: use `polynet train`"),
        (["--", "train", "photos"], "unexpected argument 'photos' of train; name the data with --data"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(launched, capsys, argv, message):
    jobs, _ = launched
    assert main(["launch", *argv]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("polynet: ")
    assert message in line
    assert jobs == []
    assert not Path("runs").exists()


def test_a_worker_is_no_launcher(launched, monkeypatch, capsys):
    jobs, _ = launched
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert main(["launch", "--", "train"]) == 1
    assert "TF_CONFIG says that this is already one of 2 workers" in capsys.readouterr().err
    assert jobs == []


@pytest.mark.parametrize(
    ("flags", "chosen", "workers", "gpus", "told"),
    [
        ([], None, 4, [*"0123"], "4 workers with 1 GPU each"),
        (["--workers=2"], None, 2, [*"0123"], "2 workers with 2 GPUs each"),
        (["--workers=1"], None, 1, [*"0123"], "1 worker with 4 GPUs each"),
        ([], "GPU-3,1", 2, ["GPU-3", "1"], "2 workers with 1 GPU each"),
        ([], "2", 1, ["2"], "1 worker with 1 GPU each"),
        ([], "-1", 2, [], None),
        (["--workers=3"], "-1", 3, [], None),
    ],
)
def test_one_worker_for_each_gpu(launched, four_gpus, monkeypatch, caplog, flags, chosen, workers, gpus, told):
    jobs, _ = launched
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    caplog.set_level("INFO", logger="absl")
    assert main(["launch", *flags, "--", "train"]) == 0
    (job,) = jobs
    assert (job.workers, job.gpus, job.cluster) == (workers, gpus, Cluster())
    assert (told in caplog.text) if told else ("GPU" not in caplog.text)


@pytest.mark.parametrize("workers", [3, 8])
def test_gpus_that_workers_cannot_share(launched, four_gpus, capsys, workers):
    jobs, _ = launched
    assert main(["launch", f"--workers={workers}", "--", "train"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--workers={workers} cannot share 4 GPUs equally; choose 1, 2 or 4, or other GPUs" in line
    assert jobs == []


def test_one_launcher_on_each_machine(launched, four_gpus, monkeypatch, capsys):
    """TF_CONFIG or Slurm then name the machines."""
    jobs, _ = launched
    slurm = {"PROCID": "1", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "gpu[1-2]", "STEP_TASKS_PER_NODE": "1(x2)"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert main(["launch", "--", "train", "--run_dir=mine"]) == 0
    (job,) = jobs
    assert (job.workers, job.indices, job.cluster.source) == (4, range(4, 8), "Slurm")
    assert job.cluster.workers[3:5] == ("gpu1:8891", "gpu2:8888")
    assert main(["launch", "--", "train"]) == 1
    assert "several workers need the same run folder" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", "1,2")
    assert main(["launch", "--", "train", "--run_dir=mine"]) == 1
    assert "Slurm says that this is already one of 3 workers" in capsys.readouterr().err
    assert len(jobs) == 1


def test_each_worker_sees_its_own_gpu(four_gpus, tmp_path):
    program = """
import json, os
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
print(index, os.environ["CUDA_VISIBLE_DEVICES"])
"""
    launcher = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
    command = ["launch", "--", sys.executable, "-c", program]
    environment = {"TF_CONFIG": None, "CUDA_VISIBLE_DEVICES": "3,GPU-0,2"}
    done = children.run(launcher, *command, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 3", "[worker 1] 1 GPU-0", "[worker 2] 2 2"]


def test_a_log_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    (tmp_path / "file").touch()
    assert main(["launch", f"--log_dir={tmp_path}/file/logs", "--", "true"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/file/logs" in line


def test_a_program_from_start_to_end(tmp_path):
    """Started again once, with what the workers say told apart and logged."""
    program = """
import json, os, sys
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
attempt = int(os.environ["POLYNET_ATTEMPT"])
print("attempt", attempt, *sys.argv[1:], flush=True)
if attempt == 0:
    os.kill(os.getpid(), 9) if index else sys.exit(75)
"""
    flags = ["--workers=2", "--max_restarts=1", f"--log_dir={tmp_path}/logs", f"--event_log={tmp_path}/events"]
    launcher = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
    command = ["launch", *flags, "--", sys.executable, "-c", program, "--flag"]
    done = children.run(launcher, *command, env={"TF_CONFIG": None}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "[worker 1] attempt 0 --flag",
        "[worker 1] attempt 1 --flag",
        "attempt 0 --flag",
        "attempt 1 --flag",
    ]
    assert "worker 1 was killed by SIGKILL; restart 1 of 1 in 1 s" in done.stderr
    assert (tmp_path / "logs" / "worker-1-attempt-1.log").read_text() == "attempt 1 --flag\n"
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    restarts = [(event["worker"], event["code"]) for event in events if event["event"] == "restart"]
    assert restarts == [(1, -signal.SIGKILL)]
    ends = {(event["worker"], event["code"], event["signal"]) for event in events if event["event"] == "end"}
    assert ends == {(0, 75, None), (1, -signal.SIGKILL, "SIGKILL"), (0, 0, None), (1, 0, None)}


@pytest.mark.slow
def test_a_mistake_that_only_the_workers_see(tmp_path):
    (tmp_path / "polynet_keras.py").write_text("raise SystemExit(9)")  # the current folder's modules are not taken
    done = polynet("launch", "--workers", "2", "--", "train", "--data", "digits", "--batch_size", "7", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search(
        r"worker \d exited with 1, and a restart would not fix that: .*must be a multiple of 2", done.stderr
    )
    assert "restart 1" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_two_workers_train(tmp_path):
    small = ["--structure", "1 x [ir] | 1 x [ir] | 1 x [ir]", "--width", "0.0625", "--epochs", "1"]
    done = polynet("launch", "--workers", "2", "--", "train", *small, "--batch_size", "256", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"run folder:        runs/{folder.name}" in done.stdout.splitlines()
    assert (folder / "model.json").is_file()
    assert "2 replicas" in done.stderr


def two_free_ports(host):
    """Returns a port that is free, as is the next one."""
    while True:
        with socket.create_server((host, 0)) as one:
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError), socket.create_server((host, port + 1)):
                return port


@pytest.mark.slow
def test_launchers_of_two_machines_train_together(four_gpus, tmp_path):
    """Two addresses of this machine, with two GPUs each as nvidia-smi has it; the workers compute on the processor."""
    addresses = [f"{host}:{two_free_ports(host)}" for host in ("127.0.0.1", "127.0.0.2")]
    small = ("--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--width=0.0625", "--epochs=1", "--batch_size=256")
    command = [POLYNET, "launch", "--max_restarts=0", "--", "train", *small, f"--run_dir={tmp_path / 'run'}"]
    launchers = []
    for index, gpus in enumerate(("0,1", "2,3")):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task), "CUDA_VISIBLE_DEVICES": gpus, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment |= {"POLYNET_JOB_SECRET": "of both machines 1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        launchers.append(subprocess.Popen(command, env={**os.environ, **environment}, **pipes))
    try:
        outputs = [launcher.communicate(timeout=240)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert all("2 workers with 1 GPU each" in output for output in outputs)
    assert "4 replicas" in outputs[0]
    assert (tmp_path / "run" / "model.json").is_file()


TWO_WORKERS = ("launch", "--workers=2", "--", "train", "--width=0.0625", "--batch_size=256")


@pytest.mark.slow
def test_two_workers_train_with_everything_that_a_recipe_may_ask_for(tmp_path):
    """New variables and callbacks on all workers: averages, accumulated gradients, decisions on drop rates."""
    done = polynet(
        *(*TWO_WORKERS, "--epochs=3", "--synchronized", f"--run_dir={tmp_path / 'run'}", "--ema_momentum=0.9"),
        *("--gradient_accumulation_steps=2", "--global_clipnorm=1", "--weight_decay=0.0001", "--label_smoothing=0.1"),
        *("--stochastic_depth=adaptive", "--gap_window=1", "--gap_threshold=0.0001"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with open(tmp_path / "run" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert {"drop_rate", "gap", "learning_rate", "images_per_second"} < set(rows[0])
    expected = 0.0
    for row in rows:
        assert float(row["drop_rate"]) == pytest.approx(expected)
        gap = float(row["gap"])
        assert gap == pytest.approx(float(row["accuracy"]) - float(row["val_accuracy"]))
        expected = expected + 0.05 if gap > 0.0001 else max(0.0, expected - 0.05) if gap < 0 else expected


@pytest.mark.slow
def test_two_workers_choose_an_epoch_together(tmp_path):
    """The one that wrote nothing ends with the chief, and has the chief's best weights to be evaluated."""
    done = polynet(
        *(*TWO_WORKERS, "--epochs=8", f"--run_dir={tmp_path / 'run'}", "--schedule=constant", "--learning_rate=0.02"),
        *("--ema_momentum=0.5", "--validation_share=0.2", "--patience=2", "--warmup_share=0"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with open(tmp_path / "run" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    best = max(range(len(rows)), key=lambda i: (float(rows[i]["val_accuracy"]), -float(rows[i]["val_loss"])))
    card = ModelCard.load(tmp_path / "run")
    assert card.epoch == best + 1 == int(rows[-1]["best_epoch"]) + 1
    assert len(rows) == min(8, best + 3)
    assert card.validation_correct == round(float(rows[best]["val_accuracy"]) * card.validation)
    evaluation = evaluate(load_model(tmp_path / "run"), open_source("digits", 0, "auto", 0.2).held_out)
    assert (evaluation.result.images, evaluation.result.top1_hits) == (card.held_out, card.held_out_correct)


OF_TODAY = ("--loss=binary", "--target_threshold=0.3", "--label_smoothing=0", "--sampling=uniform", "--repeats=3")
OF_TODAY += ("--policy=trivial_augment_wide", "--cutmix=1", "--evaluation_size=83")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), OF_TODAY])
def test_two_workers_weigh_and_draw_classes_as_one_does(tmp_path, more):
    """Mixed and smoothed labels too: the same global batches, each with the same loss.

    The weights do not change: a net as small as this one makes much of how a sum was rounded in its first steps.
    """
    rng = np.random.default_rng(0)
    for name, count in (("a", 40), ("b", 12), ("c", 5)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3)).astype("uint8")).save(
                tmp_path / "photos" / name / f"{i}.png"
            )
    (tmp_path / "weights.csv").write_text("class,weight\na,0.5\nc,4\n")
    flags = ("train", "--recipe=digits", f"--data={tmp_path}/photos", "--width=0.0625", "--epochs=2", "--batch_size=12")
    flags += ("--synchronized", "--optimizer=sgd", "--learning_rate=1e-12", "--schedule=constant", "--warmup_share=0")
    flags += ("--sampling=balanced", f"--class_weights={tmp_path}/weights.csv", "--label_smoothing=0.1", "--mixup=0.4")
    flags += more  # of a flag that is given twice, the last value counts
    histories = []
    for name, launch_flags in (("one", ()), ("two", ("launch", "--workers=2", "--"))):
        done = polynet(*launch_flags, *flags, f"--run_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr[-3000:]
        with open(tmp_path / name / "history.csv") as file:
            histories.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)


@pytest.mark.slow
def test_two_workers_unfreeze_as_one_does(digits_run, tmp_path):
    """In phases, with learning rates by part, averages and the best epoch. The rate is low, so that what rounding makes
    of a small net stays small."""
    flags = ("train", f"--weights={digits_run.folder}", "--epochs=4", "--batch_size=256", "--learning_rate=0.0001")
    flags += ("--unfreezing=stage_c:1,stage_b:1:0.0002", "--frozen_through=stem", "--layer_decay=0.5", "--synchronized")
    flags += ("--optimizer=adamw", "--ema_momentum=0.5", "--validation_share=0.2", "--patience=3", "--weight_decay=1")
    histories, trained = [], []
    for name, launch_flags in (("one", ()), ("two", ("launch", "--workers=2", "--"))):
        done = polynet(*launch_flags, *flags, f"--run_dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr[-3000:]
        with open(tmp_path / name / "history.csv") as file:
            histories.append([[float(row[key]) for key in ("loss", "val_loss")] for row in csv.DictReader(file)])
        trained.append(load_model(tmp_path / name).model)
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-3)
    start = load_model(digits_run.folder).model
    for one, two, before in zip(*(model.weights for model in (*trained, start)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-2, atol=2e-4, err_msg=one.path)
        if one.path.startswith("stem"):
            np.testing.assert_array_equal(two, before)


@pytest.mark.slow
def test_two_workers_diverge_together(tmp_path):
    """A mistake of the recipe's: no restart. The chief has written what is left before anyone leaves."""
    flags = ("--optimizer=sgd", "--momentum=0", "--learning_rate=1e30", "--warmup_share=0.5", "--save_every_steps=1")
    done = polynet(*TWO_WORKERS, *flags, f"--run_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "a restart would not fix that: polynet: the loss is " in done.stderr
    assert f"--weights={tmp_path / 'run' / 'last_good.keras'}" in done.stderr
    assert (tmp_path / "run" / "last_good.keras").is_file()
