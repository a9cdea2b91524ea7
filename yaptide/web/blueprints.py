"""Blueprints of pages: their forms are protected, their errors are pages, and sessions are renewed."""

from apiflask import APIBlueprint

from yaptide.web import errors, session


def new_blueprint(name: str, import_name: str) -> APIBlueprint:
    """Return a blueprint for the pages of one subject."""
    blueprint = APIBlueprint(name, import_name, enable_openapi=False)
    session.protect(blueprint)
    errors.register_handlers(blueprint)
    return blueprint
