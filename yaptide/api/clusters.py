"""Routes for HPC clusters."""

from apiflask import APIBlueprint
from flask import Response

from yaptide.api import schemas
from yaptide.api.http import get_backend, get_user, json_response
from yaptide.domain.errors import Forbidden
from yaptide.services import clusters

blueprint = APIBlueprint("clusters", __name__, tag="Clusters")


@blueprint.get("/clusters")
@blueprint.output(schemas.Clusters)
def list_clusters() -> Response:
    """List all clusters, for users who sign in through Keycloak."""
    if not get_user().is_keycloak:
        raise Forbidden("User is not allowed to use this endpoint")
    names = clusters.list_names(get_backend())
    return json_response({"message": "Available clusters", "clusters": [{"cluster_name": name} for name in names]})
