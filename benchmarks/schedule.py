"""A model of many threads: how fast the division of work alone would let firth be, without the limits of memory.

    python benchmarks/schedule.py                     some minutes
    python benchmarks/schedule.py --quick
    python benchmarks/schedule.py --show benchmarks/results/schedule.json

Every work item is timed here: its CPU time, in a run that divides the work for so many threads, whatever the number of
processors. A simulation then gives the items to threads in the order in which firth does. What runs between the phases
of parallel work is timed with one thread and added. Memory is as fast for each thread as it was here. So the model
finds what a division of work cannot exceed; it does not say what a machine reaches. `scaling.py` measures machines.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import common
import scaling

THREADS = (1, 2, 4, 8, 16, 32, 64, 128)
MOST = 64  # threads that firth starts on any machine
CHUNK_SECONDS = 0.3  # of training, between two of which all threads wait
QUICK_TOKENS = 500_000
REPEATS = 3  # of which the run with the least CPU time counts
WORK = ("counting", "GloVe", "word2vec")


class Item(NamedTuple):
    """What `_core.stop_trace` returns of a work item; times in nanoseconds."""

    work: str
    item: int
    thread: int
    begin: int
    end: int
    cpu: int


# --- The model -------------------------------------------------------------------------------------------------------


def in_order(costs: Iterable[float], threads: int) -> float:
    """The time until all items are done, if the first free thread takes the next one."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def predecessors(slices: Sequence[tuple[int, int]]) -> list[set[int]]:
    """For each slice (block of rows, block of columns), the last one before it of each of its blocks."""
    found: list[set[int]] = []
    last: dict[tuple[str, int], int] = {}
    for i, (row, column) in enumerate(slices):
        keys = (("row", row), ("column", column))
        found.append({last[key] for key in keys if key in last})
        last.update(dict.fromkeys(keys, i))
    return found


def from_queue(costs: Sequence[float], before: Sequence[set[int]], threads: int) -> float:
    """The time until all items are done, if each enters a queue when those `before` it are done."""
    after = collections.defaultdict(list)
    for i, ones in enumerate(before):
        for one in ones:
            after[one].append(i)
    waits = [len(ones) for ones in before]
    queue = collections.deque(i for i, n in enumerate(waits) if n == 0)
    working: list[tuple[float, int]] = []
    now = 0.0
    while queue or working:
        while queue and len(working) < threads:
            item = queue.popleft()
            heapq.heappush(working, (now + costs[item], item))
        now, done = heapq.heappop(working)
        for item in after[done]:
            waits[item] -= 1
            if waits[item] == 0:
                queue.append(item)
    return now


# --- Measuring -------------------------------------------------------------------------------------------------------


def traced(call: Any) -> tuple[list[list[Item]], float]:
    """Phases of parallel work in a call, each with its items in order, and the seconds between phases."""
    from firth import _core

    _core.start_trace()
    begin = time.perf_counter()
    call()
    seconds = time.perf_counter() - begin
    trace = sorted(map(Item._make, _core.stop_trace()), key=lambda one: one.begin)
    phases = [sorted(items, key=lambda one: one.item) for _, items in itertools.groupby(trace, lambda one: one.work)]
    inside = sum(max(one.end for one in phase) - min(one.begin for one in phase) for phase in phases)
    return phases, seconds - inside / 1e9


def seconds_of(phase: Iterable[Item]) -> list[float]:
    return [one.cpu / 1e9 for one in phase]


def counting(corpus: Any) -> dict[int, float]:
    """Seconds of `count_cooccurrences`, by the number of threads."""
    import firth

    firth.count_cooccurrences(firth.Corpus.from_iterable(["a b"], min_count=1))  # so that nothing is imported below
    found, between = {}, 0.0
    phases: list[list[Item]] = []
    for threads in THREADS:
        if threads <= MOST:  # the phases of the largest number serve beyond it
            runs = [traced(lambda n=threads: firth.count_cooccurrences(corpus, threads=n)) for _ in range(REPEATS)]
            phases = min((run[0] for run in runs), key=lambda run: sum(one.cpu for phase in run for one in phase))
            between = between or min(run[1] for run in runs)
        found[threads] = between + sum(in_order(seconds_of(phase), threads) for phase in phases)
    return found


def glove(corpus: Any) -> dict[int, float]:
    """Seconds of an epoch of GloVe with 100 dimensions."""
    import numpy as np

    import firth
    from firth import _core
    from firth.runtime import padded_rows

    csr = firth.count_cooccurrences(corpus).csr
    tiles = _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=1, threads=1)
    words, contexts = padded_rows(len(corpus.vocabulary), 224), padded_rows(len(corpus.vocabulary), 224)
    _core.fill_uniform(words[:, :101], scale=0.005, seed=1, threads=1)
    _core.fill_uniform(contexts[:, :101], scale=0.005, seed=2, threads=1)
    words[:, 112:] = contexts[:, 112:] = 1
    options = {"vector_size": 100, "x_max": 10.0, "alpha": 0.75, "learning_rate": 0.05, "clip_value": 100.0}

    def epoch() -> None:
        tiles.train(words, contexts, **options, begin=0, end=csr.nnz, epoch=0, threads=1)

    [phase], between = traced(epoch)
    before = predecessors([(row, column) for row, column, _ in tiles.slices(0).tolist()])
    costs = seconds_of(phase)
    return {threads: between + from_queue(costs, before, threads) for threads in THREADS}


def word2vec(corpus: Any) -> dict[int, float]:
    """Seconds of an epoch of skip-gram, whose threads take stretches of tokens."""
    import firth
    from firth._core import STRETCH_TOKENS

    n, train = firth.Word2Vec(threads=1, epochs=1)._begin(corpus, progress=False)

    def cpu_of(begin: int, end: int) -> float:
        start = time.process_time()
        train(begin, end, 0)
        return time.process_time() - start

    costs = [cpu_of(begin, min(begin + STRETCH_TOKENS, n)) for begin in range(0, n, STRETCH_TOKENS)]
    call = common.median(cpu_of(0, 0) for _ in range(20))  # a call without work
    costs = [max(cost - call, 0.0) for cost in costs]
    found = {}
    for threads in THREADS:
        seconds, chunk, work = 0.0, [], 0.0
        for cost in [*costs, None]:
            if cost is not None:
                chunk.append(cost)
                work += cost
            if cost is None or work > CHUNK_SECONDS * threads:
                seconds += call + in_order(chunk, threads)
                chunk, work = [], 0.0
        found[threads] = seconds
    return found


# --- Results ---------------------------------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        seconds = {int(threads): value for threads, value in row["seconds"].items()}
        rows.append([row["work"], f"{seconds[1]:.2f}", *(f"{seconds[1] / seconds[n]:.1f}" for n in THREADS[1:])])
    headings = ["a model, not a measurement", "one thread, s", *(f"{n} threads" for n in THREADS[1:])]
    machine = result["machine"]
    described = f"Work items timed on {machine['cpu']}; {result['tokens']:,} tokens, {result['words']:,} words"
    return f"{described}\n\n{common.table(headings, rows)}"


def main() -> None:
    parser = common.arguments(__doc__, WORK, f"{QUICK_TOKENS:,} tokens")
    settings = common.parsed(parser, __file__, WORK, show)
    import deterministic
    import firth

    text = deterministic.wikipedia(settings.data, QUICK_TOKENS if settings.quick else None)
    corpus = firth.Corpus.from_iterable(text, min_count=5)
    result: dict[str, Any] = {
        "machine": common.describe_machine(("numpy",)),
        "tokens": corpus.n_tokens,
        "words": len(corpus.vocabulary),
        "rows": [],
    }
    for name, measure in zip(WORK, (counting, glove, word2vec), strict=True):
        if name in settings.only:
            result["rows"].append({"work": name, "seconds": measure(corpus)})
            common.write_json(settings.json, result)
    curves = {row["work"]: scaling.speed_ups(row["seconds"]) for row in result["rows"]}
    scaling.draw(curves, "A model, without the limits of memory", settings.json.with_suffix(".png"))
    common.finish(show(result), settings.json)


if __name__ == "__main__":
    main()
