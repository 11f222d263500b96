"""arch needs the standard library and the errors, nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import netsmith.arch

FOLDER = Path(netsmith.arch.__file__).parent


def test_arch_imports_only_the_standard_library_and_errors():
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                own = name == "netsmith.errors" or name.startswith("netsmith.arch")
                assert own or name.split(".")[0] in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_naming_a_network_loads_nothing_heavy():
    code = (
        "import sys; from netsmith.arch.names import find_layout; from netsmith.arch.cost import cost\n"
        "cost(find_layout('resnet50')); print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "onnx", "onnxruntime", "pydantic"} & set(loaded)
