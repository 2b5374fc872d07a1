"""`sovereign`: the commands, the errors they share, and the exit codes they end with."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from keyword import iskeyword

import click

from sovereign import __version__

COMMANDS = {
    "init": "Write a first spec and a first contract.",
    "run": "Carry out a contract: intent, training, evidence.",
    "plan": "Say what a contract would do here, and whether it may.",
    "corpus": "Build a contract's documents, look at them, compare two.",
    "submit": "Put a run into a Slurm queue, and back into it when its time is up.",
    "import": "Turn another trainer's log into a run whose numbers are reported.",
    "export": "Write a run's model as a Hugging Face folder or a GGUF file.",
    "diagnose": "Say what a run, or another trainer's log, really shows.",
    "parity": "Compare two models forward, and name where they part.",
    "abandon": "Close a run that died, with a reason.",
    "gates": "Derive the status of every criterion from the evidence.",
    "report": "Render the gates as a page, a summary, or a file for CI.",
    "scoreboard": "Count statuses by category.",
    "verify": "Check evidence: hash, validate and measure it again.",
    "compare": "Put runs beside each other: what differed, and what follows.",
    "review": "Say what a reviewer of a change must know.",
    "explain": "Say why a criterion stands where it does.",
    "spec": "Lint a spec, classify its edits, write amendments.",
    "sign": "Sign a run's documents.",
    "waive": "Let a criterion pass for a while, in the open.",
    "schema": "Print the JSON Schema of a document kind.",
}
# module -> the extra that brings it, and what for
EXTRAS = {
    **dict.fromkeys(("torch", "tokenizers", "safetensors", "rensa", "filelock", "gguf"), ("train", "training")),
    **dict.fromkeys(("peft", "transformers"), ("tune", "tuning a base")),
    **dict.fromkeys(("datasets", "huggingface_hub", "pyarrow"), ("data", "another source of data")),
    **dict.fromkeys(("securesystemslib", "cryptography"), ("sign", "signing and checking signatures")),
}
EXITS = """Exit codes: 0 satisfied, 1 falsified, 2 usage, 3 schema, 4 integrity, 5 nothing evaluated, 6 incomplete,
7 refused by the plan, 8 stopped by a guard or left unconcluded, 70 internal error, 130 interrupted,
141 nobody read the output to its end."""


class Commands(click.Group):
    """A group that loads a command when it is asked for, so that gating never waits for torch."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"sovereign.cli.{name}{'_' if iskeyword(name) else ''}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        if arguments and arguments[0] not in COMMANDS:
            near = get_close_matches(arguments[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" There is {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {arguments[0]!r}.{hint}", context)
        return super().resolve_command(context, arguments)


@click.command(cls=Commands, epilog=EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sovereign")
def sovereign() -> None:
    """Every training run makes claims. Write them down first, collect evidence, and see which hold.

    \b
    sovereign plan --contract contracts/model2.yaml
    sovereign run  --contract contracts/model2.yaml
    sovereign gates
    """


def main() -> None:
    """Run a command and exit with a documented code, whatever happens."""
    code = exit_of(sys.argv[1:])
    if os.environ.get("WORLD_SIZE", "") not in ("", "0", "1"):
        # one of several processes: a thread that still exchanges could abort the interpreter's own ending, and hide the code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def exit_of(arguments: list[str]) -> int:
    """Run the command and return its exit code; whatever went wrong has been said."""
    try:
        result = sovereign.main(arguments, prog_name="sovereign", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe is still ours to tell
        return int(result or 0)
    except click.ClickException as error:  # usage errors among them, which exit 2
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return _unread()
    except SystemExit as left:
        if left.code == 1:  # of itself, click exits only where the reader has gone
            return _unread()
        raise  # a queue that calls its task back, in a signal handler, reads the code
    except Exception as error:
        return _told(error)


def _unread() -> int:
    """Return the code of any program that SIGPIPE ends: 0 would pass a gate that `head` cut short, 1 say FALSIFIED."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left unwritten goes nowhere, quietly
    return 141


def _told(error: Exception) -> int:
    """Say what went wrong, as far as it is the user's to mend, and return the exit code that says so too."""
    from sovereign.canonical import Malformed  # here: `--help` needs none of these
    from sovereign.cli.options import tell
    from sovereign.history import Unresolvable

    if isinstance(error, Malformed):
        for problem in error.problems:
            tell(str(problem))
        return 3
    if isinstance(error, Unresolvable):
        tell(f"the base cannot be read, so nothing can be compared with it: {error}")
        return 4
    if isinstance(error, ModuleNotFoundError) and (wanted := EXTRAS.get((error.name or "").partition(".")[0])):
        click.echo(
            f"{wanted[1]} needs {error.name}, which is not installed: pip install 'sovereign[{wanted[0]}]'", err=True
        )
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        click.echo(f"{error.filename}: {error.strerror}", err=True)
        return 2
    traceback.print_exception(error)
    click.echo("internal error: this is a fault of sovereign's; please report it with the lines above", err=True)
    return 70
