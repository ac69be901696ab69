"""The arrows of the house: analyses -> mcaprobe, analyses -> nanops, and no other between the packages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {"mcaprobe": {"mcaprobe"}, "nanops": {"nanops"}, "analyses": {"analyses", "mcaprobe", "nanops"}}
# The fidelity table is held against the slow twin that the tests use; only a source checkout has it.
TWIN_USERS = {"analyses/experiments/fidelity.py"}
PACKAGES = [name for name in ALLOWED if (ROOT / name).is_dir()]


def sources(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it, by statement or by importlib with a literal name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(a.value).split(".")[0] for a in node.args[:1] if isinstance(a, ast.Constant)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_the_arrows_allow(package: str) -> None:
    for path in sources(package):
        ours = imported_packages(path) & {*ALLOWED, "tests"}
        name = path.relative_to(ROOT).as_posix()
        assert ours <= ALLOWED[package] | ({"tests"} if name in TWIN_USERS else set()), f"{name} imports {ours}"


def test_reference_twins_share_no_code_with_the_packages() -> None:
    for path in sources("tests/reference"):
        assert not imported_packages(path) & set(ALLOWED), path


def test_no_source_reads_the_environment_at_import() -> None:
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.parse(path.read_text()).body:
                assert "environ" not in ast.dump(node) or isinstance(node, (ast.FunctionDef, ast.ClassDef)), path


def test_nothing_executes_what_it_reads() -> None:
    calls = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "eval", "exec"}
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    assert ast.unparse(node.func) not in calls, f"{path}:{node.lineno}"
                    assert all(k.arg != "allow_pickle" or ast.unparse(k.value) == "False" for k in node.keywords), path


def test_every_torch_load_reads_weights_only_or_with_an_unpickler_that_executes_nothing() -> None:
    for package in PACKAGES:
        for path in sources(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    inert = path.name == "pickles.py" and "pickle_module" in options
                    assert inert or options.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_no_file_is_long() -> None:
    long = {
        p.relative_to(ROOT).as_posix(): n
        for package in PACKAGES
        for p in sources(package)
        if (n := len(p.read_text().splitlines())) > 350
    }
    assert not long
