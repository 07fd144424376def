"""What every command shares: --home, -o and --debug anywhere on the line, and the way to the daemon.

Knows click and where the socket is. Must never know what a command does with an answer.
"""

import importlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import click

from nexapod.cli.client import Api
from nexapod.home import Home, find_home

OUTPUTS = ("table", "json", "jsonl", "csv")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """One run of the command."""

    home_flag: str | None = None
    output: str = "table"
    debug: bool = False

    @cached_property
    def home(self) -> Home:
        return find_home(self.home_flag, os.environ)

    @property
    def nexapod(self) -> str:
        """How a person must begin a command that means the same node."""
        return f"nexapod --home {shlex.quote(self.home_flag)}" if self.home_flag else "nexapod"

    @cached_property
    def api(self) -> Api:
        return Api(self.home.socket(), start=f"{self.nexapod} daemon start")


def session() -> Session:
    """The session of the command that runs now."""
    return click.get_current_context().find_root().ensure_object(Session)


def room(name: str) -> Any:
    """A module of another room, opened only when a command needs it.

    Keys and network files (bootstrap.setup), the ledger without a daemon (daemon.offline), where engines may listen
    (runtime.sockets). The command line itself knows no other room.
    """
    return importlib.import_module(name)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            setattr(context.find_root().ensure_object(Session), name, value)

    return keep


def _shared_options() -> list[click.Option]:
    return [
        click.Option(["--home"], metavar="DIR", expose_value=False, callback=_keep("home_flag"), is_eager=True,
                     help="Folder of the node (else NEXAPOD_HOME, else your own)."),
        click.Option(["-o", "--output"], type=click.Choice(OUTPUTS), expose_value=False, callback=_keep("output"),
                     is_eager=True, help="Format of the answer (default table)."),
        click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep("debug"), is_eager=True,
                     help="Show where in the program an error comes from."),
    ]  # fmt: skip


class Command(click.Command):
    """A command that takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())


class Group(click.Group):
    """A group of such commands; each is imported when it is called, given as 'module:name'."""

    command_class = Command

    def __init__(self, *args: Any, lazy: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy:
            module, _, name = self.lazy[cmd_name].partition(":")
            found: click.Command = getattr(importlib.import_module(module), name)
            return found
        return super().get_command(ctx, cmd_name)


Group.group_class = Group


def command(name: str, **kwargs: Any) -> Callable[[Callable[..., Any]], Command]:
    """A command outside any group."""
    return click.command(name, cls=Command, **kwargs)
