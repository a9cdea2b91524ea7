"""Decodes the text of input files, the same for every way in which they arrive.

Codes read bytes, and nearly all of what they read is ASCII. Other letters matter only in what a code skips. So text is
decoded by its byte order mark, as UTF-8, or, if letters of Windows-1252 are only in comments and titles, as that.
"""

import codecs
import re

#: Byte order marks. That of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Control characters that text does not contain.
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
#: Names of raw voxels, whose bytes may look like any text.
_BINARY = (".raw", ".zraw")
#: Beginnings of lines that codes skip: comments of all codes, and values in the header of an image. What they read of
#: such a value, the name of a file, is ASCII.
_SKIPPED = re.compile(rb"\s*\*|[^#!]*[#!]")
_SKIPPED_IN_HEADER = re.compile(rb"[^=]*=|[^#]*#")
#: Lines whose next line is a title or a name that codes only repeat.
_BEFORE_TITLE = re.compile(rb"\s*(#+PlanName|TITLE)\s*", re.IGNORECASE)


def decode_text(name: str, data: bytes) -> str | None:
    """Return the text of an input file, without its byte order mark; None for a file that is not text."""
    if name.lower().endswith(_BINARY):
        return None
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _decode(data[len(mark) :], encoding)
            if text is not None and not _CONTROL.search(text):
                return text
    if b"\0" in data:
        return None
    text = _decode(data.removeprefix(codecs.BOM_UTF8), "utf-8")
    return _decode_lines(name, data) if text is None else text


def explain_undecoded(name: str, data: bytes) -> str:
    """Return why `decode_text` did not decode a file, and where."""
    if b"\0" not in data:
        for number, line in enumerate(data.split(b"\n"), 1):
            if _decode(line, "utf-8") is None:
                return f"{name}, line {number}: is not UTF-8"
    return f"{name}: is binary, not text"


def _decode(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _decode_lines(name: str, data: bytes) -> str | None:
    """Decode each line as UTF-8 or, where codes skip it, as Windows-1252; None if there are other lines."""
    skipped = _SKIPPED_IN_HEADER if name.lower().endswith((".mhd", ".mha")) else _SKIPPED
    lines: list[str] = []
    before = b""
    for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        text = _decode(line, "utf-8")
        if text is None:
            start = skipped.match(line)
            if not _BEFORE_TITLE.fullmatch(before) and (start is None or not start[0].isascii()):
                return None
            text = line.decode("cp1252", "replace")
            if _CONTROL.search(text):
                return None
        lines.append(text)
        before = line
    return "\n".join(lines)
