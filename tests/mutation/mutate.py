"""Change one thing in the source at a time and see whether a test notices: a sample, seeded, on modules that are named.

    python tests/mutation/mutate.py --sample 20 --seed 1 src/mrcz/storage/whole.py --tests tests/storage/test_whole.py

Or, for the modules and tests that stand in modules.json, whose figure is to stay at 92 % or more:

    python tests/mutation/mutate.py --all --sample 15 --seed 2

This is no part of the suite. A copy of src/mrcz is changed, never the sources themselves. First the tests named
run once, to see which of them run which lines; then, for each change, those that run its line, quickest first, until
one fails. ``--matching REGEX`` takes changes whose lines match, all of them unless ``--sample`` says how many:
``--matching 'fsync|sync_folder|_barrier'`` asks what becomes of every promise to be on disk.

A change is *killed* by a test that fails, or that takes far longer than it did; else it *survives*, or is *equivalent*:
named so in equivalent.txt, with the reason. Exit code 1 if one survives.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = ROOT / "src"

COMPARED = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
COMPUTED = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "&",
}


@dataclass(frozen=True)
class Mutant:
    """A change: the text between two places of a file becomes another."""

    path: Path
    function: str
    start: tuple[int, int]  # line from 1, byte in it from 0
    stop: tuple[int, int]
    old: str
    new: str
    runs: range | None  # lines of which one is run when it matters; None: whenever the file is imported
    number: int  # of those in the function that read the same, from 1

    @property
    def name(self) -> str:
        """What it is called in equivalent.txt: no line numbers, which change."""
        where = self.path.relative_to(SOURCES / "mrcz").as_posix()
        again = f" [{self.number}]" if self.number > 1 else ""
        return f"{where}:{self.function}: {' '.join(self.old.split())} -> {self.new}{again}"

    def applied(self, source: str) -> str:
        lines = source.encode().splitlines(keepends=True)
        first, last = self.start[0] - 1, self.stop[0] - 1
        changed = lines[first][: self.start[1]] + self.new.encode() + lines[last][self.stop[1] :]
        # As many lines as before, for what is known of them.
        return b"".join([*lines[:first], changed, *lines[last + 1 :]]).decode()


class Finder(ast.NodeVisitor):
    """All mutants of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, path.read_text()
        self.found: list[Mutant] = []
        self.functions: list[str] = []
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.runs: range | None = None
        self.in_body = False
        self.visit(ast.parse(self.source))

    def add(self, node: ast.AST, new: str) -> None:
        start, stop = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        old = ast.get_source_segment(self.source, node)
        runs = range(start[0], stop[0] + 1) if self.in_body else self.runs
        function = ".".join(self.functions) or "module"
        self.counts[function, old, new] += 1
        mutant = Mutant(self.path, function, start, stop, old, new, runs, self.counts[function, old, new])
        try:
            ast.parse(mutant.applied(self.source))
        except SyntaxError:
            return
        self.found.append(mutant)

    def text(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.source, node)

    def inside(self, node: ast.AST) -> None:
        self.functions.append(node.name)
        before = self.in_body, self.runs
        if isinstance(node, ast.ClassDef):
            self.in_body = False
            for child in [*node.decorator_list, *node.body]:
                self.visit(child)
        else:
            self.in_body = True
            for child in node.body:
                self.visit(child)
            # Decorators and defaults are run once, but matter when the function is called: where a call begins.
            begins = min(line.lineno for line in [*node.decorator_list, node])
            self.in_body, self.runs = False, range(begins, node.lineno + 1)
            defaults = [*node.args.defaults, *(value for value in node.args.kw_defaults if value)]
            for child in [*node.decorator_list, *defaults]:
                self.visit(child)
        self.in_body, self.runs = before
        self.functions.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = inside

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self.add(node.test, f"not ({ast.unparse(node.test)})")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add(node, "pass")  # what the error says is another matter: no look inside

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node.value, ast.Call) and not self.text(node).startswith("_log."):
            self.add(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add(node, "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add(node, "return None")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            operator = COMPARED[type(node.ops[0])]
            self.add(node, f"({ast.unparse(node.left)} {operator} {ast.unparse(node.comparators[0])})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        operator = " or " if isinstance(node.op, ast.And) else " and "
        self.add(node, f"({operator.join(f'({ast.unparse(value)})' for value in node.values)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        operator = COMPUTED.get(type(node.op))
        texts = any(isinstance(part, ast.JoinedStr) for part in (node.left, node.right))
        if operator is not None and not texts:
            self.add(node, f"(({ast.unparse(node.left)}) {operator} ({ast.unparse(node.right)}))")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub)):
            self.add(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add(node, str(not node.value))
        elif isinstance(node.value, int):
            self.add(node, str(node.value + 1))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # messages


_ADDED = (
    "addopts=--import-mode=importlib"  # not on several processors: few tests at a time, and one change after another
)


def pytest(tests: list[str], package: Path, seconds: float, **environment: str) -> int | None:
    """Run tests with that copy of the package; the exit code, None if it took too long."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", _ADDED, *tests]
    places = [str(package), str(HERE), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what other packages bring is imported in each run
                "PYTHONPATH": os.pathsep.join(places),
                **environment,
            },
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            return None


def covering(mutant: Mutant, report: dict, copy: Path, most: int) -> list[str]:
    """Tests that run a line of it, quickest first; of what runs on import all: they may look at what it made."""
    found = []
    for test, (seconds, files) in report.items():
        seen = files.get(str(copy / mutant.path.relative_to(SOURCES)), [])
        if mutant.runs is None or set(mutant.runs) & set(seen):
            found.append((not seen, seconds, test))
    return [test for _, _, test in sorted(found)[:most]]


class Failed(Exception):
    """Nothing can be said, and why."""


def examine(paths: list[Path], tests: list[str], known: set[str], args: argparse.Namespace) -> list[dict]:
    """Try a sample of the changes of these files: what became of each, told as it comes."""
    mutants = [mutant for path in paths for mutant in Finder(path).found if re.search(args.matching, mutant.old)]
    if args.sample is not None and args.sample < len(mutants):
        mutants = random.Random(args.seed).sample(mutants, args.sample)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(SOURCES / "mrcz", copy / "mrcz", ignore=shutil.ignore_patterns("__pycache__"))
        files = os.pathsep.join(str(copy / path.relative_to(SOURCES)) for path in paths)
        where = Path(folder) / "report.json"
        code = pytest(["-p", "lines", *tests], copy, 3600, MUTATION_FILES=files, MUTATION_REPORT=str(where))
        if code:
            raise Failed("the tests fail by themselves: nothing can be said")
        report = json.loads(where.read_text())
        if not any(lines for _, lines in report.values()):
            # An editable install's import hook goes before the copy.
            raise Failed("the tests ran no line of these files in the copy: is mrcz installed editable?")
        if pytest(["--collect-only", *report], copy, 3600):
            raise Failed("some tests cannot be asked for by the names they have: what asks for them would seem killed")
        for mutant in mutants:
            begun = time.monotonic()
            if mutant.name in known:
                said = "equivalent"
            else:
                chosen = covering(mutant, report, copy, args.most)
                place = copy / mutant.path.relative_to(SOURCES)
                place.write_text(mutant.applied(mutant.path.read_text()))
                usual = sum(report[test][0] for test in chosen)
                code = pytest(chosen, copy, 60 + 5 * usual) if chosen else 0
                place.write_text(mutant.path.read_text())
                said = "not run" if not chosen else "survived" if code == 0 else "killed"
            results.append({"line": mutant.start[0], "name": mutant.name, "became": said})
            print(f"{said:10} {mutant.start[0]:5} {mutant.name}  ({time.monotonic() - begun:.0f} s)", flush=True)
    return results


def summary(results: list[dict]) -> str:
    counts = Counter(result["became"] for result in results)
    tried = len(results) - counts["equivalent"]
    told = ", ".join(f"{counts[said]} {said}" for said in ("killed", "survived", "not run", "equivalent"))
    return told + (f"; {100 * counts['killed'] / tried:.0f} % of {tried} killed" if tried else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--tests", nargs="+", metavar="TEST")
    parser.add_argument(
        "--all", action="store_true", help="the modules of modules.json, each with the tests named there"
    )
    parser.add_argument("--sample", type=int, help="changes to try (default: all); with --all, of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matching", default="", metavar="REGEX", help="changes of text that matches")
    parser.add_argument("--most", type=int, default=1000, metavar="N", help="tests a change at most (default: 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each change and what became of it")
    args = parser.parse_args()
    if args.all == bool(args.modules or args.tests) or bool(args.modules) != bool(args.tests):
        parser.error("name modules and --tests, or --all")
    entries = (HERE / "equivalent.txt").read_text().splitlines()
    known = {entry.partition("  # ")[0] for entry in entries if not entry.startswith("#")}
    if args.all:
        listed = json.loads((HERE / "modules.json").read_text())
        groups = [([ROOT / path], tests) for path, tests in listed.items()]
    else:
        groups = [([path.resolve() for path in args.modules], args.tests)]
    results, lines = [], []
    try:
        for paths, tests in groups:
            found = examine(paths, tests, known, args)
            results += found
            if args.all:
                lines.append(f"{paths[0].relative_to(ROOT).as_posix()}: {summary(found)}")
    except Failed as error:
        print(error, file=sys.stderr)
        return 2
    for line in [*lines, summary(results)]:
        print(line)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    return int(any(result["became"] in ("survived", "not run") for result in results))


if __name__ == "__main__":
    sys.exit(main())
