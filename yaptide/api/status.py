"""Whether the server is there."""

from apiflask import APIBlueprint
from flask import Response

from yaptide.api import schemas
from yaptide.api.http import answer

blueprint = APIBlueprint("status", __name__, tag="Status")


@blueprint.get("/")
@blueprint.output(schemas.Message)
def root() -> Response:
    """Whether the server is there; the front end asks this before anything else."""
    return answer({"message": "yaptide is running"})
