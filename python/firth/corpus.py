"""Text as ids: a vocabulary, and a corpus of documents that the models read."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from firth import _core, _tokens
from firth.checks import column, refuse_masked, strings
from firth.files import PathLike, is_compressed, open_binary, pack_words, reader, unpack_words, write_own
from firth.options import Options, option, threads_option
from firth.runtime import Threaded, default_threads
from firth.tables import html_table
from firth.text import (
    BLOCK,
    CleanTexts,
    Source,
    TextFiles,
    fast_tokenizer,
    paths_of,
    text_start,
    tokenized,
    warn_of_replaced,
)

if TYPE_CHECKING:
    import tokenizers
    from typing_extensions import Unpack

# Also transformers' tokenizers and firth.contextual.Tokenizer, whose modules need not be installed.
Tokenizer: TypeAlias = "str | Callable[[str], Sequence[str]] | tokenizers.Tokenizer | Any"

Errors = Literal["replace", "strict"]

_SHOWN = 10  # words in a notebook's table
_LARGEST_BLOCK = 256 << 20
_TOKENS = 1 << 20  # tokens of a block of lists
# No character beyond this is a letter or digit (CJK ideographs end at U+33479).
_LAST_CHARACTER = 0x34000


class Vocabulary:
    """The words of a corpus or a model, each with its id: its position in `words`.

    Parameters
    ----------
    words
        Distinct strings; their order is kept.
    counts
        How often each occurs, int64 (words,); zeros if not known.

    Raises
    ------
    TypeError, ValueError
        If a word is not a string or is repeated, counts and words differ in number, or a count is negative.
    """

    def __init__(self, words: Iterable[str], counts: ArrayLike | None = None) -> None:
        if isinstance(words, str):
            raise TypeError("words must be a list of strings, not one string")
        self.words = strings("words", words)
        if len(self.index) != len(self.words):
            # For a repeated word, the dict has the last position.
            at = next(i for i, word in enumerate(self.words) if self.index[word] != i)
            raise ValueError(
                f"words must differ: {self.words[at]!r} is words[{at}] and words[{self.index[self.words[at]]}]"
            )
        refuse_masked("counts", counts)
        given = np.zeros(len(self.words), np.int64) if counts is None else np.asarray(counts)
        if given.shape != (len(self.words),):
            raise ValueError(f"counts must be {len(self.words)} numbers, one a word, not of shape {given.shape}")
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"counts must be integers, not {given.dtype}")
        self.counts: NDArray[np.int64] = given.astype(np.int64)
        if (self.counts < 0).any():
            at = int(np.argmin(self.counts))
            raise ValueError(f"counts[{at}] is {self.counts[at]}: a count cannot be negative")

    @classmethod
    def unchecked(cls, words: list[str], counts: NDArray[np.int64]) -> Vocabulary:
        """A vocabulary of words and counts that are known to be valid."""
        vocabulary = cls.__new__(cls)
        vocabulary.words, vocabulary.counts = words, counts
        return vocabulary

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """The id of each word."""
        return dict(zip(self.words, range(len(self.words)), strict=True))

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> int:
        try:
            return self.index[word]
        except KeyError:
            raise KeyError(f"{word!r} is not in the vocabulary of {len(self)} words") from None

    def get(self, word: str, default: int | None = None) -> int | None:
        """The id of a word, or `default` if it has none."""
        return self.index.get(word, default)

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} words>"


@dataclasses.dataclass(frozen=True)
class CorpusReport:
    """Counts of a text: `tokens_read` is always `tokens_kept` plus `tokens_out_of_vocabulary`.

    Empty `documents` count too. `distinct_words_read` are the different words before `min_count`, `max_size` or a given
    vocabulary. Each of the `invalid_sequences` (invalid UTF-8, or lone surrogates) became U+FFFD.
    """

    documents: int
    tokens_read: int
    tokens_kept: int
    tokens_out_of_vocabulary: int
    distinct_words_read: int
    invalid_sequences: int


def _integers(name: str, values: ArrayLike, dtype: type[np.int32] | type[np.int64]) -> NDArray[Any]:
    """`values` as a contiguous array of this integer type, if it can represent all of them."""
    refuse_masked(name, values)
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, not {array.dtype}")
    if array.size and not np.iinfo(dtype).min <= array.min() <= array.max() <= np.iinfo(dtype).max:
        raise ValueError(f"{name} must fit {dtype.__name__}: they run from {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype)


class Corpus:
    """Documents as ids of the words of a vocabulary, end to end in one array; `report` counts what was read.

    Made by `from_file` or `from_iterable`, opened by `firth.load`, or made from ids:

    Parameters
    ----------
    vocabulary
        The words. Their `counts` are those of this corpus, if it was made from text.
    ids
        Rows of the vocabulary, int32, (n_tokens,).
    offsets
        Document i is ``ids[offsets[i]:offsets[i + 1]]``; int64, (documents + 1,).

    Raises
    ------
    ValueError
        If an id is not in the vocabulary, or offsets do not run from 0 to the number of ids.
    """

    def __init__(self, vocabulary: Vocabulary, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(f"vocabulary must be a Vocabulary, not a {type(vocabulary).__name__}")
        ids, offsets = _integers("ids", ids, np.int32), _integers("offsets", offsets, np.int64)
        _core.count_words(ids, offsets, len(vocabulary), threads=default_threads())
        self.vocabulary, self.ids, self.offsets = vocabulary, ids, offsets
        used = len(np.unique(ids))
        self.report = CorpusReport(len(offsets) - 1, len(ids), len(ids), 0, used, 0)

    @classmethod
    def unchecked(
        cls, vocabulary: Vocabulary, ids: NDArray[np.int32], offsets: NDArray[np.int64], report: CorpusReport
    ) -> Corpus:
        """A corpus of ids and offsets that are known to be valid, or lie in a file."""
        corpus = cls.__new__(cls)
        corpus.vocabulary, corpus.ids, corpus.offsets, corpus.report = vocabulary, ids, offsets, report
        return corpus

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, document: int) -> list[str]: ...
    @overload
    def __getitem__(self, document: slice) -> list[list[str]]: ...
    def __getitem__(self, document: int | slice) -> list[str] | list[list[str]]:
        """The words of one document, or of each document of a slice; those out of vocabulary are not among them.

        IndexError if there is no such document; ValueError if the file of an opened corpus is damaged there.
        """
        n = len(self)
        if isinstance(document, slice):
            return [self[i] for i in range(*document.indices(n))]
        if isinstance(document, bool) or not isinstance(document, int | np.integer):
            raise TypeError(f"a corpus is indexed by the number of a document or by a slice, not by {document!r}")
        if not -n <= document < n:
            raise IndexError(f"document {document} of a corpus of {n}")
        document %= n
        words = self.vocabulary.words
        begin, end = self.offsets[document : document + 2].tolist()
        if not 0 <= begin <= end <= self.n_tokens:
            raise ValueError(f"the corpus is damaged: document {document} lies at {begin}:{end} of its ids")
        try:
            # Unsigned, so that a negative id is beyond all words instead of counting from their end.
            return [words[i] for i in self.ids[begin:end].view(np.uint32).tolist()]
        except IndexError:
            raise ValueError(f"the corpus is damaged: document {document} contains an id without a word") from None

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        return f"<Corpus of {len(self)} documents, {self.n_tokens} tokens of {len(self.vocabulary)} words>"

    def _repr_html_(self) -> str:
        """A table of the most frequent words, for notebooks."""
        counts = self.vocabulary.counts
        top = np.argsort(-counts, kind="stable")[:_SHOWN].tolist()
        caption = f"{len(self):,} documents, {self.n_tokens:,} tokens, {len(self.vocabulary):,} words"
        return html_table(caption, ["word", "count"], [[self.vocabulary.words[i], f"{counts[i]:,}"] for i in top])

    @staticmethod
    def from_file(
        source: Source | Sequence[Source],
        *,
        min_count: int = 5,
        max_size: int | None = None,
        vocabulary: Vocabulary | None = None,
        tokenizer: Tokenizer = "whitespace",
        errors: Errors = "replace",
        threads: int | None = None,
        progress: bool = False,
    ) -> Corpus:
        r"""Read text in which every line is one document.

        Parameters
        ----------
        source
            A path, an open file (binary or text), "-" for standard input, or a list of them, read in turn; compressed
            (gzip, bzip2, xz, Zstandard) or not. Only ``\n`` ends a line; blank lines are empty documents, so that
            document i is line i.
        min_count, max_size
            Leave out words that occur less often, and all but the `max_size` most frequent ones.
        vocabulary
            Use exactly these words, with their ids; `min_count` then has no effect. If none of them occurs in the text,
            all documents are empty, and models cannot train on the corpus.
        tokenizer
            "whitespace" splits as `str.split` does. "words" takes the lower-cased runs of letters, digits and
            underscores, as ``re.findall(r"\w+", text.lower())`` does, but character by character: the capital sigma
            becomes σ also at the end of a word, İ becomes i. Or a function from a text to a list of str, called for
            each line; or a ``tokenizers.Tokenizer``, a tokenizer of Hugging Face's transformers or a
            `firth.contextual.Tokenizer`, whose tokens are strings, without special tokens, truncation or padding. A
            carriage return at the end of a line is removed.
        errors
            Invalid UTF-8: "replace" puts U+FFFD for each invalid part, as ``bytes.decode`` does, and warns; "strict"
            raises.

        Returns
        -------
        Corpus
            Words ordered by count, the most frequent first; equally frequent ones by their UTF-8 bytes. It does not
            depend on `threads`.

        Raises
        ------
        ValueError
            If the text is empty, no word is left, a file is not text in UTF-8, or (``errors="strict"``) text is
            invalid, with file, line and byte.

        Notes
        -----
        A file is not text in UTF-8 if it has the byte order mark of UTF-16 or UTF-32, is of a known kind (safetensors,
        zip, tar, PDF, Parquet, pickle, NumPy), or if in its first 64 KiB more than one byte in a thousand is NUL, more
        than one in a hundred a control character, or more than three characters in ten are invalid. Latin-1 and similar
        encodings have fewer: their invalid characters become U+FFFD, with a warning.
        """
        words: dict[str, Any] = {"min_count": min_count, "max_size": max_size, "vocabulary": vocabulary}
        options = CorpusOptions(**words, tokenizer=tokenizer, errors=errors, threads=threads)
        counter, files = count_files(source, options, progress=progress)
        corpus = _finish(counter, options, files.names, files.n_invalid)
        files.warn()
        return corpus

    @staticmethod
    def from_iterable(
        documents: Iterable[str] | Iterable[Sequence[str]], *, progress: bool = False, **reading: Unpack[Reading]
    ) -> Corpus:
        """Read documents from a list, a generator, a column of a table: all strings, or all sequences of tokens.

        Parameters
        ----------
        documents
            One item is one document, with any line ends in it. Strings are tokenized; sequences contain the tokens.
        **reading
            Options of `from_file`, with the same defaults: `min_count`, `max_size`, `vocabulary`, `tokenizer`,
            `errors` and `threads`. Here `errors` is about lone surrogates, which are not valid text.

        Raises
        ------
        TypeError
            If a document or a token has another type, with its position.
        ValueError
            If there are no documents, no word is left, or (``errors="strict"``) a string contains a lone surrogate.
        """
        if unknown := sorted(reading.keys() - Reading.__annotations__.keys()):
            known = ", ".join(Reading.__annotations__)
            raise TypeError(f"from_iterable has no option {unknown[0]!r}; it has {known} and progress")
        options = CorpusOptions(**reading)
        if isinstance(documents, os.PathLike):
            raise TypeError("documents is a path; give it to from_file")
        counter, n = count_documents(documents, options, advice=", or its path to from_file", progress=progress)
        corpus = _finish(counter, options, "documents", n)
        if n:
            warn_of_replaced("documents", n, "lone surrogate")
        return corpus

    def save(self, path: PathLike) -> None:
        """Write the corpus as one safetensors file, which `firth.load` opens; it appears whole or not at all.

        Ids and offsets stay in the file and are mapped. Opening does not check each of them, so that it takes the same
        time for any text. Damage raises ValueError when a document is read, or when a model's `fit` begins.
        """
        tensors: dict[str, NDArray[Any]] = {
            **pack_words(self.vocabulary.words),
            "counts": self.vocabulary.counts,
            "ids": self.ids,
            "offsets": self.offsets,
        }
        write_own(path, "corpus", tensors, {"report": dataclasses.asdict(self.report)})

    @staticmethod
    def estimate_memory(path: PathLike, *, tokenizer: str = "whitespace", threads: int | None = None) -> dict[str, int]:
        """Estimate the memory of `from_file`, from up to 8 MB of a file that is not compressed, in eight places.

        Returns
        -------
        dict
            Bytes at the ``peak`` of reading and of the ``result``, if no word is left out. Words beyond the samples are
            extrapolated by Heaps' law, V = K N^b.
        """
        return _estimate_memory(path, CorpusOptions(min_count=1, tokenizer=tokenizer, threads=threads))


@reader("corpus")
def _opened(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Corpus:
    ids, offsets, report = tensors["ids"], tensors["offsets"], CorpusReport(**metadata["report"])
    vocabulary = Vocabulary(unpack_words(tensors), np.array(tensors["counts"]))
    if (
        [array.dtype.str for array in (ids, offsets)] != ["<i4", "<i8"]
        or offsets.ndim != 1
        or ids.ndim != 1
        or (len(offsets) - 1, len(ids)) != (report.documents, report.tokens_kept)
        or len(offsets) == 0
        or (offsets[0], offsets[-1]) != (0, len(ids))
    ):
        raise ValueError("its arrays do not fit together")
    return Corpus.unchecked(vocabulary, ids, offsets, report)


class Reading(TypedDict, total=False):
    """The options of `Corpus.from_file`, as keywords."""

    min_count: int
    max_size: int | None
    vocabulary: Vocabulary | None
    tokenizer: Tokenizer
    errors: Errors
    threads: int | None


@dataclasses.dataclass(kw_only=True, eq=False)
class CorpusOptions(Threaded, Options):
    """How text becomes a corpus: the options of `Corpus.from_file`."""

    min_count: int = option(5, low=1, high=2**62, help="Leave out words that are rarer.")
    max_size: int | None = option(
        None, low=1, high=2**31 - 1, help="Words in the vocabulary, at most: the most frequent.", unset="all"
    )
    vocabulary: Vocabulary | None = option(None, checked=False, help="The words to read: others are left out.")
    tokenizer: Any = option(
        "whitespace",
        checked=False,
        help="Split at white space alone; or lower-case, and split at every character but letters and digits.",
    )
    errors: Errors = option("replace", help="Replace invalid UTF-8 by U+FFFD and warn, or raise an error.")
    threads: int | None = threads_option()

    block: ClassVar[int | None] = None  # bytes or tokens that the counter gets at a time; set by tests
    min_share: ClassVar[int] = 1 << 16  # bytes below which another thread costs more than it helps

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary is not None and not isinstance(self.vocabulary, Vocabulary):
            raise TypeError(f"vocabulary must be a Vocabulary, not a {type(self.vocabulary).__name__}")
        if self.vocabulary is not None and self.max_size is not None:
            raise ValueError("max_size and vocabulary exclude each other")
        if isinstance(self.tokenizer, str):
            if self.tokenizer not in ("whitespace", "words"):
                raise ValueError(
                    f"tokenizer must be 'whitespace', 'words', a function or a tokenizers.Tokenizer, not "
                    f"{self.tokenizer!r}"
                )
        elif not callable(self.tokenizer) and fast_tokenizer(self.tokenizer) is None:
            raise TypeError(
                "tokenizer must be a function from a text to a list of str, or a tokenizer of tokenizers, transformers "
                f"or firth.contextual, not {self.tokenizer!r:.60}"
            )

    @property
    def strict(self) -> bool:
        """Whether invalid text raises."""
        return self.errors == "strict"

    @property
    def block_bytes(self) -> int:
        """Bytes that the counter gets at a time."""
        return min(BLOCK * self.n_threads, _LARGEST_BLOCK) if self.block is None else self.block

    def counter(self) -> _core.TextCounter:
        """A counter of words under these options."""
        lower = lower_table() if self.tokenizer == "words" else None
        return _core.TextCounter(lower=lower, threads=self.n_threads, min_share=self.min_share)


@functools.cache
def lower_table() -> NDArray[np.uint32]:
    """For each code point its lower case if it is a word character, else 0."""
    codes = np.arange(_LAST_CHARACTER, dtype="<u4")
    codes[0xD800:0xE000] = 0  # surrogates
    codes[[0x130, 0x3A3]] = [ord("i"), 0x3C3]  # the two whose lower case is two characters, or depends on others
    characters = codes.tobytes().decode("utf-32-le")
    word = np.fromiter(map(str.isalnum, characters), np.bool_, _LAST_CHARACTER)
    word[ord("_")] = True
    lower = np.frombuffer(characters.lower().encode("utf-32-le"), "<u4")
    return np.where(word, lower, 0).astype(np.uint32)


def _feed_tokens(
    counter: _core.TextCounter, documents: Iterator[Any], options: CorpusOptions, name: str = "documents"
) -> int:
    """Feed lists of tokens to the counter; return how many lone surrogates were replaced."""
    tokens = _tokens.Tokens(documents, strict=options.strict, name=name)
    while (block := tokens.block(_TOKENS if options.block is None else options.block)) is not None:
        counter.feed_tokens(*block)
    return tokens.invalid


def as_corpus(data: Any, *, progress: bool = False, **reading: Unpack[Reading]) -> Corpus:
    """The corpus of the data of `fit`: itself, or read from files (see `paths_of`) or from an iterable of texts.

    `reading` are options of `Corpus.from_file`. Lists of words ignore the tokenizer.
    """
    if isinstance(data, Corpus):
        return data
    paths = paths_of(data)
    if paths is not None:
        return Corpus.from_file(paths, progress=progress, **reading)
    if not isinstance(data, Iterable):
        raise TypeError(
            "fit takes a firth.Corpus, the path of a text, or texts (strings or lists of words), not "
            f"{type(data).__name__}"
        )
    texts = iter(column("texts", data, advice=", or its path"))
    first = list(itertools.islice(texts, 1))
    if first and not isinstance(first[0], str):
        reading["tokenizer"] = "whitespace"
    return Corpus.from_iterable(itertools.chain(first, texts), progress=progress, **reading)


def count_files(
    source: Source | Sequence[Source], options: CorpusOptions, *, progress: bool = False
) -> tuple[_core.TextCounter, TextFiles]:
    """Count the words of files; also returns the files, which count invalid text."""
    files = TextFiles(source, strict=options.strict, block=options.block_bytes, progress=progress)
    counter = options.counter()
    if isinstance(options.tokenizer, str):
        files.feed(counter)
    else:
        surrogates = _feed_tokens(counter, tokenized(files.lines(), options.tokenizer), options)
        files.note_invalid(f"tokens of {files.names}", surrogates)
    return counter, files


def count_documents(
    documents: Any, options: CorpusOptions, *, name: str = "documents", advice: str = "", progress: bool = False
) -> tuple[_core.TextCounter, int]:
    """Count the words of texts or lists of words; also returns how many lone surrogates were replaced.

    Errors call the documents `name`; `advice` is added to the one about a single string.
    """
    documents = column(name, documents, advice=advice)
    counter = options.counter()
    with tqdm(documents, desc="reading", unit=f" {name}", unit_scale=True, disable=not progress) as bar:
        iterator: Iterator[Any] = iter(bar) if progress else iter(documents)
        if isinstance(documents, list | tuple):
            first = list(documents[:1])  # nothing between the list and the loop, which would slow short documents down
        else:
            first = list(itertools.islice(iterator, 1))
            iterator = itertools.chain(first, iterator)
        if first and not isinstance(first[0], str):
            if options.tokenizer != "whitespace":
                raise TypeError(
                    f"{name}[0] is of type {type(first[0]).__name__}, but a tokenizer takes strings; give texts, or "
                    "lists of tokens without a tokenizer"
                )
            return counter, _feed_tokens(counter, iterator, options, name)
        if not isinstance(options.tokenizer, str):
            clean = CleanTexts(iterator, strict=options.strict, name=name)
            # Functions get texts unchanged.
            texts = iter(clean) if fast_tokenizer(options.tokenizer) is not None else clean.unchanged()
            n = _feed_tokens(counter, tokenized(texts, options.tokenizer, name), options, name)
            return counter, n + clean.invalid
        packed = _tokens.Texts(iterator, strict=options.strict, name=name)
        if first:
            counter.begin_file(0)
            while (block := packed.block(options.block_bytes)) is not None:
                counter.feed(block)
            counter.end_file()
        return counter, packed.invalid


def _finish(counter: _core.TextCounter, options: CorpusOptions, name: str, invalid: int) -> Corpus:
    """Choose the words, and encode the text."""
    if counter.documents == 0:
        raise ValueError(f"there is no text: {name} is empty")
    distinct = counter.merge()
    if options.vocabulary is None:
        packed, offsets, counts = counter.select(options.min_count, options.max_size or -1)
        if len(counts) == 0:
            raise ValueError(_no_word(counter, distinct, options.min_count, name))
        words = unpack_words({"words": packed, "word_offsets": offsets})
    else:
        given = pack_words(options.vocabulary.words)
        _, _, counts = counter.select_given(given["words"], given["word_offsets"])
        words = options.vocabulary.words
    ids = np.empty(counter.kept_tokens, np.int32)
    document_offsets = np.empty(counter.documents + 1, np.int64)
    read, kept = counter.tokens, counter.kept_tokens
    report = CorpusReport(counter.documents, read, kept, read - kept, distinct, invalid)
    counter.write(ids, document_offsets)
    return Corpus.unchecked(Vocabulary.unchecked(words, counts), ids, document_offsets, report)


def _no_word(counter: _core.TextCounter, distinct: int, min_count: int, name: str) -> str:
    if distinct == 0:
        return f"the {counter.documents} documents of {name} have no word"
    largest = counter.largest_count
    return (
        f"no word of {name} occurs min_count={min_count} times: of {distinct} different words the most frequent occurs "
        f"{largest} times; give min_count={largest} or less (min_count=1 keeps every word)"
    )


def _estimate_memory(path: PathLike, options: CorpusOptions) -> dict[str, int]:
    if is_compressed(path):
        raise ValueError(f"{path} is compressed, so the size of its text is not known: decompress it")
    if not isinstance(options.tokenizer, str):
        raise ValueError("estimate_memory needs tokenizer='whitespace' or 'words'")
    places, sample = 8, 1 << 20
    with open_binary(path) as file:
        size = file.seek(0, io.SEEK_END)
        if size == 0:
            raise ValueError(f"there is no text: {path} is empty")
        starts = [0] if size <= places * sample else [(size - sample) * i // (places - 1) for i in range(places)]
        half, whole = options.counter(), options.counter()
        sampled = 0
        for i, start in enumerate(starts):
            file.seek(start)
            data = file.read(size if len(starts) == 1 else sample)
            if start == 0:
                data = data[text_start(data, str(path)) :]
            sampled += len(data)
            for counter in [whole] if i % 2 else [whole, half]:
                counter.begin_file(0)
                counter.feed(data)
                counter.end_file()
    scale = size / sampled
    tokens = whole.tokens * scale
    documents = max(whole.documents - len(starts), 0) * scale + 1
    n, v = whole.tokens, whole.merge()
    half_v = half.merge()
    exponent = np.log(v / half_v) / np.log(n / half.tokens) if scale > 1 and n > half.tokens > 0 else 0.0

    def different(tokens: float) -> float:
        return float(v * (tokens / n) ** exponent) if n else 0.0

    def table(words: float) -> float:  # 32 bytes a slot, at most half of them taken
        return float(32 * 2 ** np.ceil(np.log2(max(2 * words, 1 << 13))))

    threads = options.n_threads
    share = different(tokens / threads)
    # A Python string of eight characters with its place in the list, its packed bytes, its count.
    words = different(tokens) * (49 + 8 + 8 + 8 + 8)
    numbers, lines = 4 * tokens, 4 * documents
    # While the last tables are merged, all tables and the merged one; while ids are written, the merged one.
    merging = numbers + lines + threads * table(share) + (table(different(tokens)) if threads > 1 else 0)
    result = numbers + 8 * documents + words
    writing = numbers + lines + table(different(tokens)) + words + 8 * documents
    return {"peak": int(max(merging, writing) + options.block_bytes), "result": int(result)}
