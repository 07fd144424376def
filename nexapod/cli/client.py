"""The way to the daemon: HTTP over its unix socket, and what its refusals mean.

Knows the local API's envelope. Must never know single answers. Imports nothing beyond the standard library's HTTP.
What answers may be broken, hostile or something else: whatever it sends becomes an answer or a LocalError.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, Never
from urllib.parse import quote, urlencode

from nexapod.errors import Exit, LocalError

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a daemon that answers more is not ours
CHUNK_BYTES = 256 * 1024
ANSWER_S = 30.0
ALIVE_S = 5.0
DOWNLOAD_S = 630.0  # the daemon may have to get the file from peers first; it gives up after ten minutes
NEXT = "try again, or see: nexapod daemon logs"
SAID_CHARS_MAX = 20_000  # of each sentence of a refusal; one that is longer was not written for people


class DaemonDown(LocalError):
    """Nothing answers on the socket, or it went away while it answered."""


class Refusal(LocalError):
    """The daemon said no; `faults` are the faults of a file, as it lists them."""

    def __init__(self, who: str, status: int, document: Mapping[str, Any]) -> None:
        error = part(document, "error")
        by_status = {404: Exit.NOT_FOUND, 400: Exit.USAGE, 422: Exit.USAGE, 403: Exit.REFUSED, 409: Exit.REFUSED}
        try:
            code = Exit(error.get("exit_code", by_status.get(status, Exit.FAILURE)))
        except ValueError:
            code = Exit.FAILURE
        what, why, next_step = (str(error.get(key) or "")[:SAID_CHARS_MAX] for key in ("what", "why", "next"))
        # No refusal is a success, whatever number it carries.
        super().__init__(what or f"{who} refused (HTTP {status})", why, next_step, code or Exit.FAILURE)
        self.faults = rows(error, "faults")


@dataclass(frozen=True)
class _Question:
    method: str
    path: str
    body: bytes | None
    timeout_s: float


class _Deadline(socket.socket):
    """A socket whose reads all end at one moment: bytes that drip must not hold a command for ever."""

    until = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*args, **kwargs)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost")
        self.path, self.timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = _Deadline(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout_s)
        self.renew()
        self.sock.connect(str(self.path))

    def renew(self) -> None:
        """Begin to wait anew."""
        if isinstance(self.sock, _Deadline):
            self.sock.until = time.monotonic() + self.timeout_s


class Api:
    """The local API of one node. `start` is the command a person types when it does not run, `who` what it is."""

    def __init__(self, path: Path, *, start: str = "nexapod daemon start", who: str = "the daemon") -> None:
        self.path, self.start, self.who = path, start, who

    def get(self, path: str, timeout_s: float = ANSWER_S, **query: object) -> dict[str, Any]:
        """
        Raises:
            DaemonDown: nothing answers. Refusal: the daemon said no. LocalError: no answer in time, or none that can
            be read.
        """
        given = {key: value for key, value in query.items() if value is not None}
        whole = path + (f"?{urlencode(given, errors='replace')}" if given else "")
        return self._ask(_Question("GET", whole, None, timeout_s))

    def post(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """
        Raises:
            DaemonDown: nothing answers. Refusal: the daemon said no. LocalError: no answer in time, or none that can
            be read.
        """
        return self._ask(_Question("POST", path, json.dumps(body or {}).encode(), timeout_s))

    def download(self, path: str, write: Callable[[bytes], object], timeout_s: float = DOWNLOAD_S) -> None:
        """Hand the bytes of an answer to `write` as they come; `timeout_s` is how long none may come.

        Raises:
            DaemonDown: nothing answers, or it stopped half way. Refusal: the daemon said no. LocalError: no answer in
            time.
        """

        def pour(response: HTTPResponse, connection: _UnixConnection) -> dict[str, Any]:
            while chunk := response.read1(CHUNK_BYTES):
                write(chunk)
                connection.renew()
            if response.length:
                raise IncompleteRead(b"", response.length)
            return {}

        self._ask(_Question("GET", path, None, timeout_s), pour)

    def alive(self, path: str = "/livez") -> bool:
        """Whether the daemon answers, and says yes."""
        try:
            self._ask(_Question("GET", path, None, ALIVE_S), lambda *_: {})
        except LocalError:
            return False
        return True

    def _ask(
        self, question: _Question, take: Callable[[HTTPResponse, _UnixConnection], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        connection = _UnixConnection(self.path, question.timeout_s)
        headers = {"Content-Type": "application/json"} if question.body is not None else {}
        try:
            self._connect(connection)
            connection.request(question.method, question.path, question.body, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise Refusal(self.who, response.status, _document(response) or {})
            if take is not None and response.status == 200:
                return take(response, connection)
            document = _document(response)
        except TimeoutError:
            what = f"{self.who} did not answer within {question.timeout_s:g} s"
            raise LocalError(what, question.path.partition("?")[0], NEXT) from None
        except (OSError, IncompleteRead) as error:
            why = getattr(error, "strerror", None) or "the connection ended before its end came"
            raise DaemonDown(
                f"{self.who} broke off while it answered", why, f"start it again: {self.start}", Exit.NO_DAEMON
            ) from None
        except HTTPException as error:
            self._unreadable(f"not HTTP: {type(error).__name__}")
        finally:
            connection.close()
        if document is None:
            self._unreadable(f"HTTP {response.status}, and no JSON object of at most {ANSWER_BYTES_MAX} bytes")
        return document

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
        except BlockingIOError:
            raise LocalError(f"{self.who} takes no more questions now", "too many wait", NEXT) from None
        except (OSError, ValueError) as error:  # ValueError: text that is no path
            why = f"nothing answers on {self.path} ({getattr(error, 'strerror', None) or error})"
            raise DaemonDown(f"{self.who} is not running", why, f"start it: {self.start}", Exit.NO_DAEMON) from None

    def _unreadable(self, why: str) -> Never:
        raise LocalError(f"{self.who}'s answer cannot be read", why, "are both of the same version?")


def segment(text: str) -> str:
    """One part of a path, whatever a person typed.

    Raises:
        LocalError: it is empty, and would name something else.
    """
    if not text:
        raise LocalError("a name is empty", "", "give the name of what you mean", Exit.USAGE)
    return quote(text, safe="", errors="replace")


def rows(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The rows of a list in an answer; what is no row is left out."""
    found = answer.get(key)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def part(answer: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key of an answer; empty when there is none."""
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def texts(answer: Mapping[str, Any], key: str) -> list[str]:
    """The sentences of a list in an answer."""
    found = answer.get(key)
    return [str(item) for item in found] if isinstance(found, list) else []


def _document(response: HTTPResponse) -> dict[str, Any] | None:
    """The JSON object of an answer, if it is one."""
    if (response.length or 0) > ANSWER_BYTES_MAX:
        return None
    raw = response.read(ANSWER_BYTES_MAX + 1)
    if response.length and len(raw) <= ANSWER_BYTES_MAX:
        raise IncompleteRead(b"", response.length)
    if len(raw) > ANSWER_BYTES_MAX:
        return None
    try:
        document = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and response.status // 100 in (2, 4, 5) else None


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")  # whoever reads our JSON would refuse it
