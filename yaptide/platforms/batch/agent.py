"""What runs on the nodes of a cluster: `python3 agent.py run` for a task of the array, `collect` after all of them.

It needs Python 3.6 with its standard library and nothing of yaptide, which sends this file along with every job. In the
job's folder it finds

    recipe.json     what to run, and whom to tell
    key             the update key, which is never in an argument or the environment
    inputs.zip      input of the tasks: common/<name>, and in the place of some tasks/<number>/<name>

and leaves there, for each task, `task-<number>/report.json` (how far it is, how it ended) and `task-<number>/run`,
where the simulator runs. What the simulator has written goes to the server; if that cannot be reached, it stays there
as `task-<number>/result.zip`, for the server to fetch over SSH, or for `collect` to send.

Nobody on the server's side believes what this program says any more than what any other program of the user says.
"""

import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from types import FrameType
from typing import Any, BinaryIO, Callable, Dict, Optional, Set, Union

Json = Dict[str, Any]

REPORT_EVERY = 2.0
LOOK_EVERY = 0.1
#: Seconds: for an answer; for results to be taken, which may be large; until a server that does not answer is given up.
ANSWER = 15.0
TRANSFER = 600.0
PATIENCE = 30.0
LOG_TAIL = 256 * 1024
LOG = "output.log"
#: SLURM's warning that the time limit is near, see `array_command` in `yaptide.platforms.batch.slurm`.
WARNING = signal.SIGUSR1
STOPS = (signal.SIGTERM, WARNING)
NOT_WANTED = 409
MOST = 2**31 - 1
TOO_LONG = "it reached its time limit; give it more with --time"


class Away(Exception):
    """The server cannot be reached just now."""


class Refused(Exception):
    """The server does not want it: by 409 since it is not this run's to do, otherwise for what it is."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Stopped(Exception):
    """SLURM has us stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is for one server, and not for those that it may point to."""

    def redirect_request(self, *_: Any) -> None:
        """Do not follow."""


class Server:
    """The server that tasks report to; without a URL, nobody."""

    def __init__(self, recipe: Json, key: str) -> None:
        url = recipe["url"]
        self.url = f"{url.rstrip('/')}/worker/{recipe['simulation_id']}" if url else ""
        self._headers = {"Authorization": "Bearer " + key, "User-Agent": "yaptide-cluster"}
        self._opener = urllib.request.build_opener(NoRedirects())

    def post(self, path: str, body: Json, patience: float = 0.0) -> Json:
        """Ask, again and again for `patience` seconds; raises Away, Refused."""
        data = json.dumps(body).encode()
        return self._insist(lambda: self._send("POST", path, data, "application/json", ANSWER), patience)

    def put(self, path: str, query: Json, file_name: str, patience: float) -> Json:
        """Send a file, from its beginning each time."""
        size = os.path.getsize(file_name)
        path = path + "?" + urllib.parse.urlencode(query)

        def send() -> Json:
            with open(file_name, "rb") as file:
                return self._send("PUT", path, file, "application/zip", TRANSFER, size)

        return self._insist(send, patience)

    def _insist(self, send: Callable[[], Json], patience: float) -> Json:
        if not self.url:
            raise Away("there is no URL of the server")
        end, wait = time.monotonic() + patience, 0.5
        while True:
            try:
                return send()
            except Away:
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.0))  # nodes do not come all at once
            wait = min(2 * wait, 30.0)

    def _send(
        self, method: str, path: str, data: Union[bytes, BinaryIO], kind: str, limit: float, size: Optional[int] = None
    ) -> Json:
        headers = dict(self._headers)
        headers["Content-Type"] = kind
        if size is not None:
            headers["Content-Length"] = str(size)
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=limit) as answer:
                return dict(json.loads(answer.read().decode()))
        except urllib.error.HTTPError as error:
            reason = said(error)
            if not reason or error.code >= 500 or error.code in (408, 425, 429):  # busy, or somebody else answers
                raise Away(f"HTTP status {error.code}") from None
            raise Refused(reason, error.code) from None
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ) as error:  # no route, no certificate to believe, an answer that is none
            raise Away(str(error) or type(error).__name__) from None


def said(answer: Any) -> str:
    """The message of an answer, if it has one."""
    try:
        return str(json.loads(answer.read(100000).decode())["message"])
    except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException):
        return ""


class Task:
    """A task of the array, as this run of it."""

    def __init__(self, recipe: Json, key: str, number: int, worker: str) -> None:
        self.recipe = recipe
        self.number = number
        self.folder = os.path.abspath(f"task-{number}")
        self.run_folder = os.path.join(self.folder, "run")
        self.server = Server(recipe, key)
        self.report = {"task": number, "worker": worker, "state": "running", "simulated": 0, "left": None}  # type: Json
        self.claimed = {}  # type: Json
        self.primaries = int(recipe["primaries"][number - 1])

    def tell(self, **changes: Any) -> None:
        """Leave a report in the task's folder: whole, or that from before."""
        self.report.update(changes, time=time.time())
        aside = os.path.join(self.folder, "report.part")
        with open(aside, "w") as file:
            file.write(json.dumps(self.report) + "\n")
        os.rename(aside, os.path.join(self.folder, "report.json"))

    def claim(self, patience: float = 0.0) -> None:
        """Tell the server that this run has the task; raises Away, Refused."""
        told = {"worker": self.report["worker"], "with_input": False}
        told["simulator_version"], told["simulator_digest"] = self.report["version"], self.report["digest"]
        answer = self.server.post(f"/tasks/{self.number}/claim", told, patience)
        self.claimed = {"owner": answer["owner"]}

    def progress(self, simulated: int, left: Optional[float]) -> bool:
        """Whether to go on; a server that does not answer is no reason to stop."""
        seconds = None if left is None else min(round(left), MOST)
        self.tell(simulated=simulated, left=seconds)
        try:
            if not self.claimed:
                self.claim()
            answer = self._post("progress", simulated_primaries=simulated, estimated_time=seconds)
            return bool(answer["wanted"])
        except Away:
            return True
        except Refused:
            return False

    def hand_in(self, patience: float) -> None:
        """Send what there is to be sent of a run that has ended; raises Away, Refused."""
        if not self.claimed:
            self.claim(patience)
        path = f"/tasks/{self.number}/files"
        query = dict(self.claimed, exit_code=self.report["exit_code"])
        archive = os.path.join(self.folder, "result.zip")
        self.server.put(path, query, archive, patience)
        self.tell(state="delivered")
        os.remove(archive)

    def fail(self, reason: str, patience: float) -> None:
        """Tell why there is no result; if nobody hears it, it is in the report."""
        self.tell(state="failed", reason=reason)
        with contextlib.suppress(Away, Refused):
            if not self.claimed:
                self.claim(patience)
            self._post("failure", patience, reason=reason, logfiles=self._logs())

    def canceled(self) -> None:
        """Leave the log of a run that is not wanted any more."""
        self.tell(state="canceled")
        if self.claimed:
            with contextlib.suppress(Away, Refused):
                self._post("canceled", logfiles=self._logs())

    def _logs(self) -> Json:
        return {f"task-{self.number}-{LOG}": read_tail(os.path.join(self.run_folder, LOG), LOG_TAIL)}

    def _post(self, what: str, patience: float = 0.0, **body: Any) -> Json:
        return self.server.post(f"/tasks/{self.number}/{what}", dict(body, **self.claimed), patience)


def read_tail(path: str, most: int) -> str:
    """The end of a text file; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read().decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


def primaries_so_far(rule: Json, folder: str, primaries: int) -> int:
    """How far a run is, by the rule in the recipe (`yaptide.simulators.base.ProgressRule`)."""
    tail = read_tail(os.path.join(folder, rule["file"]), rule["tail"])
    if re.search(rule["done"], tail, re.MULTILINE):
        return primaries
    percents = re.findall(rule["percent"], tail, re.MULTILINE)
    return min(primaries, int(primaries * float(percents[-1]) / 100)) if percents else 0


def unpack(number: int, folder: str) -> Set[str]:
    """Write the input of a task into an empty folder, its own files in place of the common ones; their names."""
    names = set()  # type: Set[str]
    with zipfile.ZipFile("inputs.zip") as archive:
        for start in ("common/", f"tasks/{number}/"):
            for entry in archive.namelist():
                if entry.startswith(start):
                    name = entry[len(start) :]
                    names.add(name)
                    with archive.open(entry) as source, open(os.path.join(folder, name), "wb") as target:
                        shutil.copyfileobj(source, target)
    return names


def pack(folder: str, without: Set[str], path: str) -> None:
    """Put the files of a folder into an archive, but for those `without`, which the server has."""
    with zipfile.ZipFile(path + ".part", "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for place, _, files in os.walk(folder):
            for name in sorted(files):
                file = os.path.join(place, name)
                inside = os.path.relpath(file, folder)
                if inside not in without and os.path.isfile(file) and not os.path.islink(file):
                    archive.write(file, inside)
    os.rename(path + ".part", path)


def digest(program: str) -> str:
    """SHA-256 of a program, hexadecimal; empty if it cannot be read."""
    found = hashlib.sha256()
    try:
        with open(program, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                found.update(chunk)
    except OSError:
        return ""
    return found.hexdigest()


def stop(number: int, _frame: Optional[FrameType]) -> None:
    """Have whatever we are at ended by Stopped, and what is done then not interrupted."""
    for one in STOPS:
        signal.signal(one, signal.SIG_IGN)
    raise Stopped(number)


def follow(task: Task, process: "subprocess.Popen[bytes]") -> Optional[int]:
    """Report how far the simulator is; its exit code, or None if it is not wanted any more."""
    begun = reported = time.monotonic()
    while True:
        try:
            return process.wait(LOOK_EVERY)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if now - reported >= REPORT_EVERY:
            reported = now
            simulated = primaries_so_far(task.recipe["progress"], task.run_folder, task.primaries)
            left = (now - begun) * (task.primaries - simulated) / simulated if simulated else None
            if not task.progress(simulated, left):
                return None


def leash() -> None:
    """Make a simulator that is about to start a group of its own; if we are killed, the kernel kills it (prctl(2))."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(task: Task) -> "subprocess.Popen[bytes]":
    """Start the simulator, which inherits what signals are blocked: only we end it, by SIGKILL."""
    command = [
        part.replace("{folder}", task.run_folder) for part in task.recipe["arguments"]
    ]  # `packing.bundle_manifest`
    for name, target in task.recipe["links"].items():
        os.symlink(target, os.path.join(task.run_folder, name))
    with open(os.path.join(task.run_folder, LOG), "wb") as log:
        return subprocess.Popen(
            command,
            cwd=task.run_folder,
            env=dict(os.environ, **task.recipe["environment"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=leash,
        )


def simulate(task: Task) -> Optional[int]:
    """Run the simulator in a process group of its own, of which nothing is left afterwards."""
    # A signal that came while it starts would leave nobody who knows of it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    process = None  # type: Optional[subprocess.Popen[bytes]]
    try:
        process = start(task)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return follow(task, process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def run(recipe: Json, key: str) -> int:
    """Run the task that SLURM has started us for; the exit code of the job's task."""
    number = int(os.environ["SLURM_ARRAY_TASK_ID"])
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    task = Task(recipe, key, number, f"slurm-{os.environ['SLURM_ARRAY_JOB_ID']}_{number}-{restarts}")
    shutil.rmtree(task.folder, ignore_errors=True)  # what a former run has left
    os.makedirs(task.run_folder)
    try:
        return run_and_hand_in(task)
    except Away:  # it is there for whoever comes for it
        return 0 if task.report["exit_code"] == 0 else 1
    except Refused as refused:
        if task.report["state"] == "ended" and refused.status != NOT_WANTED:
            task.fail(f"the server does not take what was simulated: {refused}", PATIENCE)
            return 1
        task.tell(state="canceled", reason=str(refused))
        return 0
    except Stopped as stopped:
        return give_up(task, stopped.number)
    except (OSError, zipfile.BadZipFile) as error:
        task.fail(f"the task could not be run: {error}", PATIENCE)
        return 1


def run_and_hand_in(task: Task) -> int:
    """Run a task to its end; the simulator's exit code, as 0 or 1."""
    program = task.recipe["arguments"][0]
    version = read_tail(os.path.join(os.path.dirname(program), "VERSION"), 100).strip()
    task.tell(version=version, digest=digest(program))
    with contextlib.suppress(Away):
        task.claim()
    inputs = unpack(task.number, task.run_folder)
    exit_code = simulate(task)
    if exit_code is None:
        task.canceled()
        return 0
    simulated = primaries_so_far(task.recipe["progress"], task.run_folder, task.primaries)
    pack(task.run_folder, inputs, os.path.join(task.folder, "result.zip"))
    task.tell(state="ended", exit_code=exit_code, simulated=simulated)
    task.hand_in(PATIENCE)
    return 0 if exit_code == 0 else 1


def give_up(task: Task, number: int) -> int:
    """Leave what is to be known of a run that a signal of SLURM's has ended; the exit code."""
    if task.report["state"] != "running":  # what there is to be had is there
        return 128 + number
    if number == WARNING:
        task.fail(TOO_LONG, REPORT_EVERY)
        return 1
    task.tell(state="stopped")  # canceled, requeued, or out of time: SLURM tells the server which of them
    return 128 + number


def collect(recipe: Json, key: str) -> int:
    """Send what could not be sent when it was there; what cannot be sent now either stays for the server to fetch."""
    for number in range(1, len(recipe["primaries"]) + 1):
        task = Task(recipe, key, number, "")
        try:
            with open(os.path.join(task.folder, "report.json")) as file:
                task.report = json.load(file)
        except (OSError, ValueError):
            continue
        if task.report.get("state") == "ended":
            with contextlib.suppress(Refused, OSError):
                try:
                    task.hand_in(REPORT_EVERY)
                except Away:
                    return 0
    return 0


def main() -> int:
    """Read the recipe, and do what the argument says."""
    with open("recipe.json") as file:
        recipe = json.load(file)
    with open("key") as file:
        key = file.read().strip()
    for number in STOPS:
        signal.signal(number, stop)
    return {"run": run, "collect": collect}[sys.argv[1]](recipe, key)


if __name__ == "__main__":
    sys.exit(main())
