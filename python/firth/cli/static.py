"""`firth train` for static vectors."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from firth import files
from firth.cli import common
from firth.cli.common import INPUTS, OUTPUT, QUIET, STREAM, Voice, counted
from firth.cli.options import Parameters, as_flags, model_options, taking
from firth.corpus import Corpus, CorpusOptions
from firth.counts import Cooccurrences
from firth.models import LSA, PPMI, FastText, GloVe, Word2Vec
from firth.models.base import GradientModel, Model
from firth.run import CHECKPOINT
from firth.text import checked_sources


def _training_options(
    kind: type[Model], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments of a command that trains a model: text, outputs, and the model's own options but some."""
    parameters: Parameters = [
        INPUTS,
        click.option(
            "-o",
            "--output",
            "path",
            type=STREAM,
            required=True,
            help="File of vectors, whose suffix says the format; - is standard output, in word2vec's text format.",
        ),
        click.option("--save-model", type=OUTPUT, metavar="FILE", help="Also save the whole model, for firth.load."),
        *([common.FASTTEXT] if kind is FastText else []),
        *common.READING,
        *model_options(kind, without),
        *(common.CHECKPOINTS if issubclass(kind, GradientModel) else []),
        QUIET,
    ]
    return taking(parameters)


@click.command()
@_training_options(Word2Vec, without=("architecture", "cbow_mean"))
def skipgram(**arguments: Any) -> None:
    """The model is word2vec's skip-gram: it predicts context words from the center word. INPUT is text, plain or
    compressed, with one sentence or paragraph per line; several files are read as one, and - is standard input. INPUT
    can also be a corpus that firth phrases or Corpus.save wrote.

    \b
    Examples:
      firth train skipgram my.txt -o vectors.txt --tokenizer words
      xzcat wiki.xz | firth train skipgram - -o wiki.bin --vector-size 300 --checkpoint wiki.state
    """
    _train(Word2Vec, **arguments)


@click.command()
@_training_options(Word2Vec, without=("architecture",))
def cbow(**arguments: Any) -> None:
    """The model is word2vec's continuous bag of words: it predicts the center word from its context words. INPUT is as
    for firth train skipgram.

    \b
    Example:
      firth train cbow my.txt -o vectors.txt --tokenizer words --learning-rate 0.05
    """
    _train(Word2Vec, architecture="cbow", **arguments)


@click.command()
@_training_options(FastText)
def fasttext(**arguments: Any) -> None:
    """A word's vector is composed of the vectors of its character n-grams, so that out-of-vocabulary words have
    vectors too. -o writes the vectors of words; --save-model also keeps those of n-grams. INPUT is as for firth train
    skipgram.

    \b
    Examples:
      firth train fasttext my.txt -o vectors.txt --tokenizer words --save-model my.model
      firth neighbors my.model reshipped
      firth train fasttext my.txt -o vectors.txt --save-model for-fasttext.bin --fasttext
    """
    _train(FastText, **arguments)


@click.command()
@_training_options(GloVe)
def glove(**arguments: Any) -> None:
    """INPUT is as for firth train skipgram, or counts that firth count wrote, which have a window, side and weighting
    already.

    \b
    Examples:
      firth train glove my.txt -o vectors.txt --tokenizer words --x-max 10
      firth train glove my.counts -o vectors.txt --x-max 10
    """
    _train(GloVe, **arguments)


@click.command()
@_training_options(PPMI)
def ppmi(**arguments: Any) -> None:
    """The values are positive pointwise mutual information of words and context words; a truncated singular value
    decomposition makes vectors of them. INPUT is as for firth train skipgram, or counts that firth count wrote, which
    have a window, side and weighting already.

    \b
    Examples:
      firth train ppmi my.txt -o vectors.txt --tokenizer words
      firth train ppmi my.counts -o vectors.txt --vector-size 300
    """
    _train(PPMI, **arguments)


@click.command()
@_training_options(LSA)
def lsa(**arguments: Any) -> None:
    """The model is latent semantic analysis: a truncated singular value decomposition of the counts of words in
    documents. Each line of INPUT is a document; otherwise INPUT is as for firth train skipgram.

    \b
    Example:
      firth train lsa articles.txt -o vectors.txt --tokenizer words --vector-size 200
    """
    _train(LSA, **arguments)


def _train(
    kind: type[Model],
    *,
    inputs: tuple[str, ...],
    path: files.PathLike,
    save_model: Path | None,
    voice: Voice,
    checkpoint: Path | None = None,
    resume: bool = False,
    fasttext: bool = False,
    **options: Any,
) -> None:
    # Everything that can go wrong at the end is looked at first: training takes hours.
    reading = {name: options.pop(name) for name in common.READ} | {"threads": options["threads"]}
    with as_flags([*options, *reading]):
        model = kind(**options)
        CorpusOptions(**reading)
    state = None if checkpoint is None else checkpoint / CHECKPOINT
    common.check_distinct({"--output": path, "--save-model": save_model, "--checkpoint": state})
    common.check_output(path, inputs=inputs)
    if save_model is not None:
        common.check_model_file(save_model, inputs, fasttext)
    elif fasttext:
        raise click.UsageError("--fasttext needs --save-model, the file of the model")
    checked_sources(list(inputs))
    saved: Corpus | Cooccurrences | None = common.saved_input(inputs, kind.learns_from)
    common.check_state(checkpoint, resume)
    data: Corpus | Cooccurrences
    if isinstance(saved, Cooccurrences):
        data = saved
        # The model says how its counts were made.
        known = {name: getattr(saved, name) for name in common.COUNTED if name in options}
        with as_flags(options):
            model = dataclasses.replace(model, **{name: value for name, value in known.items() if value is not None})
        voice.say(f"{counted(saved.csr.nnz, 'pair')} of {counted(len(saved.vocabulary), 'word')}")
    else:
        data = common.read(saved, inputs, reading, voice)
    if isinstance(model, GradientModel):
        common.fit(model, data, voice, checkpoint, resume, unit=model.unit, lost="vectors were")
    else:
        model.fit(data, progress=voice.bars)
    model.vectors.save(path)
    if save_model is not None:
        common.write_model(model, save_model, fasttext)
    voice.say(common.saved_line(model.vectors, path))
