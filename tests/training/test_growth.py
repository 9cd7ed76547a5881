"""Growth from a run to a run: `polynet grow`, its file, and a training that begins with it."""

import shlex

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet, load_model
from polynet_keras.cli.main import main
from polynet_keras.pretrained import ModelCard, published
from polynet_keras.pretrained.model_file import load_model_file
from polynet_keras.training.growth import grown
from polynet_keras.training.making import make_optimizer
from polynet_keras.training.precision import precision
from polynet_keras.training.recipes.optimizer import OptimizerSettings

TARGET = "2 x [2-way] | 1 x [poly-3] | 2 x [ir, mpoly-2]"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, 75, 75, 1)).astype("float32")


def succeeds(capsys, *argv):
    code = main(argv)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


@pytest.mark.slow
def test_a_run_grows_from_zero_and_goes_on(capsys, tmp_path, digits_run, images):
    """Through the command, its file and the command that it prints."""
    file = tmp_path / "grown.keras"
    output = succeeds(
        capsys,
        *("grow", f"--run_dir={digits_run.folder}", f"--structure={TARGET}", f"--output={file}"),
        *("--new_paths=zero", "--carry_optimizer"),
    )
    assert output.startswith(f"{digits_run.folder} grows:\n\nstage_a_01  2-way  from stage_a_01 (ir), new: G\n")
    assert "\nstage_c_04  mpoly-2  new\n" in output
    assert "\nold:   " in output
    old = keras.saving.load_model(digits_run.folder / "model.keras")
    new = keras.saving.load_model(file)
    np.testing.assert_allclose(new.predict(images, verbose=0), old.predict(images, verbose=0), rtol=1e-5, atol=1e-6)
    assert new.optimizer.iterations == 0  # its schedule begins anew
    remembered = {v.name: v.numpy() for v in old.optimizer.variables if v.name.endswith("velocity")}
    kept = [v for v in new.optimizer.variables if v.name in remembered and "stage_a_01" in v.name and "_f_" in v.name]
    assert kept
    assert all(np.array_equal(variable, remembered[variable.name]) for variable in kept)
    command = shlex.split(output.splitlines()[-1].removeprefix("train it: "))
    assert command[:2] == ["polynet", "train"]
    succeeds(capsys, *command[1:], "--epochs=1", "--batch_size=256", f"--run_dir={tmp_path / 'run'}")
    assert (tmp_path / "run" / "model.json").is_file()


@pytest.mark.slow
def test_a_published_net_grows(capsys, tmp_path):
    file = tmp_path / "grown.keras"
    structure = "1 x [2-way] | 2 x [poly-3, 2-way] | 2 x [poly-3, 2-way]"
    output = succeeds(capsys, "grow", "--weights=fashion_mnist", f"--structure={structure}", f"--output={file}")
    assert "fashion_mnist grows:" in output
    assert keras.saving.load_model(file).structure == structure
    card = ModelCard.load(file)
    assert (card.structure, card.width, card.class_names) == (structure, 0.25, published("fashion_mnist").class_names)
    assert load_model(file).class_names == card.class_names


@pytest.mark.slow
def test_the_posters_chain():
    """IR 1-2-1 → IR 2-4-2 → Poly and 2-way units of the same number."""
    keras.utils.set_random_seed(0)
    shared = {"width": 0.0625, "residual_scale": 0.3}
    net = PolyNet(
        weights=None, structure="1 x [ir] | 2 x [ir] | 1 x [ir]", input_shape=(75, 75, 3), classes=3, **shared
    )
    first = net.get_layer("stage_b_02_f_projection").get_weights()[0]
    for structure in ("2 x [ir] | 4 x [ir] | 2 x [ir]", "2 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]"):
        net = grown(net, structure, **shared)
        assert net.structure == structure
    np.testing.assert_array_equal(net.get_layer("stage_b_03_f_projection").get_weights()[0], first)
    assert np.isfinite(net.predict(np.zeros((1, 75, 75, 3)), verbose=0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_an_optimizer_grows_with_its_net(tmp_path, images, policy):
    """Between two updates of accumulated gradients, which are left behind; through a file."""
    settings = OptimizerSettings("sgd", gradient_accumulation_steps=2)
    shared = {"width": 0.0625, "residual_scale": 0.3}
    with precision(policy):
        net = PolyNet(weights=None, structure="1 x [ir] | 1 x [ir] | 1 x [ir]", input_shape=(75, 75, 1), **shared)
        net.compile(make_optimizer(settings, 0.01, 0.0, net), "sparse_categorical_crossentropy")
        steps = getattr(net.optimizer, "inner_optimizer", net.optimizer)
        while not steps.built or int(steps._iterations) < 5:  # the first ones of float16 overflow
            net.train_on_batch(images, np.arange(4))
        large = grown(net, TARGET, carry_optimizer=True, **shared)
        large.save(tmp_path / "grown.keras")
        found = load_model_file(tmp_path / "grown.keras", compile=True)
    inner = [getattr(model.optimizer, "inner_optimizer", model.optimizer) for model in (net, found)]
    momentums, kept = ({v.path: v.numpy() for v in optimizer.momentums} for optimizer in inner)
    both = [path for path in momentums if path in kept and "stage" in path]
    assert len(both) > 20
    for path in both:
        assert np.abs(momentums[path]).max() > 0
        np.testing.assert_array_equal(momentums[path], kept[path])
    assert max(np.abs(gradient.numpy()).max() for gradient in inner[1]._accumulated_gradients) == 0
    assert max(np.abs(gradient.numpy()).max() for gradient in inner[0]._accumulated_gradients) > 0


@pytest.mark.slow
def test_an_optimizer_that_remembers_nothing(images):
    net = PolyNet(weights=None, structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.0625, input_shape=(75, 75, 1))
    with pytest.raises(ValueError, match="carry_optimizer: the net was saved without its optimizer"):
        grown(net, "1 x [2-way] | 1 x [ir] | 1 x [ir]", width=0.0625, carry_optimizer=True)
    net.compile("sgd", "sparse_categorical_crossentropy")
    net.optimizer.build(net.trainable_variables)
    with pytest.raises(ValueError, match="has not trained yet, or in another precision than here"):
        grown(net, "1 x [2-way] | 1 x [ir] | 1 x [ir]", width=0.0625, carry_optimizer=True)


def test_mistakes(capsys, tmp_path, digits_run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.keras").write_text("precious")
    (tmp_path / "carded.json").write_text("precious")
    run, small = f"--run_dir={digits_run.folder}", "--structure=1 x [2-way] | 1 x [poly-3] | 2 x [poly-3, 2-way]"
    large, wide = f"--structure={TARGET}", "--structure=1 x [2-way] | 9 x [2-way] | 2 x [poly-3, 2-way]"
    for argv, message in (
        ([run], "--structure is missing: the structure of the grown net"),
        ([run, large, "--output=net.h5"], "--output=net.h5 must end in .keras"),
        ([run, large, "--output=there.keras"], "--output=there.keras already exists"),
        ([run, large, "--output=none/net.keras"], "folder does not exist or cannot be written"),
        (
            [run, large, "--output=net.keras", "--weights=fashion_mnist"],
            "are both --model now; name one",
        ),
        ([large, "--output=net.keras"], "no trained model in runs/"),
        ([large, "--output=net.keras", "--run_dir=none"], "--model='none' is not a file or folder in"),
        ([large, "--output=net.keras", "--weights=fashion_mnist", "--carry_optimizer"], "has no optimizer"),
        ([wide, "--output=net.keras", "--weights=fashion_mnist"], "do not fit into the target in their order"),
        ([small, "--output=net.keras", "--weights=fashion_mnist"], "stage B has 4 units, and the target's has 1"),
        ([run, large, "--output=net.keras", "--positions=first"], "positions='first' must be one of"),
        ([run, large, "--output=net.keras", "--new_paths=half"], "new_paths='half' must be one of"),
        ([run, "--structure=1 x [ir] | 1 x [ir] | 1 x [ir]", "--output=net.keras"], "already: nothing grows"),
        ([run, large, "--output=net.keras", "--seed=-1"], "seed=-1 must be an integer from 0 to"),
        ([run, large], "--output is missing: the file for the grown net"),
        (
            [run, large, "--output=carded.keras"],
            "--output=carded.keras: its card, carded.json, already exists; name a new",
        ),
        ([run, large, "--output=net.keras", "extra"], "unexpected argument 'extra'"),
    ):
        assert main(["grow", *argv]) == 1, argv
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert {path.name for path in tmp_path.iterdir()} == {"there.keras", "carded.json"}
