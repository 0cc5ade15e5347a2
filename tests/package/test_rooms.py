"""The rooms of csrc and fused_ml: who includes or imports whom, which headers are read, which formulas are listed."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
if not CSRC.exists():
    pytest.skip("reads the sources", allow_module_level=True)
FILES = [path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh")]
INCLUDE = re.compile(r'^\s*#\s*(?:include|define FUSED_ML_REGION) (["<])([^">]+)[">]', re.MULTILINE)
# A room, and those that it may see besides itself.
SEES = {
    "formulas": set(),
    "catalog": {"formulas"},
    "frames": {"formulas", "catalog"},
    "operators": {"formulas", "catalog", "frames"},
    "python": {"operators"},  # tensor_view.h, whose layout it proves
    "testing": {"formulas", "catalog", "frames", "operators"},
}


def room(path):
    return path.relative_to(CSRC).parts[0]


def included(path):
    """The project's files that a file includes, and whatever else."""
    ours, others = [], []
    for kind, name in INCLUDE.findall(path.read_text()):
        places = [folder / name for folder in (path.parent, CSRC) if (folder / name).exists()]
        if kind == '"':
            assert places, f"{path}: there is no {name}"
            ours.append(places[0])
        else:
            others.append(name)
    return ours, others


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes_run_one_way(path):
    ours, others = included(path)
    for other in ours:
        assert room(other) in SEES[room(path)] | {room(path)}, f"{path.relative_to(CSRC)} includes {other}"
    if room(path) in ("formulas", "catalog", "frames"):
        assert not [name for name in others if name.startswith(("torch", "Python", "pybind11"))]
    devices = {"cpu", "cuda"} & set(path.relative_to(CSRC).parts)
    for other in ours:
        assert not devices or ({"cpu", "cuda"} & set(other.relative_to(CSRC).parts)) <= devices


def test_every_header_is_included():
    read = {other for path in FILES for other in included(path)[0]}
    headers = {path for path in FILES if path.suffix in (".h", ".cuh")}
    assert not headers - read


@pytest.mark.parametrize("kind", ["activations", "losses", "optimizers"])
def test_every_formula_has_a_row(kind):
    """A formula is a struct with a name, or an update of a family's."""
    catalog = (CSRC / "catalog" / ("optimizers.h" if kind == "optimizers" else "pointwise.h")).read_text()
    for path in (CSRC / "formulas" / kind).glob("*.h"):
        text = path.read_text()
        structs = re.findall(r"^struct (\w+)[^;{]*\{((?:.|\n)*?)^\};", text, re.MULTILINE)
        formulas = [name for name, body in structs if "operator()" in body or "kName" in body]
        assert formulas, path
        for name in formulas:
            assert re.search(rf"\b{name}\b", catalog), f"{name} of {path.name} is in no list"


def imports(path):
    """The modules of fused_ml that a module imports when it is imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fused_ml"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.startswith("fused_ml"))


# Of fused_ml, from the ground up: a module imports from its own floor or below.
FLOORS = (
    {"_version", "_library", "_explain", "_watched", "_inductor", "_namespaces", "_fake"},
    {"nn", "optim"},
    {"_patch", "__init__", "__main__"},
)


def floor(module):
    name = module.removeprefix("fused_ml").removeprefix(".").split(".")[0] or "__init__"
    return next(i for i, names in enumerate(FLOORS) if name in names), name


@pytest.mark.parametrize("path", sorted((ROOT / "fused_ml").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    here, space = floor(module)
    for other in imports(path):
        there, other_space = floor(other)
        assert there <= here, f"{module} imports {other}"
        assert here != 1 or there != 1 or space == other_space, f"{module} imports {other}"  # nn and optim are apart


def test_functions_do_not_know_modules():
    for path in (ROOT / "fused_ml" / "nn" / "functional").glob("*.py"):
        assert not [each for each in imports(path) if ".modules" in each]
