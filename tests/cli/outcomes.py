"""How a command ends: tests run it in their own process."""

from polynet_keras.cli.main import main


def succeeds(capsys, *argv):
    """What it prints."""
    code = main([str(argument) for argument in argv])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def fails(capsys, *argv):
    """The one line that it says."""
    output, error = _mistake(capsys, argv)
    assert output == ""
    (line,) = error.splitlines()
    return line


def fails_in_the_end(capsys, *argv):
    """What it prints, and the line that it ends with, after others."""
    output, error = _mistake(capsys, argv)
    return output, error.splitlines()[-1]


def _mistake(capsys, argv):
    code = main([str(argument) for argument in argv])
    output, error = capsys.readouterr()
    assert code == 1, error
    assert error.splitlines()[-1].startswith("polynet: ")
    return output, error
