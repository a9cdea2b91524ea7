"""The list of simulations, and a page for each of them."""

from flask import render_template
from flask.typing import ResponseReturnValue

from yaptide.api.http import get_backend
from yaptide.services import simulations
from yaptide.web import session
from yaptide.web.blueprints import new_blueprint

blueprint = new_blueprint("simulation_pages", __name__)


@blueprint.get("/simulations")
def list_simulations() -> ResponseReturnValue:
    """List the simulations of the user."""
    page = simulations.Page(1, 20, "start_time", True, ())
    listing = simulations.list_simulations(get_backend(), session.require_user(), page)
    return render_template("simulations.html", listing=listing)
