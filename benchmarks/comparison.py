"""A comparison of tools: one text, contenders that take turns, the quality of their vectors, and the tables.

A script states its options, what runs in a process of its own, its sections and its tables, and hands them to `main`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

# As in `common`, nothing big is imported at the top.

MIN_COUNT = 5  # for every contender: rarer words are dropped
SIMILARITY_FILES = {
    "WordSim-353": "similarity/WS-353-ALL.txt",
    "MEN": "similarity/MEN-TR-3k.txt",
    "RG-65": "similarity/RG-65.txt",
}
ANALOGIES = {"analogies, 30,000 words": 30_000, "analogies, all words": None}
MEASURES = (*SIMILARITY_FILES, *ANALOGIES)
NO_GLOVE = "no folder of programs given (--glove)"

Run = dict[str, Any]

# --- What runs in a process of its own -------------------------------------------------------------------------------


def prepare(source: str, folder: str, limit: int | None) -> Run:
    """Cut a text into lower-cased words, [a-z]+ or [0-9]+, with one paragraph per line."""
    import collections

    from firth.files import open_binary

    counts: collections.Counter[str] = collections.Counter()
    lines = read = 0
    with open_binary(source) as raw, Path(folder, "text.txt").open("w") as text:
        for line in raw:
            if limit is not None and read >= limit:
                break
            read += len(line)
            words = common.WORD.findall(line.decode().lower())
            if words:
                text.write(" ".join(words) + "\n")
                counts.update(words)
                lines += 1
    return {
        "words": counts.total(),
        "lines": lines,
        "bytes": Path(folder, "text.txt").stat().st_size,
        "vocabulary": sum(count >= MIN_COUNT for count in counts.values()),
    }


def cpu() -> Run:
    """The kernels in use."""
    import firth

    return firth.cpu_info()


def quality(vectors: str, data: str) -> Run:
    """The quality of saved vectors, evaluated by the same code for every contender."""
    import numpy as np

    import firth

    read = firth.load_vectors(vectors)
    similar = {name: firth.evaluate.similarity(read, Path(data, file)) for name, file in SIMILARITY_FILES.items()}
    scores = {name: result.spearman for name, result in similar.items()}
    for name, restrict in ANALOGIES.items():
        result = firth.evaluate.analogies(read, Path(data, "questions-words.txt"), restrict_vocab=restrict)
        scores[name] = result.accuracy
    return {
        "finite": bool(np.isfinite(read.matrix).all()),
        "shape": list(read.matrix.shape),
        "pairs": similar["MEN"].found,
        "scores": scores,
    }


# --- Running ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Script:
    """What a script passes to `main`."""

    file: str
    doc: str
    options: Mapping[str, Any]  # of the contenders, for the result file; with vector_size and min_count
    packages: Sequence[str]  # whose versions are noted
    work: Sequence[Callable[..., Run]]  # what may run in a process of its own
    sections: Mapping[str, Callable[[Bench], None]]
    report: type[Report]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None  # adds its own


class Bench:
    """One benchmark: the text, the settings, and every run so far."""

    def __init__(self, script: Script, settings: argparse.Namespace, scratch: Path) -> None:
        self.script = script
        self.settings = settings
        self.scratch = scratch
        self.machine = common.describe_machine(script.packages)
        self.machine["firth"] = self.fresh(cpu, {})
        if "failed" in self.machine["firth"]:
            raise SystemExit(f"firth does not run here: {self.machine['firth']['failed']}")
        self.folder, self.text = self.prepared()
        self.path = str(self.folder / "text.txt")
        self.runs: list[Run] = []

    @property
    def seeds(self) -> range:
        """A seed for each repeat."""
        return range(1, self.settings.repeats + 1)

    def fresh(self, work: Callable[..., Run], arguments: Mapping[str, Any]) -> Run:
        """`work` in a process of its own, with as many threads as its arguments say, or the settings."""
        threads = arguments.get("threads", self.settings.threads)
        return common.run_fresh(self.script.file, work.__name__, threads, arguments)

    def run(
        self,
        section: str,
        contender: str,
        seed: int,
        work: Callable[..., Run],
        arguments: Mapping[str, Any],
        absent: str | None = None,
    ) -> Run:
        """Run one contender once, or note why it is absent. Call `keep` when the result has been checked."""
        run: Run = {"section": section, "contender": contender, "seed": seed, "problems": []}
        if absent is not None:
            run["failed"] = absent
        else:
            print(f"{section}: {contender}, seed {seed} ...", file=sys.stderr, flush=True)
            run.update(self.fresh(work, arguments))
        if run.get("vocabulary", self.text["vocabulary"]) != self.text["vocabulary"]:
            run["problems"].append(f"{run['vocabulary']} words, not {self.text['vocabulary']}")
        return run

    def evaluate(self, run: Run, vectors: Path, chance: bool = False) -> None:
        """Evaluate saved vectors and note what is wrong; `chance`: similarities need not be better than chance."""
        if "failed" in run:
            return
        found = self.fresh(quality, {"vectors": str(vectors), "data": str(self.settings.data)})
        if "failed" in found:
            run["problems"].append(f"the vectors could not be evaluated: {found['failed']}")
            return
        run["quality"] = found
        if found["shape"][1] != self.script.options["vector_size"]:
            run["problems"].append(f"vectors of {found['shape'][1]} dimensions")
        if not found["finite"]:
            run["problems"].append("the vectors are not finite")
        # Ranks of unrelated numbers correlate by less than two standard errors, 1 / sqrt(pairs - 1), as a rule.
        if not chance and not found["scores"]["MEN"] > 2 / math.sqrt(max(2, found["pairs"]) - 1):
            run["problems"].append(f"similarities no better than chance (MEN {100 * found['scores']['MEN']:.1f})")

    def keep(self, run: Run) -> None:
        """Add a run to the results, and write them all."""
        self.runs.append(run)
        settings = {name: getattr(self.settings, name) for name in ("threads", "repeats", "slice", "only")}
        common.write_json(
            self.settings.json,
            {
                "machine": self.machine,
                "options": self.script.options,
                "settings": settings,
                "text": self.text,
                "runs": self.runs,
            },
        )

    def prepared(self) -> tuple[Path, Run]:
        """The folder of the prepared text, made once for each source and slice, and its description."""
        source, limit = self.settings.text, self.settings.slice
        if not source.exists():
            raise SystemExit(f"there is no text at {source}: give one with --text, or its folder in FIRTH_DATA")
        stat = source.stat()
        part = "whole" if limit is None else f"first-{limit}"
        folder = self.settings.work / f"{source.name}-{stat.st_size}-{int(stat.st_mtime)}-{part}"
        description = folder / "text.json"
        if not description.exists():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"preparing the text in {folder} ...", file=sys.stderr, flush=True)
            text = self.fresh(prepare, {"source": str(source), "folder": str(folder), "limit": limit})
            if "failed" in text:
                raise SystemExit(f"the text could not be prepared: {text['failed']}")
            common.write_json(description, {**text, "source": source.name, "part": part})
        warm(folder / "text.txt")
        return folder, json.loads(description.read_text())


def warm(path: Path) -> None:
    """Read a file, so that the first contender does not pay for the disk."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def rotated(names: Iterable[str], by: int) -> list[str]:
    """The names, each time from another one on, so that no contender always profits from a warm machine."""
    names = list(names)
    by %= len(names)
    return names[by:] + names[:by]


def unlike(runs: Iterable[Run], run: Run, name: str, tolerance: float = 0.0) -> str | None:
    """A message if a figure differs from that of the section's first earlier run that has it; otherwise None."""
    for other in runs:
        if other["section"] == run["section"] and name in other and name in run:
            mine, first = run[name], other[name]
            same = mine == first or (tolerance > 0 and math.isclose(mine, first, rel_tol=tolerance))
            return None if same else f"{name} {mine}, but {first} from {other['contender']}"
    return None


def unless_installed(package: str) -> str | None:
    """Why a contender is absent that needs a package; None if the package is installed."""
    return common.NOT_INSTALLED if importlib.util.find_spec(package) is None else None


def main(script: Script) -> None:
    """A script's command line."""
    if common.served((prepare, cpu, quality, *script.work)):
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = common.arguments(script.doc, script.sections, "the first 8 MB, once")
    parser.add_argument("--text", type=Path, help="raw text, plain, .gz or .xz (default: enwiki.raw.txt.xz in --data)")
    parser.add_argument("--work", type=Path, default=cache / "firth-bench", help="where the prepared text is kept")
    parser.add_argument("--repeats", type=common.positive, help="with seeds 1, 2, ... (default 3)")
    parser.add_argument("--slice", type=common.positive, help="bytes of the raw text to use, from its start")
    script.arguments(parser)
    settings = common.parsed(parser, script.file, script.sections, lambda content: script.report(content).text())
    settings.text = settings.text or settings.data / "enwiki.raw.txt.xz"
    settings.slice = settings.slice or (8_000_000 if settings.quick else None)
    settings.repeats = settings.repeats or (1 if settings.quick else 3)
    settings.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.work) as scratch:
        bench = Bench(script, settings, Path(scratch))
        try:
            for section, run in script.sections.items():
                if section in settings.only:
                    run(bench)
        except KeyboardInterrupt:
            print("interrupted; the tables show the finished runs", file=sys.stderr)
    if bench.runs:
        common.finish(script.report(json.loads(settings.json.read_text())).text(), settings.json)


# --- The tables ------------------------------------------------------------------------------------------------------


class Report:
    """The tables of one result file. A script's subclass has a method for each section, which returns its text."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.options: dict[str, Any] = content["options"]
        self.words: int = content["text"]["words"]
        self.megabytes: float = content["text"]["bytes"] / 1e6

    def contenders(self, section: str) -> list[str]:
        """In the order of the first repeat, which is not rotated."""
        return list(dict.fromkeys(run["contender"] for run in self.content["runs"] if run["section"] == section))

    def of(self, section: str, contender: str) -> dict[int, Run]:
        """The valid runs, by seed."""
        return {
            run["seed"]: run for run in self.all_of(section, contender) if "failed" not in run and not run["problems"]
        }

    def all_of(self, section: str, contender: str) -> list[Run]:
        """The runs of a contender in a section."""
        return [run for run in self.content["runs"] if (run["section"], run["contender"]) == (section, contender)]

    def rows(self, section: str, columns: int, cells: Callable[[str, dict[int, Run]], list[str]]) -> list[list[str]]:
        """A row for each contender: `cells(name, runs by seed)`, or why there are none."""
        rows = []
        for name in self.contenders(section):
            runs = self.of(section, name)
            if runs:
                rows.append([name, *cells(name, runs)])
            else:
                whys = {run.get("failed", "") for run in self.all_of(section, name)}
                absent = whys & {common.NOT_INSTALLED, NO_GLOVE}
                rows.append([name, absent.pop() if absent == whys else "see below", *[""] * (columns - 2)])
        return rows

    def times(self, section: str, slow: str, fast: str, seconds: Callable[[Run], float | None], digits: int = 1) -> str:
        """The time of one contender relative to the other, over pairs of runs with the same seed."""
        if slow == fast:
            return "1"
        slower, faster = self.of(section, slow), self.of(section, fast)
        pairs = [(seconds(slower[seed]), seconds(faster[seed])) for seed in sorted(slower.keys() & faster.keys())]
        return common.spread([a / b for a, b in pairs if a is not None and b], digits)

    def training_table(self, section: str, ours: str) -> str:
        """From the file to vectors on disk: time by stage, speed and memory of each contender."""
        headings = ["", "file to vectors, s", f"relative to {ours}", "counting, s", "training, s", "saving, s"]
        headings += [f"training, relative to {ours}", "words/s", "peak MB", "after imports", "import, s"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            def seconds(of: str, digits: int = 1) -> str:
                return spread_of(runs, stage(of), digits)

            separate = "training" in next(iter(runs.values()))["seconds"]
            rate = self.words * self.options["epochs"] / common.median(map(training, runs.values()))
            return [
                spread_of(runs, total, 1),
                self.times(section, name, ours, total),
                seconds("counting", 2) if separate else "in training",
                seconds("training") if separate else seconds("counting and training"),
                seconds("saving", 2),
                self.times(section, name, ours, training) if separate else "-",
                thousands(rate, separate),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
                spread_of(runs, lambda run: run["import_mb"], 0, wide=False),
                spread_of(runs, lambda run: run["import_seconds"], 1, wide=False),
            ]

        return common.table(headings, self.rows(section, len(headings), cells))

    def quality_table(self, section: str, ours: str | None = None, theirs: str | None = None) -> str:
        """Mean and standard deviation in points, and the difference between two of the contenders."""

        def scores(runs: dict[int, Run], measure: str) -> list[float]:
            return [100 * run["quality"]["scores"][measure] for run in runs.values()]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            found = [scores(runs, measure) for measure in MEASURES]
            return [
                f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
                for values in found
            ]

        rows = self.rows(section, len(MEASURES) + 1, cells)
        if ours is not None and theirs is not None and ours != theirs:
            mine, other = self.of(section, ours), self.of(section, theirs)
            if mine and other:
                differences = [statistics.mean(scores(mine, m)) - statistics.mean(scores(other, m)) for m in MEASURES]
                rows.append([f"{ours} minus {theirs}", *(f"{difference:+.1f}" for difference in differences)])
        return common.table(["", *MEASURES], rows)

    def text(self) -> str:
        """All tables that have runs."""
        machine, text, settings = self.content["machine"], self.content["text"], self.content["settings"]
        firth = machine["firth"]
        described = common.machine_line(machine, f", {machine['memory_gb']:.0f} GB", f"{machine['system']}, ")
        parts = [
            f"{described}, kernels {firth['isa']} of {', '.join(firth['available'])}.\n"
            f"{text['source']}, {text['part']}: {text['words']:,} words in {text['lines']:,} lines, "
            f"{text['vocabulary']:,} words seen {self.options['min_count']} times or more. "
            f"{plural(settings['threads'])}; seeds 1 to {settings['repeats']}; medians (lowest to highest); "
            f"ratios are medians over pairs of runs with the same seed."
        ]
        parts += [getattr(self, name)() for name in dict.fromkeys(run["section"] for run in self.content["runs"])]
        left_out = [
            f"- {run['section']}, {run['contender']}, seed {run['seed']}: {why}"
            for run in self.content["runs"]
            for why in [*run["problems"], run.get("failed")]
            if why not in (None, common.NOT_INSTALLED, NO_GLOVE)
        ]
        if left_out:
            parts.append("### Failed runs, and runs with wrong results\n\n" + "\n".join(left_out))
        return "\n\n".join(parts)


def plural(threads: int) -> str:
    return f"{threads} thread" + ("s" if threads > 1 else "")


def total(run: Run) -> float:
    return float(sum(run["seconds"].values()))


def stage(*names: str) -> Callable[[Run], float | None]:
    """The sum of the seconds of some stages; None for a run without all of them."""

    def seconds(run: Run) -> float | None:
        found = [run["seconds"].get(name) for name in names]
        return None if None in found else float(sum(found))

    return seconds


def training(run: Run) -> float:
    """Seconds of training, including counting if a tool does not separate them."""
    seconds = run["seconds"]
    return float(seconds.get("training", seconds.get("counting and training")))


def spread_of(runs: dict[int, Run], value: Callable[[Run], float | None], digits: int, wide: bool = True) -> str:
    """The median of what `value` finds in the runs, with the lowest and highest if `wide`."""
    values = [found for found in map(value, runs.values()) if found is not None]
    return common.spread(values if wide or not values else [common.median(values)], digits)


def thousands(rate: float, exact: bool = True) -> str:
    return f"{'' if exact else 'over '}{rate / 1e3:,.0f} k"
