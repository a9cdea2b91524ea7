"""Names of people: one spelling for each, and which of them look alike.

What cannot be told apart is decided by the skeleton of a name, a small version of that of Unicode Technical Standard 39
(https://www.unicode.org/reports/tr39/#Confusable_Detection) that needs no table of thousands of letters: names of one
script only are taken, so that few letters of other scripts can stand for Latin ones.
"""

import hashlib
import re
import unicodedata

_LONGEST = 1024
#: East Asian scripts are written together, and with Latin; modifiers and signs belong to every script.
_COMMON = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "MODIFIER", ""}
)
#: Printable to Python, and yet not to be seen: joiners, fillers and selectors of variants.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
#: What each of them looks like, in one of its cases at least. 1, l and I are one letter in many fonts, 0 and O too.
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


def composed(name: str) -> str:
    """The name in the one spelling that is stored (NFC): accents can be typed in several ways.

    What is far too long for a name stays as it is: a hundred thousand accents on a letter take minutes to put in order.
    """
    return name if len(name) > _LONGEST else unicodedata.normalize("NFC", name)


def scripts(name: str) -> list[str]:
    """The scripts of the letters of a name, such as ``LATIN``, in their order."""
    letters = (letter for letter in unicodedata.normalize("NFKC", name) if letter.isalpha())
    found = dict.fromkeys(unicodedata.name(letter, "").split(" ")[0] for letter in letters)
    return [script for script in found if script not in _COMMON]


def has_unseen(name: str) -> bool:
    """Whether something in a name cannot be seen."""
    return _UNSEEN.search(name) is not None


def skeleton(name: str) -> str:
    """SHA-256, hexadecimal, of what is to be seen of a name: those that look alike have the same.

    Case, width and font of letters make no difference; nor does what several scripts write alike.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = " ".join(_UNSEEN.sub("", text).translate(_LOOK_ALIKES).split())
    text = text.replace("rn", "m").replace("vv", "w")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
