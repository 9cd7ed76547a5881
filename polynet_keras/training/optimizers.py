"""RMSprop, the poster's optimizer: Keras's, with TensorFlow's fused update and the variants of other frameworks."""

from collections.abc import Mapping

import keras
from keras import ops

from polynet_keras.basics.checks import check_flag, check_number
from polynet_keras.basics.names import number_of
from polynet_keras.training.learning_rate_factors import LearningRateFactors

INITIAL_MEAN_SQUARES = (0.0, 1.0)


@keras.saving.register_keras_serializable(package="polynet_keras")
class RMSprop(LearningRateFactors, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop`, faster and smaller on TensorFlow, with the variants of PyTorch and TensorFlow 1.

    Arguments, state and numerics are Keras's. With the gradient g, in float arithmetic of the variable's dtype,

        s ← ρ·s + (1 − ρ)·g²                       mean square, starts at `initial_mean_square`
        a ← ρ·a + (1 − ρ)·g                        only if `centered`; else a = 0
        d = √(s − a² + ε)                          `epsilon_inside_root=True`: Keras, TensorFlow
        d = √(s − a²) + ε                          `epsilon_inside_root=False`: PyTorch
        v ← momentum·v + learning_rate·g / d       without momentum, v = learning_rate·g / d
        variable ← variable − v

    The two places of ε differ if ε is large: with the ε = 1 of Inception's recipes, a gradient of root mean square 0.1
    is divided by 1.005 inside the root and by 1.1 outside. PyTorch keeps its learning rate out of v; the result is the
    same if the rate is constant, or without momentum. `initial_mean_square=1` is the start of
    `tf.compat.v1.train.RMSPropOptimizer`, which the Inception papers used: the first steps are small instead of
    1 / √(1 − ρ) times the learning rate.

    On the TensorFlow backend the whole update of a dense float variable is one operation, `ResourceApplyRMSProp` or
    `ResourceApplyCenteredRMSProp`. With ε outside the root and no momentum, there are five. The operations need a
    momentum even if the optimizer has none; variables of one shape share one buffer for it. The buffer is not part of
    the state, so weights files and checkpoints move between this optimizer and Keras's. With `tf.IndexedSlices` as
    gradients, and on the other backends, `keras.ops` compute the update.

    Args:
        epsilon_inside_root: where ε is added; see above.
        initial_mean_square: 0 (Keras, PyTorch) or 1 (TensorFlow 1).
        learning_rate_factors: factors on the learning rate, ≥ 0, for parts of a PolyNet (`models.parts.PARTS`: "stem",
            "stage_a", …, "predictions"), for fine-tuning. All other variables have 1. A factor multiplies the whole
            update, including weight decay.

    The other arguments are those of `keras.optimizers.RMSprop`, among them `momentum`, `centered`, `weight_decay`,
    `clipnorm`, `global_clipnorm`, `clipvalue`, `use_ema`, `loss_scale_factor` and `gradient_accumulation_steps`. Models
    of this package also accumulate gradients under a distribution strategy of several replicas
    (`engine.replicated_step`). A `keras.Model` cannot do so where Keras's own step calls the optimizer.

    Raises:
        ValueError: an argument is out of range.

    Source: Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning", 2012; Graves,
    "Generating sequences with recurrent neural networks", 2013, for the centered form.

    Examples:
        >>> weight = keras.Variable([1.0])
        >>> RMSprop(0.1, epsilon=1.0, epsilon_inside_root=True).apply([keras.ops.ones((1,))], [weight])
        >>> round(float(weight[0]), 4)  # 1 - 0.1 / √(0.1 + 1)
        0.9047
    """

    def __init__(
        self,
        learning_rate=0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        *,
        epsilon_inside_root: bool = True,
        initial_mean_square: float = 0.0,
        learning_rate_factors: Mapping[str, float] | None = None,
        name: str | None = None,
        **kwargs,
    ):
        check_number("rho", rho, at_least=0, at_most=1)
        check_number("momentum", momentum, at_least=0, at_most=1)
        check_number("epsilon", epsilon, at_least=0)
        check_flag("centered", centered)
        check_flag("epsilon_inside_root", epsilon_inside_root)
        if isinstance(initial_mean_square, bool) or initial_mean_square not in INITIAL_MEAN_SQUARES:
            raise ValueError(f"initial_mean_square={initial_mean_square!r} must be 0 (Keras) or 1 (TensorFlow 1)")
        super().__init__(
            learning_rate=learning_rate,
            rho=rho,
            momentum=momentum,
            epsilon=epsilon,
            centered=centered,
            learning_rate_factors=learning_rate_factors,
            name=name,
            **kwargs,
        )
        self.epsilon_inside_root = epsilon_inside_root
        self.initial_mean_square = float(initial_mean_square)
        self._buffers = _Buffers()
        self._constants = _Constants()

    def build(self, var_list):
        if self.built:
            return
        super().build(var_list)
        if keras.backend.backend() == "tensorflow" and not self.momentum and self.epsilon_inside_root:
            self._buffers.make(self._trainable_variables, self._distribution_strategy)

    def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
        if name == "velocity" and self.initial_mean_square:
            initializer = "ones"
        return super().add_optimizer_variables(trainable_variables, name, initializer)

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() != "tensorflow" or not self.built:
            return super().apply(grads, trainable_variables)
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        # Keras takes views of dicts and iterators too.
        grads, trainable_variables = list(grads), list(trainable_variables)
        if len(grads) != len(trainable_variables):
            raise ValueError(
                f"got {number_of(len(grads), 'gradient')} for {number_of(len(trainable_variables), 'variable')}; "
                "pass one for each"
            )
        self._buffers.clear(self._distribution_strategy)
        # The gradients of the last layers come first, and the updates that share a buffer run in this order: in the
        # reverse order, the first gradients would wait in memory for the last ones.
        return super().apply(grads[::-1], trainable_variables[::-1])

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not self._is_alone():
            return super()._backend_update_step(grads, trainable_variables, learning_rate)
        # On one device Keras sums over replicas and goes through `extended.update` too: three operations a variable.
        import tensorflow as tf

        learning_rate = tf.convert_to_tensor(learning_rate)
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable.value, learning_rate)

    def _is_alone(self) -> bool:
        """Whether TensorFlow is the backend and there is no distribution strategy."""
        if keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        alone = isinstance(self._distribution_strategy, type(tf.distribute.get_strategy()))
        return alone and not tf.distribute.has_strategy()

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = self.begin_update(variable, learning_rate)
        if _is_dense_tensorflow(gradient, variable):
            if self.epsilon_inside_root:
                return self._fused_update(gradient, variable, learning_rate)
            if not self.momentum and not self.centered:
                return self._half_fused_update(gradient, variable, learning_rate)
        if self.epsilon_inside_root:
            # Not the base class's own, which would take the factor again.
            return keras.optimizers.RMSprop.update_step(self, gradient, variable, learning_rate)
        return self._update(gradient, variable, learning_rate)

    def _fused_update(self, gradient, variable, learning_rate) -> None:
        import tensorflow as tf

        index = self._get_variable_index(variable)
        rho, momentum, epsilon = self._constants.of(variable.dtype, self.rho, self.momentum, self.epsilon)
        arguments = {
            "var": variable.handle,
            "ms": self._velocities[index].value.handle,
            "mom": (self._momentums[index].value if self.momentum else self._buffers.of(variable)).handle,
            "lr": tf.cast(learning_rate, variable.dtype),
            "rho": rho,
            "momentum": momentum,
            "epsilon": epsilon,
            "grad": tf.cast(gradient, variable.dtype),
            # Without it two updates could be in the same buffer at once.
            "use_locking": True,
        }
        if self.centered:
            average = self._average_gradients[index].value.handle
            tf.raw_ops.ResourceApplyCenteredRMSProp(mg=average, **arguments)
        else:
            tf.raw_ops.ResourceApplyRMSProp(**arguments)

    def _half_fused_update(self, gradient, variable, learning_rate) -> None:
        """Updates with ε outside the root: TensorFlow fuses only its last line, as Adagrad's with s given."""
        import tensorflow as tf

        velocity = self._velocities[self._get_variable_index(variable)].value
        gradient = tf.cast(gradient, variable.dtype)
        one_minus_rho, epsilon = self._constants.of(variable.dtype, 1 - self.rho, self.epsilon)
        difference = velocity.read_value() - tf.square(gradient)
        tf.raw_ops.ResourceApplyGradientDescent(var=velocity.handle, alpha=one_minus_rho, delta=difference)
        tf.raw_ops.ResourceApplyAdagradV2(
            var=variable.handle,
            accum=velocity.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            epsilon=epsilon,
            grad=gradient,
            update_slots=False,
            use_locking=True,
        )

    def _update(self, gradient, variable, learning_rate) -> None:
        """Updates with ε outside the root, in `keras.ops`."""
        index = self._get_variable_index(variable)
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(_dense(gradient), variable.dtype)
        velocity = self._velocities[index]
        self.assign(velocity, self.rho * velocity + (1 - self.rho) * ops.square(gradient))
        mean_square = ops.convert_to_tensor(velocity)
        if self.centered:
            average = self._average_gradients[index]
            self.assign(average, self.rho * average + (1 - self.rho) * gradient)
            # A variance, but for rounding.
            mean_square = ops.maximum(mean_square - ops.square(average), 0.0)
        increment = learning_rate * gradient / (ops.sqrt(mean_square) + self.epsilon)
        if self.momentum:
            momentum = self._momentums[index]
            self.assign(momentum, self.momentum * momentum + increment)
            increment = ops.convert_to_tensor(momentum)
        self.assign_sub(variable, increment)

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon_inside_root": self.epsilon_inside_root,
            "initial_mean_square": self.initial_mean_square,
        }


def _is_dense_tensorflow(gradient, variable) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return isinstance(gradient, tf.Tensor) and variable.dtype.is_floating


def _dense(gradient):
    if keras.backend.backend() != "tensorflow":
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)  # of `tf.IndexedSlices`


class _Buffers:
    """Scratch momentums, one for each shape of variable, for an optimizer without momentum; they are not state.

    A separate object keeps Keras and TensorFlow from tracking, saving and restoring the variables.
    """

    def __init__(self):
        self._variables: dict = {}

    def make(self, variables, strategy) -> None:
        import tensorflow as tf

        for variable in variables:
            reference, shape = variable.value, tuple(variable.shape)
            if (shape, reference.dtype) not in self._variables and reference.dtype.is_floating:
                with tf.init_scope(), strategy.extended.colocate_vars_with(reference):
                    buffer = tf.Variable(tf.zeros(shape, reference.dtype), trainable=False, name="buffer")
                self._variables[shape, reference.dtype] = buffer

    def of(self, variable):
        return self._variables[tuple(variable.shape), variable.dtype]

    def clear(self, strategy) -> None:
        """Sets the buffers to zero: a NaN would otherwise remain after weights and state are restored."""
        import tensorflow as tf

        from polynet_keras.engine.internals import call_once

        def clear_all(strategy):
            for buffer in self._variables.values():
                strategy.extended.update(buffer, lambda variable: variable.assign(tf.zeros_like(variable)), group=False)

        if self._variables:
            call_once(clear_all, strategy)


class _Constants:
    """Numbers as tensors, made once per graph: one set for thousands of variables instead of one for each.

    The object keeps the tensors of the latest graph, and with them the graph.
    """

    def __init__(self):
        self._graph = None
        self._known: dict = {}

    def of(self, dtype, *values: float) -> list:
        """Returns `values` as tensors of the graph under construction, or as eager tensors."""
        import tensorflow as tf

        if tf.executing_eagerly():
            return [tf.constant(value, dtype) for value in values]
        graph = tf.compat.v1.get_default_graph()
        if self._graph is not graph:
            self._graph, self._known = graph, {}
        if (dtype, values) not in self._known:
            self._known[dtype, values] = [tf.constant(value, dtype) for value in values]
        return self._known[dtype, values]
