"""The mutation tester on a module of which it is known what its tests find."""

import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent.parent / "tools" / "mutate.py"

MODULE = """
SHARES = {"half": 2, "third": 3}


def share(part, whole):
    if whole <= 0:
        raise ValueError("nothing to share")
    return min(part / whole, 1.0)


class Counter:
    @property
    def step(self):
        return SHARES["half"]
"""

TESTS = """
import pytest

import counting


def test_share():
    assert counting.share(1, 4) == 0.25
    assert counting.share(9, 4) == 1.0
    with pytest.raises(ValueError, match="nothing"):
        counting.share(1, 0)


def test_step():
    assert counting.Counter().step == 2


@pytest.mark.slow
def test_third():
    assert counting.SHARES["third"] == 3
"""


# No test shares a whole of 1, and the test of the third is a slow one.
SURVIVORS = {
    ("if whole <= 0:", "if whole <= 1:"),
    ('SHARES = {"half": 2, "third": 3}', """SHARES = {"half": 2, 'thir': 3}"""),
    ('SHARES = {"half": 2, "third": 3}', 'SHARES = {"half": 2, "third": 2}'),
    ('SHARES = {"half": 2, "third": 3}', 'SHARES = {"half": 2, "third": 4}'),
}


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "counting.py").write_text(MODULE)
    (tmp_path / "test_counting.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    shutil.copy(TOOL, tmp_path)
    return tmp_path


def mutate(folder, *arguments):
    command = [sys.executable, "mutate.py", "counting.py", "--tests", "test_counting.py", *arguments]
    # Options that this run of pytest got are not for the one inside.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def survivors(output):
    """(original, mutated) of each."""
    lines = [line.strip() for line in output.splitlines()]
    return {(a[2:], b[2:]) for a, b in itertools.pairwise(lines) if a[:2] == "- " and b[:2] == "+ "}


@pytest.mark.slow
def test_survivors_are_those_that_no_fast_test_finds(checkout):
    entries = ["module counting.py"]
    for original, mutated in sorted(SURVIVORS)[:2]:
        entries += [f"- {original}", f"+ {mutated}", "Not tested here."]
    entries += ["- return min(part / whole, 1.0)", "+ return None"]
    (checkout / "mutants_explained.txt").write_text("\n".join(entries))
    done = mutate(checkout)
    assert done.returncode == 1, done.stderr
    assert survivors(done.stdout.partition(" mutants,")[0]) == set(sorted(SURVIVORS)[2:])
    assert "counting.py:6\n  - if whole" in done.stdout
    assert re.search(rf"counting.py: \d+ mutants, {len(SURVIVORS)} survive \(\d+%\), 2 of them explained;", done.stdout)
    assert "an entry without a survivor:\n  - return min(part / whole, 1.0)\n  + return None\n" in done.stdout
    assert (checkout / "counting.py").read_text() == MODULE


def explain(folder, *survivors):
    entries = [f"- {original}\n+ {mutated}\n" for original, mutated in survivors]
    (folder / "mutants_explained.txt").write_text("module counting.py\n" + "".join(entries))


@pytest.mark.slow
def test_with_every_survivor_explained_it_succeeds(checkout):
    tested = (
        f"{TESTS}\n\ndef test_the_other_share():\n    test_third()\n    assert set(counting.SHARES) > {{'third'}}\n"
    )
    (checkout / "test_counting.py").write_text(tested)
    explain(checkout, ("if whole <= 0:", "if whole <= 1:"))
    done = mutate(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"counting.py: \d+ mutants, 1 survive \(\d%\), 1 of them explained", done.stdout)


@pytest.mark.slow
def test_more_than_a_tenth_is_too_much_and_an_entry_is_for_one_mutant(checkout):
    explain(checkout, *SURVIVORS)
    done = mutate(checkout)
    assert done.returncode == 1
    assert re.search(r"counting.py: \d+ mutants, (\d) survive \(22%\), \1 of them explained", done.stdout)
    # Of a sample, the share is chance.
    done = mutate(checkout, "--sample", "4", "--seed", "3")
    assert done.returncode == 0
    assert re.search(r"counting.py: 4 mutants, (\d) survive \((25|50|75)%\), \1 of them explained", done.stdout)
    # Of two equal lines, each mutant needs an entry.
    source = "def a(x):\n    return x > 2\n\n\ndef b(x):\n    return x > 2\n"
    (checkout / "counting.py").write_text(source)
    (checkout / "test_counting.py").write_text(
        "import counting\ndef test():\n    assert counting.a(9) and counting.b(9)"
    )
    explain(checkout, ("return x > 2", "return x >= 2"))
    done = mutate(checkout)
    assert done.stdout.count("return x > 2\n  + return x >= 2") == 1


@pytest.mark.slow
def test_a_function_that_is_converted_from_its_text_is_mutated_too(checkout):
    # AutoGraph reads the file anew, and compiles what the lines say.
    (checkout / "counting.py").write_text("def larger(x):\n    return x < 2\n")
    (checkout / "test_counting.py").write_text(
        "import inspect, linecache\nimport counting\n\n"
        "def test():\n"
        "    linecache.updatecache(counting.__file__)\n"
        "    names = {}\n"
        "    exec(inspect.getsource(counting.larger), names)\n"
        "    assert [names['larger'](x) for x in (1, 2, 3)] == [True, False, False]\n"
    )
    done = mutate(checkout)
    assert "0 survive" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "nothing.py is not there; run this in the root of the checkout"),
        (["no.module"], "no/module.py is not there"),
        (["notes.md"], "notes.md is not a Python module"),
        (["."], ". is not a Python module"),
        (["broken.py"], "broken.py is not Python: invalid syntax, line 2"),
        (["untested.py"], "tests/test_untested.py is not there: name the tests of untested.py with --tests"),
    ],
)
def test_mistakes(checkout, arguments, message):
    (checkout / "notes.md").touch()
    (checkout / "broken.py").write_text("a = 1\nb = = 1\n")
    (checkout / "untested.py").touch()
    done = subprocess.run(
        [sys.executable, "mutate.py", *arguments], cwd=checkout, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{done.stderr.splitlines()[0]}\n"
    assert message in done.stderr


def test_no_mutant_is_made_where_the_tests_fail_already(checkout):
    (checkout / "counting.py").write_text(MODULE.replace("1.0", "0.5"))
    done = mutate(checkout)
    assert done.returncode == 1
    assert "no mutant was made" in done.stderr


FAULTS = [
    ("x = a if b < c else d", ["x = a if b <= c else d", "x = a if b >= c else d"]),
    ("x = a is not None", ["x = a is None"]),
    ("x = a not in b", ["x = a in b"]),
    ("x = not a", ["x = a"]),
    ("x = (a + b) * -c", ["x = (a - b) * -c", "x = (a + b) / -c", "x = (a + b) * c"]),
    ("x = 3, 1.5, True", ["x = 4, 1.5, True", "x = 2, 1.5, True", "x = 3, 3.0, True", "x = 3, 1.5, False"]),
    ("if a and b: c", ["if not (a and b): c", "if a or b: c", "if True and b: c", "if a and True: c"]),
    ("x = min(a, b)", ["x = max(a, b)", "x = (a)"]),
    ("x = a.strip()", ["x = a"]),
    ("x = clip(a, low, high)", ["x = (a)"]),
    ("def f(a='one'): raise E('text')", ["def f(a='on'): raise E('text')", "def f(a='one'): pass"]),
    ("def f(a): a += b", ["def f(a): pass", "def f(a): a -= b"]),
    ("def f(a): return a", ["def f(a): return None"]),
    ("def f(): return None", []),
    ("def f(a): a = b; c = a", ["def f(a): pass; c = a"]),
    ("def f(): g()", ["def f(): pass"]),
    ("def f(self): self.x = self.y", ["def f(self): pass"]),
    ("def f(d, k): d[k] = k", ["def f(d, k): pass"]),
    ("async def f(a: 1) -> 2: return a", ["async def f(a: 1) -> 2: return None"]),
    ("M = 'one', 'two'; x = 'two'", [
        "M = 'two', 'two'; x = 'two'", "M = 'on', 'two'; x = 'two'", "M = 'one', 'one'; x = 'two'",
        "M = 'one', 'tw'; x = 'two'", "M = 'one', 'two'; x = 'one'", "M = 'one', 'two'; x = 'tw'",
    ]),
    ("é = 'ü' if ä < 0 else 'ö'", [
        "é = 'ü' if ä <= 0 else 'ö'", "é = 'ü' if ä >= 0 else 'ö'", "é = 'ü' if ä < 1 else 'ö'",
        "é = 'ü' if ä < -1 else 'ö'", "é = '' if ä < 0 else 'ö'", "é = 'ü' if ä < 0 else ''",
    ]),
    ('''"""Text 1."""; x: int | None; x = f"{a + 1}"; __all__ = ["a"]; y = zip(a, strict=True)''', []),
]  # fmt: skip


@pytest.mark.parametrize(("source", "mutants"), FAULTS)
def test_mutants_of_a_line(source, mutants, monkeypatch):
    monkeypatch.syspath_prepend(TOOL.parent)
    mutate = importlib.import_module("mutate")
    assert {mutant.source for mutant in mutate.mutants_of(source)} == set(mutants)
