"""Which faults would the tests not notice? Plants small ones in a module, and names those that no fast test finds.

    python tools/mutate.py polynet_keras/models/polynomial.py
    python tools/mutate.py polynet_keras.training.recipes.schedule polynet_keras/data/crops.py
    python tools/mutate.py polynet_keras/evaluation/ensemble.py --sample 40 --seed 1
    python tools/mutate.py polynet_keras/models/arguments.py --tests tests/test_applications.py

A *mutant* is the module with one small fault:

    a comparison                another one: < becomes <= and >=, == becomes !=, `in` becomes `not in`
    + - * / // % ** << >> & |   another operator, also in +=
    a number                    one more and one less; a fraction is doubled
    a text                      without its last character; one of a tuple of choices becomes the next choice
    True, False, not, -         the opposite
    a condition                 negated; `and` becomes `or`; without one of its parts
    min, any, ones, ...         max, all, zeros, ... (`PAIRS`)
    f(x, ...)                   x: the call is left out
    a statement                 removed: a call, an assignment, `raise`, `del`; `return x` returns None

Not touched are annotations, docstrings, what a `raise` says, f-strings, `__all__`, and `zip`'s `strict=True`.

The tests of `polynet_keras/models/parts.py` are those of `tests/models/test_parts.py` that are not marked slow; where
they are others, `TESTS` says so, or `--tests` does. A mutant that passes them *survives*, and is printed. Either a test
is missing, or the mutant does what the module does: then it goes into `mutants_explained.txt` beside this file, with
the reason. The exit status is 1 if a survivor has none, or if more than a tenth of all mutants of a module survive.
Tests that start processes of their own see the module as it is on the disk: a fault that only they would find survives.

A mutant takes half a second and its tests: they run in a fork of a process that has imported TensorFlow, Keras, pytest
and whatever else the tests import, but nothing of the checkout. It has not run any of it, and so has no threads that a
fork would lose. The fork imports the mutant from memory; the file on the disk is never changed. mutmut 3 can fork like
this too, but it changes bodies of functions without decorators only: no tables, no properties, no context managers.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import importlib.abc
import importlib.util
import json
import linecache
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path.cwd()
EXPLAINED = Path(__file__).with_name("mutants_explained.txt")


def _of(file: str, *tests: str) -> list[str]:
    return [f"{file}::{test}" for test in tests]


TESTS = {
    "polynet_keras/data/image_files.py": ["tests/data/test_image_files.py"],
    "polynet_keras/data/picture.py": ["tests/data/test_image_headers.py", "tests/data/test_image_files.py"],
    "polynet_keras/data/pixels.py": [
        "tests/data/test_protocol.py",
        "tests/test_applications.py::test_preprocess_input",
        "tests/test_applications.py::test_preprocess_input_refuses",
        "tests/test_applications.py::test_preprocess_input_warns_of_an_impossible_range_once",
        "tests/test_applications.py::test_preprocess_input_warns_of_no_possible_range",
    ],
    "polynet_keras/data/protocol.py": ["tests/data/test_protocol.py"],
    "polynet_keras/data/tiff_header.py": ["tests/data/test_image_headers.py", "tests/data/test_image_files.py"],
    "polynet_keras/evaluation/converting.py": ["tests/evaluation/test_converting.py"],
    "polynet_keras/evaluation/evaluating.py": _of(
        "tests/evaluation/test_evaluating.py",
        "test_arguments_out_of_range",
        "test_what_an_evaluation_says",
        "test_a_mistake_whose_image_is_gone_costs_no_evaluation",
        "test_an_image_that_is_not_counted_is_an_error",
        "test_skipped_images_are_counted_and_left_out",
        "test_scores_are_kept_and_taken_again",
        "test_crops_are_pooled[10-max]",
        "test_classes_are_told_by_their_names",
    ),
    "polynet_keras/evaluation/identity.py": ["tests/evaluation/test_results.py"],
    "polynet_keras/evaluation/judging.py": _of(
        "tests/evaluation/test_evaluating.py",
        "test_the_pictures_of_all_batches_are_kept",
        "test_what_an_evaluation_says",
        "test_a_mistake_whose_image_is_gone_costs_no_evaluation",
    ),
    "polynet_keras/evaluation/loading.py": [
        "tests/evaluation/test_evaluating.py::test_models_that_do_not_fit_their_card_or_the_images",
        "tests/evaluation/test_predicting.py",
    ],
    "polynet_keras/evaluation/parity.py": ["tests/evaluation/test_compare.py"],
    "polynet_keras/evaluation/plots.py": ["tests/evaluation/test_results.py"],
    "polynet_keras/evaluation/reliability.py": ["tests/evaluation/test_report.py"],
    "polynet_keras/evaluation/scoring.py": ["tests/evaluation/test_evaluating.py"],
    "polynet_keras/engine/compiled_step.py": _of(
        "tests/engine/test_network.py",
        "test_passes_that_are_not_chosen_do_not_run",
        "test_a_gpus_passes_are_left_alone",
        "test_an_evaluation_makes_no_optimizers_variables",
        "test_axes_that_no_input_has_may_be_of_any_size",
        "test_metrics_and_optimizer_are_made_before_the_trace",
        "test_metrics_are_made_once",
        "test_metrics_whose_variables_are_of_the_outputs_shape",
        "test_an_optimizer_that_is_built_stays_as_it_is",
        "test_which_passes_are_run",
        "test_passes_that_are_left_out_of_the_process_are_somebodys_choice",
        "test_the_steps_name_is_the_functions",
        "test_sparse_tensors_are_tensors",
        "test_batches_of_arrays_share_a_function",
        "test_on_batch_methods_equal_keras",
        "test_other_structures_and_dtypes_have_functions_of_their_own",
        "test_a_third_size_is_no_new_function",
        "test_batches_of_other_static_sizes_share_a_function",
        "test_an_image_of_the_wrong_size_is_refused_after_right_ones",
        "test_one_trace_for_batches_of_any_size",
        "test_functions_run_eagerly_where_the_process_says_so",
        "test_none_from_a_generator",
        "test_data_of_ones_own",
        "test_compiled_again",
        "test_a_step_of_ones_own_trains_what_it_likes",
        "test_the_processs_own_graph_passes_are_left_alone",
        "test_a_train_step_of_ones_own",
        "test_a_mistake_says_what_is_wrong",
        "test_fit_equals_keras",
        "test_fit_a_dataset_with_a_smaller_last_batch",
        "test_the_step_runs_with_the_chosen_graph_passes",
        "test_evaluate_and_predict_equal_keras",
    ),
    "polynet_keras/models/cost.py": ["tests/models/test_structure.py", "tests/models/test_cost.py"],
    "polynet_keras/models/macs.py": ["tests/models/test_cost.py"],
    "polynet_keras/cli/flag_names.py": ["tests/cli/test_quick_commands.py"],
    "polynet_keras/studies/ablation_variants.py": ["tests/studies/test_ablation_runs.py"],
    "polynet_keras/training/insertion_plan.py": ["tests/training/test_insertion.py"],
    "polynet_keras/training/making.py": [
        "tests/training/recipes/test_optimizer.py",
        "tests/training/recipes/test_schedule.py",
    ],
    "polynet_keras/models/blocks.py": ["tests/models/test_inception.py", "tests/models/test_poly_inception.py"],
    "polynet_keras/models/inception.py": ["tests/models/test_inception.py", "tests/models/test_poly_inception.py"],
    "polynet_keras/engine/network.py": _of(
        "tests/engine/test_network.py",
        "test_a_network_carries_its_structure",
        "test_what_is_built_of_a_networks_layers_has_no_structure",
        "test_the_structure_of_an_older_network_is_read_off_its_layers",
        "test_layers_of_ones_own_are_no_units",
        "test_files_know_the_class_by_its_name",
        "test_the_step_that_is_under_way_is_made_anew_for_another_remat",
        "test_when_units_are_rematerialized",
        "test_how_steps_of_a_strategy_are_compiled",
        "test_steps_of_a_strategy_are_its_own",
        "test_a_network_is_made_of_inputs_and_outputs",
        "test_a_network_from_its_config_is_the_same_and_built_as_quickly",
        "test_remat_argument",
        "test_a_sub_model_is_a_model",
        "test_on_batch_methods_equal_keras",
        "test_a_third_size_is_no_new_function",
        "test_one_trace_for_batches_of_any_size",
        "test_metrics_and_optimizer_are_made_before_the_trace",
        "test_functions_run_eagerly_where_the_process_says_so",
        "test_compiled_again",
        "test_rematerialization_of_any_wiring[inputs_by_name]",
        "test_fit_equals_keras[validation]",
        "test_other_ways_to_run_are_kerass",
    ),
    "polynet_keras/engine/rematerialization.py": _of(
        "tests/engine/test_network.py",
        "test_remat_argument",
        "test_when_units_are_rematerialized",
        "test_rematerialization_of_any_wiring",
        "test_rematerialized_stochastic_depth_draws_once",
        "test_rematerialized_gradients_and_statistics",
        "test_rematerialization_recomputes_the_convolutions",
        "test_mixed_bfloat16",
    ),
}
"""Of modules whose fast tests are not in the file of the same name, or are few of it; those first that find most."""

MOST = 0.1
"""The share of a module's mutants that may survive."""

COMPARISONS = {
    ast.Lt: ("<", "<=", ">="), ast.LtE: ("<=", "<", ">"), ast.Gt: (">", ">=", "<="), ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: (r"not\s+in", "in"),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"), ast.Pow: ("**", "*"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
PAIRS = (
    "min max", "minimum maximum", "reduce_min reduce_max", "any all", "floor ceil", "ones zeros",
    "ones_like zeros_like", "reduce_sum reduce_mean", "lower upper", "lstrip rstrip", "startswith endswith",
)  # fmt: skip
SWAPPED = {a: b for pair in PAIRS for a, b in (pair.split(), reversed(pair.split()))}
KEPT_CALLS = {"isinstance", "issubclass", "len", "super", "getattr", "hasattr", "setattr", "zip", "enumerate", "range"}
"""Calls that nothing works without: leaving them out only makes every test fail."""


@dataclass(frozen=True)
class Mutant:
    """A module with one fault.

    Attributes:
        line: where the fault is, from 1.
        original, mutated: the lines around the fault as they are and as they become, each written as one line.
        source: the whole module.
    """

    line: int
    original: str
    mutated: str
    source: str


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module that are Python, in the order of their lines."""
    text = source.encode()
    ends = [0]
    for line in text.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    finder = _Finder(text, ends)
    finder.visit(ast.parse(source))
    found = []
    for start, end, replacement in sorted(set(finder.edits)):
        first = max(i for i, offset in enumerate(ends) if offset <= start)
        before, after = ends[first], next(offset for offset in ends if offset >= end)
        mutated = text[:start] + replacement.encode() + text[end:]
        with contextlib.suppress(SyntaxError), warnings.catch_warnings(action="ignore"):
            compile(mutated, "mutant", "exec")
            lines = text[before:start] + replacement.encode() + text[end:after]
            found.append(Mutant(first + 1, _one_line(text[before:after]), _one_line(lines), mutated.decode()))
    return found


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())


class _Finder(ast.NodeVisitor):
    """Walks a module and collects edits of its text: (start, end, replacement), in bytes."""

    def __init__(self, text: bytes, line_starts: list[int]):
        self.edits: list[tuple[int, int, str]] = []
        self._text = text
        self._line_starts = line_starts
        self._choices: dict[str, str] = {}
        self._bound: Counter[str] | None = None  # how often the function around binds each name; None outside of any

    def _start(self, node) -> int:
        return self._line_starts[node.lineno - 1] + node.col_offset

    def _end(self, node) -> int:
        return self._line_starts[node.end_lineno - 1] + node.end_col_offset

    def _code(self, node) -> str:
        return self._text[self._start(node) : self._end(node)].decode()

    def _replace(self, node, replacement: str) -> None:
        self.edits.append((self._start(node), self._end(node), replacement))

    def _replace_between(self, left, right, pattern: str, replacement: str) -> None:
        """Replaces an operator, which has no position of its own."""
        gap = self._text[self._end(left) : self._start(right)].decode()
        if match := re.search(pattern, gap):
            start = self._end(left) + len(gap[: match.start()].encode())
            self.edits.append((start, start + len(match[0].encode()), replacement))

    # What is left as it is.

    def visit_JoinedStr(self, node):
        pass

    def visit_Import(self, node):
        pass

    visit_ImportFrom = visit_Import

    def visit_arguments(self, node):
        for default in [*node.defaults, *filter(None, node.kw_defaults)]:
            self.visit(default)

    def visit_keyword(self, node):
        if node.arg != "strict":
            self.visit(node.value)

    # Statements.

    def visit_Module(self, node):
        for statement in node.body:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.Tuple) and all(_is_text(element) for element in value.elts):
                texts = [element.value for element in value.elts if isinstance(element, ast.Constant)]
                self._choices |= dict(zip(texts, [*texts[1:], *texts[:1]], strict=True))
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        around = self._bound
        names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self._bound = Counter([*names, *(argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg))])
        for part in [*node.decorator_list, node.args, *node.body]:
            self.visit(part)
        self._bound = around

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):
            self._replace(node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_Assign(self, node):
        targets = getattr(node, "targets", None) or [node.target]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return
        # Without a name's only assignment nothing works: no test could miss that.
        if self._bound is not None and node.value is not None:
            stored = (
                n for target in targets for n in ast.walk(target) if isinstance(getattr(n, "ctx", None), ast.Store)
            )
            names = [n.id for n in stored if isinstance(n, ast.Name)]
            if all(self._bound[name] != 1 for name in names):
                self._replace(node, "pass")
        if node.value is not None:
            self.visit(node.value)

    visit_AnnAssign = visit_Assign

    def visit_AugAssign(self, node):
        self._replace(node, "pass")
        before, after = ARITHMETIC.get(type(node.op), ("", ""))
        if before:
            self._replace_between(node.target, node.value, re.escape(before + "="), after + "=")
        self.visit(node.value)

    def visit_Return(self, node):
        if node.value is not None and self._code(node) != "return None":
            self._replace(node, "return None")
            self.visit(node.value)

    def visit_Raise(self, node):
        self._replace(node, "pass")

    visit_Delete = visit_Raise

    def visit_Continue(self, node):
        self._replace(node, "break")

    def visit_Break(self, node):
        self._replace(node, "pass")

    # Conditions.

    def _negate(self, test):
        is_comparison = isinstance(test, ast.Compare) and len(test.ops) == 1
        if not is_comparison and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._replace(test, f"not ({self._code(test)})")

    def visit_If(self, node):
        self._negate(node.test)
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_comprehension(self, node):
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._replace_between(left, right, before, after)
        for left_out in node.values:
            self._replace(left_out, str(before == "and"))
        self.generic_visit(node)

    def visit_Compare(self, node):
        for left, right, op in zip([node.left, *node.comparators], node.comparators, node.ops, strict=False):
            before, *others = COMPARISONS[type(op)]
            for after in others:
                self._replace_between(left, right, before, after)
        self.generic_visit(node)

    # Other expressions.

    def visit_BinOp(self, node):
        before, after = ARITHMETIC.get(type(node.op), ("", ""))
        if before and not _is_text(node.left) and not _is_text(node.right):
            self._replace_between(node.left, node.right, re.escape(before), after)
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, (ast.Not, ast.USub)):
            self._replace(node, re.sub(r"^(not\b|-)\s*", "", self._code(node)))
        self.generic_visit(node)

    def visit_Call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in SWAPPED:
            code = self._code(node.func).removesuffix(name)
            self._replace(node.func, code + SWAPPED[name])
        if node.args and not isinstance(node.args[0], ast.Starred) and name not in KEPT_CALLS and name.islower():
            self._replace(node, f"({self._code(node.args[0])})")
        elif not node.args and not node.keywords and isinstance(node.func, ast.Attribute):
            self._replace(node, self._code(node.func.value))
        self.generic_visit(node)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value))
        elif isinstance(value, int):
            self._replace(node, str(value + 1))
            self._replace(node, str(value - 1))
        elif isinstance(value, float):
            self._replace(node, str(value * 2 or 1.0))
        elif isinstance(value, str):
            self._replace(node, repr(value[:-1] or "x" * (not value)))
            if self._choices.get(value, value) != value:
                self._replace(node, repr(self._choices[value]))


def _is_text(node) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class _FromMemory(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives one module of another source than its file has."""

    def __init__(self, name: str, path: Path, source: str):
        self._name, self._path, self._source = name, path, source
        # TensorFlow's AutoGraph converts the text that linecache has, and lets it read the file again and again.
        self._update = linecache.updatecache
        linecache.updatecache = self._updated

    def _updated(self, filename, module_globals=None):
        if filename != str(self._path):
            return self._update(filename, module_globals)
        lines = self._source.splitlines(keepends=True)
        linecache.cache[filename] = (len(self._source), None, lines, filename)
        return lines

    def find_spec(self, name, path=None, target=None):
        if name == self._name:
            return importlib.util.spec_from_file_location(name, self._path, loader=self)
        return None

    def is_package(self, name) -> bool:
        return self._path.name == "__init__.py"

    def get_source(self, name) -> str:
        return self._source

    def get_code(self, name):
        return compile(self._source, str(self._path), "exec", dont_inherit=True)


def run_tests(tests: list[str], folder: str) -> int:
    """The exit status of pytest: 0 if all fast ones of these tests pass."""
    import pytest

    options = ["-x", "-q", "--tb=short", "-m", "not slow", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
    if importlib.util.find_spec("hypothesis"):
        from hypothesis import Phase, settings

        # The same examples each time, and none is kept. One that fails is enough: a smaller one is not looked for.
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
        options.append("--hypothesis-profile=mutants")
    return int(pytest.main([*options, *tests]))


def in_fork(work: Callable[[], int], timeout: float, log: str) -> int | None:
    """What `work` returns in a fork of this process, which writes to `log`; None if it took more than `timeout`."""

    def child():
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        status = 70
        try:
            status = work()
        finally:
            sys.stdout.flush()
            os._exit(status)

    sys.stdout.flush()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it has started
    in_time = process.exitcode is not None
    process.join()
    return process.exitcode if in_time else None


def baseline(tests: list[str], folder: str) -> float:
    """Seconds that the tests take on the module as it is; imports here, too, what they import from elsewhere."""
    found = Path(folder, "imported.json")

    def scout() -> int:
        status = run_tests(tests, folder)
        elsewhere = [name for name, module in list(sys.modules.items()) if _is_elsewhere(module)]
        found.write_text(json.dumps(elsewhere))
        return status

    for _ in range(2):  # the first time the imports take most of the time
        start = time.monotonic()
        status = in_fork(scout, 900, f"{folder}/log")
        if status != 0:
            sys.exit(f"{Path(folder, 'log').read_text()[-3000:]}\n{' '.join(tests)}: no mutant was made, see above")
        taken = time.monotonic() - start
        for name in json.loads(found.read_text()):
            with contextlib.suppress(Exception):  # some are no modules of their own
                importlib.import_module(name)
        gc.freeze()  # pytest collects garbage several times: half a second each, with all of TensorFlow in it
    return taken


def _is_elsewhere(module) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and ("site-packages" in file or not Path(file).is_relative_to(ROOT))


def tried(path: Path, tests: list[str], mutants: list[Mutant]) -> Iterator[tuple[Mutant, int | None]]:
    """Each mutant of the module with the exit status of its tests: 0 if it survives, None if time ran out."""
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    with tempfile.TemporaryDirectory() as folder:
        timeout = 5 + 3 * baseline(tests, folder)
        for mutant in mutants:

            def work(source=mutant.source):
                sys.meta_path.insert(0, _FromMemory(name, ROOT / path, source))
                return run_tests(tests, folder)

            yield mutant, in_fork(work, timeout, f"{folder}/log")
        if in_fork(lambda: run_tests(tests, folder), 900, f"{folder}/log") != 0:
            sys.exit(f"{' '.join(tests)} fails now without a fault too: something else has changed, run it again")


def explained(path: Path) -> Counter[tuple[str, str]]:
    """How many mutants of a module `EXPLAINED` lists as (original, mutated); it describes its format itself."""
    entries: Counter[tuple[str, str]] = Counter()
    module = original = ""
    for line in EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else ():
        kind, _, text = line.partition(" ")
        if kind == "module":
            module = text
        elif kind == "-":
            original = text
        elif kind == "+" and module == str(path):
            entries[original, text] += 1
    return entries


def module_path(name: str) -> Path:
    """Of a path or a dotted name; ends the program where no module is."""
    path = Path(name)
    if path.suffix != ".py":
        if path.exists() or "/" in name:
            sys.exit(f"{name} is not a Python module")
        path = Path(name.replace(".", "/") + ".py")
    if not path.is_file():
        sys.exit(f"{path} is not there; run this in the root of the checkout")
    try:
        ast.parse(path.read_text())
    except SyntaxError as error:
        sys.exit(f"{path} is not Python: {error.msg}, line {error.lineno}")
    return path


def tests_of(path: Path) -> list[str]:
    """The test modules of a module of the package, by `TESTS` or by its name."""
    return TESTS.get(str(path)) or [str(Path("tests", *path.parts[1:-1], f"test_{path.name}"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="+", help="paths or dotted names")
    parser.add_argument("--tests", nargs="+", help="test files to run in place of those of the module's name")
    parser.add_argument("--sample", type=int, help="try only so many mutants of each module, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    arguments = parser.parse_args()
    # NumPy's threads would not outlive the fork. Set before NumPy is imported.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    sys.path.insert(0, str(ROOT))
    bad = False
    for path in [module_path(name) for name in arguments.modules]:
        tests = arguments.tests or tests_of(path)
        for test in tests:
            if not Path(test.partition("::")[0]).exists():
                sys.exit(f"{test} is not there: name the tests of {path} with --tests")
        mutants = mutants_of(path.read_text())
        if arguments.sample is not None and arguments.sample < len(mutants):
            mutants = sorted(random.Random(arguments.seed).sample(mutants, arguments.sample), key=lambda m: m.line)
        start = time.monotonic()
        unused = explained(path)  # each entry is for one mutant
        found = with_reason = late = 0
        for mutant, status in tried(path, tests, mutants):
            late += status is None
            if status != 0:
                continue
            found += 1
            if unused[mutant.original, mutant.mutated]:
                unused[mutant.original, mutant.mutated] -= 1
                with_reason += 1
            else:
                print(f"{path}:{mutant.line}\n  - {mutant.original}\n  + {mutant.mutated}", flush=True)
        # Of a few mutants the share would be chance.
        bad |= with_reason < found or (arguments.sample is None and found > MOST * len(mutants))
        print(
            f"{path}: {len(mutants)} mutants, {found} survive ({found / max(1, len(mutants)):.0%}), "
            f"{with_reason} of them explained; {late} ran out of time; {time.monotonic() - start:.0f} s",
            flush=True,
        )
        if arguments.sample is None:
            for original, mutated in unused.elements():
                print(f"{EXPLAINED.name} has an entry without a survivor:\n  - {original}\n  + {mutated}")
    sys.exit(bad)


if __name__ == "__main__":
    main()
