"""Trainings under `polynet launch` that are killed, stopped and told to end give what an undisturbed one gives."""

import importlib
import json
import random
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def trials():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("fault_trials")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def reference(trials, tmp_path_factory):
    return trials.undisturbed(tmp_path_factory.mktemp("faults") / "undisturbed", workers=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "again", "end"),
    [
        # Saved after 4, 8 and 12 steps, the last one cut short: from 13 back to 8. Then SIGTERM saves what is done, and
        # the chief is killed before `fit` ends.
        (
            [("damaged checkpoint", 13, 1, "cut data"), ("terminate", 20, 1), ("kill at the end", 30, 0, "", 1)],
            [5, 0, 0],
            "in fit",
        ),
        # The chief is silent at step 6 until the other one gives up; both go on from step 4. One is killed when all is
        # written: there is nothing left to do.
        ([("stop", 6, 0), ("kill at the end", 30, 1, "", 5)], [2, 0], "after the result is written"),
    ],
)
def test_a_disturbed_training_ends_as_an_undisturbed_one(trials, reference, tmp_path, faults, again, end):
    plan = trials.Plan(tuple(trials.Fault(*fault) for fault in faults))
    trial = trials.run_trial(plan, tmp_path / "trial", reference)
    assert trial.problems == []
    assert [one.kind for one in trial.struck] == [fault[0] for fault in faults]
    assert trial.struck[-1].what == end
    assert [one.steps_again for one in trial.struck] == again
    assert trial.attempts == 1 + len(faults)


def write_training(folder, starts):
    """What a training of four steps leaves: of each attempt the first step and the one after its last."""
    lines = []
    for attempt, (first, end) in enumerate(starts):
        lines.append({"event": "start", "attempt": attempt, "time": 10.0 * attempt, "step": first})
        for step in range(first, end):
            values = {"epoch": step // 2, "logs": {"loss": f"{step}"}, "variables": f"after {step}"}
            time = 10.0 * attempt + step + 1
            lines.append({"event": "step", "attempt": attempt, "time": time, "step": step, **values})
    (folder / "checkpoints").mkdir(parents=True)
    for worker in range(2):
        (folder / f"worker-{worker}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / f"final-{worker}.json").write_text(json.dumps({"variables": "after 3", "history": [1, 2]}))
    return folder


def replace(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: None, None),
        (
            lambda folder: replace(folder / "worker-1.jsonl", '"loss": "1"', '"loss": "7"'),
            r"step 1 of worker 1, attempt 0, gave \(0, {'loss': '7'}, 'after 1'\), and undisturbed",
        ),
        (
            lambda folder: replace(folder / "worker-0.jsonl", '"time": 10.0, "step": 2', '"time": 10.0, "step": 3'),
            r"the steps that count are \[0, 1, 2, 2, 3\]",
        ),
        (
            lambda folder: replace(folder / "worker-0.jsonl", '"time": 10.0, "step": 2', '"time": 10.0, "step": 1'),
            r"the steps that count are \[0, 2, 3\]",
        ),
        (lambda folder: (folder / "final-1.json").unlink(), "worker 1 did not come to the end"),
        (lambda folder: replace(folder / "final-1.json", "2", "3"), "worker 1 ends with"),
        (
            lambda folder: (folder / "checkpoints/checkpoint-1.index.tempstate5").touch(),
            r"left in the checkpoints' folder: \['checkpoint-1.index.tempstate5'\]",
        ),
    ],
)
def test_what_did_not_recover_is_found(trials, tmp_path, damage, problem):
    plan = trials.Plan(steps=4, steps_per_epoch=2)
    reference = trials.Reference(write_training(tmp_path / "undisturbed", [(0, 4)]), plan)
    folder = write_training(tmp_path / "trial", [(0, 3), (2, 4)])
    damage(folder)
    found = trials.check(plan, folder, reference)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert re.match(problem, found[0])


def test_the_table_and_its_plans(trials):
    benchmark = importlib.import_module("faults")
    plans = [benchmark.random_plan(random.Random(seed), 3, "full disk") for seed in range(1000)]
    faults = [fault for plan in plans for fault in plan.faults]
    assert {fault.kind for fault in faults} == set(trials.KINDS)
    assert {fault.worker for fault in faults} == {0, 1, 2}
    assert {fault.damage for fault in faults} == {"", *trials.DAMAGES}
    assert {len(plan.faults) for plan in plans} == {1, 2, 3}
    assert all(any(fault.kind == "full disk" for fault in plan.faults) for plan in plans)
    kill, pause = trials.Fault("kill", 5), trials.Fault("pause", 5)
    good = trials.Trial(
        trials.Plan((kill, pause)),
        [trials.Struck("kill", kill, "", 3, 8.0), trials.Struck("pause", pause, "", 0, 2.0)],
        2,
        30.0,
        [],
    )
    bad = trials.Trial(trials.Plan((kill,)), [trials.Struck("kill", kill, "", 2, None)], 3, 50.0, ["it hangs"])
    lines = benchmark.table([good, bad]).splitlines()
    assert "| kill | 2 | 1 | 2.5 | 8.0 | 1 |" in lines
    assert "| pause | 1 | 1 | 0.0 | 2.0 | 0 |" in lines
    assert "| all | 3 | 2 | 1.7 | 5.0 | 1 |" in lines
    assert lines[-1] == (
        "2 trainings of 2 workers, 1 recovered, 1 failed; 1 restarts that no fault asked for; 40 s a training."
    )
