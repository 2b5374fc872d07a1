"""Numbers, intervals and statuses as people read them, the same in every rendering."""

from __future__ import annotations

from sovereign.gate.evaluation import CriterionStatus, Measured

# beside its colour each status has a shape, for those who do not see the colour
MARK = {
    "DISCHARGED": "✔",
    "PARTIAL": "◐",
    "STALE": "◌",
    "OPEN": "·",
    "FALSIFIED": "✘",
    "INVALID": "‼",
    "WITHDRAWN": "-",
}


def number(value: float | str | bool) -> str:
    """Return a value as people read it: four significant digits, integers whole."""
    if isinstance(value, str | bool):
        return str(value)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def interval(measured: Measured | None) -> str:
    """Return a value with its interval, or only the value where it is exact."""
    if measured is None:
        return "–"
    if measured.low == measured.high:
        return number(measured.value)
    return f"{number(measured.value)} [{number(measured.low)}, {number(measured.high)}]"


def bound(one: CriterionStatus) -> str:
    """Return what is asked of the metric: `<= 3 nats/token`; nothing where the criterion itself is gone."""
    return f"{one.op} {number(one.bound)} {one.unit}".strip() if one.op else ""


def remarks(one: CriterionStatus) -> tuple[str, ...]:
    """Return what stays with a criterion whatever its status: amendments, old failures, uncounted runs, its waiver."""
    told = []
    if one.amended_after_results:
        told.append(f"amended after results ×{one.amended_after_results}")
    if one.was_falsified:
        told.append(f"was FALSIFIED @ {one.was_falsified[0][7:15]}")
    if one.exploratory:
        told.append(f"{one.exploratory} exploratory run(s), not counted")
    if one.waiver:
        told.append(f"waived by {one.waiver.approver} until {one.waiver.expires}: {one.waiver.reason}")
    return tuple(told)


def way_on(one: CriterionStatus) -> str:
    """Return the command that leads out of a status, or nothing where there is nowhere to go."""
    if one.status in ("DISCHARGED", "WITHDRAWN"):
        return ""
    return "sovereign verify" if one.status == "INVALID" else one.discharge


def seconds(value: float) -> str:
    """Return a duration as people say it: `4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 100:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def memory(count: int) -> str:
    """Return a number of bytes in the unit that keeps it readable."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def short(text: str, most: int) -> str:
    """Return a text cut to at most so many characters, with an ellipsis where something is missing."""
    return text if len(text) <= most else text[: most - 1] + "…"
