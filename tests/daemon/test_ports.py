"""A node comes back to its port, unless somebody else has it or the record is nonsense."""

import socket
from pathlib import Path

import pytest

from daemon.ports import same_ports

ANY = "/ip4/127.0.0.1/tcp/0"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_port_of_last_time_is_taken_again(tmp_path: Path) -> None:
    record, port = tmp_path / "listening", free_port()
    assert same_ports([ANY], record) == [ANY]
    record.write_text(f"/ip4/127.0.0.1/tcp/{port}\n")
    assert same_ports([ANY], record) == [f"/ip4/127.0.0.1/tcp/{port}"]
    assert same_ports([ANY, ANY], record) == [f"/ip4/127.0.0.1/tcp/{port}", ANY]


def test_a_chosen_port_and_another_address_are_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "listening"
    record.write_text(f"/ip4/127.0.0.1/tcp/{free_port()}\n")
    wanted = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.2/tcp/0"]
    assert same_ports(wanted, record) == wanted


def test_a_port_somebody_has_is_not_waited_for(tmp_path: Path) -> None:
    record = tmp_path / "listening"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        record.write_text(f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}\n")
        assert same_ports([ANY], record) == [ANY]


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"/ip4/127.0.0.1/tcp/x", b"/ip4/127.0.0.1/tcp/999999", b"///"])
def test_a_damaged_record_is_no_harm(tmp_path: Path, junk: bytes) -> None:
    record = tmp_path / "listening"
    record.write_bytes(junk)
    assert same_ports([ANY], record) == [ANY]
