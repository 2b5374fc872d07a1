"""What `plan` and `run` share: the contract they are given, and how long work is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sovereign.contract.contract import Contract
    from sovereign.repository import Repository
    from sovereign.spec.criterion import Spec

Function = TypeVar("Function", bound=Callable[..., Any])
Told = Callable[[str, int, int], None]


def contract_options(function: Function) -> Function:
    options = [
        click.option("--contract", type=click.Path(path_type=Path), default=None, help="The contract file."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
            help="Override a key; the run is then exploratory: it can neither discharge nor falsify.",
        ),
        click.option("--seed", type=int, default=None, help="One of the contract's seeds; the first by default."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N; never a silent fallback."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def promised(repository: Repository, path: Path, overrides: tuple[str, ...]) -> tuple[Contract, Spec]:
    """Return a contract and its spec, or raise Malformed with everything that is wrong between the two."""
    from sovereign.canonical import Malformed, read, validate
    from sovereign.contract.contract import Contract, overridden
    from sovereign.repository import claim_problems

    document = read(path)
    contract = validate(Contract, overridden(document, overrides) if overrides else document)
    problems = claim_problems(contract, document, str(path), repository.specs)
    if problems:
        raise Malformed([*problems, *(one for one in repository.problems if one.path == contract.spec)])
    return contract, next(one.spec for one in repository.specs if one.path == contract.spec)


@contextmanager
def telling(aloud: bool = True) -> Iterator[Told]:
    """Yield a function that says on stderr what is being done: one line a part; nothing unless `aloud`."""
    said: set[str] = set()

    def told(part: str, done: int, total: int) -> None:
        if aloud and part not in said:
            said.add(part)
            click.echo(f"· {part}", err=True)

    yield told
    sys.stderr.flush()
