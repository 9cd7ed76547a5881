"""What becomes of a training whose workers are killed, stopped, told to end, and robbed of disk and checkpoints.

    python benchmarks/faults.py --trials 100 --workers 2 --seed 0 --output faults.md     # an hour on two cores

A trial is a training of 30 steps (`fault_training.py`: a small net with batch normalization, dropout, momentum and a
falling learning rate, saved every 4 steps, deterministic), started by `polynet launch` and hit by one to three faults
at random steps of random workers. It has recovered if, against one training that nothing happened to,

    * the launcher ends with 0, no process is left, and no file of an unfinished checkpoint;
    * the steps that count, those after which nothing was rolled back, are each step once, in order;
    * each step that any worker computed at any time gave the same loss, accuracy and variables, bit for bit;
    * so are the variables and the history at the end, on every worker.

Printed are a line for each trial and, at the end, a table by kind of fault: how many struck, how many of their trials
recovered, the steps that were done again, and the seconds until the training made its next step. The exit code is 1 if
a trial did not recover. Every trial's record is in `--record`, and the files of those that failed stay. (Run from the
project's folder, with the package installed.)
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fault_trials import AT_END, DAMAGES, ENDS, KINDS, OF_CHIEF, Fault, Plan, Trial, run_trial, undisturbed


def random_plan(rng: random.Random, workers: int, first: str) -> Plan:
    """One to three faults, one of them of a given kind."""
    faults = []
    more = rng.choices((0, 1, 2), (6, 3, 1))[0]
    for kind in (first, *rng.choices(KINDS, k=more)):
        # A damaged checkpoint needs another one to fall back to.
        earliest = 2 * Plan.save_every + 1 if kind == "damaged checkpoint" else 0
        worker = 0 if kind in OF_CHIEF else rng.randrange(workers)
        damage = rng.choice(DAMAGES) if kind == "damaged checkpoint" else ""
        step = Plan.steps if kind == AT_END else rng.randrange(earliest, Plan.steps)
        faults.append(Fault(kind, step, worker, damage, rng.randrange(1 << 30)))
    return Plan(tuple(sorted(faults, key=lambda fault: fault.step)), workers)


def table(trials: Sequence[Trial]) -> str:
    """Markdown: by kind of fault, what became of the trainings that it struck."""
    lines = [
        "| fault | struck | recovered | steps done again, mean | seconds to the next step, median | failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in (*KINDS, "all"):
        found = [(one, trial) for trial in trials for one in trial.struck if kind in (one.kind, "all")]
        if not found:
            continue
        failed = sum(bool(trial.problems) for _, trial in found)
        again = statistics.mean(one.steps_again for one, _ in found)
        seconds = [one.seconds for one, _ in found if one.seconds is not None]
        median = f"{statistics.median(seconds):.1f}" if seconds else ""
        lines.append(f"| {kind} | {len(found)} | {len(found) - failed} | {again:.1f} | {median} | {failed} |")
    failures = sum(bool(trial.problems) for trial in trials)
    # Two faults may end one attempt.
    more = sum(max(0, trial.attempts - 1 - sum(one.kind in ENDS for one in trial.struck)) for trial in trials)
    mean = statistics.mean(trial.seconds for trial in trials)
    lines.append("")
    lines.append(
        f"{len(trials)} trainings of {trials[0].plan.workers} workers, {len(trials) - failures} recovered, {failures} "
        f"failed; {more} restarts that no fault asked for; {mean:.0f} s a training."
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="of the table; it is printed as well")
    parser.add_argument("--record", type=Path, help="of all trials, a line of JSON each", default=Path("faults.jsonl"))
    settings = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    reference = undisturbed(base / "undisturbed", settings.workers)
    trials = []
    with open(settings.record, "w") as record:
        for number in range(settings.trials):
            rng = random.Random(f"{settings.seed} {number}")
            plan = random_plan(rng, settings.workers, KINDS[number % len(KINDS)])
            folder = base / f"trial-{number}"
            trial = run_trial(plan, folder, reference)
            trials.append(trial)
            record.write(json.dumps({"number": number, **asdict(trial)}) + "\n")
            record.flush()
            faults = ", ".join(f"{fault}" for fault in plan.faults)
            again = sum(one.steps_again for one in trial.struck)
            end = f"FAILED: {'; '.join(trial.problems)}; see {folder}" if trial.problems else "recovered"
            print(
                f"{number + 1}: {faults}: {end}; {len(trial.struck)} struck, {trial.attempts} attempts, {again} steps "
                f"again, {trial.seconds:.0f} s",
                flush=True,
            )
            if not trial.problems:
                shutil.rmtree(folder)
    text = table(trials)
    print(f"\n{text}")
    if settings.output:
        settings.output.write_text(f"{text}\n")
    failed = any(trial.problems for trial in trials)
    if not failed:
        shutil.rmtree(base)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
