"""Inputs that once broke a promise, each with what it did. A new one is added for every failure of scripts/fuzz.

Knows bytes and the names of parsers. Must never know how they are tried.
"""

import io
import json
import tarfile

from nexapod.hashing import blob_id
from runtime.outputs import manifest_of
from runtime.task import OutputFile


def yaml(value: str) -> bytes:
    return b"job_id: a\nimage: b\npriority: " + value.encode()


def header(kind: bytes, size: int, name: str = "out/x", said: dict[str, str] | None = None) -> bytes:
    """One tar header, and the attributes that are said before it."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.pax_headers = kind, size, said or {}
    return entry.tobuf(tarfile.GNU_FORMAT if not 0 <= size < 8**11 else tarfile.PAX_FORMAT)


def attributes(size: int, content: bytes = b"") -> bytes:
    return header(tarfile.XHDTYPE, size) + content.ljust(-(-len(content) // 512) * 512, b"\0")


FILE, END = header(tarfile.REGTYPE, 0), bytes(1024)
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "out/s", "GNU.sparse.realsize": "9"}
KEYS = b",".join(b'"tsk%d":0' % at for at in range(4000))


def old_sparse(extended: bool) -> bytes:
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
    block[482] = extended
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def compressed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("out/x"))
    return buffer.getvalue()


LAYERS = {
    # An endless loop in a worker's thread, or all memory: tarfile goes backwards, or reads what it is told to.
    "a file of negative size": header(tarfile.REGTYPE, -1024) + FILE + END,
    "attributes of negative size": attributes(-1024) + FILE + END,
    "attributes that say a negative size": header(tarfile.REGTYPE, 0, said={"size": "-1024"}) + FILE + END,
    "attributes beyond reason": attributes(2**40) + END,
    "a size no file can have": header(tarfile.REGTYPE, 2**80) + FILE + END,  # OverflowError
    "a chain of attributes": attributes(0) * 2000 + FILE + END,  # RecursionError
    "an old sparse file that ends": old_sparse(True),  # IndexError
    "a sparse file of version 1.0": header(tarfile.REGTYPE, 512, said=SPARSE) + b"1\n0\n9\n".ljust(512, b"\0") + END,
    "a compressed archive": compressed(),
}
OUTPUTS = {
    **LAYERS,
    # The folder itself was passed over before its size was looked at; its end was sought for in 10^12 steps.
    "a folder that is a file of 8 exabytes": header(tarfile.REGTYPE, 2**63 - 512, "out") + FILE + END,
}

CORPUS: dict[str, tuple[str, bytes]] = {
    # PyYAML: the error of whatever the constructor of a tag stumbled over.
    "yaml: an int that is empty": ("job file as YAML", yaml('!!int ""')),
    "yaml: a float that is empty": ("job file as YAML", yaml('!!float ""')),
    "yaml: a bool that is none": ("job file as YAML", yaml("!!bool x")),
    "yaml: a time that is none": ("job file as YAML", yaml("!!timestamp x")),
    "yaml: a set that is a list": ("job file as YAML", yaml("!!set [a]")),
    "yaml: a float of base 60 that overflows": ("job file as YAML", yaml("1" + ":1" * 300 + ".0")),
    "yaml: an integer of base 60 without end": ("job file as YAML", yaml("1" + ":1" * 20_000)),
    "yaml: a character beyond Unicode": ("job file as YAML", yaml('"\\U00110000"')),
    "yaml: brackets in brackets": ("job file as YAML", b"[" * 3000),  # 0.8 s: quadratic
    "yaml: tables in tables": ("job file as YAML", b"{a: " * 3000),
    # tomllib: time and memory grow with the square of a key's length; 64 KiB took 4 GB.
    "toml: a key of many words": ("job file as TOML", b"a." * 8000 + b"a = 1"),
    "toml: a key of many words and spaces": ("job file as TOML", b"a . " * 4000 + b"a = 1"),
    "toml: a key of many quoted words": ("job file as TOML", b'"\\"".' * 3000 + b"a = 1"),
    "toml: settings with a key of many words": ("config.toml", b"a." * 30_000 + b"a = 1"),
    "toml: a number without end": ("job file as TOML", b"a = " + b"9" * 500_000),  # 73 MB
    "toml: thousands of unknown settings": ("config.toml", b"".join(b"nam%d=0\n" % at for at in range(5000))),
    # For each of thousands of unknown keys the nearest known one was looked for: 88 ms for a bootstrap file.
    "json: thousands of unknown keys": ("job file as JSON", b"{" + KEYS + b"}"),
    "json: thousands of unknown keys below": ("job file as JSON", b'{"requirements":{' + KEYS + b"}}"),
    "json: a bootstrap file of unknown keys": ("bootstrap file", b"{" + KEYS + b"}"),
    "json: a bootstrap file of small tables": ("bootstrap file", b"[" + b'{"a":[{}]},' * 40_000 + b"0]"),
    # 1 MB of small tables became a million objects before anyone looked: 175 ms.
    "json: an image configuration of small tables": ("image configuration", b"[" + b'{"a":[{}]},' * 80_000 + b"0]"),
    # Every pair of 2,048 inputs was compared.
    "json: as many inputs as there may be": (
        "job file as JSON",
        json.dumps(
            {"job_id": "a", "image": "b"}
            | {"input_files": [f"data/part/{at:05}" for at in range(1024)]}
            | {"inputs": [{"uri": f"file:more/part/{at:05}"} for at in range(1024)]}
        ).encode(),
    ),
    # Each of half a million characters was looked up: 77 ms in the daemon's loop, from any holder of a result.
    "a result of as many foreign names as there may be": (
        "result manifest",
        manifest_of(0, [OutputFile(f"{at:04}" + "é" * 120, 1, blob_id(b"")) for at in range(4096)]),
    ),
    **{f"layer: {name}": ("layer of an image", raw) for name, raw in LAYERS.items()},
    **{f"outputs: {name}": ("archive of outputs", raw) for name, raw in OUTPUTS.items()},
}
