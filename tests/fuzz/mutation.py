"""Mutated inputs by the million: repeatable, aware of structure, and fast enough that the parser is what takes time.

Knows formats: bytes, the canonical encoding, text (JSON, YAML, TOML, lines), tar archives. Must never know a parser.
The same seed and block give the same inputs, so a failure is told by two numbers.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

import msgspec

BLOCK = 1000  # inputs between two fresh starts of the generator: what has to be made again to find one input
LARGE_SHARE = 0.002  # how often a seed at the bounds of the protocol is taken
BOMB_SHARE = 0.004  # how often a piece is repeated up to the largest size

_STUMBLES = tuple(bytes([byte]) for byte in (0x00, 0x0A, 0x20, 0x22, 0x2D, 0x5B, 0x7B, 0x7F, 0x80, 0xC0, 0xC1, 0xFF))
_NUMBERS = tuple(
    sign * (2**bits + near) for bits in (0, 7, 8, 15, 16, 31, 32, 53, 63, 64) for near in (-1, 0, 1) for sign in (1, -1)
)
_ODD_TEXTS = (
    "", "\n", "\x00", "\x1b[2J", "\x7f", "e\u0301", "\u212b", "\ufeff", "\u2028", "\u202e", "\u200b", "\ufffe",
    "\U0001f600",
    "\U0010ffff", "\u0378", "\ue000", "..", "../x", "/", "a//b", "\\", "*", "**", "%s", "{}", "'", '"', "-1",
    "1e999", "NaN",
    "a" * 64, "a" * 65, "a" * 256, "é" * 200, "𝄞" * 201,
)  # fmt: skip
_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, *_NUMBERS, 0.5, -0.0, 1e22, 1e300, math.inf, -math.inf, math.nan, [], [[]], [None] * 300,
    {}, {"a": 1}, *_ODD_TEXTS,
)  # fmt: skip
_ODD_BYTES = tuple(bytes(length) for length in (0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 255, 256, 16_385))
_WIRE_VALUES = (
    *(value for value in _ODD_VALUES if not isinstance(value, int) or -(2**63) <= value < 2**64),
    *_ODD_BYTES,
    msgspec.msgpack.Ext(5, b""),
    msgspec.msgpack.Ext(5, bytes(8)),
)


class Form(Enum):
    """How the inputs of a parser are written, so how they are best broken."""

    BYTES = "bytes"
    WIRE = "canonical encoding"
    LINE = "one line of text"
    JSON = "JSON"
    YAML = "YAML"
    TOML = "TOML"
    TAR = "tar archive"


@dataclass(frozen=True)
class Seed:
    """A valid input; with `sound` false one that is refused at the very end. When something wraps it (an envelope, a
    signature), `inner` is mutated and wrapped again.
    """

    raw: bytes
    inner: bytes = b""
    wrap: Callable[[bytes], bytes] | None = field(default=None, compare=False)
    sound: bool = True


# Pieces that parsers of a form stumble over.
_TOKENS: dict[Form, tuple[bytes, ...]] = {
    Form.BYTES: (bytes(4), b"\xff" * 4, bytes(8), b"\xff" * 8, b"\n", b"-1"),
    Form.WIRE: (
        b"\xc0", b"\xc1", b"\xc4\x00", b"\xc4\xff", b"\xc5\xff\xff", b"\xc6\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\xc7\x00\x05", b"\xca\x00\x00\x00\x00", b"\xcb\x7f\xf8" + bytes(6), b"\xcc\x00", b"\xcd\x00\x01",
        b"\xce" + bytes(4),
        b"\xcf" + b"\xff" * 8, b"\xd0\xff", b"\xd3\x80" + bytes(7), b"\xd4\x05\x00", b"\xd6\xff" + bytes(4),
        b"\xd9\x01a",
        b"\xda\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdc\x00\x01", b"\xdc\xff\xff", b"\xdd\x00\x0f\x42\x40",
        b"\xdd\xff\xff\xff\xff", b"\xde\x00\x01", b"\xdf\xff\xff\xff\xff", b"\x81\x01\x02", b"\x91", b"\x9f",
        b"\xa1\xff",
        b"\xa4\x1b[2J", b"\xe0",
    ),
    Form.LINE: (
        b"/", b"//", b":", b"@", b".", b"..", b"-", b"--", b"_", b"__", b"%", b"%eth0", b"/p2p/", b"/tcp/", b"/ip6/",
        b"/dns4/",
        b"sha256:", b"0", b"00", b"65536", b" ", b"\n", b"\t", b"\xc3\xa9", b"\xd9\xa3", b"::", b"::ffff:1.2.3.4",
        b"127.1",
        b"localhost", b"A", b"xn--", b"0x7f.1", b"1l0OI",
    ),
    Form.JSON: (
        b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'\\u0000', b"\\ud800", b"NaN", b"Infinity", b"-Infinity",
        b"1e999",
        b"-0", b"0.1", b"1E400", b"1" * 20, b"9" * 400, b"9" * 4301, b"true", b"null", b'""', b"[]", b"{}", b'{"":{}}',
        b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"\\u202e", b"\t", b"\xe2\x80\xa8",
    ),
    Form.YAML: (
        b"&a ", b"*a", b"<<: ", b"<<: *a\n", b"!!int ", b'!!int ""', b"!!float ", b'!!bool "x"', b"!!timestamp ",
        b"!!binary ",
        b"!!set ", b"!!omap ", b"!!pairs ", b"!!str ", b"!!null ", b"!!python/object:os.system ", b"! ", b"!a!b ",
        b"!<x> ",
        b"? ", b"- ", b"-\n", b": ", b"[", b"]", b"{", b"}", b",", b"|\n", b">\n", b"|9\n", b"%YAML 1.1\n---\n",
        b"%TAG ! x\n---\n", b"---\n", b"...\n", b"1:1:1", b"190:20:30.15", b"0x_", b"0b_", b"0o7", b"012", b".nan",
        b"-.inf",
        b"1_000", b"2001-99-99", b"= ", b"~", b"yes", b"\t", b"\xe2\x80\xa8", b"\xc2\x85", b'"\\U00110000"',
        b'"\\ud800"', b"'",
        b'"', b"#", b"@", b"`", b"\\", b"\xef\xbb\xbf", b"\x00", b"9" * 4301,
    ),
    Form.TOML: (
        b"[a]\n", b"[[a]]\n", b"[a.b.c]\n", b"a.b.c = 1\n", b"a.", b'"a".', b"a = {", b"}", b"[", b"]", b'"""',
        b"'''", b"'",
        b'"', b"\\u0000", b"\\ud800", b"\\U00110000", b"\\", b"#", b"=", b"0x", b"0b2", b"0o", b"1_", b"+1", b"-nan",
        b"inf",
        b"1e999", b"1979-05-27T07:32:00Z", b"1979-99-99", b"25:61:00", b"2000-01-01 00:00:00+25:00", b"\r", b"\r\n",
        b"\x00",
        b"\xef\xbb\xbf", b"true", b"9" * 4301, b",", b".",
    ),
    Form.TAR: (
        b"ustar\x00", b"ustar  \x00", b"0", b"5", b"x", b"g", b"L", b"K", b"S", b"1", b"2", b"7", b"\x00", b"out/",
        b"../", b"/",
        b"\xff" * 8, b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\x00", b"GNU.sparse.major=1\n", b"size=-1\n",
        b"30 hdrcharset=BINARY\n", b"10 size=1\n", b"99999 path=x\n",
    ),
}  # fmt: skip

# What is dangerous in large numbers: a piece before, the piece that is repeated, a piece behind.
Bomb = tuple[bytes, bytes, bytes]
_BOMBS: dict[Form, tuple[Bomb, ...]] = {
    Form.BYTES: ((b"", b"\x00", b""), (b"", b"\xff", b""), (b"", b"\n", b"")),
    Form.WIRE: (
        (b"", b"\x91", b"\xc0"), (b"", b"\x92\xc0", b"\xc0"), (b"", b"\xdc\x40\x00", b""), (b"",
        b"\xdd\x00\x00\x40\x00", b""),
        (b"\xdc\x40\x00", b"\xc0", b""), (b"\xdc\x40\x00", b"\x90", b""), (b"", b"\x81\xc0", b""),
        (b"\xdb\x00\x00\x40\x00", b"a", b""),
        (b"", b"\xc4\x00", b""),
    ),
    Form.LINE: (
        (b"", b"a", b""), (b"", b"a-", b""), (b"", b"a.", b""), (b"", b"a/", b""), (b"", b"a__", b""), (b"", b"-", b""),
        (b"/dns4/", b"a", b"-/tcp/1/p2p/x"), (b"/dns4/", b"a.", b"!/tcp/1/p2p/x"), (b"/ip6/", b"1:", b":/tcp/1/p2p/x"),
        (b"", b"1", b""), (b"", b"z", b""), (b"a:", b"a", b""), (b"localhost/", b"a/", b"!"),
    ),
    Form.JSON: (
        (b"", b"[", b""), (b"", b'{"a":', b""), (b"[", b"0,", b"0]"), (b"", b"9", b""), (b"", b" ", b""), (b'"',
        b"a", b'"'),
        (b'"', b"\\u0061", b'"'), (b"[", b'"a",', b"0]"), (b"[", b"[],", b"0]"), (b"[", b"{},", b"0]"), (b"0.", b"1",
        b""),
        (b"1e", b"9", b""), (b"[", b'{"a":[{}]},', b"0]"),
    ),
    Form.YAML: (
        (b"", b"[", b""), (b"", b"{a: ", b""), (b"", b"- ", b""), (b"", b"? ", b""), (b"a: ", b"1:", b"1"), (b"a: ",
        b"1:", b"1.0"),
        (b"a: ", b"9", b""), (b"a: 0x", b"f", b""), (b"a: 0b", b"1", b""), (b"a: ", b"a ", b""), (b'a: "', b"\\n",
        b'"'),
        (b"", b"&a ", b"1"), (b"", b"!a ", b"1"), (b"", b"- a\n", b""), (b"", b" ", b"a"), (b"", b"\n", b"a: 1"),
        (b"a: ", b"a\n  ", b"b"), (b"a: |\n", b" a\n", b""), (b"", b"{", b""), (b"[", b"a, ", b"]"), (b"", b"a: ",
        b"1"),
        (b"", b"<<: {", b""), (b"", b"'", b""), (b"[", b"[], ", b"]"), (b"a: &a [1]\nb: [", b"*a, ", b"]"), (b"",
        b"--- 1\n", b""),
        (b"", b"%TAG ! a\n", b"--- 1"),
    ),
    Form.TOML: (
        (b"", b"a.", b"a = 1"), (b"[", b"a.", b"a]"), (b"a = ", b"[", b""), (b"a = ", b"{a=", b""), (b"a = ", b"9",
        b""),
        (b"a = [", b"1,", b"]"), (b'a = "', b"a", b'"'), (b'a = "', b"\\n", b'"'), (b"", b"[[a]]\n", b""), (b"[[",
        b"a.", b"a]]"),
        (b"", b" ", b""), (b"", b"\n", b""), (b"a = '''", b"'", b""), (b"", b'"".', b'"" = 1'), (b"", b"a . ",
        b"a = 1"),
        (b"a = {", b"a.", b"a = 1}"), (b"a = [", b"[],", b"]"), (b"", b"#\n", b""), (b"", b'"', b""),
    ),
    Form.TAR: ((b"", bytes(512), b""), (b"", b"\xff" * 512, b"")),
}  # fmt: skip
_TEXTS = (Form.LINE, Form.JSON, Form.YAML, Form.TOML)


class Mutator:
    """Endless mutated inputs of one form, block after block; at most `size_max` bytes each."""

    def __init__(self, form: Form, seeds: Sequence[Seed], large: Sequence[Seed] = (), *, size_max: int) -> None:
        self._form, self._seeds, self._large, self._size_max = form, tuple(seeds), tuple(large), size_max
        self._tokens, self._bombs = _TOKENS[form], _BOMBS[form]
        structural = {Form.WIRE: self._edit_wire, Form.JSON: self._edit_json, Form.YAML: self._edit_json}
        of_form = structural.get(form) or {Form.TAR: self._edit_tar}.get(form, self._token)
        self._ways: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._stumble, self._insert, self._delete, self._truncate, self._splice, self._repeat,
            self._token, self._token, self._lines if form in _TEXTS else self._flip, of_form, of_form, of_form, of_form,
        )  # fmt: skip
        self._chance = Random(0)
        self._random = self._chance.random

    def block(self, seed: str, number: int) -> Iterator[bytes]:
        """The BLOCK inputs of one block; nothing is left of the blocks before."""
        self._chance = Random(f"{seed}/{number}")
        self._random = self._chance.random
        for _ in range(BLOCK):
            yield self._one()

    def _one(self) -> bytes:
        random = self._random
        source = self._large if self._large and random() < LARGE_SHARE else self._seeds
        seed = source[int(random() * len(source))]
        if seed.wrap is not None and random() < 0.8:
            return seed.wrap(self._mutate(seed.inner))[: self._size_max]
        return self._mutate(seed.raw)[: self._size_max]

    def _mutate(self, raw: bytes) -> bytes:
        random, ways = self._random, self._ways
        if random() < BOMB_SHARE:
            return self._bomb(raw)
        raw = ways[int(random() * len(ways))](raw)
        while random() < 0.35:
            raw = ways[int(random() * len(ways))](raw)
        return raw

    # --- bytes -----------------------------------------------------------------------------------------------------
    def _flip(self, raw: bytes) -> bytes:
        if not raw:
            return raw
        content, random = bytearray(raw), self._random
        content[int(random() * len(content))] ^= 1 << int(random() * 8)
        return bytes(content)

    def _stumble(self, raw: bytes) -> bytes:
        at = int(self._random() * (len(raw) + 1))
        return raw[:at] + _STUMBLES[int(self._random() * len(_STUMBLES))] + raw[at + 1 :]

    def _insert(self, raw: bytes) -> bytes:
        at = int(self._random() * (len(raw) + 1))
        return raw[:at] + self._chance.randbytes(1 + int(self._random() * 8)) + raw[at:]

    def _delete(self, raw: bytes) -> bytes:
        at = int(self._random() * (len(raw) + 1))
        return raw[:at] + raw[at + 1 + int(self._random() * 40) :]

    def _truncate(self, raw: bytes) -> bytes:
        return raw[: int(self._random() * len(raw))]

    def _splice(self, raw: bytes) -> bytes:
        other = self._seeds[int(self._random() * len(self._seeds))]
        donor = other.inner or other.raw
        return raw[: int(self._random() * (len(raw) + 1))] + donor[int(self._random() * (len(donor) + 1)) :]

    def _repeat(self, raw: bytes) -> bytes:
        at = int(self._random() * (len(raw) + 1))
        piece = raw[at : at + 1 + int(self._random() * 40)]
        return raw[:at] + piece * int(1 + 2 ** (self._random() * 5)) + raw[at:]

    def _token(self, raw: bytes) -> bytes:
        random = self._random
        at = int(random() * (len(raw) + 1))
        token = self._tokens[int(random() * len(self._tokens))]
        return raw[:at] + token + raw[at + (len(token) if random() < 0.5 else 0) :]

    def _bomb(self, raw: bytes) -> bytes:
        """A piece that is dangerous in numbers, alone or in the middle of something sound: often few, at times many."""
        random = self._random
        before, piece, behind = self._bombs[int(random() * len(self._bombs))]
        bomb = before + piece * int((self._size_max / len(piece)) ** random()) + behind
        if self._form in (Form.JSON, Form.YAML) and random() < 0.2:
            number = int((self._size_max / 20) ** random())  # as many keys, all of them different
            bomb = b"{" + b",".join(b'"k%d":%d' % (at, at) for at in range(number)) + b"}"
        if self._form is Form.TOML and random() < 0.2:
            bomb = b"".join(b"k%d=%d\n" % (at, at) for at in range(int((self._size_max / 20) ** random())))
        if random() < 0.5:
            return bomb
        at = int(random() * (len(raw) + 1))
        return raw[:at] + bomb + raw[at:]

    # --- text ------------------------------------------------------------------------------------------------------
    def _lines(self, raw: bytes) -> bytes:
        """A line or a word doubled, moved, dropped or pushed to the right."""
        random = self._random
        mark = b"\n" if raw.count(b"\n") > 1 else (b"," if b"," in raw else b"/")
        lines = raw.split(mark)
        at, to = int(random() * len(lines)), int(random() * len(lines))
        match int(random() * 4):
            case 0:
                lines.insert(to, lines[at])
            case 1:
                lines[at], lines[to] = lines[to], lines[at]
            case 2:
                del lines[at]
            case _:
                lines[at] = (b"  ", b"\t", b" ")[int(random() * 3)] + lines[at]
        return mark.join(lines)

    def _edit_json(self, raw: bytes) -> bytes:
        try:
            tree = json.loads(raw)
        except (ValueError, RecursionError):
            return self._token(raw)
        return json.dumps(self._edit(tree, _ODD_VALUES), ensure_ascii=self._random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )

    # --- canonical encoding ----------------------------------------------------------------------------------------
    def _edit_wire(self, raw: bytes) -> bytes:
        try:
            return msgspec.msgpack.encode(self._edit(msgspec.msgpack.decode(raw, strict=False), _WIRE_VALUES))
        except (ValueError, TypeError, RecursionError, OverflowError):
            return self._token(raw)

    # --- trees -----------------------------------------------------------------------------------------------------
    def _edit(self, tree: Any, odd: Sequence[Any]) -> Any:
        """The tree with one place changed."""
        random = self._random
        node, parent, place = tree, None, None
        while isinstance(node, list | dict) and node and (parent is None or random() < 0.8):
            parent = node
            place = int(random() * len(node)) if isinstance(node, list) else list(node)[int(random() * len(node))]
            node = node[place]
        if parent is None or place is None:
            return odd[int(random() * len(odd))]
        what = int(random() * 10)
        if what < 3:
            parent[place] = odd[int(random() * len(odd))]
        elif what < 7:
            parent[place] = self._near(node, odd)
        elif isinstance(parent, list):
            self._edit_list(parent, place, node)
        else:
            self._edit_dict(parent, place, node, odd)
        return tree

    def _edit_list(self, parent: list[Any], place: int, node: Any) -> None:
        random = self._random
        match int(random() * 5):
            case 0:
                del parent[place]
            case 1:
                parent.insert(place, node)
            case 2:
                other = int(random() * len(parent))
                parent[place], parent[other] = parent[other], parent[place]
            case 3:
                few = isinstance(node, list | str | bytes) and len(node) > 64  # or the mutator is what needs memory
                parent[place:place] = [node] * int(2 ** (random() * (2 if few else 9)))
            case _:
                for _ in range(int(2 ** (random() * 6))):
                    node = [node]
                parent[place] = node

    def _edit_dict(self, parent: dict[Any, Any], place: Any, node: Any, odd: Sequence[Any]) -> None:
        random = self._random
        match int(random() * 3):
            case 0:
                del parent[place]
            case 1:
                parent[str(odd[int(random() * len(odd))])] = node
            case _:
                word = str(place)
                at = int(random() * (len(word) + 1))
                parent[word[:at] + chr(97 + int(random() * 26)) + word[at + 1 :]] = parent.pop(place)

    def _near(self, node: Any, odd: Sequence[Any]) -> Any:
        """A value of the same kind, a little different."""
        random = self._random
        match node:
            case bool() | None:
                return not node
            case int():
                return (node + 1, max(node - 1, 0), node * 2, node ^ (1 << int(random() * 16)))[int(random() * 4)]
            case float():
                return node * (10 ** int(random() * 40 - 20))
            case bytes():
                return (self._flip(node), node[:-1], node + b"\0", node * 2)[int(random() * 4)]
            case str():
                at = int(random() * (len(node) + 1))
                word = _ODD_TEXTS[int(random() * len(_ODD_TEXTS))]
                return (node[:at] + word + node[at:], node[:at], node * 2, node[:at] + "a" + node[at + 1 :])[
                    int(random() * 4)
                ]
            case list() if node:
                return node[::-1]
        return odd[int(random() * len(odd))]

    # --- tar -------------------------------------------------------------------------------------------------------
    def _edit_tar(self, raw: bytes) -> bytes:
        """A header with one field changed and its checksum made good, or whole blocks doubled, moved or dropped."""
        blocks = [raw[at : at + 512] for at in range(0, len(raw), 512)]
        headers = [at for at, block in enumerate(blocks) if block[257:262] == b"ustar"]
        random = self._random
        if not headers:
            return self._token(raw)
        at = headers[int(random() * len(headers))]
        match int(random() * 8):
            case 0:
                blocks.insert(int(random() * len(blocks)), blocks[at])
            case 1:
                run = blocks[at : at + 1 + int(random() * 3)]
                blocks[at:at] = run * int(2 ** (random() * 11))
            case 2:
                del blocks[at : at + 1 + int(random() * 3)]
            case 3 if at + 1 < len(blocks):
                blocks[at + 1] = self._pax(len(blocks[at + 1]))
            case _:
                blocks[at] = _summed(self._edit_header(blocks[at]))
        return b"".join(blocks)

    def _edit_header(self, block: bytes) -> bytes:
        random = self._random
        start, length, values = _TAR_FIELDS[int(random() * len(_TAR_FIELDS))]
        value = values[int(random() * len(values))] if values else self._chance.randbytes(length)
        return block[:start] + value[:length].ljust(length, b"\0") + block[start + length :]

    def _pax(self, length: int) -> bytes:
        records = b""
        while self._random() < 0.7 and len(records) < length:
            word = _PAX_WORDS[int(self._random() * len(_PAX_WORDS))]
            size = len(word) + 3
            size += len(str(size)) - 1
            records += b"%d %s\n" % (size, word)
        return records[:length].ljust(length, b"\0")


def _summed(block: bytes) -> bytes:
    """A tar header with the right checksum."""
    if len(block) < 512:
        return block
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


_SIZES = (
    b"00000000000\0", b"00000000001\0", b"00000001000\0", b"77777777777\0", b"\x80" + bytes(10) + b"\x01",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12, b"\xff" * 10 + b"\xfe\x00", b"-1", b"9", b"", b" 17 ", b"00000200000\0",
)  # fmt: skip
_NAMES = (
    b"out", b"out/", b"out/a", b"out/../b", b"/out/a", b"./out/a", b"out//a", b"out/" + b"a" * 96, b"", b"out/\xff",
    b"out/e\xcc\x81",
    b"out/\x1b", b"out/a\\b", b"out/.", b"elsewhere", b"out/" + b"a/" * 40, b"pax_global_header",
)  # fmt: skip
# Where a field begins, its length, and what is put there; random bytes when nothing is said.
_TAR_FIELDS: tuple[tuple[int, int, tuple[bytes, ...]], ...] = (
    (0, 100, _NAMES), (124, 12, _SIZES), (124, 12, _SIZES), (124, 12, ()), (100, 8, ()), (136, 12, _SIZES), (329, 8,
    ()),
    (156, 1, tuple(bytes([code]) for code in b"01234567xgXLKSNDVM\0 A")), (157, 100, _NAMES),
    (257, 8, (b"ustar\x0000", b"ustar  \0", b"ustar")), (345, 155, _NAMES), (386, 96, ()), (386, 12, _SIZES), (482,
    1, (b"\x01", b"\0")),
    (483, 12, _SIZES),
)  # fmt: skip
_PAX_WORDS = (
    b"path=out/a", b"path=../a", b"path=", b"size=0", b"size=-512", b"size=1", b"size=999999999999999999", b"size=x",
    b"size=1.5", b"size=nan", b"size=" + b"9" * 200, b"hdrcharset=BINARY", b"hdrcharset=\xff", b"path=out/\xff",
    b"linkpath=x", b"mtime=inf",
    b"mtime=x", b"uid=-1", b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=out/s",
    b"GNU.sparse.realsize=9",
    b"GNU.sparse.realsize=x", b"GNU.sparse.size=512", b"GNU.sparse.map=0,1,2", b"GNU.sparse.map=x",
    b"GNU.sparse.numblocks=1",
    b"GNU.sparse.offset=0", b"GNU.sparse.numbytes=x", b"comment=", b"\xff=1", b"=1", b"a=\0",
)  # fmt: skip
