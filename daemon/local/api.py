"""The local API as an ASGI application: which path asks what, and what a refusal looks like.

Knows HTTP and docs/api.md. Must never decide anything: documents come from the files beside this one, wishes go to
the parts of the node. Whoever can open the socket is the node's owner; server.py sees to that.
"""

import functools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bootstrap.bootstrap_file import parse_bootstrap
from bootstrap.setup import address_of
from daemon.core.step import Cancelled
from daemon.local import job_documents, ledger_documents, node_documents
from daemon.local.desk import Desk
from daemon.parts import Parts
from daemon.transfer import DISK_THREADS
from nexapod.errors import Exit, LocalError, Unavailable
from nexapod.events import Event
from nexapod.job import parse
from nexapod.job_faults import DescriptorFaults
from nexapod.limits import NAME_CHARS_MAX
from nexapod.messages import Refused
from nexapod.units import AMOUNT_MAX

BODY_BYTES_MAX = 4 * 1024 * 1024  # a descriptor with its longest texts, several times over
DRAINED_BYTES_MAX = 16 * BODY_BYTES_MAX  # what is too long is read so far, for the sake of the answer, and thrown away
WAIT_S_MAX = 25.0  # a long poll; clients wait 30 s for an answer
CONNECT_S = 20.0
HOSTS = ("localhost", "127.0.0.1")  # what our clients call it; the name in a request to a socket means nothing else
FETCH_S = 600.0  # getting one output file from a peer
CHUNK_BYTES = 256 * 1024
LOG_LIMIT = 100
_STATUS = {Exit.USAGE: 400, Exit.NOT_FOUND: 404, Exit.REFUSED: 409}

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
log = logging.getLogger("nexapod.api")


def make_api(desk: Desk) -> Starlette:
    """The application that shows and steers the node behind `desk`."""
    api = _Api(desk)
    routes = [Route(path, _guarded(handler), methods=[method]) for method, path, handler in api.routes()]
    application = Starlette(routes=routes, exception_handlers={404: _no_such_path, 405: _no_such_path})
    application.router.redirect_slashes = False  # every refusal has the one shape
    return application


class _Api:
    """Handlers by path."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path and handler of everything that can be asked."""
        return [
            ("GET", "/livez", self.livez),
            ("GET", "/readyz", self.readyz),
            ("GET", "/status", self.status),
            ("POST", "/register", self.register),
            ("POST", "/submit-job", self.submit),
            ("GET", "/v1/jobs", self.jobs),
            ("GET", "/v1/jobs/{job}", self.job),
            ("GET", "/v1/jobs/{job}/executions", self.job_executions),
            ("GET", "/v1/jobs/{job}/events", self.job_events),
            ("GET", "/v1/jobs/{job}/explain", self.job_explain),
            ("GET", "/v1/jobs/{job}/results", self.job_results),
            ("GET", "/v1/jobs/{job}/results/{task:int}/{path:path}", self.job_result_file),
            ("GET", "/v1/jobs/{job}/logs", self.job_logs),
            ("POST", "/v1/jobs/{job}/cancel", self.job_cancel),
            ("GET", "/v1/peers", self.peers),
            ("GET", "/v1/nodes", self.nodes),
            ("GET", "/v1/node/why", self.node_why),
            ("GET", "/v1/node/executions", self.node_executions),
            ("POST", "/v1/node/pause", self.node_pause),
            ("POST", "/v1/node/resume", self.node_resume),
            ("POST", "/v1/node/reload", self.node_reload),
            ("POST", "/v1/swarm/connect", self.swarm_connect),
            ("GET", "/v1/ledger", self.ledger),
            ("GET", "/v1/ledger/log", self.ledger_log),
            ("GET", "/v1/ledger/events/{id}", self.ledger_event),
            ("GET", "/v1/ledger/balances", self.ledger_balances),
            ("GET", "/v1/ledger/verify", self.ledger_verify),
            ("GET", "/v1/ledger/forks", self.ledger_forks),
        ]

    # --- the node --------------------------------------------------------------------------------------------------
    async def livez(self, request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(self, request: Request) -> Response:
        ready = self._desk.parts is not None
        return JSONResponse({"ok": ready}, 200 if ready else 503)

    async def status(self, request: Request) -> Response:
        return JSONResponse(self._desk.status())

    async def register(self, request: Request) -> Response:
        body = await _body(request, {"bootstrap", "new_network"})
        if ("bootstrap" in body) == ("new_network" in body):
            _refuse("give bootstrap (the document of a bootstrap file) or new_network (a name), one of them")
        if "bootstrap" in body:
            node = await self._desk.join(parse_bootstrap(body["bootstrap"]))
        else:
            node = await self._desk.found(_text(body, "new_network"))
        answer = {"feed": node.feed.hex(), "peer": node.peer, "netid": node.netid.hex()}
        return JSONResponse(answer | {"network": node.manifest.name if node.manifest else ""})

    async def peers(self, request: Request) -> Response:
        return JSONResponse(node_documents.peers(self._parts()))

    async def nodes(self, request: Request) -> Response:
        return JSONResponse(node_documents.nodes(self._parts()))

    async def node_why(self, request: Request) -> Response:
        return JSONResponse(node_documents.why_not(self._parts()))

    async def node_executions(self, request: Request) -> Response:
        return JSONResponse(node_documents.executions(self._parts()))

    async def node_pause(self, request: Request) -> Response:
        self._parts()
        body = await _body(request, {"for_s"})
        for_s = body.get("for_s")
        if for_s is not None and (not isinstance(for_s, int) or isinstance(for_s, bool) or not 0 < for_s < AMOUNT_MAX):
            _refuse("for_s must be a number of seconds, or null for no end")
        await self._desk.pause(for_s)
        return JSONResponse({})

    async def node_resume(self, request: Request) -> Response:
        self._parts()
        await self._desk.resume()
        return JSONResponse({})

    async def node_reload(self, request: Request) -> Response:
        return JSONResponse(await self._desk.reload())

    async def swarm_connect(self, request: Request) -> Response:
        parts = self._parts()
        address = address_of(_text(await _body(request, {"address"}), "address"))
        if address.key == parts.node.key.public:
            _refuse("that is the address of this node itself")
        parts.neighbours.pin((address,))
        with trio.move_on_after(CONNECT_S):
            await parts.mesh.connect(address.key, [str(address)])
            return JSONResponse({})
        raise Unavailable(f"{address} does not answer")

    # --- jobs ------------------------------------------------------------------------------------------------------
    async def submit(self, request: Request) -> Response:
        parts = self._parts()
        body = await _body(request, {"descriptor", "base", "dry_run"})
        descriptor, dry_run = parse(body.get("descriptor")), body.get("dry_run") is True
        base = Path(_text(body, "base"))
        if not base.is_absolute():
            _refuse("base must be an absolute path: the folder the descriptor's inputs lie in")
        receipt = await parts.publisher.publish(descriptor, base, parts.node.key.public, dry_run=dry_run)
        answer = {
            "job_id": receipt.resolved.job_id,
            "tasks": receipt.resolved.tasks,
            "replicas": receipt.resolved.replicas,
            "price_micro": receipt.price,
            "lock_micro": receipt.lock,
        }
        if receipt.offer is None:
            unmet = [{"code": reason.code, "detail": reason.detail} for reason in receipt.unmet]
            return JSONResponse(answer | {"unmet": unmet})
        return JSONResponse({"job": receipt.offer.hex()} | answer | {"holders": receipt.holders}, 201)

    async def jobs(self, request: Request) -> Response:
        parts = self._parts()
        return JSONResponse(await job_documents.job_list(parts))

    async def job(self, request: Request) -> Response:
        parts, job = self._job(request)
        return JSONResponse(await job_documents.job_document(parts, job))

    async def job_executions(self, request: Request) -> Response:
        parts, job = self._job(request)
        return JSONResponse(await job_documents.executions(parts, job))

    async def job_events(self, request: Request) -> Response:
        """Lines from `after` on; waits for one when there is none yet."""
        parts, job = self._job(request)
        after, wait_s = _number(request, "after", 0), _number(request, "wait_s", 0)
        with trio.move_on_after(min(wait_s, WAIT_S_MAX)):
            while True:
                told, grown = parts.loop.told(), parts.loop.grown()
                answer = await job_documents.story(parts, job, after)
                if answer["events"] or answer["over"]:
                    return JSONResponse(answer)
                await (told if job.own is not None else grown).wait()
                job = job_documents.find_job(parts, job.id.hex())
        return JSONResponse(await job_documents.story(parts, job, after))

    async def job_explain(self, request: Request) -> Response:
        parts, job = self._job(request)
        return JSONResponse(await job_documents.explain(parts, job))

    async def job_results(self, request: Request) -> Response:
        parts, job = self._job(request)
        with trio.move_on_after(WAIT_S_MAX):
            return JSONResponse(await job_documents.results(parts, job))
        raise Unavailable("fetching the list of results took too long")

    async def job_result_file(self, request: Request) -> Response:
        parts, job = self._job(request)
        task, path = request.path_params["task"], request.path_params["path"]
        with trio.move_on_after(FETCH_S):
            sha256, size = await job_documents.result_file(parts, job, task, path)
            return StreamingResponse(
                _content(parts, sha256, size),
                media_type="application/octet-stream",
                headers={"Content-Length": str(size), "X-Content-SHA256": sha256.hex()},
            )
        raise Unavailable("fetching the file took too long")

    async def job_logs(self, request: Request) -> Response:
        parts, job = self._job(request)
        task = _number(request, "task", 0) if "task" in request.query_params else None
        return JSONResponse(job_documents.logs(parts, job, task))

    async def job_cancel(self, request: Request) -> Response:
        parts, job = self._job(request)
        reply = await parts.loop.reply_to(Cancelled(job.id))
        if isinstance(reply, Refused):
            what = f"job {job.offer.job_id} cannot be cancelled"
            raise LocalError(what, reply.detail, "only its publisher can, while it is open", Exit.REFUSED)
        return JSONResponse({})

    # --- the ledger ------------------------------------------------------------------------------------------------
    async def ledger(self, request: Request) -> Response:
        return JSONResponse(ledger_documents.summary(self._parts().ledger.replica))

    async def ledger_log(self, request: Request) -> Response:
        parts, query = self._parts(), request.query_params
        kind = ledger_documents.wanted_kind(query.get("kind"))
        limit = min(_number(request, "limit", LOG_LIMIT), ledger_documents.EVENTS_READ_MAX)
        read = ledger_documents.to_read(kind, limit)
        events: list[Event]
        if "job" in query:
            events = await parts.ledger.of_offer(job_documents.find_job(parts, query["job"]).id)
        elif "feed" in query:
            feed = self._feed(query["feed"])
            events = await parts.ledger.log(feed, _number(request, "after", -1, least=-1), read)
        else:
            events = ledger_documents.chosen(await parts.ledger.newest(read), kind)[:limit][::-1]
        rows = [
            ledger_documents.event_row(event, parts.ledger.replica, parts.name_of)
            for event in ledger_documents.chosen(events, kind)[:limit]
        ]
        return JSONResponse({"events": rows})

    async def ledger_event(self, request: Request) -> Response:
        parts, prefix = self._parts(), request.path_params["id"].lower()
        found = await parts.ledger.find_ids(prefix, 2) if len(prefix) >= job_documents.REFERENCE_DIGITS_MIN else []
        if len(found) != 1:
            why = "several begin like this" if found else "no event begins like this"
            raise LocalError(f"cannot tell which event {prefix} is", why, "give more of the id", Exit.NOT_FOUND)
        event = await parts.ledger.event(found[0])
        assert event is not None, "an id that was just found has an event"
        return JSONResponse(ledger_documents.event_document(event, parts.ledger.replica, parts.name_of))

    async def ledger_balances(self, request: Request) -> Response:
        parts, account = self._parts(), request.query_params.get("account")
        feed = self._feed(account) if account else None
        return JSONResponse(ledger_documents.balances(parts.ledger.replica, feed, parts.name_of))

    async def ledger_verify(self, request: Request) -> Response:
        return JSONResponse(ledger_documents.audit_document(await self._parts().ledger.audit()))

    async def ledger_forks(self, request: Request) -> Response:
        parts = self._parts()
        return JSONResponse(ledger_documents.forks(parts.ledger.replica, parts.name_of))

    # --- who and what is meant -------------------------------------------------------------------------------------
    def _parts(self) -> Parts:
        if self._desk.parts is None:
            raise LocalError("this node belongs to no network yet", "", self._desk.how_to_join, Exit.REFUSED)
        return self._desk.parts

    def _job(self, request: Request) -> tuple[Parts, job_documents.Known]:
        parts = self._parts()
        return parts, job_documents.find_job(parts, request.path_params["job"])

    def _feed(self, reference: str) -> bytes:
        parts = self._parts()
        return ledger_documents.find_feed(reference, parts.ledger.replica, parts.name_of)


# --- requests and refusals --------------------------------------------------------------------------------------------
def _guarded(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def guarded(request: Request) -> Response:
        try:
            _check_sender(request)
            # An answer to half a question breaks the pipe of a client that is still asking.
            request.state.body = await _read_body(request) if request.method == "POST" else b""
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it
        except LocalError as error:
            return _refusal(error, _STATUS.get(error.exit_code, 500))
        except Unavailable as error:
            return _refusal(LocalError(str(error), "", "try again later"), 503)
        except Exception:  # a bug costs one answer, never the node
            log.exception("%s %s failed", request.method, request.url.path)
            return _refusal(LocalError("the daemon made a mistake", "", "see: nexapod daemon logs"), 500)

    return guarded


def _check_sender(request: Request) -> None:
    """Refuse what a web page had a browser send: it names its origin, or a host that was made to lead here."""
    host = request.headers.get("host", "").partition(":")[0]
    if "origin" in request.headers or host not in HOSTS:
        what = "web pages may not ask this daemon"
        raise LocalError(what, "the request names an origin or another host", "use the nexapod command", Exit.REFUSED)


def _refusal(error: LocalError, status: int) -> JSONResponse:
    faults = error.faults if isinstance(error, DescriptorFaults) else ()
    document = {
        "what": error.what,
        "why": "" if faults else error.why,
        "next": error.next_step,
        "exit_code": int(error.exit_code),
        "faults": [{key: getattr(fault, key) for key in fault.__struct_fields__} for fault in faults],
    }
    return JSONResponse({"error": document}, status)


async def _no_such_path(request: Request, error: Exception) -> Response:
    what = f"there is no {request.method} {request.url.path[:NAME_CHARS_MAX]}"
    return _refusal(LocalError(what, "", "see docs/api.md", Exit.NOT_FOUND), getattr(error, "status_code", 404))


def _refuse(why: str) -> NoReturn:
    raise LocalError("the request cannot be understood", why, "see docs/api.md", Exit.USAGE)


async def _read_body(request: Request) -> bytes | None:
    """The whole body, read to its end; None when it is too long."""
    raw, size = bytearray(), 0
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size <= BODY_BYTES_MAX:
                raw += chunk
            elif size > DRAINED_BYTES_MAX:
                break
    return bytes(raw) if size <= BODY_BYTES_MAX else None


async def _body(request: Request, keys: set[str]) -> dict[str, Any]:
    raw: bytes | None = request.state.body
    if raw is None:
        _refuse(f"the body has more than {BODY_BYTES_MAX} bytes")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        _refuse(f"the body is not JSON: {str(error)[:100]}")
    if not isinstance(body, dict) or not body.keys() <= keys:
        _refuse(f"the body must be a table with the keys {', '.join(sorted(keys))}")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        _refuse(f"{key} must be text")
    return value


def _number(request: Request, key: str, default: int, least: int = 0) -> int:
    text = request.query_params.get(key)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15 or int(text) < least:
        _refuse(f"{key} must be a whole number, at least {least}")
    return int(text)


async def _content(parts: Parts, sha256: bytes, size: int) -> AsyncIterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        yield await trio.to_thread.run_sync(
            parts.transfer.blobs.read, sha256, offset, CHUNK_BYTES, limiter=DISK_THREADS
        )
