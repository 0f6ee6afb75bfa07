"""The shape of the code: imports point down, nothing prints below the commands, nothing is written twice."""

import ast
import importlib.util
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ddm"
FILES = sorted(SOURCE.rglob("*.py"))
FLOORS = {
    "errors": 0,
    "images": 0,
    "registry": 0,
    "seeding": 0,
    "storage": 0,
    "version": 0,
    "data": 1,
    "diffusion": 1,
    "metrics": 1,
    "networks": 1,
    "generators": 2,
    "training": 2,
    "runs": 3,
    "commands": 4,
    "studio": 4,
    "cli": 5,
}
IDS = [str(path.relative_to(SOURCE)) for path in FILES]
STRESS = sorted((SOURCE.parent.parent / "stress").glob("*.py"))


def part_of(path: Path) -> str:
    """``diffusion`` for src/ddm/diffusion/gaussian.py, ``cli`` for src/ddm/cli.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddm."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("ddm."))


@pytest.mark.parametrize("path", [each for each in FILES if each.parent != SOURCE or each.stem != "__init__"], ids=str)
def test_imports_point_down(path: Path):
    here = part_of(path)
    for there in set(imported(ast.parse(path.read_text()))):
        assert there == here or FLOORS[there] < FLOORS[here] or (FLOORS[here] == FLOORS[there] == 0), (
            f"{here} -> {there}"
        )


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", [*FILES, *STRESS], ids=[*IDS, *(f"stress/{path.name}" for path in STRESS)])
def test_files_and_functions_are_short(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 320, "a file is one idea"
    for function in functions(ast.parse(text)):
        statements = [
            node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ]
        lines = statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0
        assert lines <= 40, f"{function.name} has {lines} lines"


def test_no_function_is_written_twice():
    bodies = defaultdict(list)
    for path in [*FILES, *STRESS]:
        for function in functions(ast.parse(path.read_text())):
            if sum(1 for _ in ast.walk(function)) > 40:
                bodies[ast.dump(ast.Module(function.body, []))].append(f"{path.name}:{function.name}")
    assert [names for names in bodies.values() if len(names) > 1] == []


@pytest.mark.parametrize("path", [each for each in FILES if FLOORS.get(part_of(each), 0) < 4], ids=str)
def test_nothing_talks_below_the_commands(path: Path):
    tree = ast.parse(path.read_text())
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert not names & {"tqdm", "rich", "argparse"}


RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"}
RUNS_CODE |= {f"{module}.{name}" for module in ("yaml", "pickle", "marshal") for name in ("load", "loads", "load_all")}
RUNS_CODE |= {f"yaml.{name}" for name in ("unsafe_load", "full_load", "unsafe_load_all", "full_load_all")}
# The only PyTorch files are other people's weights: of a known SHA-256, or what ddm convert is asked to read.
READ_TORCH = {SOURCE / "metrics" / "weights.py", SOURCE / "runs" / "converting.py"}


def runs_code(node: ast.Call, path: Path) -> bool:
    """Whether what is called can run code that a file holds."""
    called = ast.unparse(node.func)
    options = {each.arg: ast.unparse(each.value) for each in node.keywords}
    if called == "torch.load":
        return path not in READ_TORCH or options.get("weights_only") != "True"
    if called.endswith(("np.load", "numpy.load")):
        return options.get("allow_pickle") != "False"
    other = options.get("allow_pickle", "False") != "False" or options.get("shell", "False") != "False"
    return other or called in RUNS_CODE or called.endswith((".extractall", ".extract", ".load_module"))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_nothing_can_run_code_from_a_file(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert not runs_code(node, path), ast.unparse(node)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "joblib", "marshal", "shelve", "cloudpickle", "jsonpickle"} & set(names)


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_what_runs_code_is_found(code: str):
    """A test of the test above, in the file that may do the most."""
    (node,) = [each for each in ast.walk(ast.parse(code)) if isinstance(each, ast.Call)]
    assert runs_code(node, SOURCE / "runs" / "converting.py")


# The explained share of a target with one colour is 0 / 0: what a page says, nothing that is trained or measured.
NO_TRAINING = SOURCE / "commands" / "studio" / "learning.py"


@pytest.mark.parametrize("path", [each for each in FILES if each != NO_TRAINING], ids=str)
def test_no_number_that_went_wrong_is_hidden(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        assert name not in {"nan_to_num", "nan_to_num_", "nanmean", "nansum"}, f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", [*FILES, *STRESS], ids=[*IDS, *(f"stress/{path.name}" for path in STRESS)])
def test_everything_public_is_documented(path: Path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module says what it is"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in [tree, *classes]:
        for node in owner.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                # A network's forward is described where its class is; a method of one line says what it does.
                plain = owner is not tree and (node.name == "forward" or node.end_lineno - node.lineno < 4)
                assert plain or ast.get_docstring(node), f"{node.name} has no docstring"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from ddm.cli import main; main(['--help'])\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'diffusers', 'matplotlib', 'pyarrow', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_torchvision():
    """A torchvision that does not fit the torch beside it breaks diffusers and torchmetrics just by being there."""
    assert importlib.util.find_spec("torchvision") is None
