"""`firth count` and `firth phrases`."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from firth import files
from firth.cli import common
from firth.cli.common import INPUTS, OUTPUT, QUIET, STREAM, Voice, counted
from firth.cli.options import as_flags, model_options, taking
from firth.corpus import Corpus, CorpusOptions
from firth.counts import check_glove_words, check_options, count_cooccurrences
from firth.models.counted import CountsModel
from firth.phrases import Phrases
from firth.text import checked_sources


@click.command()
@taking(
    [
        INPUTS,
        click.option("-o", "--output", type=OUTPUT, help="Counts, for firth train and firth.load."),
        click.option("--glove", type=OUTPUT, metavar="FILE", help="Counts in the format of GloVe's programs."),
        click.option(
            "--glove-vocab", type=STREAM, metavar="FILE", help="The vocabulary that goes with --glove; - for stdout."
        ),
        *common.READING,
        *model_options(CountsModel),
        common.MEMORY,
        QUIET,
    ]
)
def count(
    inputs: tuple[str, ...],
    output: Path | None,
    glove: Path | None,
    glove_vocab: files.PathLike | None,
    voice: Voice,
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
    reading = {name: counting.pop(name) for name in common.READ} | {"threads": counting["threads"]}
    with as_flags([*counting, *reading]):
        check_options(**counting)
        CorpusOptions(**reading)
    if output is None and glove is None:
        raise click.UsageError("no output file: give --output, --glove or both")
    if glove_vocab is not None and glove is None:
        raise click.UsageError("--glove-vocab needs --glove, the counts that it goes with")
    common.check_distinct({"--output": output, "--glove": glove, "--glove-vocab": glove_vocab})
    common.check_writable(output, glove, glove_vocab, inputs=inputs)
    checked_sources(list(inputs))
    saved = common.saved_input(inputs, (Corpus,))

    corpus = common.read(saved, inputs, reading, voice)
    if glove_vocab is not None:
        check_glove_words(corpus.vocabulary.words)
    counts = count_cooccurrences(corpus, **counting, progress=voice.bars)
    if output is not None:
        counts.save(output)
    if glove is not None:
        counts.to_glove(glove, vocabulary=glove_vocab)
    pairs = f"{counted(counts.csr.nnz, 'pair')} of {counted(len(counts.vocabulary), 'word')}"
    voice.say(f"Saved {pairs} in {' and '.join(str(path) for path in (output, glove) if path is not None)}")


@click.command()
@taking(
    [
        INPUTS,
        click.option(
            "-o", "--output", type=OUTPUT, required=True, help="The corpus with its phrases, for firth train."
        ),
        click.option("--save-phrases", type=OUTPUT, metavar="FILE", help="Also save the phrases, for firth.load."),
        *common.READING,
        click.option("--min-phrase-count", type=click.IntRange(1), default=5, help="Leave out phrases that are rarer."),
        *model_options(Phrases, without=["min_count"]),
        click.option(
            "--connectors",
            metavar="WORDS",
            default="",
            show_default="none",
            help="Words that are allowed inside a phrase but not at its ends, separated by blanks: 'of the'.",
        ),
        click.option("-n", "--topn", type=click.IntRange(0), metavar="N", default=10, help="Phrases to show."),
        common.MEMORY,
        *model_options(CountsModel, only=["threads"]),
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
    voice: Voice,
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
    common.check_distinct({"--output": output, "--save-phrases": save_phrases})
    common.check_writable(output, save_phrases, inputs=inputs)
    checked_sources(list(inputs))
    saved = common.saved_input(inputs, (Corpus,), ("tokenizer",))

    corpus = common.read(saved, inputs, {**reading, "min_count": 1}, voice)
    learner.fit(corpus, memory=memory, threads=threads, progress=voice.bars)
    corpus = learner.apply(corpus, min_count=min_count, max_size=max_size, threads=threads)
    corpus.save(output)
    if save_phrases is not None:
        learner.save(save_phrases)
    if len(learner) and topn and not voice.quiet:
        shown = sorted(learner, key=lambda one: -one.count)[:topn]
        common.show([(f"  {one.phrase}", f"{one.score:.3f}", f"{one.count:,}") for one in shown])
    voice.say(
        f"Saved {counted(corpus.n_tokens, 'word')}, {len(corpus.vocabulary):,} different, in {output}, "
        f"with {counted(len(learner), 'phrase')}"
    )
