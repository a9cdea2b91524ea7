"""Results as files to download, in the formats that `yaptide results` writes."""

import io
import tempfile
from enum import StrEnum
from typing import IO

from yaptide.domain.errors import InvalidInput, NotFound
from yaptide.domain.estimators import Estimator
from yaptide.domain.formats import write_csv, write_npz
from yaptide.persistence import codec
from yaptide.persistence.queries import results as result_queries
from yaptide.persistence.queries.users import User
from yaptide.services import pictures
from yaptide.services.access import find_readable
from yaptide.services.backend import Backend

#: JSON text of all pages in one file: a request should not take minutes.
_MOST_TEXT = 128 << 20


class FileFormat(StrEnum):
    """File format: CSV with a line for each value, or NumPy arrays."""

    CSV = "csv"
    NPZ = "npz"


def export_results(
    backend: Backend, user: User, job_id: str, file_format: FileFormat, estimator: str | None, number: int | None
) -> IO[bytes]:
    """Return a file with all results of a simulation, those of one estimator, or one of its pages.

    Raises NotFound, Forbidden, and InvalidInput if it would be very large.
    """
    estimators = _open_estimators(backend, user, job_id, estimator, number)
    file = tempfile.TemporaryFile(dir=backend.data_dir)  # noqa: SIM115 - the caller closes it
    if file_format is FileFormat.NPZ:
        write_npz(estimators, file)
    else:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        write_csv(estimators, text)
        text.detach()
    file.seek(0)
    return file


def _open_estimators(
    backend: Backend, user: User, job_id: str, name: str | None, number: int | None
) -> list[Estimator]:
    with backend.database.read_committed() as connection:
        simulation = find_readable(connection, user, job_id)
        rows = result_queries.list_estimators(connection, simulation.id, name)
        ranges = None if number is None else [(number, number)]
        stored = result_queries.list_pages(connection, [row.id for row in rows], ranges, most=0)
    if not stored:
        raise NotFound("Results are unavailable")
    if sum(page.content_size for page in stored) > _MOST_TEXT:
        raise InvalidInput("These results are too large for this format: use `yaptide results`, or download JSON")
    return [
        Estimator(
            row.name,
            row.name,
            tuple(
                pictures.find_page(backend, user, job_id, row.name, page.page_number).open().page
                for page in stored
                if page.estimator_id == row.id
            ),
            codec.decode_payload(row.compressed_data),
        )
        for row in rows
    ]
