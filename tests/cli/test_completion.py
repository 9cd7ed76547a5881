"""What bash completes with the script of `polynet completion`, as it calls the function at TAB; and zsh, at TAB."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from polynet_keras.cli.main import COMMANDS, main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

ASK = r"""
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _polynet
    echo "${COMPREPLY[*]}"
}
complete -p polynet
"""
CASES = [
    (["polynet", "tr"], "train"),
    (["polynet", ""], f"{' '.join(COMMANDS)} help --help --version"),
    (["polynet", "help", "pre"], "predict"),
    (["polynet", "train", "--epo"], "--epochs"),
    (["polynet", "train", "--nofl"], "--noflip"),
    (["polynet", "train", "--helpf"], "--helpfull"),
    (["polynet", "train", "--crop", ""], "random random_resized"),
    (["polynet", "train", "--crop", "="], "random random_resized"),
    (["polynet", "train", "--crop", "=", "random_"], "random_resized"),
    (["polynet", "train", "--crop=random_"], "--crop=random_resized"),
    (["polynet", "train", "--data", "pho"], ""),  # a file's name, which `-o default` completes
    (["polynet", "train", "--data=a f"], "--data=a folder"),
    (["polynet", "ablation", "--struc"], ""),  # has every flag of train but this one
    (["polynet", "crops", "--out"], "--output"),  # --out is an old name of it
    (["polynet", "crops", "--crops", "1"], "1 10 144"),
    (["polynet", "export", "--format", "on"], "onnx"),
    (["polynet", "recipes", "fi"], "finetune"),
    (["polynet", "completion", ""], "bash zsh"),
    (["polynet", "launch", "--workers", "2", "--", ""], "train"),
    (["polynet", "launch", "--workers", "2", "--", "train", "--epo"], "--epochs"),
    (["polynet", "launch", "--", "ls", "--epo"], ""),
    (["polynet", "nonsense", "--a"], ""),
]


def script(capsys, shell):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes(capsys, tmp_path):
    (tmp_path / "a folder").mkdir()
    quoted = [" ".join(f"'{word}'" for word in words) for words, _ in CASES]
    text = script(capsys, "bash") + ASK + "".join(f"ask {words}\n" for words in quoted)
    done = subprocess.run(["bash", "--norc"], input=text, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    first, *replies = done.stdout.splitlines()
    assert first == "complete -o default -F _polynet polynet"
    for (words, expected), reply in zip(CASES, replies, strict=True):
        assert reply == expected, words


def test_zsh_takes_the_same_function(capsys):
    bash, zsh = script(capsys, "bash"), script(capsys, "zsh")
    assert "bashcompinit" in zsh
    assert bash.partition("_polynet() {")[2] == zsh.partition("_polynet() {")[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_at_tab(capsys, tmp_path):
    """On a terminal, key by key; Control-T writes the line that is being edited into a file."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "polynet.zsh").write_text(script(capsys, "zsh"))
    tell = "tell() { print -r -- $BUFFER >> told; BUFFER= }; zle -N tell; bindkey '^T' tell; touch told\n"
    typed = {
        "polynet tra": "polynet train ",
        "polynet train --epo": "polynet train --epochs ",
        "polynet train --ep": "polynet train --ep",  # --epochs and --epsilon are listed
        "polynet train --optimizer s": "polynet train --optimizer sgd ",
        "polynet train --optimizer=s": "polynet train --optimizer=sgd ",
        "polynet train --data pho": "polynet train --data photos/",
        "polynet train --data=pho": "polynet train --data=photos ",
        "polynet launch --workers=2 -- train --epo": "polynet launch --workers=2 -- train --epochs ",
    }
    terminal, end = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm"}
    streams = dict(stdin=end, stdout=end, stderr=end, start_new_session=True)
    shell = subprocess.Popen(["zsh", "-f", "-i"], cwd=tmp_path, env=environment, **streams)
    try:
        shown, told, deadline = b"", tmp_path / "told", time.monotonic() + 60
        os.write(terminal, f"autoload -Uz compinit; compinit -u; source polynet.zsh; {tell}".encode())
        for count, keys in enumerate(["", *typed]):
            if keys:
                os.write(terminal, f"{keys}\t\x14".encode())
            while not told.exists() or len(told.read_text().splitlines()) < count:
                assert time.monotonic() < deadline, shown.decode(errors="replace")
                if select.select([terminal], [], [], 0.05)[0]:
                    shown += os.read(terminal, 1 << 16)
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
        os.close(end)
    assert told.read_text().splitlines() == list(typed.values())
    assert b"--epsilon" in shown
