"""What is sent to a cluster with a job: the agent, what it is to run, and the input of all tasks."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from yaptide.simulators.base import InputFiles, Installation, Simulator

AGENT = Path(__file__).with_name("agent.py")
#: How the agent is started in the job's folder: no setting of the user's changes what Python imports.
RUN = ("python3", "-I", "agent.py", "run")
COLLECT = ("python3", "-I", "agent.py", "collect")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What to run: the simulator, where its program is on the cluster, input files, and (number, primaries, seed)."""

    simulator: Simulator
    program: str
    files: InputFiles
    shares: Sequence[tuple[int, int, int]]


def bundle_manifest(parcel: Parcel, simulation_id: int, url: str | None) -> bytes:
    """`recipe.json`: what the agent has to know, but for the key."""
    rule = parcel.simulator.progress_rule
    # Which folder the task has is known only there; version and digest are those of what is found there.
    command = parcel.simulator.command(Installation(Path(parcel.program), "", ""), Path("{folder}"))
    document = {
        "simulation_id": simulation_id,
        "url": url,
        "arguments": command.arguments,
        "environment": dict(command.environment),
        "links": dict(command.links),
        "progress": asdict(rule) if rule is not None else {},
        "primaries": [primaries for _, primaries, _ in parcel.shares],
    }
    return json.dumps(document).encode()


def pack_inputs(parcel: Parcel, path: Path) -> None:
    """`inputs.zip`: the first task's files as ``common/<name>``, and what others have else as ``tasks/<n>/<name>``."""
    common: dict[str, bytes] = {}
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for number, primaries, seed in parcel.shares:
            with tempfile.TemporaryDirectory(dir=path.parent) as aside:
                parcel.simulator.prepare(parcel.files, primaries, seed, Path(aside))
                found = {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(Path(aside).iterdir())}
                for file, digest in found.items():
                    if common.get(file.name) != digest:
                        archive.write(file, f"tasks/{number}/{file.name}" if common else f"common/{file.name}")
            common = common or {file.name: digest for file, digest in found.items()}
