"""firth, gensim and fastText, trained with the same options, from a text to vectors on disk: each in a fresh process.

Options have firth's names. `bucket` among them asks for subword vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import common

Options = Mapping[str, Any]

GENSIM = {
    "vector_size": "vector_size",
    "window": "window",
    "sample": "sample",
    "min_count": "min_count",
    "learning_rate": "alpha",
    "min_learning_rate": "min_alpha",
    "ns_exponent": "ns_exponent",
    "min_n": "min_n",
    "max_n": "max_n",
    "bucket": "bucket",
}
FASTTEXT = {
    "architecture": "model",
    "loss": "loss",
    "vector_size": "dim",
    "window": "ws",
    "negative": "neg",
    "sample": "t",
    "min_count": "minCount",
    "learning_rate": "lr",
    "epochs": "epoch",
    "word_ngrams": "wordNgrams",
    "min_n": "minn",
    "max_n": "maxn",
    "bucket": "bucket",
}


def renamed(options: Options, names: Mapping[str, str]) -> dict[str, Any]:
    """The options that a peer has, by its names for them."""
    return {names[name]: value for name, value in options.items() if name in names}


def sentences(text: str, source: str) -> list[Any] | None:
    """The text as Python objects, made before anything is timed; None for a file."""
    if source == "file":
        return None
    with open(text) as file:
        return [line.split() for line in file] if source == "lists" else file.read().splitlines()


def firth_corpus(text: str, given: list[Any] | None, options: Options, threads: int) -> Any:
    """The corpus of a file, or of Python objects if there are some."""
    import firth

    if given is None:
        return firth.Corpus.from_file(text, min_count=options["min_count"], threads=threads)
    return firth.Corpus.from_iterable(given, min_count=options["min_count"], threads=threads)


def firth_model(options: Options, threads: int, seed: int) -> Any:
    """firth's model with these options, not yet trained."""
    import firth

    kind = firth.FastText if "bucket" in options else firth.Word2Vec
    others = {name: value for name, value in options.items() if name != "min_count"}
    return kind(**others, threads=threads, seed=seed)


def train_firth(text: str, source: str, threads: int, seed: int, options: Options, out: str | None) -> dict[str, Any]:
    """From `source` ("file", "lists", "strings") to vectors on disk."""
    imports = common.import_cost("firth.models")
    model = firth_model(options, threads, seed)
    given = sentences(text, source)
    clock = common.Clock()
    corpus = firth_corpus(text, given, options, threads)
    clock.stage("counting")
    model.fit(corpus)
    clock.stage("training")
    run = {**imports, "vocabulary": len(corpus.vocabulary), "loss": [epoch.loss for epoch in model.history]}
    if out is None:
        tokens, train = firth_model({**options, "epochs": 1}, threads, seed)._begin(corpus, progress=False)
        run["examples"] = int(train(0, tokens, 0).examples)
    else:
        model.vectors.save(out)
        clock.stage("saving")
        run["digest"] = common.sha256(out)
    return {"seconds": clock.seconds, **run}


def train_gensim(text: str, source: str, threads: int, seed: int, options: Options, out: str | None) -> dict[str, Any]:
    """From `source` ("file": corpus_file, "stream": LineSentence, "lists") to vectors on disk."""
    imports = common.import_cost("gensim.models")
    from gensim.models import FastText, Word2Vec
    from gensim.models.word2vec import LineSentence

    given = LineSentence(text) if source == "stream" else sentences(text, source)
    where = {"corpus_file": text} if given is None else {"corpus_iterable": given}
    tree = options.get("loss") == "hs"
    cbow = options.get("architecture") == "cbow"
    clock = common.Clock()
    model = (FastText if "bucket" in options else Word2Vec)(
        **renamed(options, GENSIM),
        **({"cbow_mean": int(options["cbow_mean"])} if cbow else {"sg": 1}),
        hs=int(tree),
        negative=0 if tree else options["negative"],
        workers=threads,
        seed=seed,
    )
    model.build_vocab(**where)
    clock.stage("counting")
    model.train(
        **where, total_examples=model.corpus_count, total_words=model.corpus_total_words, epochs=options["epochs"]
    )
    clock.stage("training")
    if out is not None:
        model.wv.save_word2vec_format(out, binary=True)
        clock.stage("saving")
    return {"seconds": clock.seconds, **imports, "vocabulary": len(model.wv)}


def train_fasttext(text: str, source: str, threads: int, seed: int, options: Options, out: str) -> dict[str, Any]:
    """From a file to the vectors of words on disk; a subword model composes them from those of the subwords."""
    imports = common.import_cost("fasttext", "numpy")
    import fasttext
    import numpy as np

    defaults = {"architecture": "skipgram", "loss": "ns", "min_n": 0, "max_n": 0}
    fasttext_threads = threads_for_fasttext(threads)
    clock = common.Clock()
    model = fasttext.train_unsupervised(
        text,
        **renamed({**defaults, **options}, FASTTEXT),
        thread=fasttext_threads,
        verbose=0,  # and no seed: its Python module does not take one
    )
    clock.stage("counting and training")
    # Not save_model, which writes all matrices: the others write the vectors of the words.
    words = model.get_words()
    if "bucket" in options:
        matrix = np.stack([model.get_word_vector(word) for word in words])
    else:
        matrix = np.ascontiguousarray(model.get_input_matrix(), np.float32)
    write_vectors(out, words, matrix)
    clock.stage("saving")
    return {"seconds": clock.seconds, **imports, "vocabulary": len(words) - ("</s>" in words)}


def threads_for_fasttext(threads: int) -> int:
    """Confine this process to `threads` processors; the number of threads with which fastText does as much work there.

    fastText 0.9.3 divides its matrix into ten parts, and each thread initializes one of them. With fewer than ten
    threads, the other parts keep what the memory held before: zeros, which cost quality, or arbitrary numbers, which
    can end the training with a NaN. So it gets ten threads on as many processors as the others have threads; its speed
    is the same.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return max(10, threads)


def write_vectors(path: str, words: Sequence[str], matrix: Any) -> None:
    """Write float32 vectors in word2vec's binary format, which fastText cannot write."""
    with open(path, "wb") as file:
        file.write(f"{len(words)} {matrix.shape[1]}\n".encode())
        file.write(b"".join(word.encode() + b" " + row.tobytes() for word, row in zip(words, matrix, strict=True)))
