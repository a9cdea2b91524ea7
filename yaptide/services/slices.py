"""The picture of a submission: its geometry in the plane of the beam."""

from yaptide.domain.errors import InvalidInput
from yaptide.domain.slices import Slice
from yaptide.editor.reading import read_project
from yaptide.editor.slices import slice_project
from yaptide.services.simulations import Submission
from yaptide.simulators import get_simulator
from yaptide.simulators.base import Slicer


def slice_submission(submission: Submission, sim_type: str) -> Slice | None:
    """Return the plane of the beam of a submission that the simulator `sim_type` would run.

    Of a project its zones are shown, whatever they become for the simulator. None if there is no picture of it: of
    most simulators yaptide cannot read the geometry, and a project may be for one that is not here.
    """
    try:
        if submission.input_json is not None:
            return slice_project(read_project(submission.input_json))
        code = get_simulator(sim_type)
        return code.slice_geometry(submission.input_files or {}) if isinstance(code, Slicer) else None
    except InvalidInput:
        return None
