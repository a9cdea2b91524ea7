"""Parts of pages that htmx polls while something runs, at little cost if nothing has changed."""

import hashlib
from typing import Any

from flask import Response, render_template, request
from markupsafe import Markup

#: Stands in a part for its digest, which is known only once the part is written. The page sends it back as `Seen`.
_DIGEST = "digest-of-this-part"


def render_part(template: str, **variables: Any) -> Markup:
    """Render a part of a page; `{{ digest }}` in its template is the digest of the rest."""
    part = render_template(template, digest=_DIGEST, **variables)
    return Markup(part.replace(_DIGEST, hashlib.sha256(part.encode()).hexdigest()[:16], 1))  # noqa: S704 - rendered


def answer_part(part: Markup) -> Response:
    """Answer htmx with a part, or with 204 if the page that is open has seen the same: then htmx leaves it alone."""
    seen = request.headers.get("Seen", "")
    return Response(status=204) if seen and f'"{seen}"' in part else Response(part, mimetype="text/html")
