"""Pages for people."""

from yaptide.web.pages import blueprint

__all__ = ["blueprint"]
