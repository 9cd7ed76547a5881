"""Runs `fault_training.py` under a plan of faults, and compares what it left with an undisturbed training."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("fault_training.py")
MARK = "POLYNET_FAULT_TRIAL"

AT_END = "kill at the end"
ENDS = (
    "exception",
    "kill",
    "kill while saving",
    "stop",
    "terminate",
    "terminate launcher",
    "damaged checkpoint",
    AT_END,
)
"""What ends an attempt. A damaged checkpoint is the newest one, damaged just before a worker is killed."""
KINDS = (*ENDS, "pause", "full disk")
OF_CHIEF = ("kill while saving", "full disk")
DAMAGES = ("flipped data", "cut data", "no data", "flipped index", "cut index", "no index")

SPARED = "no checkpoint could be spared"
PAUSE_SECONDS = 1.5
GRACE_SECONDS = 10.0
"""For the workers to end by themselves after one has failed."""
LAUNCH_SECONDS = 60
"""For an attempt, beside the timeout; what takes longer hangs."""


@dataclass(frozen=True)
class Fault:
    """Something that happens once.

    Attributes:
        kind: of `KINDS`.
        step: at whose beginning, or at the first one after it that is computed; "kill while saving" at the next save,
            "kill at the end" after the last step, with its number.
        worker: to which.
        damage: of `DAMAGES`, for "damaged checkpoint".
        seed: of what is random about it, such as the byte that is flipped.
    """

    kind: str
    step: int
    worker: int = 0
    damage: str = ""
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{f' ({self.damage})' if self.damage else ''} at step {self.step} of worker {self.worker}"


@dataclass(frozen=True)
class Plan:
    """A training, and what is to happen to it, in this order."""

    faults: tuple[Fault, ...] = ()
    workers: int = 2
    steps: int = 30
    steps_per_epoch: int = 10
    save_every: int = 4
    timeout: float = 30.0


@dataclass
class Struck:
    """A fault that happened.

    Attributes:
        kind: of `KINDS`.
        fault: the plan's.
        what: it did, where the plan leaves that open.
        steps_again: steps of which the results were lost.
        seconds: until the next step of the training; None if that was over.
    """

    kind: str
    fault: Fault
    what: str
    steps_again: int
    seconds: float | None


@dataclass
class Trial:
    """What came of a plan; `problems` is empty if the training recovered."""

    plan: Plan
    struck: list[Struck]
    attempts: int
    seconds: float
    problems: list[str]


class Reference:
    """A training that nothing happened to.

    Args:
        folder: where it ran.
        plan: its plan.
    """

    def __init__(self, folder: Path, plan: Plan):
        steps = [event for event in _log(folder, 0) if event["event"] == "step"]
        self.steps = {event["step"]: (event["epoch"], event["logs"], event["variables"]) for event in steps}
        self.final = _final(folder, 0)
        if sorted(self.steps) != list(range(plan.steps)) or self.final is None:
            raise SystemExit(f"the undisturbed training did not run through: see {folder}/launch.log")


def undisturbed(folder: Path, workers: int) -> Reference:
    """Runs a training that nothing happens to."""
    plan = Plan(workers=workers)
    problems = _run(plan, folder)
    if problems:
        raise SystemExit(f"the undisturbed training failed: {'; '.join(problems)}; see {folder}/launch.log")
    return Reference(folder, plan)


def run_trial(plan: Plan, folder: Path, reference: Reference) -> Trial:
    """Runs a plan in a new folder and compares what it left with the undisturbed training."""
    start = time.monotonic()
    problems = _run(plan, folder)
    seconds = time.monotonic() - start
    problems += check(plan, folder, reference)
    attempts = sum(event["event"] == "start" for event in _log(folder, 0))
    return Trial(plan, _struck(folder, plan), attempts, seconds, problems)


def check(plan: Plan, folder: Path, reference: Reference) -> list[str]:
    """What is wrong with what a training left in its folder."""
    problems = [problem for worker in range(plan.workers) for problem in _wrong_steps(folder, worker, reference)]
    return problems + _wrong_lineage(_log(folder, 0), plan) + _wrong_end(folder, plan, reference) + _litter(folder)


def _run(plan: Plan, folder: Path) -> list[str]:
    """Has the launcher run a plan; starts it anew where the plan had it end. Returns what went wrong."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    deadline = time.monotonic() + (LAUNCH_SECONDS + plan.timeout) * (len(plan.faults) + 1)
    done: set[int] = set()
    problems = []
    launcher = _launch(plan, folder)
    try:
        while True:
            told_to_end = _help_on(plan, folder, launcher, done)
            try:
                code = launcher.wait(60 if told_to_end else 0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    return [f"it hangs: not done after {LAUNCH_SECONDS:g} s an attempt"]
                continue
            if not told_to_end:
                break
            left = _processes(folder)
            if left:
                problems.append(f"processes {left} outlived the launcher, which got SIGTERM")
            launcher = _launch(plan, folder)
        if code != 0:
            problems.append(f"the launcher ended with {code}")
        left = _processes(folder)
        if left:
            problems.append(f"processes {left} outlived the launcher")
        return problems
    finally:
        for process in [launcher.pid, *_processes(folder)]:
            _signal(process, signal.SIGKILL)
        launcher.wait()


def _launch(plan: Plan, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", "import sys; from polynet_keras.cli.main import main; sys.exit(main())", "launch"]
    command += ["--workers", str(plan.workers), "--max_restarts", str(len(plan.faults) + 3)]
    command += ["--grace_seconds", f"{GRACE_SECONDS:g}", "--event_log", str(folder / "events.jsonl")]
    command += ["--", sys.executable, str(PROGRAM), str(folder)]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", **{MARK: str(folder)})
    environment.pop("TF_CONFIG", None)
    with open(folder / "launch.log", "a") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _help_on(plan: Plan, folder: Path, launcher: subprocess.Popen, done: set[int]) -> bool:
    """Does what a worker cannot do to itself; returns whether the launcher was told to end."""
    for number, fault in enumerate(plan.faults):
        note = _note(folder, number)
        if note is None or number in done or fault.kind not in ("pause", "terminate launcher"):
            continue
        done.add(number)
        if fault.kind == "terminate launcher":
            launcher.send_signal(signal.SIGTERM)
            return True
        time.sleep(PAUSE_SECONDS)
        _signal(note["pid"], signal.SIGCONT)
    return False


def _wrong_steps(folder: Path, worker: int, reference: Reference) -> list[str]:
    """Steps that a worker computed, whether they count or not, and that gave something else than they should."""
    problems = []
    for event in _log(folder, worker):
        if event["event"] != "step":
            continue
        found, expected = (event["epoch"], event["logs"], event["variables"]), reference.steps.get(event["step"])
        if found != expected:
            what = f"step {event['step']} of worker {worker}, attempt {event['attempt']}"
            problems.append(f"{what}, gave {found}, and undisturbed {expected}")
    return problems[:1]


def _wrong_lineage(events: Sequence[dict], plan: Plan) -> list[str]:
    """Of the steps that count, after which no attempt of the chief began earlier, each is there once, in order."""
    lineage: list[int] = []
    for event in events:
        if event["event"] == "start":
            lineage = [step for step in lineage if step < event["step"]]
        else:
            lineage.append(event["step"])
    return [] if lineage == list(range(plan.steps)) else [f"the steps that count are {lineage}"]


def _wrong_end(folder: Path, plan: Plan, reference: Reference) -> list[str]:
    problems = []
    for worker in range(plan.workers):
        final = _final(folder, worker)
        if final is None:
            problems.append(f"worker {worker} did not come to the end")
        elif final != reference.final:
            problems.append(f"worker {worker} ends with {final}, undisturbed it is {reference.final}")
    return problems


def _litter(folder: Path) -> list[str]:
    """Files in the checkpoints' folder that belong to no checkpoint."""
    files = {file.name for file in (folder / "checkpoints").glob("*")}
    whole = set()
    for name in files:
        match = re.fullmatch(r"(checkpoint-\d+)\.index", name)
        data = f"{match[1]}.data-00000-of-00001" if match else ""
        # One whose data the plan has removed stays until a next one is written.
        if match and (data in files or any(note["what"] == f"{match[1]}: no data" for note in _notes(folder))):
            whole |= {name, data}
    return [f"left in the checkpoints' folder: {sorted(files - whole)}"] if files - whole else []


def _struck(folder: Path, plan: Plan) -> list[Struck]:
    """What each fault cost."""
    events = _log(folder, 0)
    struck = []
    for number, fault in enumerate(plan.faults):
        note = _note(folder, number)
        if note is None:
            break
        # The chief notes that it begins before any worker can make a step.
        begun = max((e["attempt"] for e in events if e["event"] == "start" and e["time"] <= note["time"]), default=-1)
        kind = "kill" if note["what"] == SPARED else fault.kind
        again = 0
        if kind in ENDS:
            steps = [e for e in events if e["event"] == "step" and e["attempt"] > begun]
            following = [e["step"] for e in events if e["event"] == "start" and e["attempt"] > begun]
            before = [e["step"] + (e["event"] == "step") for e in events if e["attempt"] == begun]
            again = max(before) - following[0] if before and following else 0
        else:
            steps = [e for e in events if e["event"] == "step" and e["time"] > note["time"] and e["step"] >= fault.step]
        seconds = steps[0]["time"] - note["time"] if steps else None
        struck.append(Struck(kind, fault, note["what"], again, seconds))
    return struck


def _log(folder: Path, worker: int) -> list[dict[str, Any]]:
    path = folder / f"worker-{worker}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _final(folder: Path, worker: int) -> dict[str, Any] | None:
    path = folder / f"final-{worker}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _note(folder: Path, number: int) -> dict[str, Any] | None:
    path = folder / f"struck-{number}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _notes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("struck-*.json")]


def _processes(folder: Path) -> list[int]:
    """Of a trial, wherever they are by now: they have inherited its mark."""
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended, or is somebody else's
            continue
    return sorted(found)


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
