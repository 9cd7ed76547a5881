"""pytest's options for the gate: `--part`, `--record-durations`, `--known-skips`."""

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

DURATIONS = Path(__file__).parent / "durations.json"


def part(text: str) -> tuple[int, int]:
    """Reads "K/N"."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N with 1 <= K <= N, such as 2/6")
    return int(index), int(count)


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        type=part,
        metavar="K/N",
        help=f"run the K-th of N parts of the selected tests: whole modules, balanced by {DURATIONS.name}",
    )
    parser.addoption(
        "--record-durations",
        action="store_true",
        help=f"write to {DURATIONS.name} how long the slow tests of each module took that passes",
    )
    parser.addoption(
        "--known-skips",
        type=Path,
        metavar="FILE",
        help="fail if a test is skipped for a reason that FILE does not list, or more tests than it says",
    )


@pytest.hookimpl(trylast=True)  # the terminal's plugin is there
def pytest_configure(config):
    if hasattr(config, "workerinput"):
        return  # with pytest-xdist the process that starts the workers sees what all of them report
    if config.getoption("--known-skips"):
        config.pluginmanager.register(KnownSkips(config))
    if config.getoption("--part") or config.getoption("--record-durations"):
        config.pluginmanager.register(ModuleDurations(config))


# After -m and -k have selected.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if chosen := config.getoption("--part"):
        index, count = chosen
        modules = split({module(item.nodeid) for item in items}, recorded_seconds(), count)[index - 1]
        others = [item for item in items if module(item.nodeid) not in modules]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if module(item.nodeid) in modules]
    # The longest tests first: on several workers the others fill the time beside them.
    items.sort(key=lambda item: not {"backends", "slow"} <= set(item.keywords))


def module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def recorded_seconds() -> dict[str, int]:
    return json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}


def split(modules: Collection[str], seconds: Mapping[str, float], count: int) -> list[list[str]]:
    """Splits modules into `count` parts that take about equally long.

    The longest module comes first, each goes to the part that is shortest so far. A module without recorded seconds is
    taken for one of average length.
    """
    average = statistics.mean([seconds[name] for name in modules if name in seconds] or [1])
    parts: list[list[str]] = [[] for _ in range(count)]
    lengths = [0.0] * count
    for name in sorted(modules, key=lambda name: (-seconds.get(name, average), name)):
        shortest = lengths.index(min(lengths))
        parts[shortest].append(name)
        lengths[shortest] += seconds.get(name, average)
    return parts


def merged(recorded: Mapping[str, int], measured: Mapping[str, float]) -> dict[str, int]:
    """The recorded seconds with those measured now; small differences, which come by chance, change nothing."""
    seconds = dict(recorded)
    for name, new in measured.items():
        rounded = max(5, 5 * round(new / 5))
        if abs(rounded - recorded.get(name, 0)) > 0.2 * recorded.get(name, 0):
            seconds[name] = rounded
    return dict(sorted(seconds.items()))


class ModuleDurations:
    """Sums up the seconds of each module's tests; prints those of a part, and records those of slow tests."""

    def __init__(self, config):
        self.config = config
        self.tests = Counter()
        self.seconds = defaultdict(float)
        self.slow_seconds = defaultdict(float)
        self.failed = set()
        self.line = ""
        if config.getoption("--record-durations"):
            options = config.option
            if (
                options.collectonly
                or options.keyword
                or options.maxfail
                or any("::" in argument for argument in config.args)
            ):
                raise pytest.UsageError(
                    "--record-durations runs whole modules: no -k, no -x, no single tests, no --collect-only"
                )

    def pytest_runtest_logreport(self, report):
        name = module(report.nodeid)
        self.tests[name] += report.when == "setup"
        self.seconds[name] += report.duration
        if "slow" in report.keywords:
            self.slow_seconds[name] += report.duration
        if report.failed:
            self.failed.add(name)

    def pytest_sessionfinish(self, exitstatus):
        if not self.config.getoption("--record-durations"):
            return
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.line = "not every test was run: nothing is recorded"
            return
        measured = {name: seconds for name, seconds in self.slow_seconds.items() if name not in self.failed}
        root = self.config.rootpath
        kept = {name: seconds for name, seconds in recorded_seconds().items() if (root / name).exists()}
        DURATIONS.write_text(json.dumps(merged(kept, measured), indent=2) + "\n")
        self.line = f"{DURATIONS.name} has the seconds of {len(measured)} modules that passed"

    def pytest_terminal_summary(self, terminalreporter):
        if chosen := self.config.getoption("--part"):
            index, count = chosen
            recorded = recorded_seconds()
            terminalreporter.section(f"part {index} of {count}")
            for name, seconds in sorted(self.seconds.items(), key=lambda entry: -entry[1]):
                before = f"{recorded[name]} s" if name in recorded else "nothing"
                terminalreporter.line(f"{seconds:6.0f} s  {name}: {self.tests[name]} tests, {before} recorded")
            terminalreporter.line(f"{sum(self.seconds.values()):6.0f} s  in all")
        if self.line:
            terminalreporter.line(self.line)


class KnownSkips:
    """Fails the run if more tests are skipped than a file admits."""

    def __init__(self, config):
        self.terminal = config.pluginmanager.get_plugin("terminalreporter")
        self.most = read_known_skips(config.getoption("--known-skips"))

    def skipped(self) -> Counter[str]:
        reports = self.terminal.stats.get("skipped", [])
        return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)

    def pytest_sessionfinish(self, session):
        if session.exitstatus == pytest.ExitCode.OK and self.skipped() - self.most:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("skipped tests")
        for reason, count in sorted(self.skipped().items()):
            most = self.most[reason]
            kind = "known skip" if count <= most else "UNKNOWN SKIP"
            terminalreporter.line(f"{kind}: {count}, at most {most} known: {reason}", red=count > most)


def read_known_skips(path: Path) -> Counter[str]:
    """How many tests may be skipped for which reason: lines "NUMBER REASON", and comments."""
    most: Counter[str] = Counter()
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise pytest.UsageError(f"--known-skips: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        count, _, reason = line.partition(" ")
        if not (count.isdecimal() and reason):
            raise pytest.UsageError(f"{path}:{number}: {line!r}: expected a number and a reason")
        most[reason] = int(count)
    return most
