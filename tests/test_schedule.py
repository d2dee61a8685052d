"""The model of benchmarks/schedule.py gives work to threads as the compiled module really does."""

from __future__ import annotations

import collections
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

import firth
from firth import _core
from firth.runtime import padded_rows


@pytest.fixture(scope="module")
def schedule():
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    import schedule

    sys.path.remove(folder)
    return schedule


def test_the_first_free_thread_takes_the_next_item(schedule):
    assert schedule.in_order([3, 1, 1, 1, 2], 1) == 8
    assert schedule.in_order([3, 1, 1, 1, 2], 2) == 5
    assert schedule.in_order([3, 1, 1, 1, 2], 9) == 3
    assert schedule.in_order([], 2) == 0


def test_items_wait_for_those_before_them(schedule):
    chain = [set(), {0}, {1}, {2}]
    assert schedule.from_queue([1, 2, 3, 4], chain, 8) == 10
    diamond = [set(), {0}, {0}, {1, 2}]
    assert schedule.from_queue([1, 2, 3, 1], diamond, 1) == 7
    assert schedule.from_queue([1, 2, 3, 1], diamond, 2) == 5
    slices = [(0, 0), (1, 1), (0, 1), (0, 1), (1, 0)]
    assert schedule.predecessors(slices) == [set(), set(), {0, 1}, {2}, {0, 1}]


@pytest.fixture
def corpus():
    words = np.random.default_rng(1).zipf(1.2, 60_000) % 400
    documents = [[str(word) for word in words[i : i + 50]] for i in range(0, len(words), 50)]
    return firth.Corpus.from_iterable(documents, min_count=1)


def test_two_threads_take_counting_s_items_in_order(schedule, corpus):
    phases, _ = schedule.traced(lambda: firth.count_cooccurrences(corpus, threads=2))
    kinds = [phase[0].work for phase in phases]
    assert kinds[:5] == ["count words", "add up words", "count places", "share places", "write places"]
    assert set(kinds[5::2]) == {"count rows"}
    assert set(kinds[6::2]) == {"copy rows"}
    for phase in phases:
        assert [one.item for one in phase] == list(range(len(phase)))
        by_thread = collections.defaultdict(list)
        for one in phase:
            by_thread[one.thread].append(one)
        for items in by_thread.values():  # one after the other
            assert all(a.end <= b.begin for a, b in itertools.pairwise(items))


def test_two_threads_train_slices_as_the_model_of_the_queue_allows(schedule, corpus):
    csr = firth.count_cooccurrences(corpus).csr
    tiles = _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=1, threads=1)
    words, contexts = padded_rows(400, 64), padded_rows(400, 64)
    words[:] = contexts[:] = 0.1
    options = {"vector_size": 20, "x_max": 10.0, "alpha": 0.75, "learning_rate": 0.01, "clip_value": 1.0}
    [phase], _ = schedule.traced(
        lambda: tiles.train(words, contexts, **options, begin=0, end=csr.nnz, epoch=3, threads=2)
    )
    slices = tiles.slices(3)
    assert [one.item for one in phase] == list(range(len(slices)))
    before = schedule.predecessors([(row, column) for row, column, _ in slices.tolist()])
    for one, earlier in zip(phase, before, strict=True):
        assert all(phase[i].end <= one.begin for i in earlier)
    # The real run can be no shorter than the longest chain, and the model's schedule is one of those that are possible.
    costs = [one.end - one.begin for one in phase]
    chain = schedule.from_queue(costs, before, len(costs))
    assert chain <= max(one.end for one in phase) - min(one.begin for one in phase)
    assert max(chain, sum(costs) / 2) <= schedule.from_queue(costs, before, 2) <= sum(costs)
