"""The way to the daemon: HTTP over its unix socket, and what its refusals mean.

Knows the local API's envelope. Must never know single answers. Imports nothing beyond the standard library's HTTP.
"""

import json
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from nexapod.errors import Exit, LocalError

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a daemon that answers more is not ours
CHUNK_BYTES = 256 * 1024
ANSWER_S = 30.0


class DaemonDown(LocalError):
    """Nothing answers on the socket."""


class Refusal(LocalError):
    """The daemon said no; `faults` are the faults of a file, as it lists them."""

    def __init__(self, what: str, why: str, next_step: str, exit_code: Exit, faults: list[dict[str, str]]) -> None:
        super().__init__(what, why, next_step, exit_code)
        self.faults = faults


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Api:
    """The local API of one node. `start` is the command a person types when it does not run."""

    def __init__(self, path: Path, *, start: str = "nexapod daemon start") -> None:
        self.path, self.start = path, start

    def get(self, path: str, timeout_s: float = ANSWER_S, **query: object) -> dict[str, Any]:
        """
        Raises:
            DaemonDown: nothing answers. Refusal: the daemon said no.
        """
        given = {key: value for key, value in query.items() if value is not None}
        return self._ask("GET", path + (f"?{urlencode(given)}" if given else ""), None, timeout_s)

    def post(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """
        Raises:
            DaemonDown: nothing answers. Refusal: the daemon said no.
        """
        return self._ask("POST", path, json.dumps(body or {}).encode(), timeout_s)

    def download(self, path: str, write: Callable[[bytes], object], timeout_s: float = ANSWER_S) -> None:
        """Hand the bytes of an answer to `write` as they come.

        Raises:
            DaemonDown: nothing answers, or it stopped half way. Refusal: the daemon said no.
        """

        def pour(response: HTTPResponse) -> dict[str, Any]:
            while chunk := response.read(CHUNK_BYTES):
                write(chunk)
            return {}

        self._ask("GET", path, None, timeout_s, pour)

    def alive(self, path: str = "/livez") -> bool:
        """Whether the daemon answers, and says yes."""
        try:
            self._ask("GET", path, None, 5.0, lambda _: {})
        except LocalError:
            return False
        return True

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout_s: float,
        take: Callable[[HTTPResponse], dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        connection = _UnixConnection(self.path, timeout_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            if response.status >= 400:
                raise _refusal(response.status, _document(response))
            return (take or _document)(response)
        except TimeoutError:
            raise LocalError(
                f"the daemon did not answer within {timeout_s:.0f} s", path, "see: nexapod daemon logs"
            ) from None
        except (OSError, HTTPException) as error:
            why = f"nothing answers on {self.path}" if isinstance(error, OSError) else f"it broke off: {error!r}"
            raise DaemonDown("the daemon is not running", why, f"start it: {self.start}", Exit.NO_DAEMON) from None
        finally:
            connection.close()


def segment(text: str) -> str:
    """One part of a path, whatever a person typed."""
    return quote(text, safe="")


def _document(response: HTTPResponse) -> dict[str, Any]:
    raw = response.read(ANSWER_BYTES_MAX + 1)
    try:
        document = json.loads(raw) if len(raw) <= ANSWER_BYTES_MAX else None
    except ValueError:
        document = {} if response.status < 400 and not raw.strip().startswith(b"{") else None
    if not isinstance(document, dict):
        if response.status >= 400:
            return {}
        raise LocalError("the daemon's answer cannot be read", f"{len(raw)} bytes", "are both of the same version?")
    return document


def _refusal(status: int, document: dict[str, Any]) -> Refusal:
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    by_status = {404: Exit.NOT_FOUND, 400: Exit.USAGE, 422: Exit.USAGE, 403: Exit.REFUSED, 409: Exit.REFUSED}
    try:
        code = Exit(error.get("exit_code", by_status.get(status, Exit.FAILURE)))
    except ValueError:
        code = Exit.FAILURE
    faults = error.get("faults")
    return Refusal(
        str(error.get("what") or f"the daemon refused (HTTP {status})"),
        str(error.get("why") or ""),
        str(error.get("next") or ""),
        code,
        [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else [],
    )
