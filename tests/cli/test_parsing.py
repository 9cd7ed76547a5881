"""Mistakes in the words of a command line: what was got, what is taken, what may have been meant."""

import re

import pytest

from polynet_keras.cli.main import main


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["help", "trian"], "unknown command 'trian'; did you mean train? `polynet --help` lists the commands"),
        (["trian"], "unknown command 'trian'; did you mean train? `polynet --help` lists the commands"),
        (["qqq"], "unknown command 'qqq'; `polynet --help` lists the commands"),
        (["--epochs", "3"], "expected a command before '--epochs'; `polynet --help` lists the commands"),
        (
            ["train", "--epoch", "3"],
            "unknown flag --epoch of polynet train; did you mean --epochs? `polynet train --helpfull` lists all",
        ),
        (["train", "--noflp"], "did you mean --noflip?"),
        (["train", "--batch-size=3"], "did you mean --batch_size?"),
        (["train", "--lr=3"], "did you mean --learning_rate?"),
        (["predict", "--qqq"], "unknown flag --qqq of polynet predict; `polynet predict --help` lists all"),
        (["predict", "--a\nb"], r"unknown flag --a\nb of polynet predict"),
        (["crops", "--ou=x"], "did you mean --output?"),  # not the old name, --out
        (["launch", "--", "train", "--epoch=3"], "unknown flag --epoch of polynet train; did you mean --epochs?"),
        (["train", "--epochs", "many"], "--epochs=many must be a whole number"),
        (["train", "--epochs", "1.5"], "--epochs=1.5 must be a whole number"),
        (["train", "--width", "wide"], "--width=wide must be a number"),
        (["train", "--flip=maybe"], "--flip=maybe must be true or false; --flip alone and --noflip say the same"),
        (["train", "--epochs"], "--epochs needs a value"),
        (["ensemble", "--seed=-1", "a", "b"], "--seed=-1 must be a whole number of at least 0"),
        (["train", f"--epochs={'x' * 300}"], f"--epochs={'x' * 200}… must be a whole number"),
        (["train", "--aug=1"], "unknown flag --aug of polynet train; `polynet"),
        (["train", "--wd=1"], "did you mean --weight_decay?"),
        (["train", "--frozen_n"], "did you mean --frozen_normalizations?"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, line):
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"polynet: [^\n]*\n", err)
    assert line in err
