"""The options of models as options of the command line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from firth.options import Options, choices, declared_options, not_none

Parameters = list[Callable[[Callable[..., None]], Callable[..., None]]]

# What each option means. The names are the fields of the models' dataclasses, which also give type and default.
_HELP = {
    "accumulate": "Batches whose gradients are added up for one step.",
    "alpha": "Pairs that occur less often than --x-max weigh as their count to this power.",
    "architecture": "Predict the context words from the center word, or the center word from the context words.",
    "attention_dropout": "Share of attention weights that are dropped in training.",
    "batch_size": "Sequences in a batch.",
    "bf16": "Multiply matrices in bf16, or in float32.",
    "bucket": "Rows of the table that n-grams are hashed to.",
    "cbow_mean": "Predict from the mean of the context vectors, or from their sum.",
    "character_dim": "Dimensions of a character's vector.",
    "clip": "Largest norm of the gradient.",
    "clip_value": "Largest absolute value of a gradient's component.",
    "context_smoothing": "Raise the counts of context words to this power.",
    "deterministic": "Train the same vectors at any number of threads.",
    "device": "Where to compute, as torch names it: cpu, cuda.",
    "dim": "Dimensions of a hidden state.",
    "documents": "A document of a file ends at the end of its line, or at the next blank line.",
    "dropout": "Share of hidden values that are dropped in training.",
    "eigenvalue_weighting": "Scale dimensions by their singular values to this power.",
    "embedding_mode": "With --pretrained-vectors: continue to train the vectors, freeze them, or freeze them at first.",
    "embedding_project": "With --pretrained-vectors: map vectors of another size to --dim by a linear layer.",
    "embedding_std": "With --pretrained-vectors: scale the vectors to this standard deviation.",
    "embedding_steps": "With --embedding-mode frozen_first: freeze them for so many steps.",
    "epochs": "Passes over the text.",
    "evaluate_batches": "Batches in such an evaluation, at most.",
    "evaluate_every": "Steps between two evaluations on the validation split.",
    "heads": "Attention heads in a block.",
    "hidden": "Dimensions of the memory cell of an LSTM.",
    "label_prefix": "Marks the labels in a text.",
    "layers": "Blocks of the transformer.",
    "learning_rate": "Step size at the first word.",
    "length": "Longest sequence, in tokens.",
    "loss": "Negative sampling (ns) or hierarchical softmax (hs).",
    "lowercase": "Convert text to lower case.",
    "masked": "Masking probability.",
    "max_characters": "Longest word, in bytes, with two for its beginning and end.",
    "max_n": "Characters in the longest n-gram of a word; 0: no n-grams.",
    "min_count": "Leave out words and subwords that are rarer.",
    "min_count_label": "Leave out labels that are rarer.",
    "min_learning_rate": "Step size at the end.",
    "min_n": "Characters in the shortest n-gram of a word.",
    "mlp_dim": "Hidden dimensions of a block's MLP.",
    "negative": "Negative samples for each position.",
    "negatives": "With --softmax sampled: negative samples.",
    "ns_exponent": "Draw negative samples in proportion to count to this power.",
    "output": "Write the sum of a word's vector and its context vector, or the word's vector alone.",
    "patience": "Stop when so many epochs in a row have not raised the score on --validation.",
    "positive": "Keep only values above zero, or all values.",
    "projection": "Dimensions of a hidden state of one direction.",
    "sample": "Drop some tokens of words that make up more than this share of the text; 0 keeps all.",
    "seed": "Seed of the random numbers. The same seed on one instruction set gives the same result.",
    "shift": "Subtract the logarithm of this from each value: the number of negative samples in word2vec.",
    "side": "Count context words on both sides, or only those before (left) or after (right).",
    "softmax": "Predict exactly, with rare words in clusters; or from negative samples in training.",
    "split": "Split at white space alone; or lower-case, and split at every character but letters and digits.",
    "steps": "Steps of training.",
    "threads": "Threads to use.",
    "validation": "Share of the documents in the validation split.",
    "vector_size": "Dimensions of a vector.",
    "vocabulary_size": "Tokens in the vocabulary, at most.",
    "warmup": "Share of the steps over which the step size rises.",
    "weight_decay": "Weight decay of matrices, times the step size.",
    "weighting": "Weight of a context word at distance d: 1; or 1/d; or (window - d + 1) / window.",
    "whole_word": "Mask all subwords of a word together, or each by itself.",
    "window": "Context words on either side of a word, at most.",
    "word_ngrams": "Words in the longest n-gram of words.",
    "x_max": "Pairs that occur at least this often weigh the same.",
}
_SEED_OF_ONE_THREAD = "Seed of the random numbers. One thread, seed and instruction set give the same result."
# Where a model means something else by an option's name.
_HELP_OF = {
    "ELMo.batch_size": "Texts in a batch.",
    "ELMo.validation": "Share of the texts in the validation split.",
    "ELMo.layers": "LSTM layers in each direction.",
    "ELMo.length": "Longest text in training, in words: longer texts are cut.",
    "ELMo.min_count": "Predict words that are rarer as one word.",
    "ELMo.vocabulary_size": "Words that are predicted, at most; all words are read.",
    "FastText.seed": _SEED_OF_ONE_THREAD,
    "FastTextClassifier.learning_rate": "Step size at the first text; it falls to 0 at the last.",
    "FastTextClassifier.loss": "softmax over all labels; ova, one classifier for each label; hs, hierarchical softmax, "
    "for thousands of labels; ns, negative sampling.",
    "FastTextClassifier.negative": "With --loss ns: negative samples for each text.",
    "FastTextClassifier.seed": _SEED_OF_ONE_THREAD,
    "GloVe.epochs": "Passes over the counts.",
    "GloVe.learning_rate": "Step size at the start; it falls as squared gradients add up (AdaGrad).",
    "LSA.weighting": "Weight of a word's count in a document.",
    "Word2Vec.seed": _SEED_OF_ONE_THREAD,
}
# What None stands for.
_UNSET = {
    "bf16": "where it is faster",
    "evaluate_every": "a twentieth of the steps",
    "min_learning_rate": "a tenth of --learning-rate",
    "mlp_dim": "4 times --dim",
    "patience": "never",
    "steps": "as --epochs say",
    "threads": "all processors",
}
# Where a flag is not the option's name.
_FLAGS = {"output": "--vectors", "positive": "--positive/--signed", "cbow_mean": "--cbow-mean/--cbow-sum"}


def model_option(kind: str, name: str, declared: Any, default: object) -> Any:
    """An option of a class, of the type that its field declares."""
    value = not_none(declared)
    long = "--" + name.replace("_", "-")
    flags = _FLAGS.get(name, f"{long}/--no-{long[2:]}" if value is bool else long)
    return click.option(
        flags,
        name,
        type=click.Choice(choices(value)) if choices(value) else value,
        default=default,
        show_default=_UNSET.get(name, True) if default is None else True,
        help=_HELP_OF.get(f"{kind}.{name}", _HELP[name]),
    )


def model_options(kind: type[Options], without: Iterable[str] = ()) -> Parameters:
    """The options of a model, but those that the command does not offer: first its own, then those of all models."""
    found = [one for one in declared_options(kind) if one.name not in without]
    if unexplained := sorted({one.name for one in found} - _HELP.keys()):
        raise LookupError(f"say in _HELP what these options of {kind.__name__} mean: {', '.join(unexplained)}")
    shared = ("epochs", "seed", "threads")
    found.sort(key=lambda one: one.name in shared)
    return [model_option(kind.__name__, one.name, one.type, one.default) for one in found]


def taking(parameters: Parameters) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command these parameters, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return add


def flag(name: str) -> str:
    """The flag of an option, as users write it."""
    return _FLAGS.get(name, "--" + name.replace("_", "-")).split("/")[0]


@contextlib.contextmanager
def as_flags(names: Iterable[str]) -> Iterator[None]:
    """Turn a ValueError about parameters into one about the options of the command line."""
    try:
        yield
    except ValueError as error:
        said = re.sub(rf"\b({'|'.join(names)})\b", lambda found: flag(found[0]), str(error))
        raise click.UsageError(said) from None
