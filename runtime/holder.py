"""A program that does nothing, and the smallest image around it.

Knows how such a program is spelled for the processors we meet. Must never know an engine.

Outputs live in a volume of memory with a quota, and an engine forgets such a volume when the last container with it
ends. So a second container holds it until the outputs are collected. That one never runs anything of a job's: its
image is this file.
"""

import hashlib
import io
import struct
import tarfile

REPOSITORY, TAG = "nexapod-holder", "1"
PROGRAM = "/hold"

_BASE = 0x400000
_HEADERS = 64 + 56  # one ELF header, one program header

# (ELF machine, code): wait for a signal, for ever.
_CODE = {
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7")),  # mov eax, pause; syscall; jmp back
    # mov x8, ppoll; x0..x4 = 0; svc 0; b back
    "arm64": (183, bytes.fromhex("280980d2 000080d2 010080d2 020080d2 030080d2 040080d2 010000d4 f9ffff17")),
}


def architectures() -> tuple[str, ...]:
    """The architectures, as engines call them, that there is a holder for."""
    return tuple(_CODE)


def program(architecture: str) -> bytes:
    """A static ELF executable without a stack, data or libraries. Raises: KeyError for an unknown architecture."""
    machine, code = _CODE[architecture]
    size = _HEADERS + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return head + segment + code


def layer(architecture: str) -> bytes:
    """The one layer of the holder's image, the same bytes every time."""
    content = program(architecture)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(PROGRAM.removeprefix("/"))
        entry.size, entry.mode = len(content), 0o555
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def layer_id(architecture: str) -> str:
    """What an image must consist of to be ours, whoever tagged it."""
    return "sha256:" + hashlib.sha256(layer(architecture)).hexdigest()
