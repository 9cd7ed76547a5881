"""`polynet features`: what it prints and writes, and what it says of mistakes."""

import numpy as np
import pytest

from polynet_keras.cli.main import main
from polynet_keras.evaluation.features import Features
from tests.cli.test_explain_command import here, small_run  # noqa: F401
from tests.deployment.exported import protocol, save_card
from tests.evaluation.test_predicting import NAMES, plain  # noqa: F401

pytestmark = pytest.mark.usefixtures("plain")


def features(capsys, *argv, code=0):
    assert main(["features", *map(str, argv)]) == code
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_a_file_of_a_folder(capsys, here):  # noqa: F811
    out, _ = features(capsys, "--output=photos.npz", "photos")
    assert out == ["model: runs/mine", "file:  photos.npz, 3 images, 4 numbers each: avg of re_lu"]
    found = Features.load("photos.npz")
    assert found.paths.tolist() == [f"photos/{number}.png" for number in range(3)]
    assert (found.class_names, found.preprocessing.image_size) == (NAMES, 12)
    features(capsys, "--output=largest.npz", "--pooling=max", "--stage=stem", "photos")
    largest = Features.load("largest.npz")
    assert (largest.stage, largest.pooling) == ("stem", "max")
    assert (largest.embeddings != found.embeddings).any()


def test_images_that_cannot_be_read(capsys, here):  # noqa: F811
    (here / "photos" / "bad.png").write_bytes(b"no image")
    out, err = features(capsys, "--output=photos.npz", "--model=runs/mine", "photos", code=1)
    assert out == ["model: runs/mine"]
    assert len(err) == 1
    assert err[0].startswith("polynet: photos/bad.png: cannot be read as an image")
    assert not (here / "photos.npz").exists()
    _, err = features(capsys, "--output=photos.npz", "--model=runs/mine", "gone.png", "photos/0.png", code=1)
    assert err == ["polynet: gone.png: no such file"]
    skip = ("--output=photos.npz", "--model=runs/mine", "--on_error=skip")
    out, _ = features(capsys, *skip, "gone.png", "photos")
    assert out[1].startswith("left out: gone.png   no such file")
    assert out[2].startswith("left out: photos/bad.png   cannot be read as an image")
    assert out[3] == "file:  photos.npz, 3 images, 4 numbers each: avg of re_lu"
    for number in range(25):
        (here / "photos" / f"bad-{number}.png").write_bytes(b"no image")
    out, _ = features(capsys, *skip, "--output=more.npz", "photos")
    assert len(out) == 1 + 20 + 2
    assert out[-2] == "and 6 more"
    assert np.load("more.npz")["embeddings"].shape == (3, 4)


def test_mistakes(capsys, here):  # noqa: F811
    (here / "there.npz").write_bytes(b"kept")
    _, err = features(capsys, "--output=there.npz", "photos", code=1)
    assert err == ["polynet: --output=there.npz already exists; name a new file, or remove this one"]
    _, err = features(capsys, "--output=nowhere/a.npz", "photos", code=1)
    assert err[-1].startswith("polynet: --output=nowhere/a.npz: its folder does not exist or cannot be written")
    _, err = features(capsys, "--output=a.npz", "--model=runs/mine", "--stage=stage_c", "photos", code=1)
    assert "stage='stage_c' must be one of stem, predictions, or a layer of model" in err[-1]
    (here / "clothes" / "1").mkdir(parents=True)
    (here / "clothes" / "1" / "model.xml").write_text("")
    save_card(here / "clothes", protocol(3))
    _, err = features(capsys, "--output=a.npz", "--model=clothes", "photos", code=1)
    assert err == ["polynet: clothes is exported and has only classes; name the model that it was exported from"]
    assert sorted(file.name for file in here.iterdir()) == ["clothes", "photos", "runs", "there.npz"]
