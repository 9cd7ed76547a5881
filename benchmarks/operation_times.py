"""Where a pass spends its time, by operation, as the profilers of TensorFlow and OpenVINO see it."""

import collections
import glob
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

Times = dict[str, tuple[float, int]]
"""Milliseconds and calls of each operation."""


def tensorflow_times(run: Callable[[], object]) -> Times:
    """Of what `run` computes in TensorFlow's graphs on the processor, summed over its threads."""
    events = []
    for _, line, event, name in _traced(run):
        if "tf_Compute" in line.name and ":" in name and "::" not in name:  # node:Operation
            events.append((name.rsplit(":", 1)[1], event.duration_ps / 1e9))
    return _summed(events)


def tensorflow_peak(run: Callable[[], object]) -> int:
    """The most bytes that TensorFlow's allocator on the processor has given out at once, until the end of `run`."""
    peak = 0
    for plane, _, event, name in _traced(run):
        if name == "MemoryAllocation":
            stats = {plane.stat_metadata[stat.metadata_id].name: stat for stat in event.stats}
            peak = max(peak, stats["peak_bytes_in_use"].int64_value)
    return peak


def _traced(run: Callable[[], object]) -> Iterator[tuple[Any, Any, Any, str]]:
    """Plane, line, event and its name of a trace of `run`."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
        with tf.profiler.experimental.Profile(folder, options):
            run()
        with open(glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)[0], "rb") as file:
            space.ParseFromString(file.read())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                yield plane, line, event, plane.event_metadata[event.metadata_id].name


def openvino_times(request) -> Times:
    """Means of all inferences of a request so far, whose model was compiled with `PERF_COUNT`."""
    return _summed(
        (f"{info.node_type}, {info.exec_type}", info.real_time.total_seconds() * 1e3)
        for info in request.profiling_info
        if info.status == info.Status.EXECUTED
    )


def _summed(events) -> Times:
    totals: dict[str, list] = collections.defaultdict(lambda: [0.0, 0])
    for name, ms in events:
        totals[name][0] += ms
        totals[name][1] += 1
    return {name: (ms, calls) for name, (ms, calls) in sorted(totals.items(), key=lambda item: -item[1][0])}
