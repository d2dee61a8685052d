"""`firth neighbors`, `analogy`, `evaluate` and `convert`."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import contextlib
import math
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import click

import firth.evaluate
from firth import files, formats
from firth.cli.common import STREAM, check_output, counted, saved_line, show, typed
from firth.cli.options import taking
from firth.loading import load_vectors
from firth.models import FastText
from firth.text import arriving_lines, open_text
from firth.vectors import Method, Vectors

FORMAT = click.Choice([one.name for one in formats.FORMATS])
_BATCH = 256  # lines of a pipe that are looked up at once


def _limit(help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--limit", type=click.IntRange(1), metavar="N", show_default="all", help=help)


_LIMIT = _limit("Read only so many vectors from the file.")
_VECTORS = click.argument("path", metavar="VECTORS", type=STREAM)
_METHOD = click.option(
    "--method",
    type=click.Choice(typing.get_args(Method)),
    default="3cosadd",
    help="How candidates for the answer are scored.",
)
_query_options = taking(
    [
        _VECTORS,
        click.option("-n", "--topn", type=click.IntRange(1), metavar="N", default=10, help="Words to show."),
        _LIMIT,
    ]
)


@click.command()
@_query_options
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--plus", multiple=True, metavar="WORD", help="Add its vector to each WORD's. May be repeated.")
@click.option("--minus", multiple=True, metavar="WORD", help="Subtract its vector from each WORD's. May be repeated.")
def neighbors(
    path: files.PathLike,
    words: tuple[str, ...],
    topn: int,
    limit: int | None,
    plus: tuple[str, ...],
    minus: tuple[str, ...],
) -> None:
    """The number beside a word is the cosine similarity; 1 is the same direction. VECTORS is a file of vectors in any
    format that firth reads. A whole model of fastText's kind (train fasttext --save-model, or a .bin of fastText's)
    also has vectors for out-of-vocabulary words, unless --limit is given. Without a WORD, or for -, words are read
    from standard input (typed by hand: end with Ctrl-D).

    \b
    Examples:
      firth neighbors vectors.txt coffee tea
      firth neighbors vectors.txt king --minus man --plus woman
      firth neighbors vectors.txt < words.txt
    """
    from_stdin = words in ((), ("-",))
    if from_stdin and path == "-":
        raise click.UsageError("standard input cannot hold both the vectors and the words; name the words")
    vectors = _queried(path, limit)
    _require_words(vectors, [*plus, *minus], path)
    unknown: list[str] = []
    by_hand = from_stdin and typed(sys.stdin)
    for batch in _batches(by_hand) if from_stdin else [list(words)]:
        known = [word for word in batch if vectors.get(word) is not None]
        if plus or minus:
            found = [vectors.most_similar(positive=[word, *plus], negative=list(minus), topn=topn) for word in known]
        else:
            found = vectors.neighbors(known, topn=topn) if known else []
        for word, near in zip(known, found, strict=True):
            if word not in vectors.index:
                click.echo(
                    f"{word!r} is out of vocabulary; using the vector composed of its character n-grams", err=True
                )
            click.echo("".join([word, *(f" + {w}" for w in plus), *(f" - {w}" for w in minus)]))
            _show_scores(near)
        missing = [word for word in batch if vectors.get(word) is None]
        if by_hand and missing:
            click.echo(_unknown(vectors, missing, path), err=True)
        else:
            unknown += missing
    _require_words(vectors, unknown, path)


@click.command()
@_query_options
@click.argument("a")
@click.argument("b")
@click.argument("c")
@_METHOD
def analogy(path: files.PathLike, a: str, b: str, c: str, topn: int, limit: int | None, method: Method) -> None:
    """\b
    Example:
      firth analogy vectors.txt man king woman
    """
    vectors = _queried(path, limit)
    _require_words(vectors, [a, b, c], path)
    click.echo(f"{a} is to {b} as {c} is to")
    _show_scores(vectors.analogy(a, b, c, topn=topn, method=method))


def _queried(path: files.PathLike, limit: int | None) -> Vectors:
    """A file's vectors; those of a whole subword model compose vectors for out-of-vocabulary words."""
    whole = limit is None and path != "-" and Path(path).is_file()  # a pipe would lose what is looked at
    format = formats.recognized(path) if whole else None
    if format is not None and format.name == "safetensors":
        if files.read_tensors(path, mmap=True)[1].get("model") == FastText.__name__:
            return cast("Vectors", firth.load(path).vectors)
    elif format is not None and format.name == "fasttext":
        with contextlib.suppress(ValueError):  # one without character n-grams, or a quantized one
            return FastText.from_fasttext(path).vectors
    return load_vectors(path, limit=limit)


def _batches(typed: bool) -> Iterator[list[str]]:
    """Words of standard input: with a prompt if somebody types them."""
    batches: Iterator[list[bytes]] | None = None
    while True:
        if typed:
            click.echo("Word: ", nl=False, err=True)
        batches = batches or arriving_lines(open_text("-"), _BATCH)  # which waits for the first word
        lines = next(batches, None)
        if lines is None:
            if typed:
                click.echo(err=True)
            return
        yield [word for line in lines for word in line.decode(errors="replace").split()]


def _require_words(vectors: Vectors, words: Iterable[str], path: files.PathLike) -> None:
    missing = [word for word in words if vectors.get(word) is None]
    if missing:
        raise click.ClickException(_unknown(vectors, missing, path))


def _unknown(vectors: Vectors, words: Iterable[str], path: files.PathLike) -> str:
    named = []
    for word in dict.fromkeys(words):
        other = next((form for form in (word.lower(), word.capitalize(), word.upper()) if form in vectors.index), None)
        named.append(f"{word!r} ({other!r} is)" if other else repr(word))
    return f"not among the {counted(len(vectors), 'word')} of {files.name_of(path)}: {', '.join(named)}"


def _show_scores(near: Sequence[tuple[str, float]]) -> None:
    show([(f"  {word}", f"{score:6.3f}") for word, score in near])


@click.command()
@_VECTORS
@click.argument("gold", metavar="FILE...", nargs=-1, required=True, type=STREAM)
@_LIMIT
@click.option(
    "--restrict-vocab",
    type=click.IntRange(1),
    metavar="N",
    default=300_000,
    help="Choose answers among the first so many words.",
)
@_METHOD
def evaluate(
    path: files.PathLike, gold: tuple[files.PathLike, ...], limit: int | None, restrict_vocab: int, method: Method
) -> None:
    """Each FILE is of one of two kinds, which firth recognizes. Similarity: two words and a score per line; the result
    is Spearman's rank correlation between scores and cosines. Analogies: four words a line, ": name" before a section;
    shown is the share of questions whose fourth word comes first.

    \b
    Example:
      firth evaluate vectors.txt EN-WS-353-ALL.txt questions-words.txt
    """
    if [path, *gold].count("-") > 1:
        raise click.UsageError("standard input can be only one of the files")
    read = [firth.evaluate.read_gold(file) for file in gold]
    vectors = _queried(path, limit)
    rows: list[tuple[str, ...]] = [("", "measure", "asked", "known", "coverage", "score")]
    for file, asked in zip(gold, read, strict=True):
        name = Path(files.name_of(file)).name
        if isinstance(asked, list):
            similar = firth.evaluate.similarity(vectors, asked)
            if similar.composed:
                click.echo(
                    f"{name}: {similar.composed:,} of the {similar.found:,} known pairs have an out-of-vocabulary "
                    "word; using the vector composed of its character n-grams",
                    err=True,
                )
            rows.append(_score_row(name, "rank correlation", similar.pairs, similar.found, similar.spearman, ".3f"))
        else:
            answers = firth.evaluate.analogies(vectors, asked, restrict_vocab=restrict_vocab, method=method)
            for row, measure, one in [
                (name, "right answers", answers),
                *((f"  {s.name}", "", s) for s in answers.sections),
            ]:
                rows.append(_score_row(row, measure, one.asked, one.found, one.accuracy, ".1%"))
    show(rows, left=2)


def _score_row(name: str, measure: str, asked: int, known: int, score: float, style: str) -> tuple[str, ...]:
    coverage = f"{known / asked:.1%}" if asked else "-"
    return name, measure, f"{asked:,}", f"{known:,}", coverage, "-" if math.isnan(score) else format(score, style)


@click.command()
@click.argument("source", metavar="IN", type=STREAM)
@click.argument("target", metavar="OUT", type=STREAM)
@click.option("--from", "source_format", type=FORMAT, show_default="by its contents", help="Format of IN.")
@click.option("--to", "target_format", type=FORMAT, show_default="by its suffix", help="Format of OUT.")
@_limit("Write only the first so many vectors.")
def convert(
    source: files.PathLike,
    target: files.PathLike,
    source_format: str | None,
    target_format: str | None,
    limit: int | None,
) -> None:
    """IN can be -, standard input. OUT can be -, standard output, for the text formats of word2vec and GloVe.

    \b
    Examples:
      firth convert vectors.txt vectors.bin
      xzcat vectors.txt.xz | firth convert - vectors.bin
    """
    check_output(target, target_format, [source])
    vectors = load_vectors(source, format=source_format, limit=limit)
    vectors.save(target, format=target_format)
    click.echo(saved_line(vectors, target), err=True)
