"""Where a private name of Keras's goes, there is an error, and not another training."""

import ast
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest

from polynet_keras.basics import keras_internals as internals


def test_it_stands_below_all_rooms():
    nodes = ast.walk(ast.parse(Path(internals.__file__).read_text()))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert set(modules) == {"collections.abc", "contextlib", "typing"}


class Of(SimpleNamespace):
    """An object without the names that are not given."""


class SeedsOfAnother(keras.layers.RandomErasing):
    def _get_seed_generator(self, backend=None):
        return keras.random.SeedGenerator(7)


@pytest.mark.parametrize(
    "use",
    [
        lambda: internals.initial_epoch(Of()),
        lambda: internals.set_initial_epoch(Of(), 3),
        lambda: internals.set_holder(Of(), 1.0),
        lambda: internals.change_losses(Of(_compile_loss=Of()), list),
        lambda: internals.loss_metrics(Of(_compile_loss=Of())),
        lambda: internals.nodes_by_depth(Of()),
        lambda: internals.functional_of(Of()),
        lambda: internals.own_variables(Of(_trainable_variables=[])),
        lambda: internals.replace_data(Of(), []),
        lambda: internals.strategy_of_optimizer(Of()),
        lambda: internals.remembered(Of(best=1), ("best", "_last_batch_seen")),
        lambda: internals.gradients_are_summed(Of()).__enter__(),
    ],
)
def test_a_name_that_is_gone_is_an_error(use):
    with pytest.raises(AttributeError):
        use()


def adapter(kind, **attributes):
    return Of(data_adapter=type(kind, (Of,), {"__module__": "keras.adapters"})(**attributes))


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (internals.dataset_of, "TFDatasetAdapter"),
        (internals.py_dataset_of, "PyDatasetAdapter"),
        (internals.sampler_of, "TorchDataLoaderAdapter"),
        (internals.keras_shuffles, "ArrayDataAdapter"),
        (internals.keras_shuffles, "PyDatasetAdapter"),
    ],
)
def test_an_adapter_that_keras_has_changed_is_an_error(ask, kind):
    with pytest.raises(AttributeError):
        ask(adapter(kind))
    assert not ask(adapter("GeneratorDataAdapter"))
    with pytest.raises(RuntimeError, match="reads its data with a NewAdapter, whose order is unknown"):
        ask(adapter("NewAdapter"))


def test_a_users_own_adapter_is_of_unknown_order():
    own = Of(data_adapter=Of())
    assert internals.dataset_of(own) is internals.py_dataset_of(own) is internals.sampler_of(own) is None
    assert not internals.keras_shuffles(own)


def test_a_public_attribute_may_be_set_late():
    assert internals.remembered(Of(wait=1), ("best", "wait")) == {"wait": 1}


def test_losses_that_are_not_there_or_not_built_are_none():
    assert internals.loss_metrics(Of(_compile_loss=None)) == []
    for none in (None, Of(_flat_losses=None)):
        internals.change_losses(Of(_compile_loss=none), list)


def test_a_layer_that_draws_otherwise_is_an_error():
    seeds = keras.random.SeedGenerator(3)
    layer = SeedsOfAnother((1.0, 1.0), (0.1, 0.3), data_format="channels_last", name="erasing")
    with pytest.raises(RuntimeError, match="in this version of Keras the layer 'erasing' draws from its own generator"):
        internals.draw_from(layer, seeds, [])


def test_a_transformation_without_an_order_is_an_error():
    with pytest.raises(KeyError, match="permutation_order"):
        internals.mix_in_order({}, [1, 0])


def test_the_sum_of_gradients_is_the_optimizers_again_afterwards():
    optimizer, seen = Of(_all_reduce_sum_gradients="sum"), []

    @internals.gradients_are_summed(optimizer)
    def step():
        seen.append(optimizer._all_reduce_sum_gradients)
        raise ValueError("of a step")

    with pytest.raises(ValueError, match="of a step"):
        step()
    assert seen == [list]
    assert optimizer._all_reduce_sum_gradients == "sum"
