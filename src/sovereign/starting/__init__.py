"""A first spec and a first contract, for a repository that has none."""

from __future__ import annotations

from pathlib import Path
from string import Template

from sovereign.canonical import write_atomic

HERE = Path(__file__).parent
FILES = {
    "spec.yaml": "spec/{name}.yaml",
    "contract.yaml": "contracts/{name}.yaml",
    "gitattributes": ".gitattributes",
    "gitignore": ".gitignore",
}


def start(root: Path, name: str) -> list[Path]:
    """Write the files of a first project into `root` and return them; those that stand there already are left alone.

    Raises FileExistsError, before anything is written, where the spec or the contract stands there.
    """
    places = {template: root / place.format(name=name) for template, place in FILES.items()}
    taken = [place for template, place in places.items() if template.endswith(".yaml") and place.exists()]
    if taken:
        raise FileExistsError(f"{taken[0].relative_to(root)} stands there already; choose another name")
    written = []
    for template, place in places.items():
        if not place.exists():
            text = Template((HERE / template).read_text("utf-8")).substitute(name=name, id=name.upper())
            write_atomic(place, text.encode())
            written.append(place)
    return written
