"""`firth count` and `firth phrases`."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import inspect
import itertools
import typing
from pathlib import Path
from typing import Any

import click

from firth import files
from firth.cli.common import (
    INPUTS,
    MEMORY,
    OUTPUT,
    QUIET,
    STREAM,
    aligned,
    counted,
    read,
    reading_options,
    same_file,
    saved_input,
    tried,
    voice,
)
from firth.cli.options import Parameters, as_flags, model_option, taking
from firth.corpus import Corpus, CorpusOptions
from firth.counts import Side, Weighting, check_glove_words, check_options, count_cooccurrences
from firth.phrases import Phrases, Scoring
from firth.text import checked_sources


def _counting_options() -> Parameters:
    """How words are counted."""
    declared = {"window": int, "side": Side, "weighting": Weighting, "threads": int}
    known = inspect.signature(count_cooccurrences).parameters
    counting = [model_option("", name, declared[name], known[name].default) for name in declared]
    return [*counting[:-1], MEMORY, counting[-1]]


@click.command()
@taking(
    [
        INPUTS,
        click.option("-o", "--output", type=OUTPUT, help="Counts, for firth train and firth.load."),
        click.option("--glove", type=OUTPUT, metavar="FILE", help="Counts in the format of GloVe's programs."),
        click.option(
            "--glove-vocab",
            type=STREAM,
            metavar="FILE",
            help="The vocabulary that goes with --glove; - for stdout.",
        ),
        *reading_options(),
        *_counting_options(),
        QUIET,
    ]
)
def count(
    inputs: tuple[str, ...],
    output: Path | None,
    glove: Path | None,
    glove_vocab: files.PathLike | None,
    quiet: bool,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    **counting: Any,
) -> None:
    """Writes the co-occurrence matrix, to train several models on it without counting again. INPUT is text as for firth
    train; a corpus that Corpus.save wrote will do as well. With --glove it is written as GloVe's cooccur does; then -o
    may be left out.

    \b
    Examples:
      firth count my.txt -o my.counts --tokenizer words
      firth count wiki.txt --glove cooccurrence.bin --glove-vocab vocab.txt --memory 4G
    """
    reading = {"min_count": min_count, "max_size": max_size, "tokenizer": tokenizer, "threads": counting["threads"]}
    with as_flags([*counting, *reading]):
        check_options(**counting)
        CorpusOptions(**reading)
    targets: dict[str, files.PathLike | None] = {"--output": output, "--glove": glove, "--glove-vocab": glove_vocab}
    if output is None and glove is None:
        raise click.UsageError("no output file: give --output, --glove or both")
    if glove_vocab is not None and glove is None:
        raise click.UsageError("--glove-vocab needs --glove, the counts that it goes with")
    places = {flag: path for flag, path in targets.items() if path is not None}
    for (flag, path), (other, same) in itertools.combinations(places.items(), 2):
        if same_file(path, same):
            raise click.UsageError(f"{flag} and {other} name the same file")
    for path in places.values():
        with tried(path, inputs) as probe:
            probe.touch()
    checked_sources(list(inputs))
    saved = saved_input(inputs, (Corpus,))

    say, bars = voice(quiet)
    corpus = read(saved, inputs, reading, say, bars)
    if glove_vocab is not None:
        check_glove_words(corpus.vocabulary.words)
    counts = count_cooccurrences(corpus, **counting, progress=bars)
    if output is not None:
        counts.save(output)
    if glove is not None:
        counts.to_glove(glove, vocabulary=glove_vocab)
    pairs = f"{counted(counts.csr.nnz, 'pair')} of {counted(len(counts.vocabulary), 'word')}"
    say(f"Saved {pairs} in {' and '.join(str(path) for path in (output, glove) if path is not None)}")


@click.command()
@taking(
    [
        INPUTS,
        click.option(
            "-o", "--output", type=OUTPUT, required=True, help="The corpus with its phrases, for firth train."
        ),
        click.option("--save-phrases", type=OUTPUT, metavar="FILE", help="Also save the phrases, for firth.load."),
        *reading_options(),
        click.option("--min-phrase-count", type=click.IntRange(1), default=5, help="Leave out phrases that are rarer."),
        click.option(
            "--scoring",
            type=click.Choice(typing.get_args(Scoring)),
            default="npmi",
            help="Score of a pair: normalized pointwise mutual information, or the score of word2phrase.",
        ),
        click.option(
            "--threshold",
            type=float,
            show_default="0.5 for npmi, 100 for word2phrase",
            help="Join pairs whose score is above this.",
        ),
        click.option("--delimiter", default="_", help="Joins the words of a phrase."),
        click.option(
            "--connectors",
            metavar="WORDS",
            default="",
            show_default="none",
            help="Words that are allowed inside a phrase but not at its ends, separated by blanks: 'of the'.",
        ),
        click.option(
            "--passes", type=int, default=1, help="Passes over the corpus: two passes find phrases of up to four words."
        ),
        click.option("-n", "--topn", type=click.IntRange(0), metavar="N", default=10, help="Phrases to show."),
        MEMORY,
        model_option("", "threads", int, None),
        QUIET,
    ]
)
def phrases(
    inputs: tuple[str, ...],
    output: Path,
    save_phrases: Path | None,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    min_phrase_count: int,
    connectors: str,
    topn: int,
    memory: int | None,
    threads: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Writes a corpus whose phrases are single words, and shows the most frequent phrases, each with its score and how
    often its words stand together. INPUT is text as for firth train; a corpus that Corpus.save wrote will do as well,
    best one made with min_count=1. Rare words are left out at the end, once phrases are made.

    \b
    Examples:
      firth phrases my.txt -o my.corpus --tokenizer words --passes 2
      firth train skipgram my.corpus -o vectors.txt
    """
    reading: dict[str, Any] = {"tokenizer": tokenizer, "threads": threads}
    with as_flags([*options, *reading, "min_count", "max_size"]):
        CorpusOptions(**reading, min_count=min_count, max_size=max_size)
        learner = Phrases(min_count=min_phrase_count, connectors=frozenset(connectors.split()), **options)
    if save_phrases is not None and save_phrases.resolve() == output.resolve():
        raise click.UsageError("--output and --save-phrases name the same file")
    for path in (output, save_phrases):
        if path is not None:
            with tried(path, inputs) as probe:
                probe.touch()
    checked_sources(list(inputs))
    saved = saved_input(inputs, (Corpus,), ("tokenizer",))

    say, bars = voice(quiet)
    corpus = read(saved, inputs, {**reading, "min_count": 1}, say, bars)
    learner.fit(corpus, memory=memory, threads=threads, progress=bars)
    corpus = learner.apply(corpus, min_count=min_count, max_size=max_size, threads=threads)
    corpus.save(output)
    if save_phrases is not None:
        learner.save(save_phrases)
    if len(learner) and topn and not quiet:
        shown = sorted(learner, key=lambda one: -one.count)[:topn]
        for line in aligned([(f"  {one.phrase}", f"{one.score:.3f}", f"{one.count:,}") for one in shown]):
            click.echo(line)
    say(
        f"Saved {counted(corpus.n_tokens, 'word')}, {len(corpus.vocabulary):,} different, in {output}, "
        f"with {counted(len(learner), 'phrase')}"
    )
