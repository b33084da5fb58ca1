"""Rules of the house that a reader relies on, checked on the source itself."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hybridsam_lite"
FILES = sorted(PACKAGE.rglob("*.py"))
ORDER = (  # a module imports only from those before it
    "device", "files", "theta", "hybrid", "integrate", "replay", "gradients", "packed", "sam", "data", "methods",
    "checks", "runs", "stack", "live", "train", "tasks", "results",
)  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_are_short(path):
    assert len(path.read_text().splitlines()) <= 420


@pytest.mark.parametrize("path", [p for p in FILES if p.name not in ("device.py", "cli.py")], ids=lambda p: p.stem)
def test_only_the_device_module_knows_of_gpus(path):
    """In code; docstrings may name a device as an example."""
    tree = ast.parse(path.read_text())
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    assert "cuda" not in names
    assert not [s for s in strings if s.startswith("cuda")]


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module):
    path = PACKAGE / f"{module}.py"
    files = [path] if path.exists() else sorted((PACKAGE / module).glob("*.py"))
    allowed = {*ORDER[: ORDER.index(module)], module, ""}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridsam_lite"):
                inner = node.module.removeprefix("hybridsam_lite").lstrip(".").split(".")[0]
                names = {inner} if inner else {alias.name for alias in node.names}
                assert names <= allowed, f"{file.name} imports {names - allowed}"


def test_importing_has_no_side_effects_on_torch():
    """Threads and the default type are the user's."""
    import subprocess
    import sys

    code = (
        "import torch; before = torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state().sum().item();"
        "import hybridsam_lite, sys; after = torch.get_num_threads(), torch.get_default_dtype(),"
        "torch.get_rng_state().sum().item(); assert before == after; assert 'matplotlib' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
