"""The import order of the house: every room has a place, and looks only downwards."""

from __future__ import annotations

import ast
from pathlib import Path

import sovereign

PACKAGE = Path(sovereign.__file__).parent

# room -> what it may import. A room that does not stand here has no place, and the test fails on it.
LAW = ["canonical", "starting", "spec", "contract", "stopping", "evidence", "metrics", "diagnosis", "measurable", "closing", "comparison", "gate",
       "published", "subjects", "controls", "verification", "remembered", "signing", "contenders", "foresight", "repository",
       "amending", "history", "review", "report"]  # fmt: skip
MAY = {room: set(LAW[:index]) for index, room in enumerate(LAW)}
MAY["subjects"] = {"canonical", "contract", "evidence"}
MAY["gate"] = {"canonical", "spec", "contract", "evidence"}
MAY["contract"] = {"canonical"}
MAY["stopping"] = {"contract"}
MAY["evidence"] = {"canonical", "spec", "contract"}
MAY["interop"] = {"canonical", "spec", "contract", "evidence", "metrics", "diagnosis", "closing", "subjects"}
MAY["corpus"] = {"canonical", "contract"}
MAY["model"] = {"canonical", "contract"}
MAY["quantization"] = {"canonical", "contract"}
MAY["training"] = {"canonical", "contract", "corpus", "model"}
MAY["shipping"] = {"canonical", "contract", "corpus", "evidence", "model", "quantization", "training"}
MAY["parity"] = {*MAY["shipping"], "shipping", "metrics"}
MAY["lineage"] = {"canonical", "contract", "corpus", "evidence"}
MAY["tuning"] = {"canonical", "contract", "corpus", "lineage", "model", "quantization"}
MAY["preferences"] = {"contract", "corpus", "training", "tuning"}
MAY["plan"] = {
    "canonical",
    "contract",
    "corpus",
    "lineage",
    "model",
    "preferences",
    "quantization",
    "stopping",
    "training",
    "tuning",
}
MAY["fitting"] = {"contract", "model", "training", "tuning"}
MAY["probing"] = MAY["plan"] | {"plan"}
MAY["attesting"] = MAY["plan"] | {"plan"}
MAY["surveying"] = {*MAY["attesting"], "attesting"}
MAY["promising"] = {"closing", "contract", "evidence", "plan", "spec", "subjects"}
MAY["run"] = set(MAY) | {"plan"}
MAY["planted"] = set(MAY) | {"run"}
MAY["recording"] = set(MAY)
MAY["cli"] = set(MAY) | {"run", "recording"}
MAY["__init__"] = set()
MAY["__main__"] = {"cli"}
WITHOUT_TORCH = [*LAW, "corpus", "interop"]
NOT_NAMES = {"utils", "common", "helpers", "core", "base", "manager"}


def imports(file: Path) -> set[str]:
    """Return the modules a file imports anywhere in it, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "sovereign" else {node.module}
            )
    return names


def room(file: Path) -> str:
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else file.stem


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_place() -> None:
    """A new room must be given its place in the order before it is built."""
    assert set() == {room(file) for file in FILES} - MAY.keys()


def test_every_room_stands_on_the_plan_of_the_house() -> None:
    """docs/architecture.md has a line for each room: a newcomer finds it there."""
    page = (PACKAGE.parent.parent / "docs/architecture.md").read_text()

    assert [] == [name for name in MAY if not name.startswith("__") and f"| `{name}" not in page]


def test_imports_run_downwards() -> None:
    """No room imports one above it, or one it has no business with."""
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in FILES
        for name in imports(file)
        if name.startswith("sovereign.") and name != "sovereign.__version__"
        and name.split(".")[1] not in MAY[room(file)] | {room(file)}
    ]  # fmt: skip

    assert [] == wrong


def test_the_law_does_not_know_torch() -> None:
    """Gating in CI needs no torch: nothing below the line imports it, not even inside a function."""
    heavy = {"torch", "safetensors", "transformers"}
    wrong = [
        str(file)
        for file in FILES
        if room(file) in WITHOUT_TORCH and {name.split(".")[0] for name in imports(file)} & heavy
    ]

    assert [] == wrong


def test_names_say_what_is_inside() -> None:
    """No module is called after having no subject."""
    assert set() == {file.stem for file in FILES} & NOT_NAMES


def test_no_import_runs_in_a_circle() -> None:
    """Modules import each other in one direction only."""
    graph = {module_name(file): {name for name in imports(file) if name.startswith("sovereign")} for file in FILES}
    seen: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert seen.get(module) != 1, " -> ".join((*path, module))
        if seen.get(module) == 2:
            return
        seen[module] = 1
        for inner in graph.get(module, ()):
            visit(inner, (*path, module))
        seen[module] = 2

    for module in graph:
        visit(module, ())


def module_name(file: Path) -> str:
    parts = ("sovereign", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
