"""The rules of the source tree: floors, cycles, ceilings, docstrings, and calls that have no place in it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES, MAX_FUNCTION_LINES = 400, 60
FOLDERS = ("models", "utils", "tools")

# Modules of v6.1 that hold nothing but names which are made elsewhere.
DOORS = tuple(
    f"utils.{name}"
    for name in (
        "activations", "augmentations", "autoanchor", "autobatch", "benchmarks", "callbacks", "dataloaders",
        "downloads", "general", "torch_utils",
    )
)  # fmt: skip

# From the ground up; each entry is a module or a package of the tree.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("utils.core",),
    ("utils.config",),
    ("models",),
    ("utils.datasets", "utils.loss", "utils.metrics", "utils.plots", "utils.checkpoint"),
    ("utils.training", "utils.evaluation", "utils.inference", "utils.export", "utils.loggers"),
    ("train", "val", "detect", "export", "hubconf", "utils.compat"),
    ("tools",),
    DOORS,
)
SERVICES, SCRIPTS = 4, 5
# The only references between services: a run scores its epochs and is listened to; an exported file is run and scored.
SERVICE_LINKS = {
    ("utils.training", "utils.evaluation"),
    ("utils.training", "utils.loggers"),
    ("utils.export", "utils.inference"),
    ("utils.export", "utils.evaluation"),
}

ENTRY_NAMES = {"main", "run", "parse_opt", "LOG", "ROOT"}  # of scripts and modules alike

FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    _dotted(path): path
    for path in sorted(
        [*ROOT.glob("*.py"), *(p for d in ("models", "utils", "tools") for p in (ROOT / d).rglob("*.py"))]
    )
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
EMPTY = "utils"  # its __init__ imports nothing and belongs to no floor


def unit_of(module: str) -> str:
    """The entry of ``FLOORS`` a module belongs to."""
    parts = module.split(".")
    return next(name for name in (".".join(parts[:n]) for n in range(len(parts), 0, -1)) if name in FLOOR_OF)


def imported(module: str) -> set[str]:
    """Modules of this tree that ``module`` imports, inside functions too."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in FILES}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            below = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= below or ({str(node.module)} & FILES.keys())
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, node) of every call by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def at_import_time(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported: not the bodies of functions, nor what a script runs."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            if not isinstance(node, ast.Lambda):
                pending += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
            continue
        pending += ast.iter_child_nodes(node)


def keyword(call: ast.Call, name: str) -> object:
    """The literal value of a keyword argument, None when absent."""
    for item in call.keywords:
        if item.arg == name:
            return item.value.value if isinstance(item.value, ast.Constant) else ast.unparse(item.value)
    return None


def public_names(tree: ast.Module) -> Iterator[str]:
    """Functions, classes, constants and types that a module defines; a logger in lower case does not count."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            continue
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
            yield from (name for name in names if name[0].isupper())


def test_every_module_stands_on_a_floor() -> None:
    below = tuple(f"{unit}." for unit in FLOOR_OF)
    assert [m for m in FILES if m not in FLOOR_OF and not m.startswith(below)] == [EMPTY]
    kinds = [type(node).__name__ for node in TREES[EMPTY].body]
    assert kinds == ["Expr", "ImportFrom", "FunctionDef"]  # docstring, typing, and where scripts find notebook_init
    assert imported(EMPTY) == set()


def test_every_entry_of_the_floors_exists() -> None:
    assert [unit for unit in FLOOR_OF if unit not in FILES] == []


def test_imports_point_downward() -> None:
    wrong = []
    for module in FILES.keys() - {EMPTY}:
        unit = unit_of(module)
        floor = FLOOR_OF[unit]
        for target in imported(module) - {EMPTY}:
            other = unit_of(target)
            above = FLOOR_OF[other] > floor
            beside = FLOOR_OF[other] == floor and other != unit
            if above or (beside and floor >= SERVICES and (unit, other) not in SERVICE_LINKS):
                wrong.append(f"{module} (floor {floor}) imports {target} (floor {FLOOR_OF[other]})")
    assert wrong == []


def test_no_module_is_part_of_an_import_cycle() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {unit: set() for unit in FLOOR_OF}
    for module in FILES.keys() - {EMPTY}:
        graph[unit_of(module)] |= {unit_of(t) for t in imported(module) - {EMPTY}} - {unit_of(module)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_no_file_is_longer_than_the_ceiling() -> None:
    lengths = {m: len(path.read_text(encoding="utf-8").splitlines()) for m, path in FILES.items()}
    assert {m: n for m, n in lengths.items() if n > MAX_LINES} == {}


def test_no_function_is_longer_than_the_ceiling() -> None:
    lengths = {
        f"{module}.{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_every_module_has_a_docstring() -> None:
    assert [m for m, tree in TREES.items() if tree.body and not ast.get_docstring(tree)] == []


def test_no_two_modules_define_a_public_thing_of_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        if not module.startswith("utils.compat"):
            for name in {name for name in public_names(tree) if not name.startswith("_")} - ENTRY_NAMES:
                homes.setdefault(name, []).append(module)
    repeated = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert repeated == {}


def test_words_are_those_of_the_glossary() -> None:
    done = subprocess.run(
        [sys.executable, "tests/vocabulary.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "vocabulary: clean\n"), done.stdout + done.stderr


def test_nothing_executes_data() -> None:
    """Files of other people are read, never run."""
    never = {
        "eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
        "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "marshal.loads",
    }  # fmt: skip
    found = []
    for module, tree in TREES.items():
        for name, call in calls(tree):
            place = f"{module}:{call.lineno}: {name}"
            if name in never:
                found.append(place)
            if name == "torch.load" and keyword(call, "weights_only") is not True:
                found.append(f"{place} without weights_only=True")
            if name == "np.load" and keyword(call, "allow_pickle") not in (None, False):
                found.append(f"{place} that unpickles")
            if keyword(call, "shell") not in (None, False):
                found.append(f"{place} through a shell")
    assert found == []


def test_importing_sets_nothing() -> None:
    setters = {
        "set_num_threads", "set_num_interop_threads", "setNumThreads", "basicConfig", "addHandler", "setLevel", "seed",
        "manual_seed", "set_printoptions", "set_default_dtype", "set_float32_matmul_precision", "seterr",
        "filterwarnings", "simplefilter", "putenv", "setdefault", "mkdir", "makedirs", "open", "write_text",
        "write_bytes", "Popen", "urlopen", "print", "chdir", "signal",
    }  # fmt: skip
    settings = ("os.environ", "rcParams", "torch.backends", "sys.path", "sys.modules")
    found = []
    for module, tree in TREES.items():
        for node in at_import_time(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in setters:
                found.append(f"{module}:{node.lineno}: {ast.unparse(node.func)}()")
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.Delete)):
                targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
                written = [ast.unparse(target) for target in targets]
                found += [f"{module}:{node.lineno}: {text}" for text in written if any(s in text for s in settings)]
    assert found == []


def test_no_module_uses_the_global_state_of_pyplot() -> None:
    assert [m for m, tree in TREES.items() if "matplotlib.pyplot" in ast.unparse(tree)] == []
