"""fastText's classifier: labels of texts from the mean of the vectors of their words and n-grams."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from firth import _core, corpus, files
from firth.checks import finite, functions, real_number
from firth.models import classifier_files
from firth.models.base import one_at_a_time
from firth.models.classifier_files import Trained
from firth.models.estimator import Classifier, ClassifierTest, label_limit, likeliest, split, text_weights, top_labels
from firth.models.labeled_texts import Labels, Reader, Texts, threads_for
from firth.options import option, seed_option, threads_option
from firth.run import EpochRun, Epochs, History, Tally, fingerprint, loss_units, records
from firth.runtime import Threaded, padded_rows
from firth.vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Self

Loss = Literal["softmax", "ns", "hs", "ova"]
Bags = tuple[NDArray[np.int64], NDArray[np.int32]]
Matrix = NDArray[np.float32]

_END = "</s>"  # fastText's word for the end of a line, which every text has
_PROBABILITIES = 1 << 22  # computed at once where not all are asked for
_NEGATIVES_EXPONENT = 0.5  # fastText's


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class FastTextClassifier(Threaded, Classifier):
    """Predict labels for texts: a linear classifier over trained vectors of words and n-grams.

    A text's vector is the mean of the vectors of its words, of their character n-grams and of its word n-grams (Joulin,
    Grave, Bojanowski & Mikolov 2017, "Bag of tricks for efficient text classification"). Its product with each label's
    vector is that label's score. It trains as fastText's ``supervised`` does, with the same arithmetic, but each epoch
    has its own random order of texts, where fastText keeps that of the file. This is an estimator of scikit-learn:
    `cross_val_score`, `GridSearchCV` and a `Pipeline` take it.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    history : History
        The loss is the mean over the trained texts, in nats, whatever their weights.

    Notes
    -----
    If a text has several labels, "ova" trains a sigmoid for each label; the other losses draw one of the labels at each
    step. "hs" has a Huffman tree. "ns" draws negative samples in proportion to the square roots of the labels' counts.
    `class_weight` "balanced" weights a label by the inverse of its share. A dict has weights by label, 1 for missing
    labels. A weight of 3 is as if the text were there three times. Words of `pretrained_vectors` that do not occur in
    the training texts keep theirs. If `patience` ends the training, the model is that of the best epoch.

    N-grams that do not occur in the training texts take no memory. They count in a text's mean as zeros, also in
    fastText with a file that `to_fasttext` wrote. (fastText itself keeps their small random initial vectors.) Scores
    are proportional to those without such n-grams, so that the order of labels is the same.

    Examples
    --------
    >>> texts = ["a film to see twice", "two hours lost", "a cast to see", "two dull hours"] * 25
    >>> labels = ["good", "bad", "good", "bad"] * 25
    >>> model = firth.FastTextClassifier(word_ngrams=2, epochs=10).fit(texts, labels)
    >>> model.predict(["to see it twice"])
    array(['good'], dtype='<U4')
    """

    loss: Loss = option(
        "softmax",
        help="softmax over all labels; ova, one classifier for each label; hs, hierarchical softmax, for thousands of "
        "labels; ns, negative sampling.",
    )
    vector_size: int = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    learning_rate: float = option(
        0.1, above=0, high=3e38, help="Step size at the first text; it falls to 0 at the last."
    )
    epochs: int = option(5, low=1, high=1_000_000, help="Passes over the texts.")
    word_ngrams: int = option(1, low=1, high=1000, help="Words in the longest n-gram of words.")
    min_count: int = option(1, low=1, high=2**62, help="Leave out words that are rarer.")
    min_count_label: int = option(0, low=0, high=2**62, help="Leave out labels that are rarer.")
    min_n: int = option(0, low=0, high=1000, help="Characters in the shortest n-gram of a word.")
    max_n: int = option(0, low=0, high=1000, help="Characters in the longest n-gram of a word; 0: no n-grams.")
    bucket: int = option(2_000_000, low=1, high=10**9, help="Rows of the table that n-grams are hashed to.")
    negative: int = option(5, low=1, high=10_000, help='With `loss` "ns": negative samples for each text.')
    label_prefix: str = option("__label__", help="Marks the labels in a text.")
    tokenizer: str | Callable[[str], Sequence[str]] | Any = option(
        "whitespace",
        checked=False,
        help="Split at white space alone; or lower-case, and split at every character but letters and digits; or call "
        "a function or a tokenizer.",
    )
    pretrained_vectors: Vectors | None = option(None, checked=False, help="Initial word vectors.")
    validation: float = option(0.0, low=0, high=0.99, help="Share of the texts in the validation split.")
    patience: int | None = option(
        None, low=1, help="Stop when so many epochs in a row have not raised the score on `validation`.", unset="never"
    )
    seed: int = seed_option(" with one thread")
    threads: int | None = threads_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_n > 0 and self.min_n > self.max_n:
            raise ValueError(f"min_n ({self.min_n}) must not be above max_n ({self.max_n})")
        if not self.label_prefix:
            raise ValueError("label_prefix must not be empty: every word would be a label")
        corpus.CorpusOptions(tokenizer=self.tokenizer)
        vectors: Any = self.pretrained_vectors
        if vectors is not None:
            if not isinstance(vectors, Vectors):
                raise TypeError(f"pretrained_vectors must be firth.Vectors, not {type(vectors).__name__}")
            if vectors.vector_size != self.vector_size:
                raise ValueError(
                    f"pretrained_vectors have {vectors.vector_size} dimensions and vector_size is {self.vector_size}"
                )
            if not finite(vectors.matrix):
                row = int(np.flatnonzero(~np.isfinite(vectors.matrix).all(axis=1))[0])
                raise ValueError(f"pretrained_vectors: the vector of {vectors.words[row]!r} is not finite")
        self._trained: Trained | None = None

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted; AttributeError before `fit`."""
        trained = self._fitted()
        return trained.label_array[trained.order]

    @property
    def words(self) -> list[str]:
        """Words that have a vector, the most frequent first; ``</s>`` is the end of a text."""
        return self._fitted().words

    def _size(self) -> str:
        return f"{len(self.words)} words, {super()._size()}, vector_size={self.vector_size}" if self._trained else ""

    def _is_fitted(self) -> bool:
        return self._trained is not None

    # ---- training

    @one_at_a_time
    def fit(
        self,
        texts: Any,
        labels: Any = None,
        *,
        sample_weight: Any = None,
        validation: Any = None,
        progress: bool = False,
        callbacks: Iterable[Callable[[Any], object]] = (),
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on texts with labels, in memory or in files.

        Parameters
        ----------
        texts
            Strings, or lists of tokens (then `tokenizer` must be "whitespace"): a list, an array, a column. Or, without
            `labels`, the path of a file (or several) in which every line is a text with its labels, each with the
            prefix `label_prefix`.
        labels
            One for each text (strings, whole numbers, booleans), or a list of them for each.
        sample_weight
            The weight of each text, (texts,): with weight 3, it is used three times in a row.
        validation
            Overrides the option: a share, ``(texts, labels)``, or the path of a file.
        progress, callbacks, checkpoint, resume
            As for `Word2Vec.fit`.

        Raises
        ------
        TypeError, ValueError
            If texts and labels are of other types, or differ in number. Otherwise as for `Word2Vec.fit`, but nothing is
            changed by a FloatingPointError.
        """
        model = type(self)(**self.get_params())
        numbered, gold = model._reader.labeled(texts, labels, progress=progress)
        n = len(numbered)
        weights = text_weights("sample_weight", sample_weight, n)
        other: tuple[Texts, Labels] | None = None
        if validation is None or isinstance(validation, int | float | np.number):
            share = self.validation if validation is None else validation
            here, there = split(n, share, self.seed, required=True)
            if len(there):
                other = numbered.some(there), gold.some(there)
                numbered, gold = numbered.some(here), gold.some(here)
                weights = None if weights is None else weights[here]
        else:
            pair = validation if isinstance(validation, tuple) and len(validation) == 2 else (validation, None)
            other = model._reader.labeled(*pair)
            if len(other[0]) == 0:
                raise ValueError("validation must contain texts with labels, or be a share such as 0.1")
        bags, gold = model._build(numbered, gold)
        labels = model._fitted().labels
        apart = None if other is None else (model._bags_of(other[0]), other[1].known(labels))
        if self.patience is not None and apart is None:
            raise ValueError("patience needs validation: a share of the texts, or other texts")
        called = [functools.partial(callback, self) for callback in functions("callbacks", callbacks)]
        # The result does not depend on the number of threads; the data depend on the other two.
        left_out = ("threads", "tokenizer", "pretrained_vectors")
        identity = {name: value for name, value in model._description()["options"].items() if name not in left_out}
        fingerprint = functools.partial(model._fingerprint, bags, gold, weights, apart)
        run = EpochRun(type(self).__name__, "texts", identity, fingerprint, model.history, checkpoint, resume)
        run.start(model._epochs(bags, gold, weights, apart))
        before = self.__dict__.copy()
        self.__dict__.update(model.__dict__)  # callbacks and interruptions see the new one
        try:
            run.finish(called, progress=progress)
            run.restore_best()
        except (FloatingPointError, ValueError):
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    @property
    def _reader(self) -> Reader:
        of_fasttext = self._trained is not None and self._trained.of_fasttext
        return Reader(self.tokenizer, self.label_prefix, self.threads, of_fasttext)

    def _build(self, numbered: Texts, gold: Labels) -> tuple[Bags, Labels]:
        """Choose words, labels and rows, and allocate them; return the texts as bags of rows, and their labels."""
        gold, label_counts = gold.frequent(self.min_count_label)
        words, word_counts = numbered.frequent(self.min_count, _END)
        if self.pretrained_vectors is not None:
            known = set(words)
            others = [word for word in self.pretrained_vectors.words if word not in known]
            words += others
            word_counts = np.append(word_counts, np.zeros(len(others), np.int64))
        n_words = len(words)
        if n_words + self._buckets >= 2**31:
            raise ValueError(f"{n_words} words and bucket={self.bucket} together must be fewer than 2^31")

        index = {word: i for i, word in enumerate(words)}
        begins, reached = self._features_of(numbered, index, None)
        times = np.bincount(reached, minlength=n_words)
        used = times > 0
        used[:n_words] = True
        features = np.flatnonzero(used)
        # Frequent rows are neighbors, and share the caches.
        features = features[np.argsort(-times[features], kind="stable")]
        self._trained = trained = Trained(
            words=words,
            labels=gold.names,
            counts=np.append(word_counts, label_counts).astype(np.int64),
            n_tokens=int(len(numbered.ids) + len(numbered) + len(gold.numbers)),
            buckets=self._buckets,
            features=features,
            rows=padded_rows(len(features), self.vector_size),
            outputs=padded_rows(len(gold.names), self.vector_size),
        )
        # Words begin with small random vectors, word n-grams with 0. With character n-grams, which are then most of the
        # features, zeros score worse.
        random = np.arange(len(features)) if self.max_n else trained.row_of[:n_words]
        begun = padded_rows(len(random), self.vector_size)
        numbers = features[random]
        _core.fill_uniform(begun, scale=1 / self.vector_size, seed=self.seed, numbers=numbers, threads=self.n_threads)
        trained.rows[random] = begun
        if self.pretrained_vectors is not None:
            trained.rows[trained.row_of[[index[word] for word in self.pretrained_vectors.words]]] = (
                self.pretrained_vectors.matrix
            )
        return (begins, trained.row_of[reached]), gold

    def _epochs(
        self, bags: Bags, gold: Labels, weights: Matrix | None, validation: tuple[Bags, Labels] | None
    ) -> Epochs:
        """What a run trains."""
        trained = self._fitted()
        rows, outputs = trained.rows, trained.outputs
        noise = None
        if self.loss == "ns":
            noise = _core.alias_table(np.maximum(trained.label_counts, 1).astype(np.float64) ** _NEGATIVES_EXPONENT)
        label_weights = self._label_weights(trained.labels, np.bincount(gold.numbers, minlength=len(trained.labels)))

        def train(begin: int, end: int, epoch: int) -> Tally:
            loss, examples, diverged_at = _core.train_classifier(
                rows,
                outputs,
                bags=bags,
                labels=(gold.begins, gold.numbers),
                weights=weights,
                label_weights=label_weights,
                noise=noise,
                paths=self._paths(),
                begin=begin,
                end=end,
                epoch=epoch,
                threads=self.n_threads,
                **self._some("loss", "epochs", "negative", "learning_rate", "seed"),
            )
            return Tally(loss_units(loss), examples, f"text {diverged_at}" if diverged_at >= 0 else "")

        return Epochs(
            epochs=self.epochs,
            units=len(gold.begins) - 1,
            train=train,
            tensors={"rows": rows, "outputs": outputs},
            good=(),
            learning_rate=lambda done: self.learning_rate * (1 - done),
            no_example=lambda: (
                "no text has both a label and a word or n-gram: min_count="
                f"{self.min_count} and min_count_label={self.min_count_label} leave out the rarer ones"
            ),
            score=lambda: None if validation is None else float(self._right(*validation).mean()),
            patience=self.patience,
        )

    def _fingerprint(
        self, bags: Bags, gold: Labels, weights: Matrix | None, apart: tuple[Bags, Labels] | None
    ) -> list[int]:
        """Sizes and checksums of all data of the training, initial vectors included."""
        trained = self._fitted()
        others = () if apart is None else (*apart[0], apart[1].begins, apart[1].numbers)
        given = () if weights is None else (weights,)
        arrays = [*bags, gold.begins, gold.numbers, trained.rows, *given, *others]
        return fingerprint(arrays, [*trained.words, *map(repr, trained.labels)])

    # ---- texts to bags

    @property
    def _buckets(self) -> int:
        """The number of buckets: 0 without n-grams, as in fastText."""
        return self.bucket if self.word_ngrams > 1 or self.max_n > 0 else 0

    def _features_of(self, numbered: Texts, index: dict[str, int], rows: NDArray[np.int32] | None) -> Bags:
        """Features of texts, given the positions of words; or the entries of `rows` for them."""
        features = np.fromiter((index.get(word, -1) for word in numbered.words), np.int32, len(numbered.counts))
        subwords = None
        if self.max_n:
            subwords = _core.subword_buckets(
                numbered.packed,
                numbered.word_offsets,
                min_n=self.min_n,
                max_n=self.max_n,
                buckets=self._buckets,
                threads=threads_for(len(numbered), self.threads),
            )
        end = files.pack_words([_END])
        return _core.bags_of_features(
            numbered.ids,
            numbered.offsets,
            hashes=_core.hash_words(numbered.packed, numbered.word_offsets),
            features=features,
            subwords=subwords,
            end_hash=int(_core.hash_words(end["words"], end["word_offsets"])[0]),
            end_feature=index.get(_END, -1),
            n_words=len(index),
            buckets=self._buckets,
            word_ngrams=self.word_ngrams,
            rows=rows,
            threads=threads_for(len(numbered), self.threads),
        )

    def _bags_of(self, numbered: Texts) -> Bags:
        trained = self._fitted()
        if trained.of_fasttext:
            numbered = numbered.until(_END)
        if self.label_prefix.encode() in numbered.packed.tobytes():
            strays = [word.startswith(self.label_prefix) and word not in trained.index for word in numbered.words]
            numbered = numbered.tokens(~np.array(strays)[numbered.ids])
        return self._features_of(numbered, trained.index, trained.row_of)

    def _paths(self) -> Any:
        return self._fitted().paths if self.loss == "hs" else None

    def _fitted(self) -> Trained:
        if self._trained is None:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit(texts, labels) first")
        return self._trained

    def _probabilities(self, bags: Bags, begin: int, end: int) -> Matrix:
        """(end - begin, labels) of texts [begin, end), labels by their counts."""
        trained = self._fitted()
        begins, places = bags
        first, last = begins[begin], begins[end]
        out = np.empty((end - begin, len(trained.labels)), np.float32)
        _core.predict_classifier(
            out,
            trained.rows,
            trained.outputs,
            bags=(begins[begin : end + 1] - first, places[first:last]),
            paths=self._paths(),
            loss=self.loss,
            threads=threads_for(end - begin, self.threads),
        )
        return out

    def _blocks(self, bags: Bags) -> Iterator[tuple[int, Matrix]]:
        n = len(bags[0]) - 1
        step = max(1, _PROBABILITIES // len(self._fitted().labels))
        for begin in range(0, n, step):
            yield begin, self._probabilities(bags, begin, min(n, begin + step))

    def _first(self, bags: Bags) -> NDArray[np.int64]:
        """The most likely label of each text, in the order of counts."""
        found = np.empty(len(bags[0]) - 1, np.int64)
        for begin, block in self._blocks(bags):
            found[begin : begin + len(block)] = block.argmax(axis=1)
        return found

    def _best(self, bags: Bags, k: int, threshold: float) -> Iterator[tuple[NDArray[np.int64], Matrix]]:
        """For each text up to k labels with a probability of at least `threshold`, the most likely first."""
        for _, block in self._blocks(bags):
            yield from likeliest(block, k, threshold)

    def _texts(self, texts: Any) -> Bags:
        self._fitted()
        return self._bags_of(self._reader.texts(texts))

    def predict(self, texts: Any) -> NDArray[Any]:
        """The most likely label of each text, (texts,); AttributeError before `fit`.

        `texts` is a list of strings, or of lists of tokens. A line end is white space. Words that begin with
        `label_prefix` are labels, not part of the text, unless `fit` had them among its words.
        """
        bags = self._texts(texts)
        return self._fitted().label_array[self._first(bags)]

    def predict_top(self, texts: Any, k: int = 1, threshold: float = 0.0) -> tuple[list[list[Any]], list[list[float]]]:
        """For each text a list of at most `k` labels, the most likely first, and a list of their probabilities.

        A `k` of -1 stands for all labels. Those less likely than `threshold` are left out.
        """
        k, threshold = label_limit(k), real_number("threshold", threshold)
        bags = self._texts(texts)
        return top_labels(self._fitted().label_array, self._best(bags, k, threshold))

    def predict_proba(self, texts: Any) -> Matrix:
        """The probability of each label, float32 (texts, labels), in the order of `classes_`.

        A row's sum is 1 with the losses "softmax" and "hs"; with the others each label has a probability of its own.
        """
        bags = self._texts(texts)
        return self._probabilities(bags, 0, len(bags[0]) - 1)[:, self._fitted().order]

    def score(self, texts: Any, labels: Any = None, sample_weight: Any = None) -> float:
        """Accuracy: the share of texts, weighted, whose most likely label is one of their labels, given as to `fit`."""
        self._fitted()
        numbered, gold = self._reader.labeled(texts, labels)
        if len(numbered) == 0:
            raise ValueError("there is no text to score")
        weights = text_weights("sample_weight", sample_weight, len(numbered))
        right = self._right(self._bags_of(numbered), gold.known(self._fitted().labels))
        return float(np.average(right, weights=weights))

    def _right(self, bags: Bags, gold: Labels) -> NDArray[np.bool_]:
        """Whether each text's most likely label is one of its labels."""
        owners = np.repeat(np.arange(len(gold.begins) - 1), np.diff(gold.begins))
        hit = gold.numbers == self._first(bags)[owners]
        return np.bincount(owners[hit], minlength=len(gold.begins) - 1) > 0

    def test(self, texts: Any, labels: Any = None, *, k: int = 1, threshold: float = 0.0) -> ClassifierTest:
        """Compare what `predict_top` returns with the known labels of texts, given as to `fit`."""
        k, threshold = label_limit(k), real_number("threshold", threshold)
        trained = self._fitted()
        numbered, gold = self._reader.labeled(texts, labels)
        found = (labels for labels, _ in self._best(self._bags_of(numbered), k, threshold))
        return ClassifierTest.of(found, gold, trained.labels, trained.order.tolist())

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write the whole classifier, without `pretrained_vectors`, as one safetensors file for `firth.load`.

        AttributeError before `fit`; ValueError if the tokenizer is a function, which a file cannot store.
        """
        trained = self._fitted()
        if not isinstance(self.tokenizer, str):
            raise ValueError(
                "a classifier whose tokenizer is a function cannot be saved: a file cannot store a function"
            )
        tensors, metadata = classifier_files.to_tensors(trained)
        files.write_own(path, "model", tensors, {**self._description(), **metadata})

    def _description(self) -> dict[str, Any]:
        described = super()._description()
        return {**described, "options": {**described["options"], "pretrained_vectors": None}}

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._trained = classifier_files.from_tensors(
            tensors, metadata, loss=self.loss, buckets=self._buckets, vector_size=self.vector_size
        )
        self.history = records(metadata["history"])

    def to_fasttext(self, path: files.PathLike) -> None:
        """Write a model for fastText's programs: .bin, with every bucket, or, if quantized, .ftz.

        fastText then makes the same predictions (with the losses "ova" and "ns" from a table of sigmoids, exact to
        three digits) for texts whose tokens are separated by ASCII white space and that do not contain ``</s>``, which
        ends them in fastText. The format cannot store another `tokenizer`, which causes a warning. Labels that are
        numbers become strings. A model that is not quantized takes more than 4 * (words + bucket) * vector_size bytes.

        AttributeError before `fit`; ValueError if a word or a label contains a NUL.
        """
        trained = self._fitted()
        if self.tokenizer != "whitespace":
            warnings.warn(
                f"{path} cannot store the tokenizer: fastText needs tokenized texts. save() stores all of the model",
                stacklevel=2,
            )
        classifier_files.write_fasttext(path, trained, self.get_params())

    @classmethod
    def from_fasttext(cls, path: files.PathLike, *, label_prefix: str = "__label__") -> FastTextClassifier:
        """Read a classifier that fastText's programs wrote, .bin or .ftz.

        It reads texts as fastText does: ``</s>`` ends a text, NUL is white space, and white space beyond ASCII (a
        no-break space, U+3000) is part of a word. Its labels are strings, also in `score` and `test`; `label_prefix` is
        removed from them. Quantized matrices are decoded once, for speed, and kept for `save` and `to_fasttext`.
        ValueError if the file is not a classifier, or damaged.
        """
        options, trained = classifier_files.read_fasttext(path, label_prefix)
        with files.reading(path, "fastText model", own=False):
            model = cls(**options)
        model._trained = trained
        return model

    def quantize(
        self,
        texts: Any = None,
        labels: Any = None,
        *,
        cutoff: int | None = None,
        part_size: int = 2,
        norms: bool = False,
        output: bool = False,
        progress: bool = False,
    ) -> FastTextClassifier:
        """Make a smaller classifier by pruning and product quantization (Joulin et al. 2016, "FastText.zip").

        `save` and, by convention to a .ftz, `to_fasttext` write the small form. AttributeError before `fit`; ValueError
        if it is quantized already, or `cutoff` leaves nothing.

        Parameters
        ----------
        texts, labels
            As for `fit`: the rows that pruning leaves are trained on them once more, under the options of the model.
        cutoff
            Rows to keep, words and n-grams together: those with the largest norm. None: all.
        part_size
            Dimensions of a sub-vector, which is stored as one byte.
        norms
            Store the norms of rows separately, in one more byte for each.
        output
            Quantize the vectors of the labels, too.
        progress
            Show a bar.
        """
        trained = self._fitted()
        if trained.quantized is not None:
            raise ValueError("this classifier is quantized already")
        if labels is not None and texts is None:
            raise ValueError("labels need texts")
        model = type(self)(**{**self.get_params(), "pretrained_vectors": None})
        model._trained = small = classifier_files.pruned(trained, cutoff, _END)
        model.history = History(self.history)
        if texts is not None:
            numbered, gold = self._reader.labeled(texts, labels, progress=progress)
            begins, places = model._bags_of(numbered)
            here = places >= 0
            before = np.concatenate([[0], np.cumsum(here)])
            run = EpochRun(type(self).__name__, "texts", {}, list, History(), None, False)
            run.start(model._epochs((before[begins], places[here]), gold.known(small.labels), None, None))
            run.finish([], progress=progress)
            done = len(model.history)
            model.history += [dataclasses.replace(one, epoch=one.epoch + done) for one in run.history]
        classifier_files.quantize(small, part_size, norms, output, seed=self.seed, threads=self.n_threads)
        return model
