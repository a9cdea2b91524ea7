"""The page that describes the API, made from its OpenAPI document, with nothing fetched from elsewhere."""

from typing import Any

from apiflask import APIBlueprint
from flask import current_app, render_template

blueprint = APIBlueprint("api_page", __name__, enable_openapi=False, template_folder="templates")


@blueprint.get("/docs")
def show_docs() -> str:
    """All endpoints of the API, to read."""
    spec: dict[str, Any] = current_app.spec  # type: ignore[attr-defined]
    endpoints = [
        {"method": method.upper(), "path": path, **operation, "body": _body(spec, operation)}
        for path, operations in spec["paths"].items()
        for method, operation in operations.items()
    ]
    tags = dict.fromkeys(tag for endpoint in endpoints for tag in endpoint.get("tags", ["Other"]))
    groups = {tag: [endpoint for endpoint in endpoints if tag in endpoint.get("tags", ["Other"])] for tag in tags}
    return render_template("docs.html", info=spec["info"], groups=groups, errors=spec["components"]["responses"])


def _body(spec: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Names, types and descriptions of the keys of an operation's JSON body."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = spec.get("components", {}).get("schemas", {}).get(reference, {})
    required = schema.get("required", [])
    return [
        {"name": name, "type": _type(value), "required": name in required, "description": value.get("description", "")}
        for name, value in schema.get("properties", {}).items()
    ]


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    return str(schema.get("type") or schema.get("$ref", "").rpartition("/")[2] or "any")
