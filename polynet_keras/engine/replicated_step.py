"""A training or test step on many replicas: each computes its part, one sum joins them, and all make the same update.

A replica computes its part of the global batch in a `keras.StatelessScope`: gradients, new values of the non-trainable
variables, and increments of the metrics. One packed all-reduce sums all of them over the replicas, weighted so that the
sums are those of the global batch; the weights are a few numbers that are summed before. Then every replica holds the
same numbers and makes the same update of its variables: gradients are clipped, accumulated, scaled and checked for NaN
after they are summed.

The optimizer is called outside of the strategy's scope. There Keras's optimizer has nothing left to sum, and updates
all copies of a variable, without the `merge_call`s that prevent it from accumulating gradients.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from polynet_keras.basics import keras_internals
from polynet_keras.basics.checks import check_choice
from polynet_keras.cluster.communication import GRADIENT_DTYPES
from polynet_keras.cluster.patience import waiting
from polynet_keras.engine import compression, stand_in
from polynet_keras.engine.batches import open_batch, share_of_worker, without_optionals
from polynet_keras.engine.building import has_keras_steps
from polynet_keras.engine.draws import ReplicaDraws
from polynet_keras.engine.weighting import SUM, replica_weight, weighting_of
from polynet_keras.layers.synchronized_moments import idle_part


def make_step(model: keras.Model, trains: bool) -> "DistributedStep":
    """Returns the function that Keras's `fit` or `evaluate` calls with an iterator for the logs of its next batch."""
    if not has_keras_steps(model):
        return DistributedStep(model, _own_step(model, model.train_step if trains else model.test_step))
    check_choice("gradient_dtype", model.gradient_dtype, GRADIENT_DTYPES)
    if model.jit_compile and any(getattr(layer, "synchronized", False) for layer in keras_internals.every_layer(model)):
        raise ValueError(
            "XLA cannot compile a part of a step that contains collectives: compile the model with jit_compile=False, "
            "or without synchronized batch normalization"
        )
    if isinstance(model.distribute_strategy, tf.distribute.TPUStrategy):
        from polynet_keras.engine.tpu import TpuStep  # it imports this module

        return DistributedStep(model, TpuStep(model, trains))
    return DistributedStep(model, ReplicatedStep(model, trains))


class DistributedStep:
    """A step as Keras calls it: with an iterator, returning the logs of its next batch or batches.

    Args:
        model: the model of the step.
        step: (data, interrupted) → (logs, votes) for a distributed batch, outside of the strategy's scope.
    """

    def __init__(self, model: keras.Model, step: Callable[[Any, tf.Tensor], tuple[dict, tf.Tensor]]):
        self._model = model
        self._step = step
        self._function = model.compiled_function(lambda data: step(*data))
        self._many = tf.function(self._steps, reduce_retracing=True, autograph=False)

    def __call__(self, iterator):
        model = self._model
        interruption = model.interruption
        requested = tf.constant(interruption is not None and interruption.requested)
        if isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            if model.steps_per_execution > 1 and not model.run_eagerly:
                with waiting(model.distribute_strategy, model.steps_per_execution):
                    logs, votes, any_step = self._many(iterator, requested)
                    any_step = bool(any_step)
                if not any_step:
                    raise StopIteration
            else:
                # At the end of the data this raises the StopIteration that Keras expects.
                data, spec = without_optionals(next(iterator)), iterator.element_spec
                logs, votes = self._run((data, requested), (spec, tf.TensorSpec((), tf.bool)))
        else:  # one global batch from `train_on_batch` or `test_on_batch`
            data = share_of_worker(next(iterator), model.distribute_strategy)
            logs, votes = self._run((data, requested), open_batch((data, requested)))
        if interruption is not None and votes > 0:
            interruption.agreed = True
        return logs

    def _run(self, arguments, spec) -> tuple[dict, tf.Tensor]:
        with waiting(self._model.distribute_strategy):
            return self._function(arguments, spec)

    def _steps(self, iterator, requested: tf.Tensor):
        """Runs `steps_per_execution` steps in one graph, or fewer at the end of the data."""
        steps = self._model.steps_per_execution

        def more(number, optional, votes):
            return (number < steps) & optional.has_value()

        def one(number, optional, votes):
            _, new_votes = self._step(without_optionals(optional.get_value()), requested)
            number += 1
            # After the last step no further batch is read: the next execution would miss it.
            following = tf.cond(number < steps, iterator.get_next_as_optional, lambda: optional)
            return number, following, tf.maximum(votes, new_votes)

        start = (tf.constant(0), iterator.get_next_as_optional(), tf.constant(0.0))
        number, _, votes = tf.while_loop(more, one, start)
        with tf.control_dependencies([number]):
            return self._model.get_metrics_result(), votes, number > 0


class ReplicatedStep:
    """Keras's own training or test step, for a batch that the replicas of a strategy share.

    Args:
        model: a built model with all variables of its optimizer and metrics.
        trains: whether the step updates the weights.
    """

    def __init__(self, model: keras.Model, trains: bool):
        self._model = model
        self._trains = trains
        self._strategy = model.distribute_strategy
        self._replicas = self._strategy.num_replicas_in_sync
        self._weighting = weighting_of(model)
        self._draws = ReplicaDraws(model)
        self._trainable = list(model.trainable_variables) if trains else []
        self._states = [v for v in model.non_trainable_weights if v.dtype.startswith(("float", "bfloat"))]
        self._compute = tf.function(self._compute_part, jit_compile=True) if model.jit_compile else self._compute_part

    def __call__(self, data, interrupted: tf.Tensor) -> tuple[dict, tf.Tensor]:
        totals = self._strategy.run(self._summed, args=(data, interrupted))
        votes = self._update(totals)
        return self._model.get_metrics_result(), votes

    def _summed(self, data, interrupted: tf.Tensor) -> dict[str, Any]:
        """Computes, in a replica's context, its part of the batch, and sums it with the parts of all others."""
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group
        if isinstance(replica, int):
            replica = tf.constant(replica)
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        examples = _example_count(x)
        of_all = {"examples": examples, "votes": tf.cast(interrupted, "float32")}
        share = factor = tf.ones(())
        if self._replicas > 1:
            # The weight of this part is known before its computation, so the large sums afterwards need no further
            # multiplication.
            weight = replica_weight(self._weighting, examples, sample_weight)
            of_all = _sum_over_replicas(context, {**of_all, "weight": weight})
            share = tf.math.divide_no_nan(examples, of_all["examples"])
            total = of_all.pop("weight")
            # With n of N examples a replica's mean, which Keras divides by the number of replicas R, counts n·R/N
            # times. If all sample weights are 0, the losses of regularizers remain.
            factor = self._replicas * tf.where(total > 0, tf.math.divide_no_nan(weight, total), share)
        part = self._compute(data, replica, share, factor)
        seeds = part.pop("seeds")
        if self._replicas > 1:
            part = _all_reduced(context, part, self._model.gradient_dtype)
        return {**of_all, **part, "seeds": seeds}

    def _compute_part(self, data, replica: tf.Tensor, share: tf.Tensor, factor: tf.Tensor) -> dict[str, Any]:
        """Computes, in a replica's context, the contribution of its part of the batch to the sums over all replicas.

        Args:
            data: the part.
            replica: the replica's number.
            share: the share of the batch's examples that is in this part.
            factor: the factor of this part's loss.
        """
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        seeds = self._draws.of_replica(replica)
        zeros = [(variable, tf.zeros(variable.shape, variable.dtype)) for variable in model.metrics_variables]
        rows, added = stand_in.filled(x)
        with idle_part(added):
            with tf.GradientTape() as tape:
                # Inside a scope Keras reads a regularizer's input from the scope.
                regularized = [(v, v.value) for v in model.trainable_variables if v.regularizer is not None]
                with keras.StatelessScope(state_mapping=[*seeds, *zeros, *regularized]) as scope:
                    y_pred = (
                        model(rows, training=self._trains) if keras_internals.takes_training(model) else model(rows)
                    )
                    y_pred = stand_in.emptied(y_pred, added)
                    loss = keras_internals.loss_of_batch(
                        model, x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=self._trains
                    )
                    model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
                if self._replicas > 1:
                    # Before the backward pass: there, synchronized normalization mixes the replicas' gradients.
                    loss = tf.math.multiply_no_nan(loss, tf.cast(factor, loss.dtype))
                scaled = model.optimizer.scale_loss(loss) if self._trains else loss
            gradients = tape.gradient(scaled, self._trainable) if self._trains else []
        examples = _example_count(x)
        states = [self._new_state(scope, v, share) if self._trains else None for v in self._states]
        metrics = self._increments(scope, examples, tf.math.divide_no_nan(factor, share))
        if self._replicas > 1:
            # A replica without examples adds nothing, whatever the value of a mean over no examples.
            metrics = _if_any(examples, metrics)
            # If losses are sums, every replica also has its part of the regularizers' loss.
            gradients = gradients if self._weighting == SUM else _if_any(examples, gradients)
        return {
            "loss": tf.cast(loss, "float32"),
            "metrics": metrics,
            "states": states,
            "gradients": gradients,
            "seeds": self._draws.settled(scope, replica),
        }

    def _new_state(self, scope: keras.StatelessScope, variable: keras.Variable, share: tf.Tensor) -> tf.Tensor | None:
        """Returns this part's share of a mean over all examples, as of a moving statistic; None if unchanged."""
        value = scope.get_current_value(variable)
        if value is None or self._replicas == 1:
            return value
        return tf.math.multiply_no_nan(tf.convert_to_tensor(value), tf.cast(share, value.dtype))

    def _increments(self, scope: keras.StatelessScope, examples: tf.Tensor, factor: tf.Tensor) -> list[tf.Tensor]:
        """Returns the increments of the metrics' variables from a replica's part; they are zero at the scope's start.

        Args:
            scope: the scope of the replica's computation.
            examples: the number of examples in the part.
            factor: the factor of an example of this part in the loss.
        """
        model = self._model
        increments = {id(v): scope.get_current_value(v) for v in model.metrics_variables}
        # Keras weights the loss of each output by the batch size if the graph knows it, else by one. It has multiplied
        # the loss by the number of replicas, whether it had divided by this number before or, for a sum, had not.
        for metric in keras_internals.loss_metrics(model):
            mean = tf.math.divide_no_nan(increments[id(metric.total)], increments[id(metric.count)])
            increments[id(metric.total)] = mean * examples * factor / self._replicas
            increments[id(metric.count)] = examples
        return list(increments.values())

    def _update(self, totals: dict[str, Any]) -> tf.Tensor:
        """Makes the same update of every replica's variables. Returns how many workers voted to stop."""
        model = self._model
        if self._trains:
            for variable, state in zip(self._states, totals["states"], strict=True):
                if state is not None:
                    variable.assign(self._first(state))
            for variable, seed in zip(self._draws.states, totals["seeds"], strict=True):
                variable.assign(self._first(seed))
            model.optimizer.apply([self._first(g) for g in totals["gradients"]], self._trainable)
        for variable, increment in zip(model.metrics_variables, totals["metrics"], strict=True):
            variable.assign_add(self._first(increment))
        tracker = keras_internals.loss_tracker(model)
        tracker.update_state(self._first(totals["loss"]), sample_weight=self._first(totals["examples"]))
        return self._first(totals["votes"])

    def _first(self, value):
        """Returns the first local replica's value; all replicas hold the same value."""
        return value if value is None else self._strategy.experimental_local_results(value)[0]


def _all_reduced(context, part: dict[str, Any], gradient_dtype: str) -> dict[str, Any]:
    """Returns the sums over all replicas: one collective for each dtype, or a few if the strategy packs by size."""
    names = ("loss", "metrics", "states")
    others = {name: part[name] for name in names}
    gradients = [None if g is None else tf.convert_to_tensor(g) for g in part["gradients"]]
    if gradient_dtype == "float32" or not gradients:
        totals, sums = _sum_over_replicas(context, [others, gradients])
        return {**totals, "gradients": sums}
    dense = [g for g in gradients if g is not None]
    totals, largest = _sum_over_replicas(context, [others, compression.magnitudes(dense)])
    sums = _sum_over_replicas(context, compression.compressed(dense, largest))
    found = iter(compression.expanded(sums, largest, [g.dtype for g in dense]))
    return {**totals, "gradients": [None if g is None else next(found) for g in gradients]}


def _example_count(x) -> tf.Tensor:
    """Returns the number of examples in the inputs of a batch, as a float32 scalar."""
    return tf.cast(tf.shape(next(i for i in keras.tree.flatten(x) if i is not None))[0], "float32")


def _if_any(examples: tf.Tensor, tensors: list[Any]) -> list[Any]:
    """Returns the tensors, or zeros if there are no examples, without copying tensors as large as the model."""
    dense = [tf.convert_to_tensor(t) for t in tensors if t is not None]
    if not dense:
        return tensors
    found = iter(tf.cond(examples > 0, lambda: dense, lambda: [tf.zeros_like(t) for t in dense]))
    return [None if t is None else next(found) for t in tensors]


def _sum_over_replicas(context, structure):
    """Sums each tensor of a nest over all replicas."""
    leaves = [None if leaf is None else tf.convert_to_tensor(leaf) for leaf in keras.tree.flatten(structure)]
    sums: list[Any] = [None] * len(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves if leaf is not None):
        places = [number for number, leaf in enumerate(leaves) if leaf is not None and leaf.dtype == dtype]
        found = context.all_reduce(tf.distribute.ReduceOp.SUM, [leaves[n] for n in places])
        for number, total in zip(places, found, strict=True):
            sums[number] = total
    return keras.tree.pack_sequence_as(structure, sums)


def _own_step(model: keras.Model, step: Callable[[Any], Any]) -> Callable[[Any, tf.Tensor], tuple[dict, tf.Tensor]]:
    """Returns a user's own training or test step as Keras runs it, with logs that are means over the replicas."""
    strategy = model.distribute_strategy

    def run(data, interrupted: tf.Tensor) -> tuple[dict, tf.Tensor]:
        def on_replica(data):
            votes = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, tf.cast(interrupted, "float32")
            )
            return step(data), votes

        logs, votes = strategy.run(on_replica, args=(data,))
        mean = tf.distribute.ReduceOp.MEAN
        logs = keras.tree.map_structure(lambda value: strategy.reduce(mean, value, axis=None), logs)
        return logs, strategy.experimental_local_results(votes)[0]

    return run
