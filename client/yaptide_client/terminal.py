"""Makes text from elsewhere safe for a terminal."""


def escape_control(text: str) -> str:
    """Replace control characters other than newline and tab by spaces, so that text cannot control the terminal."""
    return "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)


def format_line(text: str) -> str:
    """Return a text in one line, without control characters."""
    return " ".join(escape_control(text).split())
