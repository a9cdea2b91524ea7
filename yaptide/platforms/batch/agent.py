"""The program that runs on the nodes of a cluster: `agent.py run` for one task, `agent.py collect` after all tasks.

It needs only Python 3.6 and its standard library, and imports nothing from yaptide, which uploads this file with every
job. It reads, in the folder of the job,

    manifest.json   the command, and the URL of the server
    key             the update key, which is never in an argument or in the environment
    inputs.zip      input of the tasks: common/<name>, and replacements for some tasks in tasks/<number>/<name>

and writes, for each task, `task-<number>/report.json` (progress, result) and `task-<number>/run`, the working directory
of the simulator. It uploads the simulator's output files to the server. If the server cannot be reached, they stay in
`task-<number>/result.zip`: `collect` sends them later, or the server fetches them over SSH.

The job script sets YAPTIDE_TASK_ID and YAPTIDE_RUN_NAME (`Scheduler.array_script`): the batch system is not known here.

The server trusts this program no more than any other program of the user.
"""

import contextlib
import ctypes
import glob
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
POLL_EVERY = 0.1
#: Timeouts in seconds: for an answer; for the upload of results, which may be large; for retries of a final report.
ANSWER = 15.0
TRANSFER = 600.0
PATIENCE = 30.0
LOG_TAIL = 256 * 1024
LOG = "output.log"
#: The batch system's warning that the time limit is near (`Scheduler.array_command`).
WARNING = signal.SIGUSR1
STOP_SIGNALS = (signal.SIGTERM, WARNING)
CONFLICT = 409
LONGEST = 2**31 - 1
PR_SET_PDEATHSIG = 1


class Unreachable(Exception):
    """The server cannot be reached, or is busy."""


class Rejected(Exception):
    """The server rejected a request: with status 409 because the task belongs to another run, or is not wanted."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class Stopped(Exception):
    """The batch system stops this run by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Sends the update key to one server only."""

    def redirect_request(self, *_: Any) -> None:
        """Do not follow a redirect."""


class Server:
    """The server that tasks report to; without a URL, no request succeeds."""

    def __init__(self, manifest: Json, key: str) -> None:
        url = manifest["url"]
        self.url = f"{url.rstrip('/')}/worker/{manifest['simulation_id']}" if url else ""
        self._headers = {"Authorization": "Bearer " + key, "User-Agent": "yaptide-cluster"}
        self._opener = urllib.request.build_opener(NoRedirects())

    def post_json(self, path: str, body: Json, patience: float = 0.0) -> Json:
        """Send a request, with retries for `patience` seconds; raises Unreachable, Rejected."""
        data = json.dumps(body).encode()
        return self._retry(lambda: self._send("POST", path, data, "application/json", ANSWER), patience)

    def put_file(self, path: str, query: Json, file_name: str, patience: float) -> Json:
        """Upload a file, in each attempt from its beginning."""
        size = os.path.getsize(file_name)
        path = path + "?" + urllib.parse.urlencode(query)

        def send() -> Json:
            with open(file_name, "rb") as file:
                return self._send("PUT", path, file, "application/zip", TRANSFER, size)

        return self._retry(send, patience)

    def _retry(self, send: Callable[[], Json], patience: float) -> Json:
        if not self.url:
            raise Unreachable("there is no URL of the server")
        end, wait = time.monotonic() + patience, 0.5
        while True:
            try:
                return send()
            except Unreachable:
                if time.monotonic() + wait > end:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.0))  # spreads the requests of many nodes
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
            reason = read_message(error)
            if not reason or error.code >= 500 or error.code in (408, 425, 429):  # busy, or a proxy answers
                raise Unreachable(f"HTTP status {error.code}") from None
            raise Rejected(reason, error.code) from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # also invalid certificates and answers
            raise Unreachable(str(error) or type(error).__name__) from None


def read_message(answer: Any) -> str:
    """The message in an error response; empty if there is none."""
    try:
        return str(json.loads(answer.read(100000).decode())["message"])
    except (OSError, ValueError, TypeError, KeyError, http.client.HTTPException):
        return ""


class Task:
    """One run of a task of the array."""

    def __init__(self, manifest: Json, key: str, number: int, run_name: str) -> None:
        self.manifest = manifest
        self.number = number
        self.folder = os.path.abspath(f"task-{number}")
        self.run_folder = os.path.join(self.folder, "run")
        self.server = Server(manifest, key)
        self.report = {"task": number, "worker": run_name, "state": "running", "simulated": 0, "left": None}  # type: Json
        self.report.update(version="", digest="")
        self.claimed = {}  # type: Json
        self.primaries = int(manifest["primaries"][number - 1])

    def write_report(self, **changes: Any) -> None:
        """Change the report and write it atomically to the folder of the task."""
        self.report.update(changes, time=time.time())
        temporary = os.path.join(self.folder, "report.part")
        with open(temporary, "w") as file:
            file.write(json.dumps(self.report) + "\n")
        os.rename(temporary, os.path.join(self.folder, "report.json"))

    def claim(self, patience: float = 0.0) -> None:
        """Claim the task for this run; raises Unreachable, Rejected."""
        body = {"worker": self.report["worker"], "with_input": False}
        body["simulator_version"], body["simulator_digest"] = self.report["version"], self.report["digest"]
        answer = self.server.post_json(f"/tasks/{self.number}/claim", body, patience)
        self.claimed = {"owner": answer["owner"]}

    def report_progress(self, simulated: int, left: Optional[float]) -> bool:
        """Report primaries and seconds left; returns whether to continue. A run continues without the server."""
        seconds = None if left is None else min(round(left), LONGEST)
        self.write_report(simulated=simulated, left=seconds)
        try:
            if not self.claimed:
                self.claim()
            answer = self._post("progress", simulated_primaries=simulated, estimated_time=seconds)
            return bool(answer["wanted"])
        except Unreachable:
            return True
        except Rejected:
            return False

    def upload_result(self, patience: float) -> None:
        """Upload the output of a run that has ended; raises Unreachable, Rejected."""
        if not self.claimed:
            self.claim(patience)
        path = f"/tasks/{self.number}/files"
        query = dict(self.claimed, exit_code=self.report["exit_code"])
        archive = os.path.join(self.folder, "result.zip")
        self.server.put_file(path, query, archive, patience)
        self.write_report(state="delivered")
        os.remove(archive)

    def report_failure(self, reason: str, patience: float) -> None:
        """Report why there is no result; the report on disk remains if the server cannot be reached."""
        with contextlib.suppress(OSError):  # the disk may be the reason
            self.write_report(state="failed", reason=reason)
        with contextlib.suppress(Unreachable, Rejected):
            if not self.claimed:
                self.claim(patience)
            self._post("failure", patience, reason=reason, logfiles=self._read_logs())

    def report_canceled(self) -> None:
        """Send the log of a run that was canceled."""
        self.write_report(state="canceled")
        if self.claimed:
            with contextlib.suppress(Unreachable, Rejected):
                self._post("canceled", logfiles=self._read_logs())

    def _read_logs(self) -> Json:
        return {f"task-{self.number}-{LOG}": read_tail(os.path.join(self.run_folder, LOG), LOG_TAIL)}

    def _post(self, what: str, patience: float = 0.0, **body: Any) -> Json:
        return self.server.post_json(f"/tasks/{self.number}/{what}", dict(body, **self.claimed), patience)


def read_tail(path: str, most: int) -> str:
    """The last `most` bytes of a text file; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read().decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


def count_primaries(rule: Json, folder: str, primaries: int) -> int:
    """Primaries simulated so far, by the rule in the manifest; `yaptide.simulators.base.ProgressRule` is the same."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), rule["file"]), recursive=True))
    tail = read_tail(paths[-1], rule["tail"]) if paths else ""
    if re.search(rule["done"], tail, re.MULTILINE):
        return primaries
    numbers = re.findall(rule["percent"], tail, re.MULTILINE)
    if not numbers:
        return 0
    last = float(numbers[-1])  # infinite for too many digits
    return int(min(primaries, last if rule["counted"] else primaries * last / 100))


def unpack_inputs(number: int, folder: str) -> Set[str]:
    """Write the input of a task to an empty folder; its own files replace common ones. Returns the file names."""
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


def pack_outputs(folder: str, without: Set[str], path: str) -> None:
    """Write the files of a folder to an archive, except `without`, the input files."""
    with zipfile.ZipFile(path + ".part", "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for place, _, files in os.walk(folder):
            for name in sorted(files):
                file = os.path.join(place, name)
                inside = os.path.relpath(file, folder)
                if inside not in without and os.path.isfile(file) and not os.path.islink(file):
                    archive.write(file, inside)
    os.rename(path + ".part", path)


def hash_program(program: str) -> str:
    """SHA-256 of a program, hexadecimal; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(program, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def raise_stopped(number: int, _frame: Optional[FrameType]) -> None:
    """Handle a stop signal: raise Stopped, and ignore further signals."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def follow_simulator(task: Task, process: "subprocess.Popen[bytes]") -> Optional[int]:
    """Report progress until the simulator ends; returns its exit code, None if the task was canceled."""
    begun = reported = time.monotonic()
    while True:
        try:
            return process.wait(POLL_EVERY)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if now - reported >= REPORT_EVERY:
            reported = now
            simulated = count_primaries(task.manifest["progress"], task.run_folder, task.primaries)
            left = (now - begun) * (task.primaries - simulated) / simulated if simulated else None
            if not task.report_progress(simulated, left):
                return None


def set_parent_death_signal() -> None:
    """In the new process: begin a process group, and let the kernel kill it if the agent dies (prctl(2))."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_simulator(task: Task) -> "subprocess.Popen[bytes]":
    """Start the simulator. It inherits the blocked signals: only the agent ends it, by SIGKILL."""
    command = [part.replace("{folder}", task.run_folder) for part in task.manifest["arguments"]]
    for name, target in task.manifest["links"].items():
        os.symlink(target, os.path.join(task.run_folder, name))
    with open(os.path.join(task.run_folder, LOG), "wb") as log:
        return subprocess.Popen(
            command,
            cwd=task.run_folder,
            env=dict(os.environ, **task.manifest["environment"]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=set_parent_death_signal,
        )


def run_simulator(task: Task) -> Optional[int]:
    """Run the simulator in its own process group, and kill the whole group at the end."""
    # A signal that arrives during the start would leave a process that is in no variable.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    process = None  # type: Optional[subprocess.Popen[bytes]]
    try:
        process = start_simulator(task)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return follow_simulator(task, process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process is not None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def run_task(manifest: Json, key: str) -> int:
    """Run one task of the array; returns its exit code."""
    number = int(os.environ["YAPTIDE_TASK_ID"])
    task = Task(manifest, key, number, os.environ["YAPTIDE_RUN_NAME"])
    try:
        shutil.rmtree(task.folder, ignore_errors=True)  # of an earlier run
        os.makedirs(task.run_folder)
        return simulate_and_upload(task)
    except Unreachable:  # the result stays in the folder
        return 0 if task.report["exit_code"] == 0 else 1
    except Rejected as rejected:
        if task.report["state"] == "ended" and rejected.status != CONFLICT:
            task.report_failure(f"the server rejected the results: {rejected}", PATIENCE)
            return 1
        task.write_report(state="canceled", reason=str(rejected))
        return 0
    except Stopped as stopped:
        return report_stop(task, stopped.number)
    except (OSError, zipfile.BadZipFile) as error:
        task.report_failure(f"the task could not be run: {error}", PATIENCE)
        return 1


def simulate_and_upload(task: Task) -> int:
    """Run a task and upload its result; returns 0 if the simulator succeeded, else 1."""
    program = task.manifest["arguments"][0]
    version = read_tail(os.path.join(os.path.dirname(program), "VERSION"), 100).strip()
    task.write_report(version=version, digest=hash_program(program))
    with contextlib.suppress(Unreachable):
        task.claim()
    inputs = unpack_inputs(task.number, task.run_folder)
    exit_code = run_simulator(task)
    if exit_code is None:
        task.report_canceled()
        return 0
    simulated = count_primaries(task.manifest["progress"], task.run_folder, task.primaries)
    pack_outputs(task.run_folder, inputs, os.path.join(task.folder, "result.zip"))
    task.write_report(state="ended", exit_code=exit_code, simulated=simulated)
    task.upload_result(PATIENCE)
    return 0 if exit_code == 0 else 1


def report_stop(task: Task, number: int) -> int:
    """Report a run that was stopped by a signal; returns the exit code."""
    if task.report["state"] != "running":  # the report is final
        return 128 + number
    if number == WARNING:
        task.report_failure(task.manifest["time_limit_reason"], REPORT_EVERY)
        return 1
    task.write_report(state="stopped")  # canceled or requeued: the server asks the batch system which
    return 128 + number


def collect_results(manifest: Json, key: str) -> int:
    """Upload results that could not be uploaded before; the server fetches over SSH those that still cannot."""
    for number in range(1, len(manifest["primaries"]) + 1):
        task = Task(manifest, key, number, "")
        try:
            with open(os.path.join(task.folder, "report.json")) as file:
                task.report = json.load(file)
        except (OSError, ValueError):
            continue
        if task.report.get("state") == "ended":
            with contextlib.suppress(Rejected, OSError):
                try:
                    task.upload_result(REPORT_EVERY)
                except Unreachable:
                    return 0
    return 0


def main() -> int:
    """Read the manifest and the key, and run the command in the argument."""
    with open("manifest.json") as file:
        manifest = json.load(file)
    with open("key") as file:
        key = file.read().strip()
    for number in STOP_SIGNALS:
        signal.signal(number, raise_stopped)
    return {"run": run_task, "collect": collect_results}[sys.argv[1]](manifest, key)


if __name__ == "__main__":
    sys.exit(main())
