"""What this package uses of TensorFlow that is private there, each name with TensorFlow's own objects (`names.py`)."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.distribute.values import PerReplica
from tensorflow.python.eager import context

from polynet_keras.basics.tensorflow_errors import without_place
from polynet_keras.cluster import failures
from tests.children import run
from tests.contracts import workers
from tests.contracts.names import contract

PROGRAM = Path(workers.__file__)


@pytest.fixture(scope="module")
def connected(tmp_path_factory):
    """What connected workers found, by worker and name."""
    path = tmp_path_factory.mktemp("workers") / "results.json"
    ended = run(PROGRAM, str(path), timeout=workers.LIMIT_SECONDS + 60)
    assert ended.returncode == 0, ended.stderr
    return Results(json.loads(path.read_text()), ended.stderr)


class Results:
    """What each worker found of each name.

    Args:
        results: by worker and name.
        output: of the workers, which says why one of them found nothing.
    """

    def __init__(self, results: dict, output: str):
        self._results, self._output = results, output

    def _of(self, worker: str, name: str) -> dict:
        assert name in self._results.get(worker, {}), f"the worker failed before {name!r}: {self._output[-2000:]}"
        return self._results[worker][name]

    def found(self, worker: str, name: str):
        result = self._of(worker, name)
        assert "error" not in result, result["error"]
        return result["found"]

    def error(self, worker: str, name: str) -> str:
        """TensorFlow's error, where one is expected."""
        result = self._of(worker, name)
        assert result.get("is_op_error"), result
        return result["error"]


# How functions are called.


@pytest.fixture
def optimized():
    """A function of which TensorFlow can make one operation, and the operations that it makes when it is called."""

    @tf.function
    def layer(x, kernel, bias):
        return tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))

    arguments = tf.ones((2, 4)), tf.ones((4, 8)), tf.ones(8)
    function = layer.get_concrete_function(*arguments)

    def operations() -> set[str]:
        context.enable_run_metadata()
        try:
            function(*arguments)
            graphs = context.export_run_metadata().function_graphs
        finally:
            context.disable_run_metadata()
        return {node.op for graph in graphs for node in graph.post_optimization_graph.node}

    return operations


def without_remapping():
    """The options of a call whose graph is not remapped, made as `engine.compiled_step` makes its own."""
    options = context.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(options.config_proto_serialized)
    config.graph_options.rewrite_options.remapping = config.graph_options.rewrite_options.OFF
    return context.FunctionCallOptions(options.executor_type, config)


@contract("context.function_call_options")
def test_the_options_of_this_threads_calls_decide_how_a_graph_is_optimized(optimized):
    current = context.context()
    before = current.function_call_options
    current.function_call_options = without_remapping()
    try:
        assert optimized() >= {"MatMul", "BiasAdd", "Relu"}
    finally:
        current.function_call_options = before
    assert current.function_call_options is before


@contract("context.FunctionCallOptions")
def test_the_options_of_calls_are_made_of_an_executor_and_a_configuration():
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=7)
    options = context.FunctionCallOptions("", config)
    assert tf.compat.v1.ConfigProto.FromString(options.config_proto_serialized).inter_op_parallelism_threads == 7


@contract("FunctionCallOptions.config_proto_serialized")
def test_the_options_of_calls_hold_the_processs_own_configuration(optimized):
    """Whose passes run where nothing is set."""
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        serialized = context.context().function_call_options.config_proto_serialized
        rewrite = tf.compat.v1.ConfigProto.FromString(serialized).graph_options.rewrite_options
        assert rewrite.remapping == rewrite.OFF
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": True})
        context.context()._optimizer_experimental_options.pop("remapping")  # as it was
    toggles = [field.name for field in rewrite.DESCRIPTOR.fields if getattr(field.enum_type, "name", "") == "Toggle"]
    assert {"remapping", "constant_folding", "arithmetic_optimization", "layout_optimizer"} <= set(toggles)


@contract("FunctionCallOptions.executor_type")
def test_the_options_of_calls_name_an_executor():
    executor = context.context().function_call_options.executor_type
    assert context.FunctionCallOptions(executor).executor_type == executor


@contract("context.global_seed")
def test_the_common_seed_is_known():
    before = context.global_seed()
    try:
        for seed in (7, None):
            tf.random.set_seed(seed)
            assert context.global_seed() == seed
    finally:
        tf.random.set_seed(before)


# Workers.


@contract("context._context_handle")
def test_whether_something_ran_is_known(connected):
    assert connected.found("alone", "handle before") is True
    assert connected.found("alone", "handle after") is True


@contract("context.coordination_service")
def test_whether_workers_are_connected_is_known(connected):
    assert connected.found("alone", "service before") is True
    assert connected.found("alone", "service after") is True


@contract("context.configure_coordination_service")
def test_the_time_to_connect_reaches_tensorflows_server(connected):
    assert f"cluster_register_timeout_in_ms: {workers.REGISTER_MILLISECONDS}" in connected.found("alone", "server")


@contract("coordination_config_pb2.CoordinatedJob")
def test_the_workers_to_wait_for_reach_tensorflows_server(connected):
    assert 'coordinated_job_list {\n      name: "worker"\n      num_tasks: 1' in connected.found("alone", "server")


@contract("StrategyExtended._create_variable")
def test_the_making_of_variables_may_be_replaced(connected):
    assert connected.found("alone", "create_variable") == [[3.0], 3.0]


@contract("context.set_config_key_value")
def test_a_worker_tells_the_others_by_a_key(connected):
    assert connected.found("alone", "set") is None
    assert connected.found("alone", "get") == ""


@contract("context.get_config_key_value")
def test_a_worker_waits_for_a_key_for_a_limited_time(connected):
    """The other worker of two begins when it has read the key."""
    assert connected.found("failing", "get") == ""
    assert connected.error("alone", "get deleted")


@contract("context.delete_config_key_value")
def test_a_key_may_be_deleted(connected):
    assert connected.found("alone", "delete") is None
    assert "DeadlineExceededError" in connected.error("alone", "get deleted")


@contract("context.check_collective_ops_peer_health")
def test_a_worker_knows_whether_another_one_answers(connected):
    assert connected.found("alone", "health") is None
    assert connected.found("chief", "health of another") is None
    assert connected.error("alone", "health of none")
    assert connected.error("chief", "health of a failed one")


@contract("context.abort_collective_ops")
def test_a_sum_that_waits_is_ended(connected):
    assert connected.found("alone", "abort") is None
    assert workers.REASON in connected.found("alone", "aborted")


@contract("context.report_error_to_cluster")
def test_an_error_ends_the_sums_of_the_others(connected):
    assert connected.found("failing", "report") is None
    assert workers.REASON in connected.found("chief", "told")


# The texts of errors.


@contract("text: Collective ops is aborted by")
def test_the_reason_is_read_from_the_text_of_a_sum_that_was_ended(connected):
    text = connected.found("alone", "aborted")
    assert "Collective ops is aborted by: worker 1" in text
    assert failures.REPORTED.search(text)[1].strip() == workers.REASON


@contract("text: Error reported from")
def test_the_reason_is_read_from_the_text_of_an_error_that_was_reported(connected):
    text = connected.found("chief", "told")
    assert "Error reported from /job:worker/" in text
    assert failures.REPORTED.search(text)[1].strip() == workers.REASON


@contract("text: another worker is the reason")
def test_a_text_tells_that_another_worker_is_the_reason(connected):
    texts = connected.found("alone", "aborted"), connected.found("chief", "told")
    for text in texts:
        assert failures.TRACES.search(without_place(text))
    # One that is gone is told by its number.
    gone = connected.error("chief", "health of a failed one")
    assert failures.TASK.findall(without_place(gone)) == ["1"]


@contract("text: {{function_node ...}}")
def test_a_text_tells_the_place_in_a_form_that_is_taken_out():
    with pytest.raises(tf.errors.NotFoundError) as caught:
        tf.io.read_file("/no/such/file")
    assert "{{function_node " in caught.value.message
    assert without_place(caught.value.message).startswith("/no/such/file; No such file or directory")


# Strategies and datasets.


@contract("multi_device_iterator_ops._create_device_dataset")
def test_what_feeds_a_device_is_made_by_a_function_that_may_be_replaced(monkeypatch):
    create, made = multi_device_iterator_ops._create_device_dataset, []

    def noting(*args, **kwargs):
        made.append(create(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(multi_device_iterator_ops, "_create_device_dataset", noting)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    options = tf.distribute.InputOptions(experimental_fetch_to_device=True)
    dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.range(4).batch(2), options)
    assert [batch.numpy().tolist() for batch in dataset] == [[0, 1], [2, 3]]
    assert made
    assert all(isinstance(dataset, tf.data.Dataset) for dataset in made)


@contract("PerReplicaSpec._value_specs")
def test_the_specification_of_distributed_values_is_of_each_replica():
    spec = tf.type_spec_from_value(PerReplica((tf.ones((3, 2)), tf.ones((1, 2)))))
    assert isinstance(spec, tf.TypeSpec)
    assert [one.shape.as_list() for one in spec._value_specs] == [[3, 2], [1, 2]]


@contract("tf.__internal__.distribute.interim.maybe_merge_call")
def test_a_variable_is_updated_in_a_replicas_context_and_outside(strategy):
    maybe_merge_call = tf.__internal__.distribute.interim.maybe_merge_call

    def add_one(strategy, variable):
        strategy.extended.update(variable, lambda one: one.assign_add(1.0), group=False)

    def update(variable):
        maybe_merge_call(add_one, tf.distribute.get_strategy(), variable)
        return variable.read_value()

    with strategy.scope():
        mirrored = tf.Variable(1.0)
    strategy.run(update, args=(mirrored,))
    assert float(mirrored.numpy()) == 2.0
    assert float(update(tf.Variable(1.0))) == 2.0


@contract("Dataset._inputs")
def test_the_parts_of_a_dataset():
    a, b = tf.data.Dataset.range(3), tf.data.Dataset.range(3)
    assert tf.data.Dataset.zip((a, b))._inputs() == [a, b]
    assert list(a.map(lambda x: x)._inputs()) == [a]


@contract("Dataset._functions")
def test_the_functions_of_a_dataset():
    data = tf.data.Dataset.range(3)
    assert list(data._functions()) == []
    (wrapper,) = data.flat_map(lambda i: tf.data.Dataset.range(3).shuffle(3))._functions()
    (shuffle,) = [op for op in wrapper.function.graph.get_operations() if op.type.startswith("ShuffleDataset")]
    seeds = [tf.get_static_value(seed) for seed in list(shuffle.inputs)[2:4]]
    assert seeds == [0, 0] or context.global_seed() is not None


@contract("_ShuffleDataset._seed")
def test_a_shuffle_has_a_seed():
    shuffled = [tf.data.Dataset.range(3).shuffle(3, seed=seed) for seed in (5, 5, 6)]
    first, again, other = [(int(one._seed), int(one._seed2)) for one in shuffled]
    assert first == again != other


@contract("_ShuffleDataset._seed2")
def test_a_shuffle_without_a_seed_has_zeros():
    shuffled = tf.data.Dataset.range(3).shuffle(3)
    if context.global_seed() is None:
        assert (int(shuffled._seed), int(shuffled._seed2)) == (0, 0)
    assert not hasattr(tf.data.Dataset.range(3), "_seed2")


@contract("_RepeatDataset._count")
def test_how_often_a_dataset_repeats():
    data = tf.data.Dataset.range(3)
    assert [int(one._count) for one in (data.repeat(), data.repeat(2))] == [-1, 2]


@contract("names of the parts of a dataset")
def test_the_kinds_of_parts():
    data = tf.data.Dataset.range(3)
    parts = (data.cache(), data.repeat(2), data.concatenate(data))
    assert [type(one).__name__ for one in parts] == ["CacheDataset", "_RepeatDataset", "_ConcatenateDataset"]
