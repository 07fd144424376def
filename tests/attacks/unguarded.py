"""Takes one defence away, for tests that must fail without it.

As a pytest plugin (`-p tests.attacks.unguarded`) it does so in the process of the tests, as a program it is a daemon
without that defence. NEXAPOD_TEST_WITHOUT names it; nothing but this file reads that variable.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from libp2p.stream_muxer.yamux.yamux import Yamux

from daemon import blame, connections, guards, host, streams
from gossip import pubsub

VARIABLE = "NEXAPOD_TEST_WITHOUT"
GUARDS, HOST = "tests/daemon/test_guards.py", "tests/daemon/test_host.py"
CONNECTIONS, GOSSIP = "tests/daemon/test_connections.py", "tests/gossip/test_gossip_service.py"
FLOODS = "tests/attacks/test_floods.py"


class Defence(NamedTuple):
    """How it is taken away, and the test that fails then."""

    test: str
    take_away: Callable[[], None]


def without(owner: Any, name: str, instead: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, instead)


def nothing(*args: Any, **kwargs: Any) -> None: ...


async def nothing_async(*args: Any, **kwargs: Any) -> None: ...


def always(*args: Any, **kwargs: Any) -> bool:
    return True


def never(*args: Any, **kwargs: Any) -> bool:
    return False


def guard(name: str, test: str, file: str = GUARDS) -> tuple[str, Defence]:
    """A function of daemon/guards.py that `install` calls."""
    return f"guards.{name}", Defence(f"{file}::{test}", without(guards, name, nothing))


def _unchosen_security() -> None:
    make = host.new_host
    host.new_host = lambda **options: make(**{name: value for name, value in options.items() if name != "sec_opt"})


def _library_dials() -> None:
    async def dial(self: Any, addr: Any, peer_id: Any, source: Any = None) -> Any:
        self.peerstore.add_addrs(peer_id, [addr], 60)
        return await self.dial_peer(peer_id)

    guards.swarm.Swarm.dial_addr = dial


def _impatient_streams() -> None:
    streams.REQUEST_READ_S = 3600.0
    streams._arriving = streams.translated


def _unclosed(self: Any, peer: bytes) -> Any:
    return nullcontext(True)


def _end_of_yamux() -> None:
    guards._GuardedYamux.start = Yamux.start


def _plain_buffers() -> None:
    guards._StreamBuffer.extend = bytearray.extend  # type: ignore[method-assign]


def _untied_buffers() -> None:
    guards._StreamBuffers.__setitem__ = dict.__setitem__  # type: ignore[method-assign,assignment]


DEFENCES: dict[str, Defence] = dict(
    [
        guard("check_library", "test_another_library_version_is_refused"),
        guard("_quieten", "test_strangers_who_hang_up_leave_no_line_in_the_log"),
        guard("_keep_receipts_few", "test_reading_byte_by_byte_sends_no_receipt_for_each"),
        guard("_bound_negotiation", "test_a_giant_frame_is_refused_by_its_length_before_it_comes"),
        guard("_bound_windows", "test_more_data_than_the_window_allows"),
        guard("_bound_inbound", "test_more_connections_in_a_lifetime_than_the_library_allows"),
        guard("_dial_nobody", "test_nobody_is_dialled_behind_our_back"),
        guard("_pace_streams", "test_streams_beyond_the_pace_of_a_connection_wait"),
        guard("_contain_streams", "test_a_handler_that_raises"),
        guard("_contain_connections", "test_a_connection_that_fails_ends_alone"),
        guard("_contain_pubsub", "test_a_validator_that_raises"),
        guard("_widen_queues", "test_a_burst_that_nobody_batches_arrives_as_well", GOSSIP),
        guard("_lighten_pubsub", "test_the_own_record_is_signed_once_and_not_for_every_message"),
        guard("_bound_dht", "test_the_dht_is_bounded"),
        guard("_share_dht", "test_idle_streams_do_not_take_the_dht_from_others"),
        guard("_know_one_kind_of_key", "test_a_peer_with_another_kind_of_key_is_refused_in_the_handshake"),
        guard("choose", "test_a_peer_that_was_sent_away_is_not_taken_back_nor_dialled"),
    ]
) | {
    "guards._GuardedYamux._write_frame": Defence(
        f"{GUARDS}::test_a_peer_that_stops_reading_ends_its_own_connection_only",
        without(guards._GuardedYamux, "_write_frame", Yamux._write_frame),
    ),
    "guards._GuardedYamux.open_stream": Defence(
        f"{GUARDS}::test_a_stream_whose_opening_has_begun_is_not_lost",
        without(guards._GuardedYamux, "open_stream", Yamux.open_stream),
    ),
    "guards._GuardedYamux.start": Defence(f"{GUARDS}::test_a_muxer_that_fails_ends_alone", _end_of_yamux),
    "guards._StreamBuffer.extend": Defence(f"{GUARDS}::test_more_data_than_the_window_allows", _plain_buffers),
    "guards._StreamBuffers.held": Defence(
        f"{GUARDS}::test_many_streams_nobody_reads_are_bounded_together",
        without(guards._StreamBuffers, "held", lambda self: 0),
    ),
    "guards._StreamBuffers.__setitem__": Defence(
        f"{GUARDS}::test_more_data_than_the_window_allows", _untied_buffers
    ),
    "guards._Gate.admits": Defence(
        f"{GUARDS}::test_one_address_cannot_take_every_handshake", without(guards._Gate, "admits", always)
    ),
    "guards._Gate._in_time": Defence(
        f"{GUARDS}::test_an_address_that_comes_too_fast_waits", without(guards._Gate, "_in_time", always)
    ),
    "host._make_host: Noise alone": Defence(
        f"{GUARDS}::test_a_peer_without_proof_of_its_key_is_refused", _unchosen_security
    ),
    "host.Mesh._dial: no negative cache": Defence(
        f"{HOST}::test_a_dial_that_failed_does_not_stand_in_the_way_of_the_next", _library_dials
    ),
    "host.Mesh._turns_away": Defence(
        f"{GUARDS}::test_one_key_cannot_take_every_connection", without(host.Mesh, "_turns_away", never)
    ),
    "host.Mesh._breached": Defence(
        f"{HOST}::test_breaches_on_streams_are_told_once", without(host.Mesh, "_breached", nothing_async)
    ),
    "host._lengthen_backlogs": Defence(
        f"{GUARDS}::test_a_burst_of_connections_waits_in_the_kernel", without(host, "_lengthen_backlogs", nothing)
    ),
    "host._refuse_taken": Defence(
        f"{HOST}::test_a_port_shared_by_another_process_is_refused_as_well", without(host, "_refuse_taken", nothing)
    ),
    "streams.parse_length": Defence(
        f"{HOST}::test_breaches_on_streams_are_told_once",
        without(streams, "parse_length", lambda header, *, bytes_max: int.from_bytes(header, "big")),
    ),
    "streams._arriving": Defence(f"{HOST}::test_breaches_on_streams_are_told_once", _impatient_streams),
    "streams.Slots.slot": Defence(
        f"{HOST}::test_without_a_service_and_beyond_the_limit_the_answer_is_busy",
        without(streams.Slots, "slot", _unclosed),
    ),
    "streams._within": Defence(
        f"{HOST}::test_a_holder_that_falls_silent_is_disconnected",
        without(streams, "_within", lambda seconds, step: step),
    ),
    "connections.Connections._ping": Defence(
        f"{CONNECTIONS}::test_a_peer_that_answers_no_pings_is_hung_up_on",
        without(connections, "MISSES_MAX", 10**9),
    ),
    "connections.Connections.refuses": Defence(
        f"{CONNECTIONS}::test_whoever_was_sent_away_is_neither_dialled_nor_taken_back",
        without(connections.Connections, "refuses", never),
    ),
    "blame.Blame.add": Defence(
        f"{FLOODS}::test_five_hundred_invalid_requests_a_second", without(blame.Blame, "add", never)
    ),
    "gossip.Line._on_worthless": Defence(
        f"{FLOODS}::test_five_hundred_invalid_gossip_messages_a_second[no batches]",
        without(pubsub.Line, "_on_worthless", nothing),
    ),
}  # fmt: skip

if name := os.environ.get(VARIABLE):
    DEFENCES[name].take_away()

if __name__ == "__main__":
    from daemon.main import main

    main()
