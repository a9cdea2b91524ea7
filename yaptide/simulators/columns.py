"""Numbers in columns of a fixed width, as FORTRAN programs read them."""

from yaptide.domain.errors import InvalidInput


def format_number(value: float, width: int) -> str:
    """Return the number with a point, as exact as `width` characters allow; raise InvalidInput if it does not fit."""
    decimals = (f"{value:.{digits}f}" for digits in range(width))
    exponents = (f"{value:.{digits}E}" for digits in range(1, width))
    fitting = [shorter for text in (*decimals, *exponents) if len(shorter := _shorten(text)) <= width]
    if not fitting:
        raise InvalidInput(f"The number {value:g} is too long for {width} columns: use smaller lengths")
    best = min(fitting, key=lambda text: (abs(float(text) - value), "E" in text, len(text)))
    return f"{best}0" if best.endswith(".") and len(best) < width else best


def _shorten(text: str) -> str:
    """Return a number with a point, without zeros at the end."""
    mantissa, exponent, power = text.partition("E")
    mantissa = (mantissa if "." in mantissa else f"{mantissa}.").rstrip("0")
    if exponent:
        return f"{mantissa}E{int(power):+d}"
    return "0." if mantissa == "-0." else mantissa
