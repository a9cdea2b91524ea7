"""Numbers formatted for people, the same in commands and pages."""


def format_bytes(count: int) -> str:
    """Return a number of bytes with its unit."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
