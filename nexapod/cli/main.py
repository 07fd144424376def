"""The `nexapod` command: finds the command meant, runs it, and turns what went wrong into a sentence and an exit code.

Knows names of commands and exit codes. Must never import what a command needs before the command is called.
"""

import sys

import click

from nexapod.cli.session import Group, Session
from nexapod.errors import Exit, LocalError, Unavailable

_HERE = "nexapod.cli"
COMMANDS = {
    "init": f"{_HERE}.setup:init",
    "doctor": f"{_HERE}.doctor:doctor",
    "daemon": f"{_HERE}.daemon:daemon",
    "status": f"{_HERE}.node:status",
    "publish": f"{_HERE}.jobs:publish",
    "run": f"{_HERE}.jobs:run",
    "job": f"{_HERE}.jobs:job",
    "results": f"{_HERE}.results:results",
    "id": f"{_HERE}.node:identity",
    "peers": f"{_HERE}.node:peers",
    "node": f"{_HERE}.node:node",
    "swarm": f"{_HERE}.node:swarm",
    "bootstrap": f"{_HERE}.setup:bootstrap",
    "ledger": f"{_HERE}.ledger:ledger",
    "config": f"{_HERE}.setup:config",
    "demo": f"{_HERE}.demo:demo",
    "version": f"{_HERE}.node:version",
}


@click.group(cls=Group, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def nexapod(context: click.Context) -> None:
    """Run scientific jobs on each other's machines, and check them."""
    context.ensure_object(Session)


def main(arguments: list[str] | None = None) -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code. Sentences go to stderr."""
    chosen = Session()
    try:
        code = nexapod.main(arguments, prog_name="nexapod", standalone_mode=False, obj=chosen)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except click.ClickException as wrong:
        wrong.show()
        return Exit.USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nobody is left to be told
        return Exit.FAILURE
    except LocalError as error:
        if chosen.debug:
            raise
        _explain(error)
        return error.exit_code
    except Unavailable as error:
        if chosen.debug:
            raise
        _explain(LocalError(str(error), "", "try again later"))
        return Exit.FAILURE
    except OSError as error:  # stdout on a full disk, a folder that cannot be read
        if chosen.debug:
            raise
        _explain(LocalError("this machine refuses", str(error), "mend what it says"))
        return Exit.FAILURE
    except Exception as error:
        if chosen.debug:
            raise
        what, why = "a fault in nexapod itself", f"{type(error).__name__}: {error}"
        _explain(LocalError(what, why, "report it with what --debug shows"))
        return Exit.FAILURE
    return code if isinstance(code, int) else Exit.OK  # a number when the line ended early, as --help does


def _explain(error: LocalError) -> None:
    from nexapod.cli.render import plain, say

    say(f"nexapod: {plain(error.what)}")
    faults = getattr(error, "faults", None)
    if faults and isinstance(faults[0], dict):
        for fault in faults:
            meant = f" (did you mean {fault['suggestion']}?)" if fault.get("suggestion") else ""
            shown = f" = {fault['value']}" if fault.get("value") else ""
            say(plain(f"  {fault.get('path') or '(document)'}{shown}: {fault.get('reason', '')}{meant}"))
    else:
        for line in error.why.splitlines():
            say(f"  {line}")
    if error.next_step:
        say(f"  next: {plain(error.next_step)}")
