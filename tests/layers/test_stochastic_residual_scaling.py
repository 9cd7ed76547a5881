import zipfile

import h5py
import keras
import numpy as np
import pytest

from polynet_keras.layers import StochasticResidualScaling
from polynet_keras.pretrained import load_weights_file
from tests.reference import gradients


def tensors(batch, paths, seed=0, shape=(3, 2)):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(batch, *shape)).astype("float32") for _ in range(paths + 1)]


def call(layer, inputs, training):
    return keras.ops.convert_to_numpy(layer(inputs, training=training))


def built(paths=2, **arguments):
    layer = StochasticResidualScaling(seed=7, **arguments)
    layer.build([(None, 3, 2)] * (paths + 1))
    return layer


def expected(inputs, factors):
    shortcut, *paths = inputs
    return shortcut + sum(factor * path for factor, path in zip(factors, paths, strict=True))


@pytest.mark.parametrize(("rescale", "kept"), [("inference", (0.8, 0.5)), ("training", (1.0, 1.0))])
def test_inference_and_inactive_training_scale_alike(rescale, kept):
    layer = built(scale=[0.3, 2.0], survival_probability=[0.8, 0.5], rescale=rescale, active=False)
    inputs = tensors(4, 2)
    factors = (0.3 * kept[0], 2.0 * kept[1])
    for training in (False, True, None):
        np.testing.assert_allclose(call(layer, inputs, training), expected(inputs, factors), rtol=1e-5, atol=1e-6)
    layer.active.assign(True)
    np.testing.assert_allclose(call(layer, inputs, False), expected(inputs, factors), rtol=1e-5, atol=1e-6)


def drawn_factors(layer, batch, calls, paths=2):
    """m_k of every draw, (calls, batch, paths): each path is an indicator of its own coordinate."""
    inputs = [np.zeros((batch, paths), "float32")]
    for k in range(paths):
        inputs.append(np.eye(paths, dtype="float32")[k] * np.ones((batch, 1), "float32"))
    return np.stack([call(layer, inputs, True) for _ in range(calls)])


@pytest.mark.parametrize("rescale", [pytest.param("inference", marks=pytest.mark.slow), "training"])
@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_keep_frequency_expectation_and_values(mode, rescale):
    survival = np.array([0.9, 0.4])
    layer = StochasticResidualScaling(1.0, survival.tolist(), mode=mode, rescale=rescale, seed=11)
    batch, calls = (400, 10) if mode == "sample" else (2, 400)
    factors = drawn_factors(layer, batch, calls)
    value_if_kept = 1 / survival if rescale == "training" else np.ones(2)
    for k in range(2):
        assert set(np.unique(factors[..., k].round(5))) == {0, np.float32(value_if_kept[k]).round(5)}
    if mode == "batch":
        np.testing.assert_array_equal(factors[:, 0], factors[:, 1])
        draws = factors[:, 0]
    else:
        assert (factors.std(axis=1) > 0).all()
        draws = factors.reshape(-1, 2)
    # Binomial frequencies: six standard deviations of n draws, which chance passes with probability 1 - 4e-9.
    bound = 6 * np.sqrt(survival * (1 - survival) / len(draws))
    assert (np.abs((draws > 0).mean(axis=0) - survival) < bound).all()
    inference = survival if rescale == "inference" else np.ones(2)
    assert (np.abs(draws.mean(axis=0) - inference) < bound * value_if_kept).all()
    # Paths are drawn apart: their correlation is 0 within six of its standard deviations.
    assert abs(np.corrcoef(draws.T)[0, 1]) < 6 / np.sqrt(len(draws))


def test_by_default_it_is_huang_et_al():
    """One draw a path for the whole batch, not rescaled in training, and training draws."""
    layer = StochasticResidualScaling()
    config = layer.get_config()
    assert (config["mode"], config["rescale"], config["active"], config["seed"]) == ("batch", "inference", True, None)
    layer = StochasticResidualScaling(survival_probability=0.5, seed=3)
    draws = drawn_factors(layer, batch=2, calls=40, paths=1)[..., 0]
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert call(layer, [np.zeros((1, 1), "float32"), np.ones((1, 1), "float32")], False) == 0.5
    layer = StochasticResidualScaling()  # with the defaults of scale and survival, the sum
    inputs = tensors(3, 2)
    for training in (True, False):
        np.testing.assert_allclose(call(layer, inputs, training), expected(inputs, (1.0, 1.0)), rtol=1e-6)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("rescale", ["inference", "training"])
def test_a_survival_probability_assigned_outside_its_range_acts_as_the_nearest_bound(rescale, active):
    layer = built(rescale=rescale, active=active)
    inputs = tensors(3, 2)
    for assigned, bound in (([1.5, -0.5], (1.0, 0.0)), ([7.0, 1.0 + 2**-20], (1.0, 1.0))):
        layer.survival_probability.assign(assigned)
        for training in (True, False):
            drawn = rescale == "inference" or (training and active)
            factors = bound if drawn else (1.0, 1.0)
            for _ in range(3):
                np.testing.assert_allclose(
                    call(layer, inputs, training), expected(inputs, factors), rtol=1e-6, atol=1e-6
                )


@pytest.mark.parametrize("value", [1, np.float32(0.5), [np.float32(0.5), 1]])
def test_the_config_holds_plain_floats(value):
    config = StochasticResidualScaling(value, value).get_config()
    for found in (config["scale"], config["survival_probability"]):
        assert {type(number) for number in (found if isinstance(value, list) else [found])} == {float}


def test_files_name_the_layer():
    assert keras.saving.get_registered_name(StochasticResidualScaling) == "polynet_keras>StochasticResidualScaling"


@pytest.mark.parametrize("rescale", ["inference", "training"])
def test_certain_survival_and_certain_death(rescale):
    layer = built(survival_probability=[1.0, 0.0], rescale=rescale)
    inputs = tensors(3, 2)
    for _ in range(20):
        np.testing.assert_allclose(call(layer, inputs, True), expected(inputs, (1.0, 0.0)), rtol=1e-6, atol=1e-6)


def test_a_draw_of_zero_is_no_survival_of_what_never_survives(monkeypatch):
    """The generator draws from [0, 1), and 0 once in millions."""
    monkeypatch.setattr(keras.random, "uniform", lambda shape, **_: keras.ops.zeros(shape))
    layer = built(survival_probability=[0.0, 1e-6])
    inputs = tensors(3, 2)
    np.testing.assert_allclose(call(layer, inputs, True), expected(inputs, (0.0, 1.0)), rtol=1e-6)


def test_same_seed_same_draws():
    runs = []
    for seed in (5, 5, 6):
        layer = StochasticResidualScaling(1.0, 0.5, seed=seed)
        runs.append(drawn_factors(layer, 1, 40))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_switching_needs_no_retrace():
    traces = []

    class Traced(StochasticResidualScaling):
        def call(self, inputs, training=None):
            traces.append(1)
            return super().call(inputs, training)

    inputs = [keras.Input((4,)), keras.Input((4,))]
    layer = Traced(1.0, 0.5, active=False, seed=0)
    model = keras.Model(inputs, layer(inputs))
    model.compile(optimizer="sgd", loss="mse")
    x, y = [np.zeros((2, 4), "float32"), np.ones((2, 4), "float32")], np.zeros((2, 4), "float32")

    def loss():
        model.reset_metrics()  # Keras 3.12 answers with the mean over batches
        return model.train_on_batch(x, y)

    assert loss() == pytest.approx(0.25)
    before = len(traces)
    layer.active.assign(True)
    layer.survival_probability.assign([0.0])
    assert loss() == pytest.approx(0.0)
    layer.survival_probability.assign([1.0])
    assert loss() == pytest.approx(1.0)
    if keras.backend.backend() != "torch":  # eager: it calls the layer each time
        assert len(traces) == before


def test_dropped_paths_get_no_gradient():
    inputs = keras.Input((3,))
    paths = [keras.layers.Dense(3, use_bias=False, name=f"path{k}")(inputs) for k in range(2)]
    layer = StochasticResidualScaling(0.5, [0.0, 1.0], name="sum")
    model = keras.Model(inputs, layer([inputs, *paths]))
    dropped, kept = gradients(model, np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    np.testing.assert_array_equal(dropped, np.zeros((3, 3)))
    np.testing.assert_allclose(kept, np.full((3, 3), 0.5 * 2))


def test_save_and_load_keep_the_state(tmp_path):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    layer = StochasticResidualScaling(0.3, 0.9, mode="sample", rescale="training", active=False, seed=3, name="sum")
    model = keras.Model(inputs, layer(inputs))
    layer.active.assign(True)
    layer.survival_probability.assign([0.25])
    layer.scale.assign([0.5])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("sum")
    assert bool(keras.ops.convert_to_numpy(loaded.active))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded.survival_probability), [0.25])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(loaded.scale), [0.5])
    assert loaded.get_config() == layer.get_config()
    x = [np.zeros((50, 4), "float32"), np.ones((50, 4), "float32")]
    np.testing.assert_array_equal(call(layer, x, True), call(loaded, x, True))  # the generator's state is saved too


def test_nothing_is_trainable():
    layer = built()
    assert layer.trainable_variables == []
    assert {variable.name for variable in layer.non_trainable_variables} >= {"active", "survival_probability", "scale"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_dtype_policies(policy, mode):
    if policy == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float64 only where jax_enable_x64 is set for the whole process")
    layer = StochasticResidualScaling(0.3, 0.8, mode=mode, dtype=policy)
    inputs = [keras.ops.convert_to_tensor(x) for x in tensors(4, 1)]
    compute = "float64" if policy == "float64" else policy.removeprefix("mixed_")
    for training in (True, False):
        assert keras.backend.standardize_dtype(layer(inputs, training=training).dtype) == compute
    layer.active.assign(False)
    for training in (True, False):
        found = keras.ops.convert_to_numpy(keras.ops.cast(layer(inputs, training=training), "float32"))
        np.testing.assert_allclose(found, expected(tensors(4, 1), (0.24,)), rtol=2**-6, atol=2**-6)
    layer.active.assign(True)
    layer.survival_probability.assign([1.0])
    found = keras.ops.convert_to_numpy(keras.ops.cast(layer(inputs, training=True), "float32"))
    np.testing.assert_allclose(found, expected(tensors(4, 1), (0.3,)), rtol=2**-6, atol=2**-6)
    assert keras.backend.standardize_dtype(layer.survival_probability.dtype) == "float32"


def test_symbolic_call_gives_the_shape():
    y = StochasticResidualScaling()([keras.Input((None, None, 8)), keras.Input((None, None, 8))])
    assert y.shape == (None, None, None, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "row"}, "mode='row' must be one of"),
        ({"rescale": "both"}, "rescale='both' must be one of"),
        ({"survival_probability": 1.1}, r"survival_probability=1.1 must be a number in \[0, 1\]"),
        ({"survival_probability": [0.5, -0.1]}, "survival_probability="),
        ({"survival_probability": "0.5"}, "survival_probability="),
        ({"scale": -1.0}, "scale=-1.0 must be a number ≥ 0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"scale": float("inf")}, "scale=inf must be a number ≥ 0"),
        ({"scale": [0.5, float("inf")]}, r"scale=\[0.5, inf\] must be a number ≥ 0"),
        ({"scale": True}, "scale=True must be a number ≥ 0"),
        ({"survival_probability": []}, r"survival_probability=\[\] must be a number in \[0, 1\]"),
        ({"active": 1}, "active=1 must be True or False"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        StochasticResidualScaling(**arguments)


@pytest.mark.parametrize(("mode", "agree"), [("batch", True), ("sample", False)])
def test_draws_of_replicas_agree_in_mode_batch(mode, agree):
    layer = StochasticResidualScaling(mode=mode)
    assert layer.draws_agree is agree
    assert StochasticResidualScaling.from_config(layer.get_config()).draws_agree is agree


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has strategies")
@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_draws_of_replicas(mode):
    import tensorflow as tf

    from polynet_keras.engine.draws import ReplicaDraws

    inputs = [keras.Input((2,)), keras.Input((2,))]
    layer = StochasticResidualScaling(1.0, 0.5, mode=mode, seed=3)
    model = keras.Model(inputs, layer(inputs))
    draws = ReplicaDraws(model)
    kept = []
    for replica in range(3):
        with keras.StatelessScope(state_mapping=draws.of_replica(tf.constant(replica))):
            calls = [
                model([np.zeros((40, 2), "float32"), np.ones((40, 2), "float32")], training=True) for _ in range(8)
            ]
        kept.append(np.stack(calls))
    assert {float(value) for value in np.unique(kept)} == {0.0, 1.0}
    same = [np.array_equal(kept[0], kept[replica]) for replica in (1, 2)]
    assert same == [mode == "batch"] * 2


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"list \[shortcut, path, ...\]"):
        StochasticResidualScaling()(np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match="two or more tensors of one shape"):
        StochasticResidualScaling()([np.zeros((2, 3), "float32")])
    with pytest.raises(ValueError, match="two or more tensors of one shape"):
        StochasticResidualScaling()([np.zeros((2, 3), "float32"), np.zeros((2, 4), "float32")])
    with pytest.raises(ValueError, match="has 2 values; the layer got 1 residual path"):
        StochasticResidualScaling(scale=[1.0, 2.0])([np.zeros((2, 3), "float32")] * 2)


def sums_of_two():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, StochasticResidualScaling(0.3, 0.9, active=False, name="sum")(inputs))


def test_weights_are_numbers_to_subtract_and_to_average():
    """As federated averages do with `get_weights()` of any network; a half switched on is off, as most are."""
    on, off = sums_of_two(), sums_of_two()
    on.get_layer("sum").active.assign(True)
    ours, theirs = on.get_weights(), off.get_weights()
    assert {weight.dtype for weight in ours} == {np.dtype("float32")}
    assert [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)] == [0, 0, 1]
    x = [np.zeros((50, 4), "float32"), np.ones((50, 4), "float32")]
    for share, drawn in ((0.5, False), (0.6, True)):
        off.set_weights([share * a + (1 - share) * b for a, b in zip(ours, theirs, strict=True)])
        values = {float(v) for v in keras.ops.convert_to_numpy(call(off.get_layer("sum"), x, True)).ravel()}
        assert values <= {0.0, float(np.float32(0.3))} if drawn else len(values) == 1


def with_a_bool_switch(path):
    """Rewrites a file as older versions of this package wrote it."""
    with h5py.File(path, "r+") as file:
        variables = file["layers/stochastic_residual_scaling/vars"]
        assert variables["2"].shape == ()
        value = bool(variables["2"][()])
        del variables["2"]
        variables["2"] = value
        assert variables["2"].dtype == bool


@pytest.mark.parametrize("active", [True, False])
def test_files_whose_switch_is_a_bool(tmp_path, active):
    model = sums_of_two()
    model.get_layer("sum").active.assign(active)
    weights, whole = tmp_path / "net.weights.h5", tmp_path / "net.keras"
    model.save_weights(weights)
    model.save(whole)
    with_a_bool_switch(weights)
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "member").write_bytes(members["model.weights.h5"])
    with_a_bool_switch(tmp_path / "member")
    members["model.weights.h5"] = (tmp_path / "member").read_bytes()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    by_keras, by_us, kept = sums_of_two(), sums_of_two(), sums_of_two()
    by_keras.load_weights(weights)
    load_weights_file(by_us, weights)
    kept.set_weights([*model.get_weights()[:2], np.asarray(active)])
    for loaded in (by_keras, by_us, kept, keras.saving.load_model(whole)):
        switch = loaded.get_layer("sum").active
        assert (float(keras.ops.convert_to_numpy(switch)), switch.dtype) == (float(active), "float32")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has strategies")
def test_checkpoints_whose_switch_is_a_bool():
    from polynet_keras.checkpoints import model_state

    model, other = sums_of_two(), sums_of_two()
    for one in (model, other):
        one.compile("sgd")
    model.get_layer("sum").active.assign(True)

    class Saved:
        path = "checkpoint-1"
        facts = {"variables": model_state.describe(model)}
        values = {name: np.asarray(value) for name, value in model_state.read(model).items()}

        def tensor(self, name):
            return self.values[name]

    (number,) = (n for n, (path, _, _) in enumerate(Saved.facts["variables"]["model"]) if path.endswith("active"))
    path, shape, _ = Saved.facts["variables"]["model"][number]
    Saved.facts["variables"]["model"][number] = (path, shape, "bool")
    Saved.values[f"model/{number:05d}"] = np.asarray(True)
    model_state.check(other, Saved())
    model_state.assign(other, Saved())
    assert float(other.get_layer("sum").active.numpy()) == 1.0
    Saved.facts["variables"]["model"][number] = (path, shape, "int32")
    with pytest.raises(ValueError, match=r"has a variable '.*active' \(int32, a single number\) where 'model' has"):
        model_state.check(other, Saved())
