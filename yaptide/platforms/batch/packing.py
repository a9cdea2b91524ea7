"""The bundle that is uploaded to a cluster for a job: the agent, its manifest, and the input of all tasks."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from yaptide.simulators.base import InputFiles, Installation, Simulator

AGENT = Path(__file__).with_name("agent.py")
#: Commands that start the agent in the folder of the job; `-I`: no setting of the user changes what Python imports.
RUN = ("python3", "-I", "agent.py", "run")
COLLECT = ("python3", "-I", "agent.py", "collect")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a job runs: the simulator, its program on the cluster, and the input files.

    `shares` has number, primaries and seed of each task.
    """

    simulator: Simulator
    program: str
    files: InputFiles
    shares: Sequence[tuple[int, int, int]]


def make_manifest(bundle: Bundle, simulation_id: int, url: str | None, time_limit_reason: str) -> bytes:
    """Content of `manifest.json`: everything that the agent needs, except the update key.

    `url` is the server's URL for nodes, None if they cannot reach it; `time_limit_reason` is the scheduler's.
    """
    rule = bundle.simulator.progress_rule
    # The agent replaces {folder} by the folder of the task, and determines version and digest of the program.
    command = bundle.simulator.command(Installation(Path(bundle.program), "", ""), Path("{folder}"))
    document = {
        "simulation_id": simulation_id,
        "url": url,
        "arguments": command.arguments,
        "environment": dict(command.environment),
        "links": dict(command.links),
        "progress": asdict(rule) if rule is not None else {},
        "primaries": [primaries for _, primaries, _ in bundle.shares],
        "time_limit_reason": time_limit_reason,
    }
    return json.dumps(document).encode()


def pack_inputs(bundle: Bundle, path: Path) -> None:
    """Write `inputs.zip`: files of the first task as ``common/<name>``, different ones as ``tasks/<number>/<name>``."""
    common: dict[str, bytes] = {}
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for number, primaries, seed in bundle.shares:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                bundle.simulator.prepare(bundle.files, primaries, seed, Path(folder))
                digests = {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(Path(folder).iterdir())}
                for file, digest in digests.items():
                    if common.get(file.name) != digest:
                        archive.write(file, f"tasks/{number}/{file.name}" if common else f"common/{file.name}")
            common = common or {file.name: digest for file, digest in digests.items()}
