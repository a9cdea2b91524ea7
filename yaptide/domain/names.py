"""User names: their normal form, and which names look alike.

Two names are indistinguishable if they have the same skeleton, a small version of that of Unicode Technical Standard 39
(https://www.unicode.org/reports/tr39/#Confusable_Detection) that needs no table of thousands of letters: a name may use
only one script, so few letters of other scripts can be confused with Latin ones.
"""

import hashlib
import re
import unicodedata

_LONGEST = 1024
#: East Asian scripts are used together, and with Latin; modifiers and signs belong to every script.
_COMMON = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "MODIFIER", ""}
)
#: Printable according to Python, but invisible: joiners, fillers and variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
#: What each letter looks like, in upper or lower case. In many fonts 1, l and I look the same, and 0 and O.
_LOOK_ALIKES = {
    ord(letter): plain
    for letters, plains in (
        ("01|iıȷ", "ollllj"),  # noqa: RUF001
        ("авгеёзіїјкмнорстухѕԁһԛԝӏьү", "abreezlljkmhopctyxsdhqwlby"),
        ("αβγεζηικμνορτυχσϲϳ", "abyezhlkmvoptuxocj"),
        ("‐‒–—―−⁃", "-" * 7),  # noqa: RUF001
        ("’‘ʼʹ′´`", "'" * 7),  # noqa: RUF001
        ("․·", ".."),  # noqa: RUF001
    )
    for letter, plain in zip(letters, plains, strict=True)
}


def normalize_name(name: str) -> str:
    """Return the name in its normal form (NFC), which is stored: accents can be typed in several ways.

    A name that is far too long is returned unchanged: normalizing a letter with 100,000 accents takes minutes.
    """
    return name if len(name) > _LONGEST else unicodedata.normalize("NFC", name)


def list_scripts(name: str) -> list[str]:
    """Return the scripts of the letters of a name, such as ``LATIN``, in order of appearance."""
    letters = (letter for letter in unicodedata.normalize("NFKC", name) if letter.isalpha())
    names = dict.fromkeys(unicodedata.name(letter, "").split(" ")[0] for letter in letters)
    return [script for script in names if script not in _COMMON]


def has_unseen(name: str) -> bool:
    """Return whether a name contains invisible characters."""
    return _UNSEEN.search(name) is not None


def make_skeleton(name: str) -> str:
    """Return a SHA-256 in hexadecimal that is the same for all names that look alike.

    Case, width and font of letters make no difference, nor do letters that look the same in several scripts.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = " ".join(_UNSEEN.sub("", text).translate(_LOOK_ALIKES).split())
    text = text.replace("rn", "m").replace("vv", "w")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
