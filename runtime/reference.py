"""Names of images: the only spelling that may reach an engine.

Knows the grammar [host[:port]/]name[/name...][:tag][@sha256:hex]. Must never know an engine. Strict because engines
put a name into the path of a request: what is not a name here could become another request there.
"""

import re

import msgspec

REFERENCE_CHARS_MAX = 512
_NAME_CHARS_MAX = 255  # what registries and engines accept

_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Reference(msgspec.Struct, frozen=True):
    """A parsed image name; `tag` is empty when a digest stands alone, `digest` is 32 bytes or empty."""

    name: str
    tag: str
    digest: bytes

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@sha256:{self.digest.hex()}" if self.digest else "")


class NotAReference(ValueError):
    """The text is not the name of an image; the message says why."""


def parse_reference(text: str) -> Reference:
    """The image a text names; a name with neither tag nor digest means its tag `latest`.

    Raises:
        NotAReference: anything a registry would not accept.
    """
    if not text:
        raise NotAReference("an image name cannot be empty")
    if len(text) > REFERENCE_CHARS_MAX:
        raise NotAReference(f"an image name has at most {REFERENCE_CHARS_MAX} characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise NotAReference("an image name holds only printable ASCII without spaces")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise NotAReference("after @ stands sha256: and 64 small hexadecimal digits")
    name, tag = _split_tag(rest)
    _check_name(name)
    if not tag and not digest:
        tag = "latest"
    return Reference(name, tag, bytes.fromhex(digest.removeprefix("sha256:")))


def _split_tag(rest: str) -> tuple[str, str]:
    slash, colon = rest.rfind("/"), rest.rfind(":")
    if colon <= slash:  # a colon before a slash belongs to the port of a host
        return rest, ""
    name, tag = rest[:colon], rest[colon + 1 :]
    if not _TAG.fullmatch(tag):
        raise NotAReference(
            "a tag has 1 to 128 letters, digits, dots, dashes or underscores, and begins with no dot or dash"
        )
    return name, tag


def _check_name(name: str) -> None:
    parts = name.split("/")
    first = parts[0]
    if len(parts) > 1 and ("." in first or ":" in first or first == "localhost"):
        if not _HOST.fullmatch(first):
            raise NotAReference(f"{first!r} is not a registry host")
        parts = parts[1:]
    for part in parts:
        if not _PART.fullmatch(part):
            raise NotAReference(f"{part!r} is not part of an image name: small letters and digits, joined by . _ or -")
    if len(name) > _NAME_CHARS_MAX:
        raise NotAReference(f"an image name without its tag has at most {_NAME_CHARS_MAX} characters")
