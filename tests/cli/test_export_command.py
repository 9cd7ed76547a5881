"""`polynet export`."""

import os
import signal

import keras
import pytest

from polynet_keras.cli.main import main
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment import exporting
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.pretrained.model_source import MODEL_FILE


def test_a_run_is_exported(digits_run, tmp_path, capsys):
    output = tmp_path / "digits"
    assert main(["export", f"--run_dir={digits_run.folder}", f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    card = ExportCard.load(output)
    assert f"exported:    {digits_run.folder} as openvino, float32, {card.size / 1e6:.1f} MB" in printed
    assert f"artifact:    {output}/1/model.xml" in printed
    assert "compared:    on 20 crops of scikit-learn's two photographs: probabilities differ by at most" in printed
    assert f"serve it:    polynet serve {output}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=fashion_mnist"], "--output is missing: the folder to write"),
        (["--weights=fashion_mnist", "--output="], "--output is missing: the folder to write"),
        (["--weights=fashion_mnist", "--output=."], "--output='.' has no name of its own; name a new folder"),
        (["--output=net", "photo.jpg"], "unexpected argument 'photo.jpg'; name the folder with --output"),
        (
            ["--output=net", "--weights=a", "--run_dir=b"],
            "--run_dir and --weights are both --model now; name one",
        ),
        (["--output=net", "--precision=int8"], "precision='int8' needs calibration: the data whose images"),
        (["--output=net", "--calibration=digits"], "calibration is for precision='int8' only; got precision='float32'"),
        (["--output=net", "--format=litert", "--precision=int8"], "precision='int8' must be one of float32, dynamic"),
        (["--output=net", "--max_drop=1"], "max_drop=1 is for precision='int8' of openvino; got 'float32' of openvino"),
        (
            ["--output=net", "--precision=int8", "--calibration=digits", "--max_drop=0.5", "--format=onnx"],
            "max_drop=0.5 is for precision='int8' of openvino; got 'int8' of onnx",
        ),
        (
            ["--output=net", "--precision=int8", "--calibration=digits", "--max_drop=-1"],
            "max_drop=-1.0 must be a finite number ≥ 0 and < 100",
        ),
        (
            ["--output=net", "--precision=int8", "--calibration=digits", "--comparison_images=0"],
            "comparison_images=0 must be an integer of at least 2",
        ),
        (["--output=net", "--weights=fashion_mnist", "--format=caffe"], "format='caffe' must be one of saved_model"),
        # Before anything is fetched.
        (["--output=net", "--weights=imagenet", "--precision=dynamic"], "precision='dynamic' must be one of float32"),
        (["--output=net"], "no trained model in runs/"),
    ],
)
def test_mistakes_get_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("polynet: ")
    assert message in error
    assert not list(tmp_path.iterdir())


def test_told_to_end_it_leaves_nothing(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    image = keras.Input((8, 8, 3))
    features = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.layers.Dense(2, "softmax")(features)).save(run / MODEL_FILE)
    ModelCard(("a", "b"), Preprocessing(8, 8), 1, 1).save(run)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(exporting, "compare", lambda *arguments, **options: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(["export", f"--run_dir={run}", f"--output={tmp_path / 'net'}"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == [run]
    assert signal.getsignal(signal.SIGTERM) is before
