"""A small training that does to itself what its plan says: the program that `faults.py` breaks.

    polynet launch --workers 2 -- python benchmarks/fault_training.py FOLDER

FOLDER has a `plan.json` (`fault_trials.Plan`), and gets, of every worker, a log of the steps that were really computed
(`worker-0.jsonl`, with a digest of all variables), what it ended with (`final-0.json`), and a file for each fault that
struck (`struck-0.json`): a fault waits until those before it have struck, and strikes once, whatever is done again.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path

BATCH, FEATURES, CLASSES = 16, 32, 4
DISK_BYTES = 40 << 10
"""What is left of a full disk: more than a log takes, less than a checkpoint."""
SETTLE_SECONDS = 0.5
"""After which the others have come to the step that waits for this process, and nothing is being written."""
SIGTERM_SECONDS = 60
ENDINGS = ("in fit", "before the result is written", "after the result is written")
"""Where a process can be killed that has made its last step."""


def train(folder: Path, plan: dict) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras
    import tensorflow as tf

    from polynet_keras.checkpoints.callback import Checkpoints
    from polynet_keras.cluster.cluster import Cluster
    from polynet_keras.cluster.communication import Communication
    from polynet_keras.cluster.failures import peer_failures
    from polynet_keras.cluster.inputs import distributed_dataset
    from polynet_keras.cluster.strategies import open_strategy
    from polynet_keras.engine.distributed_model import DistributedModel
    from polynet_keras.layers import BatchNormalization

    cluster = Cluster.from_environment()
    steps_per_epoch = plan["steps_per_epoch"]
    tf.config.threading.set_intra_op_parallelism_threads(1)

    def model() -> keras.Model:
        x = keras.Input((FEATURES,))
        h = keras.layers.Dense(128, use_bias=False)(x)
        h = keras.layers.Activation("relu")(BatchNormalization()(h))
        h = keras.layers.Dropout(0.3)(h)
        y = keras.layers.Dense(CLASSES, activation="softmax")(h)
        net = DistributedModel(x, y)
        rate = keras.optimizers.schedules.CosineDecay(0.01, plan["steps"])
        net.compile(
            keras.optimizers.RMSprop(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return net

    def dataset(first_step: int):
        """Endless; each batch a function of its global step."""
        direction = tf.random.stateless_normal((FEATURES, CLASSES), seed=(1, 1))

        def of_worker(workers: int, worker: int, replicas: int) -> tf.data.Dataset:
            def batch(step):
                images = tf.random.stateless_normal((BATCH, FEATURES), seed=tf.stack([step, 2]))
                mine = images[worker * BATCH // workers : (worker + 1) * BATCH // workers]
                return mine, tf.argmax(mine @ direction, axis=-1)

            return tf.data.Dataset.range(first_step, 1 << 40).map(batch)

        return of_worker

    class Log(keras.callbacks.Callback):
        """Each step that was really computed."""

        def on_train_begin(self, logs=None):
            record("start", step=first_step)

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            step = self.epoch * steps_per_epoch + batch
            if step >= first_step:
                logs = {name: float(value).hex() for name, value in logs.items()}
                record("step", step=step, epoch=self.epoch, logs=logs, variables=digest_of(self.model))

    class Strike(keras.callbacks.Callback):
        """Has faults happen to this process, in the order of the plan."""

        def on_train_begin(self, logs=None):
            self.disk_is_full_until = None
            self.watches = False

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            step = self.epoch * steps_per_epoch + batch
            if step < first_step:
                return
            if self.disk_is_full_until is not None and step >= self.disk_is_full_until:
                limit_files(None)
                self.disk_is_full_until = None
            for number in range(len(list(folder.glob("struck-*.json"))), len(plan["faults"])):
                fault = plan["faults"][number]
                if fault["worker"] != cluster.index or fault["step"] > step or not self.strike(number, fault, step):
                    break

        def on_train_end(self, logs=None):
            kill_at_end("in fit")

        def strike(self, number: int, fault: dict, step: int) -> bool:
            """Whether the fault has struck, and this process still lives."""
            kind, rng = fault["kind"], random.Random(fault["seed"])
            if kind == "kill while saving":
                if not self.watches:
                    self.watches = True
                    threading.Thread(target=kill_while_saving, args=(folder, number, rng), daemon=True).start()
                return False
            what = ""
            if kind == "damaged checkpoint":
                time.sleep(SETTLE_SECONDS)
                what = damage_newest(folder, fault["damage"], rng)
            mark(folder, number, what)
            if kind == "exception":
                raise RuntimeError("a fault of the plan")
            if kind in ("kill", "damaged checkpoint"):
                os.kill(os.getpid(), signal.SIGKILL)
            if kind in ("stop", "pause"):
                os.kill(os.getpid(), signal.SIGSTOP)
            if kind == "terminate":
                os.kill(os.getpid(), signal.SIGTERM)
            if kind == "terminate launcher":
                deadline = time.monotonic() + SIGTERM_SECONDS
                while not self.model.interruption.requested:
                    if time.monotonic() > deadline:
                        raise RuntimeError("the launcher got SIGTERM, and this worker none")
                    time.sleep(0.01)
            if kind == "full disk":
                self.disk_is_full_until = step + 2 * plan["save_every"]
                limit_files(DISK_BYTES)
            return True

    def kill_at_end(ending: str) -> None:
        """Ends this process at once if the plan's next fault is to strike here."""
        number = len(list(folder.glob("struck-*.json")))
        fault = plan["faults"][number] if number < len(plan["faults"]) else None
        if not fault or fault["kind"] != "kill at the end" or fault["worker"] != cluster.index:
            return
        if ending == random.Random(fault["seed"]).choice(ENDINGS):
            mark(folder, number, ending)
            os.kill(os.getpid(), signal.SIGKILL)

    path = folder / f"worker-{cluster.index}.jsonl"
    attempt = path.read_text().count('"start"') if path.exists() else 0

    def record(event: str, **values) -> None:
        line = json.dumps({"event": event, "attempt": attempt, "time": time.time(), **values}) + "\n"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)

    with peer_failures(cluster):
        strategy = open_strategy("auto", cluster, Communication(timeout_seconds=plan["timeout"]))
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(0)
        with strategy.scope():
            net = model()
        checkpoints = Checkpoints(
            folder / "checkpoints", every_steps=plan["save_every"], skip_data=False, strategy=strategy
        )
        first_step = checkpoints.position.global_step
        data = distributed_dataset(strategy, dataset(first_step))
        history = net.fit(
            data,
            epochs=plan["steps"] // steps_per_epoch,
            steps_per_epoch=steps_per_epoch,
            callbacks=[checkpoints, Strike(), Log()],
            verbose=0,
            shuffle=False,
        )
    final = {"variables": digest_of(net), "history": history.history, "epochs": history.epoch}
    kill_at_end("before the result is written")
    (folder / f"final-{cluster.index}.json").write_text(json.dumps(final))
    kill_at_end("after the result is written")


def digest_of(model) -> str:
    """SHA-256 of all variables of a model and its optimizer."""
    digest = hashlib.sha256()
    for variable in (*model.variables, *model.optimizer.variables):
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def mark(folder: Path, number: int, what: str) -> None:
    """Leaves word that a fault strikes."""
    note = {"time": time.time(), "pid": os.getpid(), "what": what}
    temporary = folder / f"strikes-{number}"
    temporary.write_text(json.dumps(note))
    temporary.rename(folder / f"struck-{number}.json")


def limit_files(size: int | None) -> None:
    """No file of this process can grow over so many bytes: writing fails as on a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def kill_while_saving(folder: Path, number: int, rng: random.Random) -> None:
    """Ends this process at once, up to a few file operations after the files of a next checkpoint appear."""
    checkpoints = folder / "checkpoints"
    before = set(os.listdir(checkpoints))
    delay = rng.choice((0, 1, 2, 4, 8))
    while not (there := set(os.listdir(checkpoints)) - before):
        pass
    for _ in range(delay):
        there = set(os.listdir(checkpoints)) - before
    mark(folder, number, " ".join(sorted(there)))
    os.kill(os.getpid(), signal.SIGKILL)


def damage_newest(folder: Path, damage: str, rng: random.Random) -> str:
    """Damages the newest checkpoint, if that leaves one that nobody has damaged. Returns what was done."""
    checkpoints = folder / "checkpoints"
    damaged = [json.loads(file.read_text())["what"] for file in folder.glob("struck-*.json")]
    numbers = sorted(int(file.stem.split("-")[1]) for file in checkpoints.glob("checkpoint-*.index"))
    whole = [number for number in numbers if not any(f"checkpoint-{number}:" in what for what in damaged)]
    if len(whole) < 2:
        return "no checkpoint could be spared"
    path = checkpoints / f"checkpoint-{numbers[-1]}"
    how, part = damage.split()
    file = Path(f"{path}.index" if part == "index" else f"{path}.data-00000-of-00001")
    if how == "no":
        file.unlink(missing_ok=True)
    elif how == "cut":
        os.truncate(file, rng.randrange(file.stat().st_size))
    else:
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return f"checkpoint-{numbers[-1]}: {damage}"


def main() -> None:
    from polynet_keras.checkpoints.interruption import Preempted
    from polynet_keras.cluster.failures import PeerFailure, leave

    path = Path(sys.argv[1])
    try:
        train(path, json.loads((path / "plan.json").read_text()))
    except (PeerFailure, Preempted) as ended:
        leave(ended.code)  # as `polynet train` does


if __name__ == "__main__":
    main()
