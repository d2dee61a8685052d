"""ELMo: a bidirectional language model over words, read as characters, and mixtures of its layers."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from firth import corpus as corpora
from firth import files
from firth.checks import real_number, whole_number
from firth.contextual.base import Setup, TrainedModel, read_description
from firth.contextual.elmo_network import (
    RARE,
    SPECIAL,
    Batch,
    BidirectionalLanguageModel,
    Mixture,
    Speller,
    TextBatches,
    batch_of,
)
from firth.contextual.encoding import BATCH_TOKENS, Sentence, by_length, checked_sentences, chosen_layers, unit_rows
from firth.contextual.examples import labels_of_words
from firth.contextual.processes import moved
from firth.corpus import Corpus, as_corpus
from firth.models.base import one_at_a_time
from firth.models.estimator import split
from firth.options import option, shown
from firth.run import records
from firth.vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, TENSORS = "config.json", "model.safetensors"  # the files of a folder
_OF_NETWORK = (
    *("character_dim", "filters", "highway", "layers", "hidden", "projection", "cell_clip", "projection_clip"),
    *("dropout", "softmax", "negatives"),
)
_CLASSES_SEED = 7919  # the validation splits of labels and of texts are independent


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class ELMo(TrainedModel):
    """A contextual vector for each word of a text, from bidirectional LSTM language models.

    Peters, Neumann, Iyyer, Gardner, Clark, Lee & Zettlemoyer (2018). A word's vector is computed from its characters,
    so that out-of-vocabulary words have one too. Layers of LSTMs with projections read these vectors forward and
    backward; each direction predicts the next word in its order. A task uses the vectors and the layers' hidden states,
    mixed with weights trained for the task.

    The paper's sizes are ``character_dim=16``, 2,048 filters, ``highway=2``, ``layers=2``, ``hidden=4096`` and
    ``projection=512``. Rare words are predicted as one word; their vectors still come from their characters. On one
    device with the same number of threads, the same seed trains the same model to the bit.

    `mixture` has the weights of the layers, equal ones before `fit_mixture`, which also sets `classifier`, the linear
    layer, `labels`, the names of its classes, and `validation_score`, the accuracy on the words of a validation split.

    Examples
    --------
    >>> elmo = ELMo(epochs=3).fit("mine.txt")
    >>> river, loan = elmo.encode(["the bank of the river", "a bank lends"], layer=2)
    >>> river.shape, loan.shape
    ((5, 256), (3, 256))
    """

    vocabulary_size: int = option(
        50_000, low=1, high=10_000_000, help="Words that are predicted, at most; all words are read."
    )
    min_count: int = option(2, low=1, high=2**62, help="Predict words that are rarer as one word.")
    split: Literal["whitespace", "words"] = option(
        "whitespace",
        help="Split at white space alone; or lower-case, and split at every character but letters and digits.",
    )
    max_characters: int = option(
        50, low=3, high=10_000, help="Longest word, in bytes, with two for its beginning and end."
    )
    character_dim: int = option(16, low=1, high=100_000, help="Dimensions of a character's vector.")
    filters: tuple[tuple[int, int], ...] = option(
        ((1, 16), (2, 16), (3, 32), (4, 64), (5, 64), (6, 64), (7, 64)),
        checked=False,
        help="Pairs of a width in characters and the number of filters of this width.",
    )
    highway: int = option(2, low=0, high=100, help="Highway layers.")
    layers: int = option(2, low=1, high=100, help="LSTM layers in each direction.")
    hidden: int = option(512, low=1, high=1_000_000, help="Dimensions of the memory cell of an LSTM.")
    projection: int = option(128, low=1, high=1_000_000, help="Dimensions of a hidden state of one direction.")
    cell_clip: float = option(3.0, above=0, high=3e38, help="Largest absolute value in a memory cell.")
    projection_clip: float = option(3.0, above=0, high=3e38, help="Largest absolute value in a hidden state.")
    dropout: float = option(0.1, low=0, high=0.99, help="Share of hidden values that are dropped in training.")
    softmax: Literal["adaptive", "sampled"] = option(
        "adaptive", help="Predict exactly, with rare words in clusters; or from negative samples in training."
    )
    negatives: int = option(4096, low=1, high=10_000_000, help='With `softmax` "sampled": negative samples.')
    epochs: float = option(5.0, above=0, high=1_000_000)
    length: int = option(64, low=1, high=1_000_000, help="Longest text in training, in words: longer texts are cut.")
    learning_rate: float = option(2e-3, above=0, high=1e3)
    weight_decay: float = option(0.0, low=0, high=1e3)
    validation: float = option(0.02, low=0, high=0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.__dict__["filters"] = _filters(self.filters)
        self._network: BidirectionalLanguageModel | None = None
        self._words: list[str] = []
        self._counts = np.zeros(0, np.int64)
        self.mixture = Mixture(self.layers + 1)
        self.labels: list[str] = []
        self.classifier: nn.Linear | None = None
        self.validation_score: float | None = None

    # ---- what was trained

    @property
    def network(self) -> BidirectionalLanguageModel:
        """The torch module: ``elmo.network(elmo.batch(sentences))`` are its layers' hidden states, with gradients."""
        if self._network is None:
            raise AttributeError("this ELMo has not been fitted: call fit(texts) first, or ELMo.load(folder)")
        return self._network

    def _module(self) -> BidirectionalLanguageModel:
        return self.network

    @property
    def vectors(self) -> Vectors:
        """Layer 0 of the words that are predicted, the same in every sentence; AttributeError before `fit`."""
        network, speller = self.network, Speller(self._words, self.max_characters)
        rows = np.arange(2, len(self._words) + 2)
        with self._running():
            parts = [
                network.encoder(speller(rows[begin : begin + 1024]).to(self.device)).cpu().numpy()
                for begin in range(0, len(rows), 1024)
            ]
        return Vectors(self._words, np.concatenate([np.zeros((0, self.projection), np.float32), *parts]))

    def __repr__(self) -> str:
        size = f"{len(self._words):,} words, layers={self.layers}, hidden={self.hidden}, projection={self.projection}"
        return shown(self, size if self._network else "")

    # ---- training

    def _prepare(self, data: Any, folder: Path | None, *, resume: bool, pretrained: bool, progress: bool) -> Setup:
        corpus = self._read(data, progress=progress)
        if pretrained:
            words, counts, targets = self._words, self._counts, self._own_targets(corpus)
        else:
            words, counts, targets = self._targets(corpus)
        there = np.flatnonzero(np.diff(corpus.offsets) > 0)
        train, validation = split(len(there), self.validation, (self.seed, len(there)), both=True)
        train, validation = there[train], there[validation]
        batches = self._batches(corpus, targets, train, validation, seed=self.seed)
        torch.manual_seed(self.seed)
        network = copy.deepcopy(self.network) if pretrained else self._new_network(counts)
        return Setup(
            module=network,
            batches=batches,
            loss=BidirectionalLanguageModel.loss,
            examples=len(batches),
            schedule={"length": batches.words_per_text, "betas": (0.9, 0.99), "bf16": False},
            state={
                "_network": network,
                "_words": words,
                "_counts": counts,
                "mixture": Mixture(self.layers + 1).to(self.device),
                "classifier": None,
                "labels": [],
                "validation_score": None,
            },
            shared={**self.get_params(), "device": None, "threads": None},
        )

    def _batches(
        self, corpus: Corpus, targets: NDArray[np.int64], *documents: NDArray[np.int64], seed: int
    ) -> TextBatches:
        speller = Speller(corpus.vocabulary.words, self.max_characters)
        return TextBatches(corpus, speller, targets, *documents, **self._some("batch_size", "length"), seed=seed)

    def _read(self, data: Any, *, progress: bool = False) -> Corpus:
        corpus = as_corpus(data, progress=progress, min_count=1, tokenizer=self.split, threads=self.threads)
        if corpus.n_tokens == 0:
            raise ValueError("there is no word in these texts")
        return corpus

    def _targets(self, corpus: Corpus) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Words that are predicted by themselves, counts of all targets, and the target of each word."""
        counts = np.bincount(corpus.ids, minlength=len(corpus.vocabulary)).astype(np.int64)
        order = np.argsort(-counts, kind="stable")
        n = min(self.vocabulary_size, int((counts >= self.min_count).sum()))
        if n == 0:
            raise ValueError(
                f"no word occurs min_count={self.min_count} times, so all would be predicted as one rare word: give "
                "more text, or a lower min_count"
            )
        targets = np.full(len(counts), RARE, np.int64)
        targets[order[:n]] = np.arange(SPECIAL, SPECIAL + n)
        texts = int((np.diff(corpus.offsets) > 0).sum())
        predicted = np.concatenate([[texts, texts, counts[order[n:]].sum()], counts[order[:n]]])
        return [corpus.vocabulary.words[i] for i in order[:n].tolist()], predicted, targets

    def _own_targets(self, corpus: Corpus) -> NDArray[np.int64]:
        """The trained model's target for each word of a corpus."""
        ids = {word: i for i, word in enumerate(self._words, SPECIAL)}
        return np.array([ids.get(word, RARE) for word in corpus.vocabulary.words], np.int64)

    def _new_network(self, counts: NDArray[np.int64]) -> BidirectionalLanguageModel:
        return BidirectionalLanguageModel(words=len(counts), counts=counts, **self._some(*_OF_NETWORK))

    def perplexity(self, texts: Corpus | files.PathLike | Iterable[str] | Iterable[Sequence[str]]) -> float:
        """Perplexity of texts in both directions together: the exponential of the mean loss of a word in nats.

        The end of a text (or its begin) counts as a word; all rare words are one word. ValueError if there is no word.
        """
        corpus = self._read(texts)
        batches = self._batches(corpus, self._own_targets(corpus), np.arange(len(corpus)), seed=0)
        network, nats, predicted = self.network, 0.0, 0
        with self._running():
            for batch in batches.in_order():
                total, n = network.loss(moved(batch, self.place()))
                nats, predicted = nats + float(total), predicted + n
        return float(np.exp(nats / predicted))

    # ---- use

    def batch(self, sentences: Sequence[Sentence]) -> Batch:
        """Sentences, strings or lists of words, as a batch for `network`, with begin and end around each."""
        words = self._split_all(sentences)
        if not words:
            raise ValueError("a batch must hold at least one sentence")
        distinct = list(dict.fromkeys(word for sentence in words for word in sentence))
        rows_of = {word: row for row, word in enumerate(distinct, 2)}
        sizes = np.array([len(sentence) + 2 for sentence in words], np.int64)
        rows = np.zeros((len(words), sizes.max(initial=0)), np.int64)
        for i, sentence in enumerate(words):
            rows[i, 1 : sizes[i]] = [*map(rows_of.__getitem__, sentence), 1]
        batch: Batch = moved(batch_of(Speller(distinct, self.max_characters), rows, sizes), self.place())
        return batch

    def encode(
        self,
        sentences: Sequence[Sentence],
        *,
        layer: int | Literal["mixture", "all"] | Sequence[int | Literal["mixture"]] = "mixture",
        normalize: bool = False,
        progress: bool = False,
    ) -> list[NDArray[np.float32]]:
        """Hidden states of the words of sentences: for each sentence float32 (words, 2 * projection).

        Sentences are strings, or lists of words, of any length, also empty. Layer 0 has the words' vectors, which do
        not depend on the sentence, twice. Layers 1 to `layers`, -1 for the last, have an LSTM layer's hidden states,
        forward then backward. "mixture" mixes all layers with the weights of `fit_mixture`, equal ones before it. A
        list of these, or "all" layers from 0 on, are computed in one pass. Each array is then (layers, words,
        2 * projection). `normalize` scales every vector to length 1.
        """
        layers, single = chosen_layers(layer, self.layers, ("mixture",))
        words = self._split_all(sentences)
        nothing = np.zeros((len(layers), 0, 2 * self.projection), np.float32)
        found: list[NDArray[np.float32]] = [nothing[0] if single else nothing] * len(words)
        for rows, states in self._states(words, progress=progress):
            with self._running():
                chosen = torch.stack([self.mixture(states) if one == "mixture" else states[one] for one in layers], 1)
            whole = unit_rows(chosen.cpu().numpy()) if normalize else chosen.cpu().numpy()
            for i, row in enumerate(rows):
                own = whole[i, :, 1 : len(words[row]) + 1]
                found[row] = (own[0] if single else own).copy()
        return found

    @one_at_a_time
    def fit_mixture(
        self,
        sentences: Sequence[Sentence],
        labels: Sequence[Sequence[str | None]],
        *,
        layer_norm: bool = False,
        penalty: float = 1e-3,
        steps: int = 500,
        validation: float = 0.1,
    ) -> Self:
        """Train the weights of the layers for a task: labels of words, predicted by a linear layer on the mixture.

        The language models stay as they are. Sentences are those of `encode`; `labels` has for each sentence one label
        a word, None where a word has none. `layer_norm` brings every layer to mean 0 and variance 1 before mixing.
        `penalty` is the weight of the squares of the linear layer's weights, `steps` the steps of Adam, each on all
        words, and `validation` the share of the sentences in the validation split.

        Raises
        ------
        TypeError, ValueError
            If a label is neither a string nor None; if labels and words differ in number, naming the sentence, or there
            are fewer than two different labels.
        """
        words = self._split_all(sentences)
        labels = labels_of_words("sentences", words, labels)
        for i, own in enumerate(labels):
            for label in own:
                if label is not None and not isinstance(label, str):
                    raise TypeError(f"labels[{i}] holds {label!r}: a label must be a str, or None")
        names = sorted({label for own in labels for label in own if label is not None})
        if len(names) < 2:
            raise ValueError(f"there must be at least two different labels, not {len(names)}")
        whole_number("steps", steps, low=1)
        real_number("penalty", penalty, low=0)
        ids = {name: i for i, name in enumerate(names)}
        apart = set(split(len(words), validation, (self.seed, _CLASSES_SEED))[1].tolist())
        collected: list[list[Tensor]] = [[] for _ in range(self.layers + 1)]
        classes: list[int] = []
        testing: list[bool] = []
        for rows, states in self._states(words):
            for i, row in enumerate(rows):
                places = [place for place, label in enumerate(labels[row]) if label is not None]
                classes += [ids[cast(str, labels[row][place])] for place in places]
                testing += [row in apart] * len(places)
                at = torch.tensor(places, dtype=torch.int64, device=states[0].device) + 1
                for layer, state in zip(collected, states, strict=True):
                    layer.append(state[i, at])
        x = [torch.cat(layer) for layer in collected]
        y, test = torch.tensor(classes, device=x[0].device), torch.tensor(testing, device=x[0].device)
        if len(set(y[~test].tolist())) < 2:
            raise ValueError(f"validation={validation} leaves fewer than two different labels for training")
        mixture = Mixture(self.layers + 1, layer_norm=layer_norm).to(x[0].device)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            classifier = nn.Linear(2 * self.projection, len(names), device=x[0].device)
            optimizer = torch.optim.Adam([*mixture.parameters(), *classifier.parameters()], lr=0.02)
            kept = [layer[~test] for layer in x]
            for _ in range(steps):
                optimizer.zero_grad()
                loss = F.cross_entropy(classifier(mixture(kept)), y[~test])
                torch.autograd.backward(loss + penalty * classifier.weight.square().sum())
                optimizer.step()
        self.mixture, self.classifier, self.labels = mixture, classifier, names
        with torch.no_grad():
            right = classifier(mixture([layer[test] for layer in x])).argmax(1) == y[test]
        self.validation_score = float(right.float().mean()) if len(right) else None
        return self

    def predict(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        """The most likely label of every word; AttributeError before `fit_mixture`."""
        if self.classifier is None:
            raise AttributeError("this ELMo cannot predict labels yet: call fit_mixture(sentences, labels) first")
        weight, bias = (one.detach().cpu().numpy() for one in (self.classifier.weight, self.classifier.bias))
        return [[self.labels[i] for i in (state @ weight.T + bias).argmax(1)] for state in self.encode(sentences)]

    def _split_all(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        split = _runs_of_letters if self.split == "words" else str.split
        return [split(one) if isinstance(one, str) else one for one in checked_sentences(sentences)]

    def _states(
        self, words: Sequence[Sequence[str]], *, progress: bool = False
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Sentences of similar length at a time: which ones, and each layer's hidden states, with begin and end."""
        network = self.network
        # A sentence stands between its begin and its end.
        batches = [*by_length([len(one) + 2 if one else 0 for one in words], BATCH_TOKENS)]
        # The longest first: if memory does not suffice, that shows at once.
        for rows in tqdm(batches[::-1], desc="encode", unit=" batches", disable=not progress):
            with self._running():
                states = network(self.batch([words[row] for row in rows]))
            yield rows, states

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder, which `ELMo.load` reads: config.json and model.safetensors; see `GPT.save`."""
        modules = {"network": self.network, "mixture": self.mixture}
        if self.classifier is not None:
            modules["classifier"] = self.classifier
        self.check_finite(*modules.values())
        tensors = {
            f"{name}.{key}": tensor.detach().cpu().numpy()
            for name, module in modules.items()
            for key, tensor in module.state_dict().items()
        }
        tensors |= {**files.pack_words(self._words), "counts": self._counts}
        with self._saving(path) as folder:
            files.write_tensors(folder / TENSORS, tensors, {"format": "pt"})
            (folder / CONFIG).write_text(json.dumps(self._description(), indent=1) + "\n", encoding="utf-8")

    def _description(self) -> dict[str, Any]:
        return {
            **super()._description(),
            "labels": self.labels,
            "validation_score": self.validation_score,
            "layer_norm": self.mixture.layer_norm,
        }

    @classmethod
    def load(cls, path: files.PathLike, *, device: str = "cpu", **options: Any) -> Self:
        """Read a folder that `save` wrote; parameters and errors are those of `GPT.from_pretrained`."""
        folder = Path(path)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder with {CONFIG} and {TENSORS} in it")
        training = {field.name for field in dataclasses.fields(TrainedModel)} | {"length"}
        for name in options:
            if name not in training:
                raise TypeError(f"{name} is not a training option: the folder decides everything else")
        described = read_description(folder / CONFIG, cls.__name__)
        tensors, _ = files.read_tensors(folder / TENSORS)
        try:
            cls(**described["options"])  # errors here are the folder's fault, those below the caller's
            model = cls(**{**described["options"], "device": device, **options})
            model._restore(tensors, described)
        except (KeyError, TypeError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(f"{folder} is damaged, or of another version of firth: {error}") from None
        return model

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        def own(name: str) -> dict[str, Tensor]:
            return {
                key.removeprefix(f"{name}."): torch.from_numpy(tensor)
                for key, tensor in tensors.items()
                if key.startswith(f"{name}.")
            }

        self._words, self._counts = files.unpack_words(tensors), tensors["counts"]
        if len(self._counts) != len(self._words) + SPECIAL:
            raise TypeError(f"{len(self._counts)} counts for {len(self._words)} words")
        self.history = records(metadata["history"])
        network = self._new_network(self._counts)
        network.load_state_dict(own("network"))
        self._network = network.to(self.device).eval()
        self._from_folder = True
        self.mixture = Mixture(self.layers + 1, layer_norm=metadata["layer_norm"])
        self.mixture.load_state_dict(own("mixture"))
        self.mixture.to(self.device)
        self.labels, self.validation_score = metadata["labels"], metadata["validation_score"]
        if self.labels:
            self.classifier = nn.Linear(2 * self.projection, len(self.labels), device=self.device)
            self.classifier.load_state_dict(own("classifier"))


def _runs_of_letters(text: str) -> list[str]:
    """The words of a string, as `Corpus` finds them with tokenizer="words"."""
    table = corpora.lower_table()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lower = np.where(codes < len(table), table[np.minimum(codes, len(table) - 1)], 0)
    return np.where(lower > 0, lower, ord(" ")).astype("<u4").tobytes().decode("utf-32-le").split()


def _filters(given: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of a width and a number, checked."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"filters must be pairs of a width and a number, such as ((1, 16), (2, 32)), not {given!r}")
    found = []
    for i, pair in enumerate(given):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"filters[{i}] must be a pair of a width and a number, not {pair!r}")
        found.append(
            (whole_number(f"filters[{i}][0]", pair[0], low=1), whole_number(f"filters[{i}][1]", pair[1], low=1))
        )
    if not found:
        raise ValueError("filters must hold at least one pair of a width and a number")
    return tuple(found)
