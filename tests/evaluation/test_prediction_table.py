"""Tables of predictions: what other programs read of them, and what is left when the work ends early."""

import csv
import json
import os
from pathlib import Path

import pytest

from polynet_keras.evaluation.predicting import Prediction
from polynet_keras.evaluation.prediction_table import check_table, prediction_table

ROWS = [
    Prediction('a, "b"\n.jpg', (("cat, tabby", 0.98765432109), ("007", 1.25e-9))),
    Prediction("caf\udce9/é.jpg", (("dog", 1.0), ("cat, tabby", 0.0))),
    Prediction("text.png", (), "cannot be read as an image: it is empty"),
]
COLUMNS = ["path", "class_1", "probability_1", "class_2", "probability_2", "error"]
READ = [
    ['a, "b"\n.jpg', "cat, tabby", 0.9876543, "007", 1.25e-09, None],
    ["caf\\xe9/é.jpg", "dog", 1.0, "cat, tabby", 0.0, None],
    ["text.png", None, None, None, None, "cannot be read as an image: it is empty"],
]


def write(path, rows=ROWS):
    with prediction_table(path, 2) as add:
        for row in rows:
            add(row)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == COLUMNS
    numbers = [[float(cell) if i in (2, 4) and cell else cell or None for i, cell in enumerate(row)] for row in rows]
    return numbers


def read_lines(path):
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [list(row) for row in rows] == [COLUMNS] * len(rows)
    return [list(row.values()) for row in rows]


def test_csv(tmp_path):
    write(tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv") == READ
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_json_lines(tmp_path):
    write(str(tmp_path / "out.jsonl"))
    assert read_lines(tmp_path / "out.jsonl") == READ
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_parquet(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("polynet_keras.evaluation.prediction_table.ROWS", 2)
    write(tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert [str(column.type) for column in table.schema] == ["string", *["string", "double"] * 2, "string"]
    assert [list(row.values()) for row in table.to_pylist()] == READ
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(("name", "read"), [("out.csv", read_csv), ("out.jsonl", read_lines)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_rows_are_kept_where_the_work_ends_early(tmp_path, caplog, name, read, error):
    partial = tmp_path / name.replace(".", ".partial.")

    def two_rows():
        yield ROWS[0]
        assert read(partial) == READ[:1]  # whatever ends the process now
        yield ROWS[1]
        raise error

    with pytest.raises(error):
        write(tmp_path / name, two_rows())
    assert list(tmp_path.iterdir()) == [partial]
    assert read(partial) == READ[:2]
    assert f"{name} is incomplete: the first 2 rows are in {partial}" in caplog.text


def test_no_row_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), prediction_table(tmp_path / "out.csv", 2):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_rows_that_were_kept_are_not_written_over(tmp_path):
    (tmp_path / "out.partial.csv").write_text("rows")
    message = r"out.partial.csv exists: the rows of an incomplete table; move it away or remove it"
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out.csv")
    assert (tmp_path / "out.partial.csv").read_text() == "rows"
    (tmp_path / "out.partial.csv").unlink()
    with prediction_table(tmp_path / "out.csv", 2) as add:
        add(ROWS[0])
        with pytest.raises(ValueError, match=message):  # as another process
            write(tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv") == READ[:1]


def test_names_of_tables(tmp_path, monkeypatch):
    for name in ("out", "out.txt", ".csv"):
        with pytest.raises(ValueError, match=f"{name}: a table of predictions must end in .csv, .jsonl, .parquet"):
            check_table(tmp_path / name)
    monkeypatch.setattr("polynet_keras.basics.extras.find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: pyarrow; the extra `tables` has it: pip install pyarrow"):
        check_table(tmp_path / "out.parquet")


def test_a_table_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "none" / "out.csv")


@pytest.mark.parametrize("name", ["out.csv", pytest.param("out.parquet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("links", [True, False])
def test_a_table_that_came_meanwhile_stays(tmp_path, monkeypatch, name, links):
    if name == "out.parquet":
        pytest.importorskip("pyarrow.parquet")
    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    write(tmp_path / f"first{Path(name).suffix}")

    def one_row():
        yield ROWS[0]
        (tmp_path / name).write_text("theirs")

    with pytest.raises(ValueError, match=r"another process has written .*out\.\w+, which is not changed"):
        write(tmp_path / name, one_row())
    assert (tmp_path / name).read_text() == "theirs"
    (partial,) = tmp_path.glob("out.partial.*")
    assert "cat, tabby" in partial.read_text()
    with pytest.raises(ValueError, match="already exists; name a new file"):
        write(tmp_path / name)
