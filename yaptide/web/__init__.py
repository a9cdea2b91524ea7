"""HTML pages, rendered on the server by Jinja. They call the same services as the API and have no rules of their own.

A module per subject holds its routes. `session` knows who is signed in, `assets` serves the files in `static/`,
`errors` turns errors into pages, `rendering` has what templates share. htmx replaces the parts of a page that change;
no page has inline scripts or styles.
"""

from apiflask import APIFlask

from yaptide.web import (
    accounts,
    assets,
    details,
    docs,
    errors,
    front_end as front_end,
    operator,
    rendering,
    results,
    session,
    simulations,
    submission,
)

__all__ = ["register_pages"]

#: One per subject.
ALL = (
    docs.blueprint,
    assets.blueprint,
    accounts.blueprint,
    simulations.blueprint,
    details.blueprint,
    submission.blueprint,
    operator.blueprint,
    results.blueprint,
)


def register_pages(app: APIFlask) -> None:
    """Add all pages to `app`."""
    session.prepare(app)
    assets.prepare(app)
    rendering.prepare(app)
    for blueprint in ALL:
        app.register_blueprint(blueprint)
    errors.register_not_found(app)
