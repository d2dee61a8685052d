"""Shared by the scripts: fresh processes and their peak memory, a description of the machine, medians, tables."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# This module and the scripts import nothing big at the top. A new process begins with the peak memory of the one it
# was forked from, so the process that starts the others must stay small.

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
NOT_INSTALLED = "not installed"
WORD = re.compile(r"[a-z]+|[0-9]+")  # of lower-cased text, in the static benchmarks


class Clock:
    """Seconds by the name of the stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def stage(self, name: str) -> None:
        """End a stage, which began when the previous one ended."""
        now = time.perf_counter()
        self.seconds[name] = now - self.last
        self.last = now


def import_cost(*modules: str) -> dict[str, float]:
    """Import modules; the seconds that this took, and the peak memory of the process after it.

    Of firth it must be `firth.models`: firth imports its parts, and SciPy, when they are used first.
    """
    start = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    return {"import_seconds": time.perf_counter() - start, "import_mb": peak_so_far()}


def megabytes(maxrss: int) -> float:
    """`ru_maxrss` in units of 10^6 bytes; Linux counts it in KiB, macOS in bytes."""
    return maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def peak_so_far() -> float:
    """Peak memory of this process so far, in units of 10^6 bytes."""
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def run_fresh(script: str, work: str, threads: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run a function of a script in a process of its own. Returns its result and `peak_mb`, or why it `failed`."""
    environment = {**os.environ}
    for name in THREAD_VARIABLES:
        environment[name] = str(threads)
    with tempfile.TemporaryDirectory() as folder:
        answer, errors = Path(folder, "answer.json"), Path(folder, "errors.txt")
        call = json.dumps({"work": work, "arguments": arguments, "answer": str(answer)})
        with errors.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, script, "--worker", call],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            messages = errors.read_text(errors="replace").strip().splitlines() or ["nothing"]
            return {"failed": f"exit {process.returncode}: {messages[-1]}"}
        return {**json.loads(answer.read_text()), "peak_mb": megabytes(usage.ru_maxrss)}


def serve(call: str, functions: Iterable[Callable[..., dict[str, Any]]]) -> None:
    """The other end of `run_fresh`."""
    request = json.loads(call)
    work = {function.__name__: function for function in functions}[request["work"]]
    Path(request["answer"]).write_text(json.dumps(work(**request["arguments"])))


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits; read in blocks, so that it does not raise the peak memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def matmul_gflops(size: int = 4096, repeats: int = 3) -> float:
    """GFLOP/s of a float32 product of two square matrices: the median of `repeats` runs after a warm-up."""
    import numpy as np

    random = np.random.default_rng(0)
    a, b = random.random((size, size), np.float32), random.random((size, size), np.float32)
    out = np.empty((size, size), np.float32)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e9


def describe_machine(packages: Iterable[str]) -> dict[str, Any]:
    """Date, processor, memory, load and versions; `firth.cpu_info()` comes from a worker."""
    try:
        git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load": os.getloadavg()[0],  # of the last minute, before anything started: above 0.2 the machine is not quiet
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in packages},
        "commit": commit,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name, family and model: virtual machines often hide the rest of the name."""
    try:
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        known = {name.strip(): value.strip() for name, _, value in lines}
        return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def machine_line(
    machine: Mapping[str, Any], hardware: str = "", system: str = "", packages: Iterable[str] | None = None
) -> str:
    """One line on a machine, as `describe_machine` returns it; with the versions of some packages, or of all."""
    names = machine["versions"] if packages is None else packages
    versions = ", ".join(f"{name} {machine['versions'][name] or NOT_INSTALLED}" for name in names)
    return (
        f"{machine['date'][:10]}; {machine['cpu']}, {machine['cpus']} processors{hardware}; "
        f"load before {machine['load']:.2f}; {system}Python {machine['python']}; {versions}; "
        f"firth {machine['commit'] or ''}"
    )


def articles(path: Path, limit: int | None = None) -> Iterator[list[str]]:
    """The articles of a text, which blank lines separate, as lists of lines; those that begin in the first bytes."""
    from firth.files import open_binary

    lines: list[str] = []
    read = 0
    with open_binary(path) as file:
        for raw in file:
            read += len(raw)
            if line := raw.decode().strip():
                lines.append(line)
            elif lines:
                yield lines
                lines = []
                if limit is not None and read >= limit:
                    return
    if lines:
        yield lines


def write_json(path: Path, content: object) -> None:
    """Write a result file; called after every run, so that finished runs survive an interruption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def median(values: Iterable[float]) -> float:
    """The median; NaN if there are no values."""
    values = list(values)
    return statistics.median(values) if values else float("nan")


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and lowest to highest if there are several."""
    if not values:
        return "-"
    text = f"{median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for reading as text; the first to the left, the others to the right."""
    rows = [list(headings), *map(list, rows)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(headings))]
    lines = []
    for row in rows:
        first, *others = row
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines.append(f"| {' | '.join(cells)} |")
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def served(functions: Iterable[Callable[..., dict[str, Any]]]) -> bool:
    """Whether this process was started by `run_fresh`, and has done its work."""
    if len(sys.argv) != 3 or sys.argv[1] != "--worker":
        return False
    serve(sys.argv[2], functions)
    return True


def arguments(doc: str, sections: Iterable[str], quick: str) -> argparse.ArgumentParser:
    """The command line that every script shares; a script adds its own arguments."""
    data = Path(os.environ.get("FIRTH_DATA", REPOSITORY.parent / "shared" / "data"))
    names = ",".join(sections)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, help="folder of texts and gold standards (FIRTH_DATA)")
    parser.add_argument("--json", type=Path, help="default: results/SCRIPT.json; of a quick run, SCRIPT-quick.json")
    parser.add_argument("--only", default=names, help=f"some of {names}")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--show", type=Path, metavar="JSON", help="print the tables of an earlier run, and exit")
    return parser


def parsed(
    parser: argparse.ArgumentParser, file: str, sections: Iterable[str], show: Callable[[dict[str, Any]], str]
) -> argparse.Namespace:
    """The arguments, with `only` as a list; ends here for --show, and where --only names no section."""
    settings = parser.parse_args()
    if settings.show is not None:
        print(show(json.loads(settings.show.read_text())))
        parser.exit()
    settings.only = settings.only.split(",")
    if unknown := set(settings.only) - set(sections):
        parser.error(f"--only takes some of {','.join(sections)}, not {','.join(sorted(unknown))}")
    settings.json = settings.json or RESULTS / f"{Path(file).stem}{'-quick' if settings.quick else ''}.json"
    return settings


def finish(tables: str, path: Path) -> None:
    """Print the tables, and where the figures are."""
    print(tables)
    print(f"\nAll figures: {path}", file=sys.stderr)


def epoch_seconds(history: Any) -> list[float]:
    """The seconds of each epoch of a history, whose records count from the beginning."""
    return [after - before for before, after in itertools.pairwise([0.0, *(one.seconds for one in history)])]
