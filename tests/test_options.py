"""The options that the gate gives to pytest: parts cover all modules once, and no skip goes unseen."""

import ast
import json
import random
import re
from pathlib import Path

import pytest

from tests import options
from tests.options import merged, split

pytest_plugins = ["pytester"]

SUITE = {
    "test_long": """
import pytest
@pytest.mark.slow
@pytest.mark.parametrize("i", range(3))
def test(i): pass
""",
    "test_mixed": """
import pytest
def test_fast(): pass
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.skipif(True, reason="needs a GPU")
def test_gpu(): pass
@pytest.mark.skipif(True, reason="needs a GPU")
def test_gpu_too(): pass
""",
    "test_short": "import pytest\npytestmark = pytest.mark.slow\ndef test(): pass",
    "test_other": "import pytest\npytest.importorskip('no_such_module')",
}
ALL_SKIPS = "2 needs a GPU\n1 could not import 'no_such_module': No module named 'no_such_module'\n"


@pytest.fixture
def suite(pytester, monkeypatch):
    """A small suite with these options, and durations of its own."""
    for variable in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a run takes a tenth of a second
    root = options.DURATIONS.parent.parent
    pytester.syspathinsert(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    durations = pytester.path / "durations.json"
    pytester.makeconftest(f"""
from pathlib import Path
from tests import options
from tests.options import pytest_addoption, pytest_collection_modifyitems, pytest_configure
options.DURATIONS = Path({str(durations)!r})
""")
    monkeypatch.setattr(options, "DURATIONS", durations)  # the small suite runs in this process
    pytester.makeini("[pytest]\nmarkers =\n    slow\n    backends")
    pytester.makepyfile(**SUITE)
    return pytester


def test_parts_are_balanced():
    # By hand: 7 | 6 | 5, then 5 to 5, 4 to 6, 4 to 7 or so: no part is over 11.
    seconds = {"a": 7, "b": 6, "c": 5, "d": 5, "e": 4, "f": 4}
    assert split(seconds, seconds, 3) == [["a", "f"], ["b", "e"], ["c", "d"]]


def test_a_module_that_was_never_timed_counts_as_an_average_one():
    assert split("abcd", {"a": 10, "b": 2}, 2) == [["a", "b"], ["c", "d"]]  # 10 + 2, and twice 6


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_every_module_is_in_exactly_one_part(count):
    rng = random.Random(count)
    modules = [f"tests/test_{i}.py" for i in range(30)]
    seconds = {name: rng.choice([5, 5, 20, 100]) for name in modules[:25]}
    parts = split(modules, seconds, count)
    assert len(parts) == count
    assert sorted(name for names in parts for name in names) == sorted(modules)
    # Workers of pytest-xdist must agree, whatever order they list the modules in.
    rng.shuffle(modules)
    assert split(set(modules), seconds, count) == parts


def test_the_parts_of_a_suite_are_whole_modules_and_all_of_it(suite):
    options.DURATIONS.write_text(json.dumps({"test_long.py": 60, "test_mixed.py": 20, "test_short.py": 10}))
    found = []
    for index in (1, 2):
        result = suite.runpytest_inprocess("-m", "slow", f"--part={index}/2", "--collect-only", "-q")
        found.append({line for line in result.outlines if "::" in line})
    long = {f"test_long.py::test[{i}]" for i in range(3)}
    assert found == [long, {"test_mixed.py::test_slow", "test_short.py::test"}]


@pytest.mark.parametrize("text", ["0/6", "7/6", "2", "a/b", "-1/6", "1/6/2"])
def test_an_impossible_part_is_refused(suite, text):
    result = suite.runpytest_inprocess(f"--part={text}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*'{text}': expected K/N with 1 <= K <= N, such as 2/6"])


def test_what_a_part_ran_is_printed(suite):
    result = suite.runpytest_inprocess("-m", "slow", "--part=1/1")
    lines = [line.split("s  ", 1)[1] for line in result.outlines if re.match(r" +0 s  ", line)]
    assert sorted(lines) == [
        "in all",
        "test_long.py: 3 tests, nothing recorded",
        "test_mixed.py: 1 tests, nothing recorded",
        "test_short.py: 1 tests, nothing recorded",
    ]


def test_small_differences_change_no_recorded_duration():
    recorded = {"a": 100, "b": 100, "c": 100, "d": 5}
    measured = {"a": 118.0, "b": 131.0, "c": 76.0, "new": 2.0}
    assert merged(recorded, measured) == {"a": 100, "b": 130, "c": 75, "d": 5, "new": 5}


def test_durations_are_of_slow_tests_in_modules_that_passed(suite, monkeypatch):
    suite.makepyfile(test_failing="import pytest\n@pytest.mark.slow\ndef test(): assert False")
    suite.makepyfile(test_long=SUITE["test_long"].replace("pass", "__import__('time').sleep(0.2)"))
    suite.makepyfile(test_short="def test(): __import__('time').sleep(0.1)")
    options.DURATIONS.write_text(json.dumps({"test_failing.py": 40, "test_gone.py": 50, "test_mixed.py": 30}))
    monkeypatch.setattr(options, "merged", lambda recorded, measured: {**recorded, **measured})
    result = suite.runpytest_inprocess("--record-durations")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = json.loads(options.DURATIONS.read_text())
    assert found.keys() == {"test_failing.py", "test_long.py", "test_mixed.py"}
    assert found["test_failing.py"] == 40
    assert 0.6 <= found["test_long.py"] < 10
    assert found["test_mixed.py"] < 10


@pytest.mark.parametrize("arguments", [["-k", "long"], ["-x"], ["test_long.py::test"]])
def test_durations_of_less_than_a_module_are_refused(suite, arguments):
    result = suite.runpytest_inprocess("--record-durations", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not options.DURATIONS.exists()


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        (ALL_SKIPS, []),
        ("# why\n\n" + ALL_SKIPS, []),
        (ALL_SKIPS.replace("2 ", "3 "), []),
        (ALL_SKIPS.replace("2 ", "1 "), ["UNKNOWN SKIP: 2, at most 1 known: needs a GPU"]),
        (ALL_SKIPS.split("\n")[0], ["UNKNOWN SKIP: 1, at most 0 known: could not import 'no_such_module'*"]),
    ],
    ids=["all", "comments", "room", "more", "import"],
)
def test_a_skip_that_is_not_known_fails_the_run(suite, known, unknown):
    check_skips(suite, suite.runpytest_inprocess, known, unknown)


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        pytest.param(ALL_SKIPS, [], marks=pytest.mark.slow),
        ("", ["UNKNOWN SKIP: 1, at*", "UNKNOWN SKIP: 2, at*"]),
    ],
)
def test_the_skips_of_several_workers_are_counted_once(suite, known, unknown):
    def run(*arguments):
        return suite.runpytest_subprocess("-p", "xdist", "-n2", *arguments)

    check_skips(suite, run, known, unknown)


def check_skips(suite, run, known, unknown):
    path = suite.path / "known.txt"
    path.write_text(known)
    result = run(f"--known-skips={path}")
    result.assert_outcomes(passed=6, skipped=3)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if unknown else pytest.ExitCode.OK)
    assert len([line for line in result.outlines if line.startswith("UNKNOWN SKIP")]) == len(unknown)
    result.stdout.fnmatch_lines(unknown)
    assert len([line for line in result.outlines if line.startswith("known skip")]) == 2 - len(unknown)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--known-skips: *No such file or directory*"),
        ("2 needs a GPU\nneeds a disk", "*known.txt:2: 'needs a disk': expected a number and a reason"),
        ("2", "*known.txt:1: '2': expected a number and a reason"),
    ],
)
def test_a_list_of_skips_that_cannot_be_read_is_refused(suite, content, message):
    path = suite.path / "known.txt"
    if content:
        path.write_text(content)
    result = suite.runpytest_inprocess(f"--known-skips={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_what_the_gate_runs_by_name_is_a_fast_test():
    """pytest says nothing of a named test that `-m "not slow"` leaves out."""
    named = re.findall(r"(tests/\S+\.py)::(test_\w+)", (Path(__file__).parents[1] / ".ci" / "versions").read_text())
    assert len(named) == 2
    for file, name in named:
        functions = {
            one.name: one
            for one in ast.parse((Path(__file__).parents[1] / file).read_text()).body
            if hasattr(one, "name")
        }
        assert "pytest.mark.slow" not in [ast.unparse(mark) for mark in functions[name].decorator_list]
