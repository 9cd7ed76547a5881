"""What this package uses of other packages that is private there or not documented, and what breaks without it.

No release note tells when such a name goes, and some of our files would work on in another way, without an error. The
tests in this folder hold the installed versions to each name. The test of a name is marked with `contract`.
"""

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateName:
    """A name of another package that this one uses.

    Attributes:
        package: that it is part of, as `setup.py` calls it.
        files: of `polynet_keras`, which use it.
        without: what happens there without it. What begins with "SILENT" shows no error.
        written: how the files write it, if not as the last part of the name.
    """

    package: str
    files: tuple[str, ...]
    without: str
    written: str | None = None


LOUD_IN_FIT = "AttributeError in every fit on TensorFlow"
LOUD_IN_STEP = "AttributeError at the first training step with our RMSprop"
LOUD_IN_LAMB = "AttributeError at the first training step with our Lamb"
LOUD_IF_DISTRIBUTED = "check_keras refuses to train under a strategy"
LOUD_IN_REQUEST = "AttributeError in every connection of the service"
SILENT_ORDER = "SILENT: a resumed training sees some examples twice and others not at all"
SILENT_STATE = "SILENT: a checkpoint leaves it out, and the callback starts anew when a training goes on"

TENSORFLOW_ERRORS = "basics/tensorflow_errors.py"
STEP = "engine/replicated_step.py"
KERAS = "basics/keras_internals.py"
TENSORFLOW = "engine/internals.py"
MODEL = "engine/distributed_model.py"
CALLBACK_STATE = "checkpoints/callback_state.py"
REPLAY = "checkpoints/replay.py"
FAILURES = "cluster/failures.py"
CLUSTER = "cluster/internals.py"
NETWORK = "engine/network.py"
MACS = "models/macs.py"
BATCH_NORMALIZATION = "layers/batch_normalization.py"
FACTORS = "training/learning_rate_factors.py"
LAMB = "training/lamb.py"
OPTIMIZERS = "training/optimizers.py"
DISTORTION = "data/distortion.py"
MODEL_GARDEN = "data/model_garden.py"
INSERTION = "training/insertion.py"
GRAPH = "deployment/graph.py"
CONNECTIONS = "deployment/serving/connections.py"
BODIES = "deployment/serving/bodies.py"
SERVER = "deployment/serving/server.py"

NAMES = {
    # Keras: models.
    "Model._initial_epoch": PrivateName("keras", (KERAS,), "AttributeError in every fit of our models"),
    "Model._distribute_strategy": PrivateName("keras", (KERAS, MODEL, NETWORK), LOUD_IN_FIT),
    "Model._maybe_symbolic_build": PrivateName(
        "keras",
        (KERAS, MODEL),
        "AttributeError where models of several workers are made; else our override is not called",
    ),
    "Model._symbolic_build": PrivateName(
        "keras", (KERAS, MODEL), f"{LOUD_IF_DISTRIBUTED}; on JAX AttributeError in every fit with Checkpoints"
    ),
    "Model._get_metrics_result_or_logs": PrivateName(
        "keras", (MODEL,), "SILENT: on JAX an evaluation of several processes has the metrics of one"
    ),
    "JAXTrainer.jax_state_sync": PrivateName(
        "keras", (MODEL,), "an error at the end of an epoch of several processes on JAX"
    ),
    "JAXTrainer._jax_state": PrivateName(
        "keras", (KERAS,), "an error at the end of an epoch of several processes on JAX"
    ),
    "JAXTrainer._jax_state_synced": PrivateName(
        "keras", (KERAS,), "AttributeError at the end of data on devices of JAX"
    ),
    "adapter.get_jax_iterator": PrivateName("keras", (KERAS,), "AttributeError in every fit on several devices of JAX"),
    "Model._compute_loss": PrivateName("keras", (KERAS,), LOUD_IF_DISTRIBUTED),
    "Model._loss_tracker": PrivateName("keras", (KERAS,), LOUD_IF_DISTRIBUTED),
    "Model._call_has_training_arg": PrivateName("keras", (KERAS,), LOUD_IF_DISTRIBUTED),
    "Model._flatten_layers": PrivateName("keras", (KERAS,), f"{LOUD_IF_DISTRIBUTED}, or AttributeError"),
    "Model.get_metrics_result": PrivateName("keras", (KERAS, STEP), LOUD_IF_DISTRIBUTED),
    "Model._compile_loss": PrivateName("keras", (KERAS,), LOUD_IF_DISTRIBUTED),
    "CompileLoss._flat_losses": PrivateName("keras", (KERAS,), "AttributeError in every fit under a strategy"),
    "CompileLoss.Loss._replace": PrivateName("keras", (KERAS,), "AttributeError in every fit under a strategy"),
    "CompileLoss.metrics": PrivateName("keras", (KERAS,), "AttributeError in every fit under a strategy"),
    "Model.train_function": PrivateName(
        "keras",
        (MODEL, NETWORK, REPLAY, BATCH_NORMALIZATION),
        "SILENT: Keras's own step runs in place of ours; a resumed training does steps a second time",
    ),
    "Model.test_function": PrivateName("keras", (MODEL, NETWORK), "SILENT: Keras's own step runs in place of ours"),
    "Model.predict_function": PrivateName("keras", (MODEL, NETWORK), "SILENT: Keras's own step runs in place of ours"),
    "TFEpochIterator._get_iterator": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit under a strategy and with Checkpoints"
    ),
    "TFEpochIterator._current_iterator": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves a fit with steps_per_epoch"
    ),
    "TFEpochIterator.data_adapter": PrivateName("keras", (KERAS,), "AttributeError in every fit with Checkpoints"),
    "names of the adapters": PrivateName(
        "keras", (KERAS,), "RuntimeError in every fit with Checkpoints", written="ADAPTERS"
    ),
    "TFDatasetAdapter._dataset": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit with Checkpoints of a dataset"
    ),
    "PyDatasetAdapter.py_dataset": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit with Checkpoints of a PyDataset"
    ),
    "PyDatasetAdapter.shuffle": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit with Checkpoints of a PyDataset"
    ),
    "ArrayDataAdapter._shuffle": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit with Checkpoints of arrays"
    ),
    "TorchDataLoaderAdapter._dataloader": PrivateName(
        "keras", (KERAS,), "AttributeError in every fit with Checkpoints of a DataLoader"
    ),
    "Functional._standardize_inputs": PrivateName("keras", (NETWORK,), "AttributeError in every fit with remat"),
    "Functional._nodes_by_depth": PrivateName(
        "keras", (KERAS,), "AttributeError where a model's cost is counted, with remat and in every export"
    ),
    "Node.is_input": PrivateName("keras", (GRAPH,), "AttributeError in every export"),
    "Node.arguments": PrivateName("keras", (GRAPH,), "AttributeError in every export"),
    "Node.input_tensors": PrivateName("keras", (GRAPH,), "AttributeError in every export"),
    "Node.output_tensors": PrivateName("keras", (MACS,), "AttributeError where a model's cost is counted"),
    "Node.outputs": PrivateName("keras", (GRAPH,), "AttributeError in every export"),
    "Node.operation": PrivateName("keras", (MACS, GRAPH), "AttributeError in every export"),
    "Sequential._functional": PrivateName("keras", (KERAS,), "AttributeError in every export of a Sequential model"),
    # Keras: layers, variables and tensors.
    "Layer._trainable_variables": PrivateName("keras", (KERAS,), "AttributeError with every weights file"),
    "Layer._non_trainable_variables": PrivateName("keras", (KERAS,), "AttributeError with every weights file"),
    "Variable._value": PrivateName("keras", (KERAS,), "AttributeError in every fit under a strategy"),
    "tensor._keras_mask": PrivateName("keras", (KERAS,), "SILENT: under a strategy masks are lost"),
    "tensor._keras_logits": PrivateName(
        "keras", (KERAS,), "loss='binary' is NaN; SILENT: under a strategy a loss of saturated outputs is clipped"
    ),
    "BaseImagePreprocessingLayer.generator": PrivateName("keras", (KERAS,), "RuntimeError where data are augmented"),
    "BaseImagePreprocessingLayer._backend_generators": PrivateName(
        "keras", (KERAS,), "RuntimeError where data are augmented with JAX or PyTorch as the backend"
    ),
    "BaseImagePreprocessingLayer._get_seed_generator": PrivateName(
        "keras", (KERAS,), "AttributeError where data are augmented"
    ),
    "BaseImagePreprocessingLayer.backend.set_backend": PrivateName(
        "keras", (DISTORTION,), "AttributeError where images are mixed"
    ),
    "BaseImagePreprocessingLayer.backend.reset": PrivateName(
        "keras", (DISTORTION,), "AttributeError where images are mixed"
    ),
    'MixUp: transformation["permutation_order"]': PrivateName(
        "keras",
        (KERAS,),
        "KeyError where images are mixed",
        written="permutation_order",
    ),
    'CutMix: transformation["permutation_order"]': PrivateName(
        "keras",
        (KERAS,),
        "KeyError where images are mixed",
        written="permutation_order",
    ),
    # Keras: callbacks.
    "ModelCheckpoint._batches_seen_since_last_saving": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves with this callback"
    ),
    "ModelCheckpoint._last_batch_seen": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves with this callback"
    ),
    "SwapEMAWeights._ema_weights_in_model": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves with this callback"
    ),
    "TensorBoard._global_train_batch": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves with this callback"
    ),
    "TensorBoard._global_test_batch": PrivateName(
        "keras", (KERAS,), "AttributeError where Checkpoints saves with this callback"
    ),
    "state of callbacks": PrivateName("keras", (CALLBACK_STATE,), SILENT_STATE, written="ATTRIBUTES"),
    # Keras: optimizers.
    "Optimizer._backend_update_step": PrivateName(
        "keras", (OPTIMIZERS,), "SILENT: each update goes through TensorFlow's strategies, and takes longer"
    ),
    "Optimizer._all_reduce_sum_gradients": PrivateName("keras", (KERAS,), "AttributeError in every fit on a TPU"),
    "Optimizer._get_variable_index": PrivateName("keras", (FACTORS, LAMB, OPTIMIZERS), LOUD_IN_STEP),
    "Optimizer._apply_weight_decay": PrivateName(
        "keras",
        (FACTORS,),
        "SILENT: with learning rates by part weights decay twice, the second time by the whole rate",
    ),
    "Optimizer._use_weight_decay": PrivateName(
        "keras", (FACTORS,), "AttributeError at the first training step with weight decay and learning rates by part"
    ),
    "Optimizer._trainable_variables": PrivateName("keras", (OPTIMIZERS,), LOUD_IN_STEP),
    "Optimizer._distribution_strategy": PrivateName(
        "keras", (OPTIMIZERS, KERAS), f"{LOUD_IN_STEP}, and in every fit under a strategy"
    ),
    "Lamb._momentums": PrivateName("keras", (LAMB,), LOUD_IN_LAMB),
    "Lamb._velocities": PrivateName("keras", (LAMB,), LOUD_IN_LAMB),
    "RMSprop._velocities": PrivateName("keras", (OPTIMIZERS,), LOUD_IN_STEP),
    "RMSprop._momentums": PrivateName("keras", (OPTIMIZERS,), LOUD_IN_STEP),
    "RMSprop._average_gradients": PrivateName("keras", (OPTIMIZERS,), LOUD_IN_STEP),
    'RMSprop: add_optimizer_variables(..., "velocity")': PrivateName(
        "keras", (OPTIMIZERS,), "SILENT: initial_mean_square=1 is 0", written='"velocity"'
    ),
    "names of an optimizer's variables": PrivateName(
        "keras",
        (INSERTION,),
        "SILENT: a grown net keeps nothing of its optimizer's state, or its accumulated gradients too",
        written="_gradient_accumulator",
    ),
    # TensorFlow: the eager context.
    "context.function_call_options": PrivateName("tensorflow", (TENSORFLOW,), LOUD_IN_FIT),
    "context.FunctionCallOptions": PrivateName("tensorflow", (TENSORFLOW,), LOUD_IN_FIT),
    "FunctionCallOptions.config_proto_serialized": PrivateName("tensorflow", (TENSORFLOW,), LOUD_IN_FIT),
    "FunctionCallOptions.executor_type": PrivateName("tensorflow", (TENSORFLOW,), LOUD_IN_FIT),
    "context.global_seed": PrivateName(
        "tensorflow", (TENSORFLOW,), "AttributeError where arrays are shuffled by several workers, or resumed"
    ),
    "context._context_handle": PrivateName(
        "tensorflow",
        (CLUSTER,),
        "SILENT: what ran before open_strategy is not noticed, and the other workers wait for this one",
    ),
    "context.coordination_service": PrivateName(
        "tensorflow", (CLUSTER,), "AttributeError where strategies are opened and errors handled"
    ),
    "context.configure_coordination_service": PrivateName(
        "tensorflow", (CLUSTER,), "SILENT: workers wait an hour for one that does not connect"
    ),
    "coordination_config_pb2.CoordinatedJob": PrivateName(
        "tensorflow", (CLUSTER,), "a warning; workers wait an hour for one that does not connect"
    ),
    "context.set_config_key_value": PrivateName(
        "tensorflow", (CLUSTER,), "SILENT but for a warning a minute: workers wait for each other without a limit"
    ),
    "context.get_config_key_value": PrivateName(
        "tensorflow", (CLUSTER,), "SILENT but for a warning a minute: workers wait for each other without a limit"
    ),
    "context.delete_config_key_value": PrivateName(
        "tensorflow", (CLUSTER,), "SILENT but for a warning a minute: workers wait for each other without a limit"
    ),
    "context.abort_collective_ops": PrivateName(
        "tensorflow", (CLUSTER,), "SILENT but for a warning a minute: workers wait for each other without a limit"
    ),
    "context.check_collective_ops_peer_health": PrivateName(
        "tensorflow", (CLUSTER,), "AttributeError where an error of another worker is handled"
    ),
    "context.report_error_to_cluster": PrivateName(
        "tensorflow", (CLUSTER,), "AttributeError in a thread; the others wait for a worker that has failed"
    ),
    # TensorFlow: the texts of its errors.
    "text: Collective ops is aborted by": PrivateName(
        "tensorflow",
        (FAILURES,),
        "SILENT: the reason that another worker told is not shown",
        written="Collective ops is aborted by",
    ),
    "text: Error reported from": PrivateName(
        "tensorflow",
        (FAILURES,),
        "SILENT: the reason that another worker told is not shown",
        written="Error reported from",
    ),
    "text: another worker is the reason": PrivateName(
        "tensorflow",
        (FAILURES,),
        "SILENT: a worker that ends because another one failed has the exit code 1, and is not started again",
        written="TRACES",
    ),
    "text: {{function_node ...}}": PrivateName(
        "tensorflow",
        (TENSORFLOW_ERRORS,),
        "SILENT: a worker's own error passes for another one's; messages show a place in TensorFlow's graph",
        written="function_node",
    ),
    # TensorFlow: strategies and datasets.
    "StrategyExtended._create_variable": PrivateName(
        "tensorflow", (CLUSTER,), "AttributeError where a strategy of several workers is opened"
    ),
    "multi_device_iterator_ops._create_device_dataset": PrivateName(
        "tensorflow", (CLUSTER,), "a warning; under a strategy epochs may end a minute late"
    ),
    "Dataset._inputs": PrivateName("tensorflow", (TENSORFLOW,), "AttributeError in every fit with Checkpoints"),
    "Dataset._functions": PrivateName("tensorflow", (TENSORFLOW,), "AttributeError in every fit with Checkpoints"),
    "_ShuffleDataset._seed": PrivateName(
        "tensorflow", (TENSORFLOW,), "AttributeError in a fit with Checkpoints of a dataset that is shuffled"
    ),
    "_ShuffleDataset._seed2": PrivateName(
        "tensorflow", (TENSORFLOW,), "AttributeError in a fit with Checkpoints of a dataset that is shuffled"
    ),
    "_RepeatDataset._count": PrivateName(
        "tensorflow", (TENSORFLOW,), "AttributeError in a fit with Checkpoints of a dataset that repeats"
    ),
    "names of the parts of a dataset": PrivateName(
        "tensorflow", (TENSORFLOW,), SILENT_ORDER, written="_ConcatenateDataset"
    ),
    "PerReplicaSpec._value_specs": PrivateName(
        "tensorflow", (TENSORFLOW,), "ImportError or AttributeError in every fit under a strategy"
    ),
    "tf.__internal__.distribute.interim.maybe_merge_call": PrivateName("tensorflow", (TENSORFLOW,), LOUD_IN_STEP),
    # The service.
    "H11Protocol.connections": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "H11Protocol.transport": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "H11Protocol.loop": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "H11Protocol.conn": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "H11Protocol.cycle": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "H11Protocol._unset_keepalive_if_required": PrivateName(
        "uvicorn", (CONNECTIONS,), "AttributeError in every connection that the service refuses"
    ),
    "H11Protocol.send_400_response": PrivateName(
        "uvicorn", (CONNECTIONS,), "SILENT: what is no HTTP gets uvicorn's answer, without a reason, and is not counted"
    ),
    "H11Protocol.on_response_complete": PrivateName(
        "uvicorn", (CONNECTIONS,), "SILENT: no limit on the time for what is left of a refused body"
    ),
    "H11Protocol.shutdown": PrivateName(
        "uvicorn", (CONNECTIONS,), "SILENT: the end of the service meets connections that it has refused"
    ),
    "RequestResponseCycle.scope": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "RequestResponseCycle.response_started": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "RequestResponseCycle.response_complete": PrivateName("uvicorn", (CONNECTIONS,), LOUD_IN_REQUEST),
    "RequestResponseCycle.disconnected": PrivateName(
        "uvicorn", (CONNECTIONS,), "SILENT: the application waits on for the body of a request that was refused"
    ),
    "RequestResponseCycle.message_event": PrivateName(
        "uvicorn", (CONNECTIONS,), "AttributeError in every connection that is refused while a body arrives"
    ),
    "MultiPartParser.spool_max_size": PrivateName(
        "starlette", (BODIES,), "SILENT: uploads over 1 MiB are written to a disk"
    ),
    "python_multipart.multipart.parse_options_header": PrivateName(
        "python-multipart", (BODIES,), "ImportError where the service starts"
    ),
    "logger: python_multipart": PrivateName(
        "python-multipart",
        (SERVER,),
        "SILENT: broken forms of clients fill the service's log",
        written='getLogger("python_multipart")',
    ),
    # The extra `model-garden`, whose tests have an environment of their own.
    "official.vision.ops.augment.tf": PrivateName(
        "tf-models-official", (MODEL_GARDEN,), "an error in every image, or draws that no seed decides"
    ),
}
"""By what the tests call them."""


def contract(name: str) -> Callable[[Callable], Callable]:
    """Marks the test of one name; if the test fails, the message says which of our files breaks, and how.

    Args:
        name: a key of `NAMES`.
    """
    NAMES[name]  # a name that is not in the table is a mistake of the test

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def told(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except Exception as error:
                raise AssertionError(message(name, error)) from error

        return told

    return decorate


def message(name: str, error: object) -> str:
    """What breaks here if a name is gone or does something else."""
    private = NAMES[name]
    version = importlib.metadata.version(private.package)
    files = ", ".join(f"polynet_keras/{file}" for file in private.files)
    reason = repr(error) if isinstance(error, Exception) else error
    return (
        f"{name} of {private.package} {version} is no longer what {files} needs. Without it: {private.without}. "
        f"Found: {reason}"
    )
