"""Calls beside other threads: when the interpreter ends, when Ctrl-C is pressed, when two use one object."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy import sparse

import firth
import firth.counts
from firth import _core, _tokens
from firth.runtime import padded_rows


def python(script):
    """What a script of its own process returns, and writes."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, timeout=300
    )


# ---- work of every kind, in calls of no more than some milliseconds -------------------------------------------------


def attention():
    q = np.ones((1, 4, 256, 16), np.float32)
    return lambda: firth.attention(q, q, q, threads=2)


def classifier():
    texts = [f"w{i % 7} w{i % 11} w{i}" for i in range(100)]
    labels = [str(i % 3) for i in range(100)]
    return lambda: firth.FastTextClassifier(vector_size=16, epochs=1, threads=2).fit(texts, labels)


def corpus():
    documents = [[f"w{i % 50}" for i in range(1000)]]
    return lambda: firth.Corpus.from_iterable(documents, threads=2)


def counts():
    text = corpus()()
    return lambda: firth.count_cooccurrences(text, window=5, threads=2)


def glove():
    text = corpus()()
    return lambda: firth.GloVe(vector_size=16, epochs=1, threads=2).fit(text)


def top_k():
    matrix = np.random.default_rng(0).normal(size=(5000, 32)).astype(np.float32)
    vectors = firth.Vectors([f"w{i}" for i in range(5000)], matrix)
    return lambda: vectors.search(matrix[:100])


def word2vec():
    text = corpus()()
    return lambda: firth.Word2Vec(vector_size=16, epochs=10, threads=2).fit(text)


KINDS = [attention, classifier, corpus, counts, glove, top_k, word2vec]

DAEMON = """
import threading, time
import test_threads

call, begun = test_threads.{kind}(), threading.Event()

def work():
    while True:
        try:
            call()
        finally:
            begun.set()

threading.Thread(target=work, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_interpreter_ends_while_a_daemon_thread_works(kind):
    done = python(DAEMON.format(kind=kind.__name__))
    assert (done.returncode, done.stderr) == (0, "")


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@contextlib.contextmanager
def two_signals():
    """Raises Stop in the handler of the second of many signals: one that waits for a call to end sees them as one."""
    seen = 0

    def handler(*_):
        nonlocal seen
        seen += 1
        if seen == 2:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def long_attention():
    q = np.zeros((4, 8, 4096, 64), np.float32)
    return lambda: firth.attention(q, q, q, threads=2)


def long_attention_backward():
    q = np.zeros((2, 8, 4096, 64), np.float32)
    lse = np.zeros((2, 8, 4096), np.float32)
    return lambda: firth.attention_backward(q, q, q, q, q, lse, threads=2)


def long_classifier():
    rows, outputs = padded_rows(10, 512), padded_rows(20_000, 512)
    bags = np.arange(1001), np.zeros(1000, np.int32)
    out = np.zeros((1000, 20_000), np.float32)
    return lambda: _core.predict_classifier(out, rows, outputs, bags=bags, paths=None, loss="ova", threads=1)


def long_counts():
    ids, offsets = np.arange(3_000_000, dtype=np.int32) % 1000, np.array([0, 3_000_000])
    counts = np.bincount(ids)
    weights = np.ones(100)
    counter = _core.CooccurrenceCounter(ids, offsets, counts, window=100, left=weights, right=weights)
    counter.find_places(0, 1000, threads=1)
    out = _core.CooccurrenceRows(1_000_000)
    return lambda: counter.rows(0, 1000, out=out, threads=1)


def long_glove_tiles():
    rows, width = 20_000, 1000
    columns = np.tile(np.arange(width, dtype=np.int32), rows)
    values = np.ones(rows * width, np.float32)
    return lambda: _core.GloveTiles(np.arange(rows + 1) * width, columns, values, seed=1, threads=1)


def long_parse_text():
    text = b"word 0.12345 0.12345 0.12345 0.12345\n" * 3_000_000
    return lambda: _core.parse_text(text, start=0, vector_size=4, limit=-1, threads=1)


def long_quantization():
    points, centroids = np.zeros((2_000_000, 16), np.float32), np.zeros((256, 16), np.float32)
    return lambda: _core.nearest_centroids(points, centroids=centroids)


def sparse_product(transposed):
    rows, width = 20_000, 1000
    columns = np.tile(np.arange(width, dtype=np.int32), rows)
    a = {"indptr": np.arange(rows + 1) * width, "indices": columns, "data": np.ones(rows * width, np.float32)}
    dense, out = padded_rows(width, 512), padded_rows(rows, 512)
    if transposed:
        return lambda: _core.sparse_transposed_times_dense(dense, **a, dense=out, threads=1)
    return lambda: _core.sparse_times_dense(out, **a, dense=dense, threads=1)


def long_sparse_product():
    return sparse_product(False)


def long_sparse_product_transposed():
    return sparse_product(True)


def long_top_k():
    matrix, queries = np.ones((20_000, 128), np.float32), np.ones((60_000, 128), np.float32)
    return lambda: _core.topk(matrix, inverse_norms=np.ones(20_000, np.float32), queries=queries, k=1, threads=2)


LONG = [
    long_attention,
    long_attention_backward,
    long_classifier,
    long_counts,
    long_glove_tiles,
    long_parse_text,
    long_quantization,
    long_sparse_product,
    long_sparse_product_transposed,
    long_top_k,
]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer")
@pytest.mark.parametrize("make", LONG, ids=lambda make: make.__name__)
def test_a_signal_ends_a_long_call(make):
    call = make()
    with pytest.raises(Stop), two_signals():
        call()


def test_after_an_interruption_all_is_as_before():
    make = long_top_k()
    with pytest.raises(Stop), two_signals():
        make()
    matrix = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    rows, _ = firth.Vectors([str(i) for i in range(1000)], matrix).search(matrix, 1)
    assert rows[:, 0].tolist() == list(range(1000))


def test_ctrl_c_is_keyboard_interrupt():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    call = long_top_k()
    timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    timer.join()
    signal.signal(signal.SIGINT, before)


# ---- one object, two threads -----------------------------------------------------------------------------------------


def refused(call):
    try:
        call()
    except RuntimeError as error:
        return "in use by another call" in str(error)
    return False


def is_guarded(work, look, *others):
    """Whether, while a thread works, all the others are refused. `look` changes nothing."""

    def until_done():
        while refused(work):
            pass

    for _ in range(10):  # the work may end before this thread has looked
        thread = threading.Thread(target=until_done)
        thread.start()
        while thread.is_alive() and not refused(look):
            pass
        all_refused = all([refused(look), *map(refused, others)])
        thread.join()
        if all_refused:
            return True
    return False


def test_two_threads_do_not_use_one_counter():
    text = b" ".join(b"%x" % i for i in range(1_500_000))
    counter = _core.TextCounter(threads=1, min_share=1)
    counter.begin_file(0)
    words = np.empty(0, np.uint8), np.zeros(1, np.int64)
    assert is_guarded(
        lambda: counter.feed(text),
        lambda: counter.documents,
        lambda: counter.first_invalid,
        lambda: counter.invalid,
        lambda: counter.feed_tokens(*words, np.empty(0, np.int32), np.zeros(0, np.int64)),
        lambda: counter.select(1, -1),
        lambda: counter.begin_file(0),
        counter.end_file,
        counter.merge,
    )


def test_two_threads_do_not_use_one_cooccurrence_counter():
    ids, offsets = np.arange(3_000_000, dtype=np.int32) % 1000, np.array([0, 3_000_000])
    counter = _core.CooccurrenceCounter(ids, offsets, np.bincount(ids), window=100, left=np.ones(100), right=None)
    counter.find_places(0, 1000, threads=1)
    out, other = _core.CooccurrenceRows(1_000_000), _core.CooccurrenceRows(0)
    assert is_guarded(
        lambda: counter.rows(0, 1000, out=out, threads=1),
        lambda: out.columns,
        lambda: out.values,
        out.trim,
        lambda: counter.rows(0, 0, out=other, threads=1),
        lambda: counter.find_places(0, 0, threads=1),
    )


def test_two_threads_do_not_train_on_the_same_tiles():
    n, size = 2000, 100
    csr = sparse.csr_array(np.ones((n, n), np.float32))
    tiles = _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=1, threads=1)
    words, contexts = padded_rows(n, 256), padded_rows(n, 256)

    def train(end):
        options = {"vector_size": size, "x_max": 10.0, "alpha": 0.75, "learning_rate": 0.01, "clip_value": 1.0}
        return tiles.train(words, contexts, **options, begin=0, end=end, epoch=0, threads=1)

    assert is_guarded(lambda: train(csr.nnz), lambda: train(0))


@pytest.mark.parametrize("kind", [_tokens.Texts, _tokens.Tokens])
def test_texts_are_read_by_one_call_at_a_time(kind):
    class Documents:
        def __iter__(self):
            return self

        def __next__(self):
            reader.block(1)

    reader = kind(Documents(), strict=True)
    with pytest.raises(RuntimeError, match="in use by another call"):
        reader.block(1)


def test_a_block_of_texts_outlives_its_reader():
    block = _tokens.Texts(iter(["ab" * 1000, "c"]), strict=True).block(10_000)
    assert bytes(block) == b"ab" * 1000 + b"\nc\n"
    assert block.readonly


def test_a_list_may_change_while_it_is_read():
    class Word(str):
        def __hash__(self):
            document.clear()
            return hash(str(self))

    document = [Word("a"), *(f"word {i}" for i in range(1000))]
    _, _, numbers, _ = _tokens.Tokens(iter([document]), strict=True).block(1)
    assert numbers.tolist() == list(range(1001))


# ---- more threads than there can be, and what threads take -----------------------------------------------------------


def test_more_threads_than_are_sensible_are_fewer_with_a_warning():
    few, many = padded_rows(100, 10), padded_rows(100, 10)
    _core.fill_uniform(few, scale=1.0, seed=1, threads=1)
    with pytest.warns(RuntimeWarning, match=r"^threads=100000: using \d+, since more are never faster"):
        _core.fill_uniform(many, scale=1.0, seed=1, threads=100_000)
    np.testing.assert_array_equal(few, many)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(not _core.OPENMP, reason="only OpenMP ends the process")
def test_threads_that_the_system_does_not_grant():
    done = python(
        r"""
import re, resource, warnings
import numpy as np
from firth import _core
from firth.runtime import padded_rows

few, many = padded_rows(100, 10), padded_rows(100, 10)
_core.fill_uniform(few, scale=1.0, seed=1, threads=1)
used = 1024 * int(re.search(r"VmSize:\s+(\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    _core.fill_uniform(many, scale=1.0, seed=1, threads=64)
    _core.fill_uniform(many, scale=1.0, seed=1, threads=64)
for warning in seen:
    print(warning.message)
print(np.array_equal(few, many))
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    *warned, same = done.stdout.splitlines()
    assert same == "True"
    assert len(warned) == 2
    assert all("since the system does not let this process start so many" in line for line in warned)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in other units")
def test_the_memory_of_tiling_does_not_grow_with_threads():
    done = python(
        """
import resource
import numpy as np
from firth import _core

n = 2_000_000
indptr, columns, values = np.arange(n + 1), np.arange(n, dtype=np.int32), np.ones(n, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_core.GloveTiles(indptr, columns, values, seed=1, threads=64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    )
    assert done.stderr == ""
    assert int(done.stdout) < 150_000  # in KiB; one count of columns takes 16,000


def test_the_memory_of_counting_does_not_grow_with_threads(monkeypatch):
    monkeypatch.setattr(firth.counts, "_FEW", 0)
    text = firth.Corpus.from_iterable([[f"w{i}" for i in range(1000)]] * 2, min_count=1)
    one = firth.count_cooccurrences(text, window=1, memory=200_000, threads=1)
    many = firth.count_cooccurrences(text, window=1, memory=200_000, threads=64)
    assert (one.csr != many.csr).nnz == 0
