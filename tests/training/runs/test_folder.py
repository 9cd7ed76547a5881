"""The run folder: one writer, and nothing removed that the run did not write."""

import json
import os
import platform
import re
import signal
import time
from pathlib import Path

import pytest

from polynet_keras.basics import holding
from polynet_keras.training.features.computing import ABOUT_FILE
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.curves import plot_curves
from polynet_keras.training.runs.folder import remove_checkpoints, run_folder
from polynet_keras.training.runs.history import forget_epochs, read_history
from tests import children

RECIPE = Recipe(structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)


EVENTS = f"events.out.tfevents.1.host.{os.getpid()}.0.v2"


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def as_a_run(folder):
    """Writes what a run writes before its first epoch is done."""
    (folder / "tensorboard" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "tensorboard" / "train" / EVENTS).touch()
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "history.csv").touch()


EARLY = ValueError("early")


def broken_off(folder, error=EARLY, work=as_a_run):
    """A run that does something and ends with an error."""
    with run_folder(folder, RECIPE) as path:
        work(path)
        raise error


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyboardInterrupt])
def test_an_early_error_removes_what_the_run_wrote(tmp_path, error):
    with pytest.raises(error):
        broken_off(tmp_path / "run", error)
    assert not (tmp_path / "run").exists()


def test_what_others_put_there_meanwhile_stays(tmp_path):
    def work(path):
        as_a_run(path)
        (path / "notes.txt").touch()
        (path / "tensorboard" / "notes.txt").touch()
        (path / "mine").mkdir()
        # With names like ours.
        (path / "tensorboard" / "train" / "events.out.tfevents.1.host.1.0.v2").touch()
        (path / "checkpoints" / "checkpoint-best.h5").touch()
        (path / "checkpoints" / "mine").mkdir()
        (path / "checkpoints" / "mine" / "checkpoint-7.index").touch()
        (path / "samples").mkdir()
        (path / "samples" / "cat-is-dog.png").touch()

    with pytest.raises(ValueError, match="early"):
        broken_off(tmp_path / "run", work=work)
    assert files(tmp_path / "run") == [
        "checkpoints/checkpoint-best.h5",
        "checkpoints/mine/checkpoint-7.index",
        "notes.txt",
        "samples/cat-is-dog.png",
        "tensorboard/notes.txt",
        "tensorboard/train/events.out.tfevents.1.host.1.0.v2",
    ]
    assert (tmp_path / "run" / "mine").is_dir()


def test_a_folder_that_was_there_stays(tmp_path):
    with pytest.raises(ValueError, match="early"):
        broken_off(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_run_wrote_stays(tmp_path):
    RECIPE.save(tmp_path / "recipe.json")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.0.host").touch()
    with pytest.raises(ValueError, match="early"):
        broken_off(tmp_path)
    assert files(tmp_path) == ["recipe.json", "tensorboard/events.out.tfevents.0.host"]


def test_features_of_which_none_is_computed_go_and_others_stay(tmp_path):
    def begun(path):
        for name in ("0123456789abcdef", "fedcba9876543210"):
            (path / "features" / name).mkdir(parents=True)
        (path / "features" / "0123456789abcdef" / ABOUT_FILE).touch()

    def some(path):
        begun(path)
        (path / "features" / "0123456789abcdef" / "00000.npy").touch()

    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "run", KeyboardInterrupt, begun)
    assert not (tmp_path / "run").exists()
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "run", KeyboardInterrupt, some)
    assert "recipe.json" in files(tmp_path / "run")
    with run_folder(tmp_path / "run", RECIPE):
        pass  # it goes on


@pytest.mark.parametrize("saved", ["history.csv", "checkpoints/checkpoint-1.index"])
def test_after_an_epoch_or_a_checkpoint_everything_stays(tmp_path, saved):
    def work(path):
        as_a_run(path)
        (path / saved).write_text("epoch,loss\r\n0,1.5\r\n")

    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "run", KeyboardInterrupt, work)
    assert {"recipe.json", saved, f"tensorboard/train/{EVENTS}"} <= set(files(tmp_path / "run"))
    with run_folder(tmp_path / "run", RECIPE):
        pass  # it goes on


def test_checkpoints_of_a_run_that_is_done_go_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoint-1.index", "checkpoint-1.data-00000-of-00001", "checkpoint-best.h5"):
        (tmp_path / "checkpoints" / name).touch()
    (tmp_path / "model.keras").touch()
    remove_checkpoints(tmp_path)
    assert files(tmp_path) == ["checkpoints/checkpoint-best.h5", "model.keras"]
    (tmp_path / "checkpoints" / "checkpoint-best.h5").unlink()
    remove_checkpoints(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_what_a_link_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "checkpoint-1.index").touch()
    (tmp_path / "checkpoints").symlink_to("elsewhere")
    remove_checkpoints(tmp_path)
    assert (tmp_path / "elsewhere" / "checkpoint-1.index").exists()


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", "photos/a/1.png", "model.h5", "Recipe.json"])
def test_a_folder_with_other_things_is_refused_with_what_is_there(tmp_path, recipe, name):
    if recipe:
        RECIPE.save(tmp_path / "recipe.json")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = files(tmp_path)
    with (
        pytest.raises(ValueError, match=f"'{name.partition('/')[0]}'.* name a new folder"),
        run_folder(tmp_path, RECIPE),
    ):
        pass
    assert files(tmp_path) == before


@pytest.mark.parametrize("recipe", [True, False])
@pytest.mark.parametrize(
    ("names", "is_output"),
    [
        (["slurm-1.out"], True),
        (["nohup.out"], True),
        (["train.log", "worker-1-attempt-0.log", "job.err"], True),
        (["train.e1234", "train.o1234"], True),
        (["slurm-1.out", "notes.txt"], False),
        (["login"], False),
    ],
)
def test_output_of_the_job_itself_is_told_where_it_belongs(tmp_path, recipe, names, is_output):
    if recipe:
        RECIPE.save(tmp_path / "recipe.json")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"'{names[0]}'.* name a new folder") as raised, run_folder(tmp_path, RECIPE):
        pass
    advice = "like the output of a job: let it go to a file elsewhere (`> train.log`, Slurm's --output, --log_dir"
    assert (advice in str(raised.value)) == is_output
    assert files(tmp_path) == sorted([*names, "recipe.json"] if recipe else names)


def test_hidden_files_are_no_matter(tmp_path):
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(ValueError, match="early"):
        broken_off(tmp_path)
    assert files(tmp_path) == [".DS_Store"]


def test_a_default_folder_that_is_taken_gets_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda text: "-20260101-000000")
    with run_folder(None, RECIPE) as first, run_folder(None, RECIPE) as second, run_folder(None, RECIPE) as third:
        assert [path.name for path in (first, second, third)] == [
            "digits-20260101-000000", "digits-20260101-000000-2", "digits-20260101-000000-3",
        ]  # fmt: skip
    for data, name in {
        "/": "data",
        "a\nb\x1b[31m\x9b": "a_b_[31m_",
        "caf\udce9": "caf_",
        "right\u202eleft": "right_left",
        ".hidden": "hidden",
        "-x": "-x",
        "é" * 127: "é" * 100,
    }.items():
        with run_folder(None, Recipe(data=data, structure=RECIPE.structure, width=0.1, epochs=1)) as path:
            assert path.name == f"{name}-20260101-000000"


HOLDER = """
import sys, time
from pathlib import Path
from polynet_keras.basics.holding import holding
with holding("run_dir", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
    process = children.Child(HOLDER, str(tmp_path))
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_one_process_at_a_time(tmp_path, holder):
    expected = rf"run_dir=.* is being written by process {holder.pid} on {re.escape(platform.node())}, since 20\d\d-"
    before = files(tmp_path)
    with pytest.raises(ValueError, match=expected), run_folder(tmp_path, RECIPE):
        pass
    assert files(tmp_path) == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run_folder(tmp_path, RECIPE):  # free at once
        assert (tmp_path / "recipe.json").is_file()


def test_of_two_in_one_process_one_is_refused(tmp_path):
    with run_folder(tmp_path, RECIPE):
        with pytest.raises(ValueError, match="is being written by process"), run_folder(tmp_path, RECIPE):
            pass
        assert (tmp_path / "recipe.json").is_file()


def as_of_another_machine(folder, seconds):
    (folder / "taken").write_text(
        f"filelock/2\npid=1\nhost=far\nmode=lease\ntoken={'0' * 32}\nduration={seconds}\nstart=1\n"
    )
    (folder / "taken").rename(folder / ".lock")


def test_what_died_on_another_machine_is_free_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "LEASE_SECONDS", 0.3)
    as_of_another_machine(tmp_path, 0.3)
    with run_folder(tmp_path, RECIPE):
        assert (tmp_path / "recipe.json").is_file()


def test_what_lives_on_another_machine_is_waited_for_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "LEASE_SECONDS", 60)
    as_of_another_machine(tmp_path, 60)
    (tmp_path / ".lock-holder.json").write_text(
        json.dumps({"pid": 1, "host": "far", "since": "2026-01-02T03:04:05+00:00"})
    )
    waited = []

    def acquire(self, timeout):
        waited.append(timeout)
        raise holding.filelock.Timeout(self.lock_file)

    monkeypatch.setattr(holding, "_host", lambda: "here")

    monkeypatch.setattr(holding.filelock.SoftFileLease, "acquire", acquire)
    with pytest.raises(ValueError, match="process 1 on far, since 2026-01-02"), run_folder(tmp_path, RECIPE):
        pass
    assert waited == [0, 65]


def test_a_holder_whose_lock_was_taken_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "LEASE_SECONDS", 0.3)

    def suspended():
        with holding.holding("run_dir", tmp_path):
            as_of_another_machine(tmp_path, 60)
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        suspended()


def test_what_the_next_holder_wrote_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(holding, "LEASE_SECONDS", 0.3)

    def suspended(path):
        as_of_another_machine(path, 60)
        for name in ("history.csv", ".lock-holder.json"):
            (path / name).write_text("")
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path, work=suspended)
    assert {"recipe.json", "history.csv", ".lock", ".lock-holder.json"} <= set(files(tmp_path))


def test_a_folder_that_is_read_only(tmp_path, monkeypatch):
    def acquire(self, timeout):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(holding.filelock.SoftFileLease, "acquire", acquire)
    with pytest.raises(ValueError, match="cannot be written: Permission denied"), run_folder(tmp_path / "run", RECIPE):
        pass
    assert not (tmp_path / "run").exists()


SPOILED = {
    "two_headers": (
        "epoch,loss\r\n0,1.5\r\nepoch,loss\r\n1,1.5\r\n",
        "line 3 has 'epoch' where the number of an epoch belongs",
    ),
    "twice": ("epoch,loss\r\n0,1.5\r\n0,1.5\r\n", "line 3 is of epoch 0, the one before it of epoch 0"),
    "back": ("epoch,loss\r\n4,1.5\r\n5,1.5\r\n4,1.5\r\n", "line 4 is of epoch 4, the one before it of epoch 5"),
    "no_epoch": ("loss\r\n1.5\r\n", "line 2 is below a header without the column 'epoch'"),
    "mixed": ("epoch,loss\r\n0,1.5\r\n1,1.5,2.5\r\n", "line 3 has more or fewer values than the header has columns"),
    "short": ("epoch,loss\r\n0,1.5\r\n1\r\n", "line 3 has more or fewer values than the header has columns"),
    "an_editor": ("epoch;loss\r\n0;1.5\r\n", "line 2 is below a header without the column 'epoch'"),
    "a_fraction": ("epoch,loss\r\n0.0,1.5\r\n", "line 2 has '0.0' where the number of an epoch belongs"),
    "below_zero": ("epoch,loss\r\n-1,1.5\r\n", "line 2 has '-1' where the number of an epoch belongs"),
}


@pytest.mark.parametrize(("text", "fault"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_history_is_named(tmp_path, text, fault):
    (tmp_path / "history.csv").write_text(text)
    RECIPE.save(tmp_path / "recipe.json")
    expected = f"history.csv: {fault}. .*Correct the line, or move the file away: the run resumes"
    with pytest.raises(ValueError, match=expected), run_folder(tmp_path, RECIPE):
        pass
    with pytest.raises(ValueError, match=expected):
        plot_curves(tmp_path / "history.csv", tmp_path / "curves.png")
    assert files(tmp_path) == ["history.csv", "recipe.json"]


@pytest.mark.parametrize(
    ("end", "epochs"),
    [
        ("2,1.25\r", 3),
        ("2,1.25\n", 3),
        ("2,1.25", 2),  # perhaps of 1.2512
        ("2,5e-05", 2),
        ("2,nan", 2),
        ("2,5e-0", 2),
        ("2,1.", 2),
        ("2,", 2),
        ("2", 2),
        ("", 2),
    ],
)
def test_a_last_row_that_may_be_cut_off_is_none(tmp_path, end, epochs):
    path = tmp_path / "history.csv"
    path.write_bytes(f"epoch,loss\r\n0,1.5\r\n1,1.5\r\n{end}".encode())
    assert [row["epoch"] for row in read_history(path)] == [str(epoch) for epoch in range(epochs)]
    forget_epochs(path, 3)
    with open(path, "a") as file:
        file.write("3,1.5\r\n")  # as a run does that goes on after epoch 2, whose line was lost or not
    assert [row["epoch"] for row in read_history(path)][-1] == "3"
    assert len(read_history(path)) == epochs + 1


def test_history(tmp_path):
    path = tmp_path / "history.csv"
    assert read_history(path) == []
    forget_epochs(path, 1)
    assert not path.exists()
    path.write_bytes(b"epoch,loss\r\n0,1.5\r\n1,nan\r\n2,")  # the last line was cut off
    assert read_history(path) == [{"epoch": "0", "loss": "1.5"}, {"epoch": "1", "loss": "nan"}]
    forget_epochs(path, 1)
    assert path.read_bytes() == b"epoch,loss\r\n0,1.5\r\n"
    forget_epochs(path, 0)
    assert path.read_bytes() == b""
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="history.csv cannot be read"):
        read_history(path)


def test_a_run_in_a_folder_of_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("with blank", "日本語 é", "n" * 255, "[a]*?", "link", "deep/er", "'quoted'"):
        with run_folder(name, RECIPE) as path:
            assert path == Path(name)
        assert files(path) == ["recipe.json"]
    with pytest.raises(ValueError, match="cannot be written: File name too long"), run_folder("n" * 256, RECIPE):
        pass
    with (
        pytest.raises(ValueError, match="link/recipe.json' is not a folder; name another"),
        run_folder("link/recipe.json", RECIPE),
    ):
        pass
