"""The allow-list of `bedside_core`: what a rule may import and which builtins it may call.

import-linter holds what may not be imported; this holds what may, and sees what needs no import
(`open`, `exec`) and what numpy can reach on its own (`np.load`, `np.memmap`).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

STDLIB = frozenset(
    [
        "base64",
        "collections",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "hmac",
        "itertools",
        "json",
        "math",
        "re",
        "struct",
        "tomllib",
        "types",
        "typing",
    ]
)
# Outside libraries, and the only modules of the core that may import them.
BRACKETS = {
    "pydantic": {  # what people or machines wrote
        "policy",
        "manifest",
        "golden",
        "hardware/board",
        "hardware/profile",
    },
    "cryptography": {"signatures"},
}
BUILTINS = frozenset(
    [
        "open",
        "print",
        "input",
        "eval",
        "exec",
        "compile",
        "breakpoint",
        "globals",
        "locals",
        "vars",
        "__import__",
    ]
)
NUMPY_WORLD = frozenset(
    [
        "load",
        "save",
        "savez",
        "savez_compressed",
        "loadtxt",
        "savetxt",
        "genfromtxt",
        "fromfile",
        "tofile",
        "memmap",
        "fromregex",
        "DataSource",
        "random",
        "ctypeslib",
    ]
)


def violations(package: Path) -> list[str]:
    """Every breach of the allow-list in a folder of core modules, as `module:line what`."""
    found = []
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).with_suffix("").as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{module}:{line} {what}" for line, what in _breaches(tree, module)]
    return found


def _breaches(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    numpy_names = {"numpy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _check_import(node.lineno, alias.name, module)
                if alias.name == "numpy":
                    numpy_names.add(alias.asname or "numpy")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "relative import"
            name = node.module or ""
            yield from _check_import(node.lineno, name, module)
            if name.split(".")[0] == "numpy":
                for alias in node.names:
                    if alias.name in NUMPY_WORLD:
                        yield node.lineno, f"numpy.{alias.name}"
    for node in ast.walk(tree):
        loaded = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        if loaded and node.id in BUILTINS:
            yield node.lineno, f"builtin {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr in NUMPY_WORLD:
            # `.tofile` belongs to arrays, so any object may carry it; the rest hang off the module
            of_module = isinstance(node.value, ast.Name) and node.value.id in numpy_names
            if of_module or node.attr == "tofile":
                yield node.lineno, f"numpy.{node.attr}"


def _check_import(line: int, name: str, module: str) -> Iterator[tuple[int, str]]:
    top = name.split(".")[0]
    if top == "numpy":
        if any(part in NUMPY_WORLD for part in name.split(".")[1:]):
            yield line, f"import {name}"
    elif top in BRACKETS:
        if module not in BRACKETS[top]:
            yield line, f"import {name}"
    elif top not in STDLIB and top != "bedside_core":
        yield line, f"import {name}"
