"""Shards of records, each written completely or not at all, in several processes."""

import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from polynet_keras.basics.files import file_hash
from polynet_keras.basics.names import number_of, shown
from polynet_keras.basics.news import bar_disabled, tell
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.image_files import decode_image, read_encoded
from polynet_keras.data.labelled_files import LabelledFiles
from polynet_keras.data.records.features import Features
from polynet_keras.data.records.manifest import Shard, damage
from polynet_keras.data.records.shrinking import Shrinking

LOG_SECONDS = 10.0
"""Seconds between progress lines if there is no terminal for a progress bar."""


@dataclass(frozen=True)
class Task:
    """One shard to write.

    Attributes:
        target: its path.
        images: its images, in order.
        on_error: as in `write_records`.
        shrinking: shrinking of large images.
        known: the shard that an earlier call has written there, if any.
    """

    target: Path
    images: LabelledFiles
    on_error: str
    shrinking: Shrinking | None
    known: Shard | None


def write_all(tasks: Sequence[Task], processes: int, keep: Callable[[Shard], None]) -> None:
    """Writes shards in parallel and calls `keep` for each; an error or an interrupt leaves no partial file."""
    total = sum(len(task.images) for task in tasks)
    context = multiprocessing.get_context("spawn")
    shared = _Shared(context.Value("q", 0), context.Event())
    executor: Executor
    write: Callable[[Task], Shard]
    if min(processes, len(tasks)) == 1:
        executor, write = ThreadPoolExecutor(1), functools.partial(_write_shard, shared)
    else:
        executor = ProcessPoolExecutor(min(processes, len(tasks)), context, _start_process, (shared,))
        write = _write_shard_here
    with executor, tqdm(total=total, unit="images", disable=bar_disabled()) as bar:
        try:
            pending = {executor.submit(write, task) for task in tasks}
            logged = time.monotonic()
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                bar.update(shared.counter.value - bar.n)
                if bar.disable and time.monotonic() > logged + LOG_SECONDS:
                    logged = time.monotonic()
                    tell("%s of %s", f"{shared.counter.value:,}", number_of(total, "image"))
                for future in finished:
                    keep(future.result())
        except BrokenProcessPool:
            raise OSError(
                "a writing process has died, perhaps for lack of memory; the same call with processes=1 resumes"
            ) from None
        finally:
            shared.stop.set()
            executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Shared:
    """State that all writers of one call share.

    Attributes:
        counter: number of finished images.
        stop: set when the writers must stop.
    """

    counter: Any
    stop: Any

    def count(self, images: int) -> None:
        with self.counter.get_lock():
            self.counter.value += images


_shared: _Shared
"""Exists only in a process that was started to write for one call: a task cannot carry it to a process."""


def _start_process(shared: _Shared) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all processes; the parent says when to stop
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    # Without this it would wait for ever for work if the parent is killed.
    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_shard_here(task: Task) -> Shard:
    return _write_shard(_shared, task)


def _write_shard(shared: _Shared, task: Task) -> Shard:
    """Writes a shard, or verifies that it already exists."""
    import tensorflow as tf

    if task.known is not None and damage(task.target, task.known) is None:
        shared.count(len(task.images))
        return task.known
    partial = task.target.with_name(f".{task.target.name}")
    skipped = {}
    try:
        with tf.io.TFRecordWriter(os.fsencode(partial)) as writer:
            for index, path in enumerate(task.images.paths):
                if shared.stop.is_set():
                    raise CancelledError
                try:
                    writer.write(_record(task.images, index, task.shrinking))
                except ValueError as error:
                    if task.on_error == "error":
                        raise
                    skipped[path] = str(error).removeprefix(f"{shown(task.images.folder / path)}: ")
                shared.count(1)
        count = len(task.images) - len(skipped)
        shard = Shard(task.target.name, count, partial.stat().st_size, file_hash(partial), skipped)
        os.replace(partial, task.target)
    except tf.errors.OpError as error:
        raise OSError(f"{task.target}: cannot be written: {plain_message(error)}") from None
    finally:
        partial.unlink(missing_ok=True)
    return shard


def _record(images: LabelledFiles, index: int, shrinking: Shrinking | None) -> bytes:
    """Returns the serialized `tf.train.Example` of an image; ValueError if it cannot be read."""
    import tensorflow as tf

    path = images.folder / images.paths[index]
    encoded = read_encoded(path)  # read once, so that the written bytes are the decoded ones
    stored_bytes = len(encoded)
    if shrinking is None:
        height, width = decode_image(encoded, 3, shown(path)).shape[:2]
    else:
        encoded, (height, width) = shrinking(encoded, shown(path))
    if stored_bytes != images.sizes[index]:
        raise ValueError(f"{shown(path)}: has changed since the folder was listed; run the command again")
    label = int(images.labels[index])
    features = Features()

    def text(*values: bytes) -> "tf.train.Feature":
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    def integer(*values: int) -> "tf.train.Feature":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    feature = {
        features.image: text(encoded),
        features.label: integer(label),
        "image/class/text": text(os.fsencode(images.class_names[label])),
        "image/filename": text(os.fsencode(images.paths[index])),
        "image/height": integer(height),
        "image/width": integer(width),
    }
    # The order of a map is undefined by default.
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)
