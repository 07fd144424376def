"""Entries of tar archives from strangers, refused where tarfile would read without end.

Knows what tarfile does with a hostile header. Must never know what an archive is for. A layer of an image and the
outputs of a task are read through this class only.
"""

import tarfile
from typing import Any, NoReturn, Self

HEADER_BYTES_MAX = 64 * 1024  # a long name or attribute list; more would be read into memory whole
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

# Whatever tarfile raises at an archive that is not one. Its own errors are few of them: a number too large to seek to
# is an OverflowError, a chain of attribute lists a RecursionError, a number that is none a ValueError.
BROKEN = (tarfile.TarError, ValueError, EOFError, IndexError, OverflowError, RecursionError)


class BoundedEntry(tarfile.TarInfo):
    """An entry whose headers fit in memory and whose size is not negative, so that reading goes forward and ends.

    Sparse files are refused before their map is read: it is as long as its author likes. Attributes for all entries are
    skipped, as engines do, and not carried along from entry to entry.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0:
            raise tarfile.ReadError("an entry of negative size")
        if entry.type in _EXTENDED and entry.size > HEADER_BYTES_MAX:
            raise tarfile.ReadError("an entry with a name or attributes beyond reason")
        if entry.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        if entry.type == tarfile.XGLTYPE:
            entry.type = b"?"  # unknown kinds are passed over with their content
        return entry

    @staticmethod
    def _proc_gnusparse_10(*_: Any) -> NoReturn:
        raise tarfile.ReadError("a sparse file")
