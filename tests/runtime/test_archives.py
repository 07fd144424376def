"""Headers that tarfile would follow for ever, or into more memory than there is."""

import io
import tarfile

import pytest

from runtime.archives import BROKEN, HEADER_BYTES_MAX, BoundedEntry

SPARSE_1_0 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "9"}


def header(kind: bytes, size: int, **attributes: str) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size, entry.pax_headers = kind, size, attributes
    return entry.tobuf(tarfile.GNU_FORMAT if size < 0 else tarfile.PAX_FORMAT)


def entries(raw: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:", tarinfo=BoundedEntry) as archive:
        return list(archive)


HOSTILE = {
    "a file of negative size": header(tarfile.REGTYPE, -512),
    "attributes of negative size": header(tarfile.XHDTYPE, -512),
    "attributes beyond reason": header(tarfile.XHDTYPE, HEADER_BYTES_MAX + 1) + bytes(1 << 20),
    "a name beyond reason": header(tarfile.GNUTYPE_LONGNAME, HEADER_BYTES_MAX + 1) + bytes(1 << 20),
    "an old sparse file": header(tarfile.GNUTYPE_SPARSE, 512) + bytes(512),
    "a sparse file of version 1.0": header(tarfile.REGTYPE, 512, **SPARSE_1_0) + b"1\n0\n9\n".ljust(512, b"\0"),
    "a chain of attributes": header(tarfile.XHDTYPE, 0) * 5000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_be_read_without_end_is_refused(kind: str) -> None:
    with pytest.raises(BROKEN):
        entries(HOSTILE[kind] + header(tarfile.REGTYPE, 0) + bytes(1024))


def test_attributes_for_all_entries_are_passed_over() -> None:
    everywhere = b"20 comment=whatever\n".ljust(512, b"\0")
    found = entries(header(tarfile.XGLTYPE, 20) + everywhere + header(tarfile.REGTYPE, 0) + bytes(1024))
    assert [entry.pax_headers for entry in found] == [{}, {}]
    assert not any(entry.issparse() or (entry.isreg() and entry.size) for entry in found)
