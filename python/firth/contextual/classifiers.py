"""Labels of texts and of words, from a transformer's hidden states."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from firth.checks import column, real_number, whole_number
from firth.contextual import heads
from firth.contextual.encoding import Sentence, checked_sentences
from firth.contextual.examples import Example, Pooling, labels_of_words
from firth.contextual.finetuning import FineTuned
from firth.models.estimator import label_limit, likeliest, top_labels
from firth.models.labeled_texts import check_one_type, checked_label, labels_of

TextOrPair = Sentence | tuple[Sentence, Sentence]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class SentenceClassifier(FineTuned):
    """Predict labels for texts, or for pairs of texts, from a transformer's hidden states.

    A linear layer on a text's pooled hidden states scores its labels. The transformer is trained with it (Devlin,
    Chang, Lee & Toutanova 2019), or stays as it is. This is an estimator of scikit-learn: `cross_val_score`,
    `GridSearchCV` and a `Pipeline` take it; clones share the encoder.

    Notes
    -----
    `pooling` pools the hidden states of a text's tokens, special ones included: "mean", "max", "cls", "first" or
    "last", as in `GPT.encode`, or BERT's "pooler", a layer with tanh on the first. None: "mean" with `head_only`,
    otherwise "pooler" for a BERT and "last" for a GPT, as `transformers` classifies with them.

    The transformer is a copy of `encoder`, trained as `Schedule` says; the learning rate falls to 0. With `head_only`
    the head is solved by L-BFGS, on the summed loss and half of `penalty` times the squared norm of its matrix; the
    options from `epochs` to `dropout` then have no effect.

    `class_weight` is None; "balanced", which weights a label by the inverse of its share; or a dict from labels to
    weights, 1 for missing labels. A text with several labels has the mean of their weights. Only ratios of weights
    matter if the transformer is trained; with `head_only`, a weight of 3 is as if the text were there three times.

    After each epoch `history` has the accuracy on the validation split. The only text with a label stays in the
    training split. If `validation` is less than one text, there is no such split.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> texts = ["a film to see twice", "two hours lost", "what a cast", "a bore"]
    >>> labels = ["good", "bad", "good", "bad"]
    >>> model = SentenceClassifier(encoder=bert, head_only=True).fit(texts, labels)
    >>> model.predict(["a great cast"])
    array(['good'], dtype='<U4')
    """

    task: ClassVar[heads.Task] = "SentenceClassifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling == "pooler" and self.encoder.causal:
            raise ValueError("pooling='pooler' is BERT's, whose first token sees all others: a GPT has 'last'")

    @property
    def _pooling(self) -> Pooling:
        if self.pooling is not None:
            return self.pooling
        return "mean" if self.head_only else "last" if self.encoder.causal else "pooler"

    def predict_proba(self, texts: Sequence[TextOrPair], *, progress: bool = False) -> NDArray[np.float64]:
        """The probability of each label, (texts, classes), in the order of `classes_`.

        A row's sum is 1, unless texts may have several labels, each of which then has a probability of its own.
        """
        self._fitted()
        return self._scores(self._examples(self._inputs(texts), None), progress=progress)

    def predict(self, texts: Sequence[TextOrPair], *, progress: bool = False) -> NDArray[Any]:
        """The most likely label of each text, (texts,)."""
        best: NDArray[Any] = self.classes_[self.predict_proba(texts, progress=progress).argmax(1)]
        return best

    def predict_top(
        self, texts: Sequence[TextOrPair], k: int = 1, threshold: float = 0.0, *, progress: bool = False
    ) -> tuple[list[list[Any]], list[list[float]]]:
        """The most likely labels of each text and their probabilities, as two lists of lists, the most likely first.

        At most `k` labels for each text, -1: all; none less likely than `threshold`. With several labels a text,
        ``k=-1, threshold=0.5`` predicts those that are more likely than not.
        """
        k, threshold = label_limit(k), real_number("threshold", threshold)
        chances = self.predict_proba(texts, progress=progress)
        return top_labels(self.classes_, likeliest(chances, k, threshold))

    def _answers(self, texts: Sequence[Any]) -> list[list[Any]]:
        return [[label] for label in self.predict(texts).tolist()]

    def _inputs(self, texts: Any) -> list[Any]:
        """Texts, or pairs of them, checked."""
        given = list(column("texts", texts))
        pairs = [isinstance(one, tuple) for one in given]
        if not any(pairs):
            return list(checked_sentences(given, "texts"))
        for i, one in enumerate(given):
            if not isinstance(one, tuple) or len(one) != 2:
                what = f"a tuple of {len(one)}" if isinstance(one, tuple) else f"a {type(one).__name__}"
                raise TypeError(
                    f"texts[{i}] is {what}, and texts[{pairs.index(True)}] is a tuple, which stands for a pair of "
                    "texts: give only pairs; words of a text are given as a list"
                )
        return [tuple(checked_sentences(pair, f"texts[{i}]")) for i, pair in enumerate(given)]

    def _read(self, texts: Any, labels: Any, several: bool | None = None) -> tuple[list[Any], list[list[Any]], bool]:
        given = self._inputs(texts)
        gold = labels_of(labels)
        n = len(gold.begins) - 1
        if len(given) != n:
            raise ValueError(f"there are {len(given)} texts and {n} labels: there must be one for each")
        if gold.several and several is False:
            raise TypeError("labels are lists, and training had one label for each text")
        names = [gold.names[i] for i in gold.numbers.tolist()]
        if several is None:
            several = gold.several
        if not several:
            return given, [[name] for name in names], False
        ends = gold.begins.tolist()
        return given, [[tuple(names[ends[i] : ends[i + 1]])] for i in range(n)], True

    def _examples(self, texts: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[Example]:
        own = [[0]] * len(texts) if targets is None else map(list, targets)
        return [
            Example(ids, list(range(len(ids))), [0] * len(ids), labels, types=types)
            for (ids, types), labels in zip(self._encoded(texts), own, strict=True)
        ]

    def _encoded(self, texts: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
        """Tokens of texts or of pairs, and their types, where they are not all 0."""
        if not texts or not isinstance(texts[0], tuple):
            return [(one.ids, []) for one in self.encoder.encoded(texts, self.truncate, "texts")]
        encoder, architecture = self.encoder, self.encoder.transformer.architecture
        if self.truncate is not None:
            whole_number("truncate", self.truncate, high=architecture.length)
        found = encoder.tokenizer_.encode_pairs(texts, special=encoder.special, length=self.truncate)
        encoder.check_lengths("texts", [len(ids) for ids, _ in found])
        return [(ids, types if 0 < max(types, default=0) < architecture.token_types else []) for ids, types in found]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class TokenClassifier(FineTuned):
    """Predict labels for words, such as parts of speech or names, from a transformer's hidden states.

    A linear layer on a word's hidden states scores its labels. The transformer is trained with it, or stays as it is.
    Options are those of `SentenceClassifier`; `pooling` is of a word's tokens: "mean" (None), "max", "first" or "last".
    `cross_val_score`, `GridSearchCV` and a `Pipeline` of scikit-learn take it, with its own `score`: those of
    scikit-learn do not take lists of labels. Folds are not stratified.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> sentences = [["Anna", "sings"], ["she", "writes"], ["Peter", "reads", "books"]]
    >>> labels = [["name", "verb"], [None, "verb"], ["name", "verb", "noun"]]
    >>> model = TokenClassifier(encoder=bert, head_only=True).fit(sentences, labels)
    >>> model.predict([["Otto", "sings"]])
    [['name', 'verb']]
    """

    task: ClassVar[heads.Task] = "TokenClassifier"
    estimator_type: ClassVar[str | None] = None  # scikit-learn's classifiers have one label a sample

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling in ("cls", "pooler"):
            raise ValueError(f"pooling={self.pooling!r} is of whole sentences; 'first' takes a word's first token")

    @property
    def _pooling(self) -> Pooling:
        return self.pooling or "mean"

    def predict(self, texts: Sequence[Sequence[str]], *, progress: bool = False) -> list[list[Any]]:
        """The most likely label of each word; None for words that `truncate` cut off, or that have no token."""
        given = _word_lists(texts)
        examples = self._examples(given, None)
        names = self.classes_[self._scores(examples, progress=progress).argmax(1)].tolist()
        found, begin = [], 0
        for words, one in zip(given, examples, strict=True):
            own = dict(enumerate(names[begin : begin + len(one.targets)]))
            begin += len(one.targets)
            seen = set(one.units)
            found.append([own[i] if i in seen else None for i in range(len(words))])
        return found

    def _answers(self, texts: Sequence[Any]) -> list[list[Any]]:
        return self.predict(texts)

    def _read(self, texts: Any, labels: Any, several: bool | None = None) -> tuple[list[Any], list[list[Any]], bool]:
        given = _word_lists(texts)
        names = [
            [name if name is None else _label(i, j, name) for j, name in enumerate(row)]
            for i, row in enumerate(labels_of_words("texts", given, labels))
        ]
        check_one_type(type(name) for row in names for name in row if name is not None)
        return given, names, False

    def _examples(self, texts: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[Example]:
        examples = []
        for i, encoding in enumerate(self.encoder.encoded(texts, self.truncate, "texts")):
            places = [(at, word) for at, word in enumerate(encoding.words) if word is not None]
            own = [0] * len(texts[i]) if targets is None else targets[i]
            # Only words with a label are units; in use, where no labels are known, all words.
            seen = range(len(own)) if targets is None else sorted({word for _, word in places})
            labeled = {word: label for word in seen if (label := own[word]) is not None}
            unit = {word: number for number, word in enumerate(labeled)}
            kept = [(at, unit[word]) for at, word in places if word in unit]
            missed = sum(label is not None for label in own) - len(labeled)
            at, units = [place for place, _ in kept], [one for _, one in kept]
            examples.append(Example(encoding.ids, at, units, list(labeled.values()), missed))
        return examples


def _word_lists(texts: Any) -> list[Sequence[str]]:
    given = list(column("texts", texts, advice=", each a list of words"))
    for i, one in enumerate(given):
        if isinstance(one, str):
            raise TypeError(f"texts[{i}] is a string: labels belong to words, so give lists of words")
    return [list(column(f"texts[{i}]", one)) for i, one in enumerate(given)]


def _label(text: int, word: int, label: Any) -> Any:
    return checked_label(label, lambda: f"labels[{text}][{word}]")
