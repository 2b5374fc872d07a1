"""The example in docs/diagnosis.md, as the command prints it: `python tests/diagnosis_page.py` writes it again."""

from __future__ import annotations

import json
from pathlib import Path

from sovereign.diagnosis.procedure import diagnose
from sovereign.interop.diagnosable import record_of
from sovereign.interop.logs import read_log
from sovereign.report.diagnosed import plain_screen

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/diagnosis.md"
BEGIN, END = "<!-- example: written by tests/diagnosis_page.py -->\n", "<!-- end of the example -->"


def example(folder: Path) -> str:
    """Return what the command says of the four-fold corpus run of the golden cases, as a block of Markdown."""
    case = next(
        one for one in json.loads((HERE / "diagnosis_cases.json").read_text()) if one["id"] == "model2-4x-ten-epochs"
    )
    (folder / "run.json").write_text(json.dumps({"meta": case["meta"], "series": case["series"]}))
    record = record_of(read_log(folder / "run.json", broken=True), "run.json")
    return f"{BEGIN}```\n$ sovereign diagnose run.json\n{plain_screen(diagnose(record))}\n```\n{END}"


def written(page: str, folder: Path) -> str:
    """Return the page with the example as it is printed now."""
    before, _, rest = page.partition(BEGIN)
    return before + example(folder) + rest.partition(END)[2]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(written(PAGE.read_text("utf-8"), Path(folder)), "utf-8")
