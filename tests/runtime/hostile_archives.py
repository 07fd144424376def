"""Archives no honest engine makes, by name: made byte by byte, since tarfile would not write most of them.

`REFUSED` must leave nothing, `KEPT` come with what may be taken out of them: by path, the content.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator

BLOCK = 512
END = bytes(2 * BLOCK)
Field = bytes | int

_FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
    "kind": (156, 1), "link": (157, 100), "magic": (257, 8), "major": (329, 8), "minor": (337, 8), "prefix": (345, 155),
}  # fmt: skip


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int = 12) -> bytes:
    """A number as GNU tar writes what octal digits cannot say."""
    return (bytes([0xFF]) if value < 0 else bytes([0x80])) + value.to_bytes(width - 1, "big", signed=value < 0)


def header(name: bytes, *, checksum: int | None = None, **fields: Field) -> bytes:
    """One header block; numbers become octal, bytes stand as they are."""
    block = bytearray(BLOCK)
    given = {"name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": 0, "mtime": 0, "kind": b"0"}
    for field, value in (given | {"magic": b"ustar\x0000"} | fields).items():
        at, width = _FIELDS[field]
        raw = octal(value, width) if isinstance(value, int) else value
        assert len(raw) <= width, field
        block[at : at + len(raw)] = raw
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) if checksum is None else checksum)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"1", **fields: Field) -> bytes:
    return header(name, **({"size": len(content)} | fields)) + padded(content)


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    return header(name, kind=kind, link=target)


def record(key: bytes, value: bytes) -> bytes:
    """One line of attributes, which begins with its own length."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode() + rest


def attributes(*pairs: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    lines = b"".join(record(key, value) for key, value in pairs)
    return file(b"attributes", lines, kind=kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return file(b"././@LongLink", name + b"\0", kind=kind)


def old_sparse(name: bytes, real_size: int, *extents: tuple[int, int]) -> bytes:
    """The sparse file of old GNU tar: the map in the header itself."""
    block = bytearray(header(name, kind=b"S", size=BLOCK, magic=b"ustar  \0"))
    for number, (at, size) in enumerate(extents[:4]):
        block[386 + 24 * number : 386 + 24 * number + 24] = octal(at, 12) + octal(size, 12)
    block[483:495] = octal(real_size, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block[:BLOCK]) + bytes(BLOCK)


HONEST = file(b"out/a", b"one") + file(b"out/sub/b", b"two") + END
FOLDER = header(b"out/", kind=b"5")

REFUSED = {
    "absolute path": file(b"/etc/cron.d/x") + END,
    "absolute path below the prefix": file(b"/out/x") + END,
    "two slashes": file(b"out//x") + END,
    "climbing": file(b"out/../../../../tmp/x") + END,
    "climbing to itself": file(b"out/sub/../x") + END,
    "climbing folder": header(b"out/..", kind=b"5") + END,
    "dots in front": file(b"../out/x") + END,
    "a dot within": file(b"out/./x") + END,
    "prefix field climbs": file(b"x", prefix=b"out/../..") + END,
    "another root": file(b"output/x") + END,
    "the prefix in capitals": file(b"OUT/x") + END,
    "a windows path": file(b"out/..\\..\\x") + END,
    "a windows drive": file(b"C:/out/x") + END,
    "symlink": link(b"out/x", b"/etc/passwd") + END,
    "symlink, then a file of its name": link(b"out/x", b"/etc/passwd") + file(b"out/x", b"root::0:0") + END,
    "symlink to a folder, then a file through it": link(b"out/d", b"/etc") + file(b"out/d/passwd", b"root::0:0") + END,
    "file through a symlink that comes later": file(b"out/d/passwd", b"root::0:0") + link(b"out/d", b"/etc") + END,
    "the folder itself is a symlink": link(b"out", b"/etc") + link(b"out/x", b"y") + file(b"out/passwd") + END,
    "hard link to a file of the host": link(b"out/x", b"/etc/passwd", b"1") + END,
    "hard link with content": header(b"out/x", kind=b"1", link=b"/etc/passwd", size=3) + padded(b"abc") + END,
    "hard link to a kept file": file(b"out/a") + link(b"out/b", b"out/a", b"1") + END,
    "character device": header(b"out/x", kind=b"3", major=1, minor=5) + END,
    "block device": header(b"out/x", kind=b"4", major=8, minor=0) + END,
    "pipe": header(b"out/x", kind=b"6") + END,
    "contiguous file": file(b"out/x", kind=b"7") + END,
    "kind of the future": file(b"out/x", kind=b"Q") + END,
    "solaris access list": file(b"out/x", kind=b"A") + END,
    "volume label": file(b"out/x", kind=b"V") + END,
    "multi-volume rest": file(b"out/x", kind=b"M") + END,
    "old sparse file of a terabyte": old_sparse(b"out/x", (1 << 33) - 1, (0, 1)) + END,
    "sparse 0.0": attributes((b"GNU.sparse.size", b"900000000000"), (b"GNU.sparse.numblocks", b"1"),
                             (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"1")) + file(b"out/x") + END,
    "sparse 0.1": attributes((b"GNU.sparse.size", b"900000000000"), (b"GNU.sparse.map", b"0,1")) + file(b"out/x") + END,
    "sparse 1.0": attributes((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"out/y"),
                             (b"GNU.sparse.realsize", b"900000000000")) + file(b"out/x", b"1\n0\n1\n") + END,
    "sparse map without end": attributes((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
    + file(b"out/x", b"9999999999\n" + b"0\n" * 200_000) + END,
    "huge size, octal": header(b"out/x", size=(1 << 33) - 1) + END,
    "huge size, base 256": header(b"out/x", size=base256(1 << 80)) + END,
    "huge size of a folder": header(b"out/d", kind=b"5", size=(1 << 33) - 1) + file(b"out/a") + END,
    "huge size of an unselected file": header(b"out/.progress", size=(1 << 33) - 1) + END,
    "huge size by attributes": attributes((b"size", b"9" * 30)) + file(b"out/x") + END,
    "negative size, base 256": header(b"out/x", size=base256(-BLOCK)) + END,
    "negative size by attributes": attributes((b"size", b"-512")) + file(b"out/x") + END,
    "size that is no number": attributes((b"size", b"1e3")) + file(b"out/x") + END,
    "size of other letters": header(b"out/x", size=b"00000000z17\0") + END,
    "larger by attributes than it is": attributes((b"size", b"4000")) + file(b"out/x") + END,
    "smaller by attributes than it is": attributes((b"size", b"1")) + file(b"out/x", b"1" * 600) + END,
    "path by attributes climbs": attributes((b"path", b"out/../../etc/passwd")) + file(b"out/x") + END,
    "path by attributes is absolute": attributes((b"path", b"/etc/passwd")) + file(b"out/x") + END,
    "path by attributes holds a zero": attributes((b"path", b"out/x\0.png")) + file(b"out/x") + END,
    "path by attributes is not UTF-8": attributes((b"path", b"out/\xff\xfe")) + file(b"out/x") + END,
    "path by attributes twice": attributes((b"path", b"out/x"), (b"path", b"out/../x")) + file(b"y") + END,
    "attributes with a wrong length": file(b"attributes", b"9999 path=out/x\n", kind=b"x") + file(b"out/x") + END,
    "attributes of length zero": file(b"attributes", b"0 path=out/x\n", kind=b"x") + file(b"out/x") + END,
    "attributes of no entry": attributes((b"path", b"out/x")) + END,
    "attributes of attributes": attributes((b"path", b"out/x")) * 3_000 + file(b"out/x") + END,
    "attributes larger than memory": header(b"attributes", kind=b"x", size=(1 << 33) - 1) + bytes(100 * BLOCK),
    "attributes for all": attributes((b"path", b"/etc/passwd"), kind=b"g") + file(b"out/x") + END,
    "long name climbs": long_name(b"out/" + b"../" * 40 + b"etc/passwd") + file(b"x") + END,
    "long name holds a zero": long_name(b"/etc/passwd\0out/x") + file(b"out/x") + END,
    "long name of a megabyte": long_name(b"out/" + b"x" * (1 << 20)) + file(b"x") + END,
    "long name of no entry": long_name(b"out/x") + END,
    "long link": long_name(b"/etc/" + b"x" * 200, b"K") + link(b"out/x", b"y") + END,
    "long part": file(b"x", prefix=b"out") + attributes((b"path", b"out/" + b"x" * 256)) + file(b"x") + END,
    "name of too many bytes": attributes((b"path", b"out/" + b"/".join([b"x" * 200] * 6))) + file(b"x") + END,
    "300 folders deep": attributes((b"path", b"out/" + b"d/" * 300 + b"x")) + file(b"x") + END,
    "empty name": file(b"") + file(b"out/") + file(b"out/\x01") + END,
    "a newline in a name": file(b"out/a\nb") + END,
    "a terminal's command in a name": file(b"out/\x1b]0;x\x07") + END,
    "a delete in a name": file(b"out/a\x7f") + END,
    "not UTF-8": file(b"out/\xff") + END,
    "over-long UTF-8 of a slash": file(b"out/..\xc0\xaf..\xc0\xafx") + END,
    "surrogate in UTF-8": file(b"out/\xed\xa0\x80") + END,
    "decomposed": file("out/e\u0301".encode()) + END,
    "composed and decomposed": file("out/\u00e9".encode()) + file("out/e\u0301".encode()) + END,
    "right to left": file("out/\u202etxt.exe".encode()) + END,
    "there twice": file(b"out/x", b"1") + file(b"out/x", b"2") + END,
    "there twice in two spellings": file(b"out/x", b"1") + file(b"./out/x", b"2") + END,
    "there twice, once as a folder": header(b"out/x/", kind=b"5") + file(b"out/x", b"2") + END,
    "a file where a folder is": file(b"out/x") + file(b"out/x/y") + END,
    "a folder without a type, with content": file(b"out/x/", b"abc", kind=b"\0") + file(b"out/x/y\n") + END,
    "wrong checksum": header(b"out/x", checksum=1) + END,
    "wrong checksum later": file(b"out/a") + header(b"out/x", checksum=1) + END,
    "100,000 tiny files": b"".join(file(b"out/%d" % number) for number in range(100_000)) + END,
    "100,000 folders": b"".join(header(b"out/%d/" % number, kind=b"5") for number in range(100_000)) + END,
    "100,000 times the folder itself": FOLDER * 100_000 + END,
    "more than the quota": file(b"out/a", bytes(6000)) + file(b"out/b", bytes(6000)) + END,
    "more than the quota, unselected": file(b"out/.progress", bytes(20_000)) + END,
    "compressed with gzip": gzip.compress(HONEST, mtime=0),
    "compressed with xz": lzma.compress(HONEST),
    "compressed with bzip2": bz2.compress(HONEST),
    "a bomb of gzip": gzip.compress(bytes(50 << 20), mtime=0),
    "noise": bytes(range(1, 256)) * 40,
    "no end": HONEST[: -len(END)],
    "nothing": b"",
}  # fmt: skip

KEPT = {
    "honest": (HONEST, {"a": b"one", "sub/b": b"two"}),
    "trailing noise": (HONEST + b"\xff" * 5000, {"a": b"one", "sub/b": b"two"}),
    "a second archive behind it": (HONEST + file(b"/etc/passwd") + END, {"a": b"one", "sub/b": b"two"}),
    "half an end": (HONEST[:-BLOCK], {"a": b"one", "sub/b": b"two"}),
    "an end at once": (END + file(b"/etc/passwd"), {}),
    "dot in front": (file(b"./out/x") + END, {"x": b"1"}),
    "old format without magic": (file(b"out/x", magic=b"\0" * 8) + END, {"x": b"1"}),
    "old kind of a file": (file(b"out/x", kind=b"\0") + END, {"x": b"1"}),
    "setuid, owners and times": (file(b"out/x", mode=0o7777, uid=1, mtime=(1 << 33) - 1) + END, {"x": b"1"}),
    "size in base 256": (file(b"out/x", size=base256(1)) + END, {"x": b"1"}),
    "time before the epoch": (file(b"out/x", mtime=base256(-1)) + END, {"x": b"1"}),
    "capitals apart": (file(b"out/X", b"1") + file(b"out/x", b"2") + END, {"X": b"1", "x": b"2"}),
    "letters of other scripts": (file("out/\u0430".encode()) + file(b"out/a") + END, {"\u0430": b"1", "a": b"1"}),
    "a name of dots": (file(b"out/...") + END, {"...": b"1"}),
    "a name that is a device elsewhere": (file(b"out/CON") + file(b"out/nul") + END, {"CON": b"1", "nul": b"1"}),
    "a name that is a switch": (file(b"out/-rf") + END, {"-rf": b"1"}),
    "long name in prefix": (file(b"x", prefix=b"out/" + b"d" * 100) + END, {"d" * 100 + "/x": b"1"}),
    "long name of GNU": (long_name(b"out/" + b"x" * 200) + file(b"y") + END, {"x" * 200: b"1"}),
    "long name by attributes": (attributes((b"path", b"out/" + b"x" * 200)) + file(b"y") + END, {"x" * 200: b"1"}),
    "zero width": (file("out/a\u200bb".encode()) + END, {"a\u200bb": b"1"}),
    "unselected links": (link(b"out/.progress", b"/etc/passwd") + file(b"out/x") + END, {"x": b"1"}),
    "the folder again": (FOLDER * 3 + file(b"out/x") + END, {"x": b"1"}),
}  # fmt: skip


def truncated() -> Iterator[bytes]:
    """An archive with every kind of header, cut at every block and in the middle of each, before its end."""
    whole = (
        FOLDER + long_name(b"out/" + b"l" * 200) + file(b"l", b"2" * 1500) + attributes((b"path", b"out/" + b"p" * 200))
        + file(b"p", b"3" * 700) + file(b"out/last", b"4" * BLOCK)
    )  # fmt: skip
    for at in range(0, len(whole) + 1, BLOCK // 2):
        yield whole[:at]


assert BLOCK == tarfile.BLOCKSIZE
