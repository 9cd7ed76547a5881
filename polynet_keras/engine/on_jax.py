"""What Keras's training on JAX needs: before its first step, around each step, and after its last one.

On several devices, a step computes on one array for the whole batch, which JAX divides among the devices: losses,
gradients and the statistics of batch normalization are those of the batch. JAX divides arrays into equal parts only.
A batch that has none, such as the last one of an epoch, goes to every device as a whole: it costs the time of one
device, and its results are exact as well.

With several processes, JAX refuses most operations on arrays that reach beyond a process. So only the training step has
such arrays: it takes the variables of all processes, which are equal, for copies of one array, and gives back each
process's own copy. No number is moved for that. An evaluation needs no common step: each process evaluates its own
batches, and their metrics, which are sums, are added at its end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from polynet_keras.basics import keras_internals
from polynet_keras.cluster.jax_devices import JaxDevices, gathered, jax_devices


def symbols_of(epoch_iterator: Any) -> Any:
    """Returns symbolic tensors for a batch of a tf.data dataset.

    Args:
        epoch_iterator: Keras's iterator of a call of `fit` or `evaluate`.

    Returns:
        The batch. None for other data, and if the dataset does not know all sizes but that of the batch: Keras then
        reads a batch.
    """
    dataset = keras_internals.dataset_of(epoch_iterator)
    if dataset is None:
        return None
    import tensorflow as tf

    def is_known(spec: Any) -> bool:
        return isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None not in spec.shape[1:]

    specs = dataset.element_spec
    if not all(map(is_known, keras.tree.flatten(specs))):
        return None
    return keras.tree.map_structure(lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name), specs)


def separate_averages(model: keras.Model) -> None:
    """Gives the trained variables arrays of their own. Call this at the end of `fit`.

    There Keras assigns the averages of the optimizer (`use_ema`), and both variables then share an array. The next
    step, of `evaluate` too, takes the memory of the arrays that it gets: the averages would be gone.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if getattr(optimizer, "use_ema", False):
        for variable in model.trainable_variables:
            variable.assign(keras.ops.copy(variable.value))


def divided(model: Any, devices: JaxDevices, function: Callable) -> Callable:
    """Returns Keras's function of a step, (state, iterator), for batches in the memory of this process.

    Args:
        model: the model.
        devices: those of this process get the batches.
        function: Keras's, made in their scope.
    """

    def laid_out(batch):
        return _laid_out(batch, devices, _has_equal_parts(batch, devices))

    def step(state, iterator):
        try:
            return function(state, map(laid_out, iterator))
        except StopIteration:
            # Of data without any batch, Keras would leave the variables without values.
            give_back(model, state)
            keras_internals.have_values(model)
            raise

    return step


def training_step_of_all(model: Any, devices: JaxDevices) -> Callable:
    """Returns the function of a training step, (state, iterator), of all processes.

    At each step, the processes tell each other the sizes of their parts of the batch, and whether one must stop.

    Args:
        model: the model, of class `DistributedTraining`.
        devices: the devices of all processes.
    """
    import jax

    # The state comes back as it came: each device has all of it.
    layout = _layout((), devices.everywhere, is_divided=False)
    train_step = jax.jit(model.train_step, donate_argnums=0, out_shardings=layout)

    def step(state, iterator):
        part = next(iterator)
        sizes = agreed(model, _size(part))
        equal = len(set(sizes)) == 1 and _has_equal_parts(part, devices)
        batch = _laid_out(part if equal else _whole(part, sizes), devices.everywhere, equal)
        logs, state = train_step(_of_all(state, devices), batch)
        return own(logs), state

    return step


def agreed(model: Any, number: int = 0) -> list[int]:
    """Returns the numbers of all processes, and makes them agree whether one got SIGTERM. All processes call this."""
    interruption = model.interruption
    told = interruption is not None and interruption.requested
    numbers, any_told = gathered(np.array([number, told], "int32")).T
    if interruption is not None and any_told.any():
        interruption.agreed = True
    return numbers.tolist()


def own(values: Any) -> Any:
    """Returns a nest of arrays with this process's copies in place of arrays of all processes."""
    devices = jax_devices()
    if devices is None or devices.processes == 1:
        return values

    def of_array(array):
        return array if array.is_fully_addressable else _joined(array, devices)

    return keras.tree.map_structure(of_array, values)  # Keras tracks the state in dictionaries of its own


def give_back(model: Any, state: Sequence[Any]) -> None:
    """Gives the variables the values that Keras has taken out of them for a step, if the step has left any.

    Args:
        model: the model.
        state: the first argument of the step.
    """
    groups = [model.trainable_variables, model.non_trainable_variables]
    groups += [model.optimizer.variables] if len(state) == 4 else []  # the state of a training step
    for variables, values in zip([*groups, model.metrics_variables], state, strict=False):
        for variable, value in zip(variables, values, strict=True):
            if not value.is_deleted():
                variable.assign(own(value))


def add_metrics(model: Any) -> None:
    """Gives the metrics the sums over all processes, each of which has evaluated its part. All processes call this."""
    variables = model.metrics_variables
    for variable, parts in zip(variables, gathered([np.asarray(one.value) for one in variables]), strict=True):
        variable.assign(parts.sum(0, dtype=parts.dtype))
    agreed(model)


def _of_all(values: Any, devices: JaxDevices) -> Any:
    """Returns a nest of arrays with arrays of all processes in place of this process's copies."""
    import jax

    return jax.tree.map(lambda one: _joined(one, devices.everywhere) if one.is_fully_addressable else one, values)


def _joined(array: Any, distribution: keras.distribution.DataParallel) -> Any:
    """Returns an array of a distribution's devices made of the copies that the devices of this process have."""
    import jax

    copies = [shard.data for shard in array.addressable_shards]
    layout = _layout(array.shape, distribution, is_divided=False)
    return jax.make_array_from_single_device_arrays(array.shape, layout, copies)


def _size(batch: Any) -> int:
    return len(keras.tree.flatten(batch)[0])


def _has_equal_parts(batch: Any, devices: JaxDevices) -> bool:
    return _size(batch) % devices.num_model_replicas == 0


def _whole(part: Any, sizes: list[int]) -> Any:
    """Returns the whole batch, in every process, from the parts of all."""

    def filled(array):
        array = np.asarray(array)
        return np.concatenate([array, np.zeros((max(sizes) - len(array), *array.shape[1:]), array.dtype)])

    def joined(arrays):
        return np.concatenate([array[:size] for array, size in zip(arrays, sizes, strict=True)])

    return keras.tree.map_structure(joined, gathered(keras.tree.map_structure(filled, part)))


def _laid_out(batch: Any, distribution: keras.distribution.DataParallel, is_divided: bool) -> Any:
    """Returns a batch on the devices of a distribution: each has a part of it, or all."""
    import jax

    def of_array(array):
        if array is None:
            return None
        layout = _layout(array.shape, distribution, is_divided)
        return jax.make_array_from_process_local_data(layout, np.asarray(array))

    return keras.tree.map_structure(of_array, batch)


def _layout(shape: tuple[int, ...], distribution: keras.distribution.DataParallel, is_divided: bool) -> Any:
    if is_divided:
        return distribution.get_data_layout(shape).backend_layout
    return keras.distribution.TensorLayout([None] * len(shape), distribution.device_mesh).backend_layout
