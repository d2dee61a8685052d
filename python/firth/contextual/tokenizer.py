"""Texts to pieces and back: byte-level BPE, WordPiece and whole words, through the `tokenizers` library."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import operator
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from firth import _tokens, files
from firth.checks import one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

Text = str | Sequence[str]  # a text, or its words

FILE = "tokenizer.json"  # in a folder of the Hugging Face layout
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_END_OF_TEXT = "<|endoftext|>"
_ROLES = {  # how the usual tokenizers spell what has a task, the likelier first
    "padding": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "start": ("[CLS]", "<s>"),
    "end": ("[SEP]", "</s>", _END_OF_TEXT),
    "unknown": ("[UNK]", "<unk>"),
}


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The pieces of one text.

    Attributes
    ----------
    ids
        The pieces' numbers.
    offsets
        Where each piece lies: first character and the one behind its last, in the text, or in its own word if words
        were given. (0, 0) for what stands for no text, such as [CLS].
    words
        The number of the word that each piece belongs to, None for what belongs to none. Words are those given; of a
        text, what the tokenizer takes for words (punctuation is one by itself).
    n_words
        How many words were given, or found.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]
    n_words: int

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Cuts texts into the pieces of a vocabulary, and puts them together again.

    Made by `train` or `load`. Attributes `padding`, `mask`, `start`, `end` and `unknown` are the numbers of the pieces
    with these tasks, None where the vocabulary has no such piece.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # A copy: what a caller does to theirs, to cut texts or fill them up, must not show here.
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # For texts to learn from, where "[MASK]" is six characters that somebody wrote.
        self._plain = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        self._plain.encode_special_tokens = True
        description = json.loads(self._tokenizer.to_str())
        self._prefix, self._space = _word_marks(description)
        roles = {}
        for role, spellings in _ROLES.items():
            found = (self._tokenizer.token_to_id(spelling) for spelling in spellings)
            roles[role] = next((number for number in found if number is not None), None)
        self.padding: int | None = roles["padding"]
        self.mask: int | None = roles["mask"]
        self.start: int | None = roles["start"]
        self.end: int | None = roles["end"]
        self.unknown: int | None = roles["unknown"]

    @classmethod
    def train(
        cls,
        texts: Iterable[Text],
        *,
        kind: Literal["bpe", "wordpiece", "words"],
        vocabulary_size: int = 8192,
        min_count: int = 2,
        lowercase: bool = False,
        progress: bool = False,
    ) -> Self:
        """Choose a vocabulary of pieces for texts.

        Parameters
        ----------
        texts
            Texts, or lists of words; read once.
        kind
            "bpe": pairs of bytes, joined in the order of their frequency (Sennrich et al. 2016, on bytes as in GPT-2);
            nothing is ever unknown, and every text is given back to the byte. "wordpiece": as BERT's, words and
            punctuation cut into the longest pieces there are, which go on with ##; a word with a character that is no
            piece is [UNK], so that those that make up 99.99 % of the texts come first, in three quarters of the
            vocabulary at the most; [CLS] and [SEP] stand around a text. "words": what stands between white space, the
            most frequent ones; the others are [UNK]; [CLS] and [SEP] as above.
        vocabulary_size
            At most so many pieces, the special ones included.
        min_count
            Pairs, or words, that are rarer make no piece.
        lowercase
            Whether case is folded; "wordpiece" drops accents then too, as BERT's does.
        progress
            Show a bar on stderr.

        Returns
        -------
        Tokenizer

        Raises
        ------
        ValueError
            If there is no text, or the vocabulary is too small for the kind: bytes alone are 256 pieces.
        TypeError
            If something in `texts` is neither a text nor a list of words.
        """
        one_of("kind", kind, ("bpe", "wordpiece", "words"))
        least = {"bpe": 257, "wordpiece": 32, "words": len(_SPECIAL) + 1}[kind]
        whole_number("vocabulary_size", vocabulary_size, low=least, high=2**31 - 1)
        whole_number("min_count", min_count, low=1)
        if isinstance(texts, str):
            raise TypeError("texts is one text; give a list of texts")
        tokenizer = _untrained(kind, lowercase)
        options: dict[str, Any] = {"vocab_size": vocabulary_size, "min_frequency": min_count, "show_progress": progress}
        if kind == "wordpiece":
            _train_wordpiece(tokenizer, texts, options)
        else:
            trainer: Any
            if kind == "bpe":
                alphabet = pre_tokenizers.ByteLevel.alphabet()
                trainer = trainers.BpeTrainer(special_tokens=[_END_OF_TEXT], initial_alphabet=alphabet, **options)
            else:
                trainer = trainers.WordLevelTrainer(special_tokens=_SPECIAL, **options)
            tokenizer.train_from_iterator(_not_empty(_joined(texts)), trainer=trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: files.PathLike) -> Self:
        """Read a tokenizer.

        Parameters
        ----------
        path
            A ``tokenizer.json``, of ours or anybody's, or a folder that holds one; also a folder with the older
            ``vocab.txt`` of BERT, or ``vocab.json`` and ``merges.txt`` of GPT-2.

        Raises
        ------
        OSError
            If there is none.
        ValueError
            If it is damaged.
        """
        place = Path(path)
        try:
            if not place.is_dir():
                return cls(tokenizers.Tokenizer.from_str(place.read_text(encoding="utf-8")))
            if (place / FILE).exists():
                return cls(tokenizers.Tokenizer.from_str((place / FILE).read_text(encoding="utf-8")))
            if (place / "vocab.txt").exists():
                return cls(_old_bert(place))
            if (place / "vocab.json").exists() and (place / "merges.txt").exists():
                return cls(_old_gpt2(place))
        except OSError:
            raise
        except Exception as error:  # the library raises bare Exception
            names = (FILE, "vocab.txt", "vocab.json", "merges.txt")
            for one in [place / name for name in names] if place.is_dir() else [place]:
                if one.exists():
                    files.refuse_pointer(one)
            raise ValueError(f"{place} holds no tokenizer that can be read: {error}") from None
        raise FileNotFoundError(
            f"{place} holds no {FILE}, no vocab.txt, and no vocab.json with merges.txt: "
            f"save_pretrained of its tokenizer in transformers writes a {FILE}"
        )

    def save(self, path: files.PathLike) -> None:
        """Write the tokenizer: to a file whose name ends in .json, else into a folder, which is made.

        In a folder it is ``tokenizer.json``, beside it what ``transformers.AutoTokenizer`` wants to see.
        """
        place = Path(path)
        if place.suffix != ".json" or place.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            names = {
                "pad_token": self.padding,
                "mask_token": self.mask,
                "cls_token": self.start,
                "sep_token": self.end if self.start is not None else None,
                "bos_token": self.end if self.start is None else None,
                "eos_token": self.end if self.start is None else None,
                "unk_token": self.unknown,
            }
            config = {name: self.pieces[number] for name, number in names.items() if number is not None}
            with files.replacing(place / "tokenizer_config.json") as file:
                file.write(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}, indent=2).encode())
            place = place / FILE
        with files.replacing(place) as file:
            file.write(self._tokenizer.to_str(pretty=True).encode())

    def encode(self, text: Text, *, special: bool = True, length: int | None = None) -> Encoding:
        """Cut a text, or a list of words, into pieces: `encode_batch` of one."""
        return self.encode_batch([text], special=special, length=length)[0]

    def encode_batch(self, texts: Sequence[Text], *, special: bool = True, length: int | None = None) -> list[Encoding]:
        """Cut texts into pieces, on all processors.

        Parameters
        ----------
        texts
            Each a text, or a list of words, whose limits pieces then never cross.
        special
            Whether to add what the tokenizer adds around a text, [CLS] and [SEP]; byte-level BPE adds nothing.
        length
            At most so many pieces for each text, those added included: the last ones of a longer text are dropped.

        Returns
        -------
        list of Encoding
            One for each text.

        Raises
        ------
        TypeError
            If something in `texts` is neither a text nor a list of words.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one text; give a list, or call encode")
        if length is not None:
            whole_number("length", length, low=1)
        given = [text if isinstance(text, str) else list(text) for text in texts]
        for i, text in enumerate(given):
            if not isinstance(text, str) and not all(isinstance(word, str) for word in text):
                raise TypeError(f"texts[{i}] is neither a text nor a list of words")
        # Where a space is part of the piece behind it, words are a text again, or their pieces would be others.
        joined = [text if isinstance(text, str) else " ".join(text) for text in given] if self._space else None
        found: list[Encoding] = []
        for lists, group in itertools.groupby(range(len(given)), key=lambda i: not isinstance(given[i], str)):
            chosen = list(group)
            inputs = [joined[i] if joined is not None else given[i] for i in chosen]
            split = lists and joined is None
            for i, raw in zip(chosen, self._encoded(self._tokenizer, inputs, split, special), strict=True):
                text = given[i]
                one = _of_text(raw) if isinstance(text, str) else _of_words(raw, text, joined is not None)
                found.append(one if length is None else _cut(one, raw.special_tokens_mask, length))
        return found

    def encode_ids(self, texts: Sequence[Text]) -> list[NDArray[np.int32]]:
        """The pieces' numbers alone, of texts to learn from: nothing is added, and nothing in them is special.

        What reads "[MASK]" or "<|endoftext|>" in such a text is characters like all others.

        Parameters
        ----------
        texts
            Each a text, or a list of words, which is read as a text: with a space between words.

        Returns
        -------
        list of ndarray
            For each text int32 (pieces,).

        Raises
        ------
        TypeError
            If something in `texts` is neither a text nor a list of words.
        """
        if isinstance(texts, str):
            raise TypeError("texts is one text; give a list of texts")
        joined = list(_joined(texts))
        found = [np.array(raw.ids, np.int32) for raw in self._encoded(self._plain, joined, False, False)]
        if self.unknown is not None:  # a whole word may be spelt like a special piece
            for ids in found:
                ids[self.special[ids]] = self.unknown
        return found

    @staticmethod
    def _encoded(tokenizer: Any, inputs: list[Any], split: bool, special: bool) -> list[Any]:
        # `encode_batch_fast` keeps no offsets: right for the texts to learn from, which are the long ones.
        plain = tokenizer.encode_special_tokens and hasattr(tokenizer, "encode_batch_fast")
        encode = tokenizer.encode_batch_fast if plain else tokenizer.encode_batch
        try:
            found = encode(inputs, is_pretokenized=split, add_special_tokens=special)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate, which is no text
            clean = [_clean(text) if isinstance(text, str) else [_clean(word) for word in text] for text in inputs]
            found = encode(clean, is_pretokenized=split, add_special_tokens=special)
        return cast("list[Any]", found)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Pieces put together to a text; special ones are left out unless `special`.

        Raises
        ------
        TypeError
            If something in `ids` is no whole number.
        IndexError
            If a number is not one of the vocabulary's.
        """
        numbers = [operator.index(number) for number in ids]
        for number in numbers:
            if not 0 <= number < len(self):
                raise IndexError(f"there is no piece {number}: the vocabulary has {len(self)}")
        return str(self._tokenizer.decode(numbers, skip_special_tokens=not special))

    def __len__(self) -> int:
        return len(self.pieces)

    def get(self, piece: str, default: int | None = None) -> int | None:
        """The number of a piece as the vocabulary spells it, or `default`."""
        number: int | None = self._tokenizer.token_to_id(piece)
        return default if number is None else number

    @cached_property
    def pieces(self) -> list[str]:
        """All pieces, as the vocabulary spells them; "" for a number that no piece has."""
        numbers = self._tokenizer.get_vocab(with_added_tokens=True)
        pieces = [""] * (max(numbers.values(), default=-1) + 1)
        for piece, number in numbers.items():
            pieces[number] = piece
        return pieces

    @cached_property
    def special(self) -> NDArray[np.bool_]:
        """Which pieces stand for no text, (pieces,)."""
        special = np.zeros(len(self), np.bool_)
        added = self._tokenizer.get_added_tokens_decoder()
        special[[number for number, piece in added.items() if piece.special]] = True
        return special

    @cached_property
    def continues(self) -> NDArray[np.bool_]:
        """Which pieces go on with a word that an earlier piece began, (pieces,).

        WordPiece marks these with ##. Where the space before a word is part of its first piece (GPT-2's BPE), they are
        those without a space that begin with a letter, a digit or a part of a character; so is then the first word of
        a text, which only its place tells. Whole words never go on.
        """
        found = np.zeros(len(self), np.bool_)
        for number, piece in enumerate(self.pieces):
            if self._prefix:
                found[number] = piece.startswith(self._prefix) and len(piece) > len(self._prefix)
            elif self._space:
                found[number] = not piece.startswith(self._space) and (piece[:1].isalnum() or piece[:1] > "\x7f")
        return found & ~self.special

    @cached_property
    def spellings(self) -> list[str | None]:
        """What each piece stands for, without marks of where it may stand; None if that is no text.

        None have special pieces, and those bytes of byte-level BPE that are only a part of a character.
        """
        table = _byte_table() if self._space == _BYTE_SPACE else None
        found: list[str | None] = []
        for piece, special in zip(self.pieces, self.special, strict=True):
            text: str | None = piece
            if special or not piece:
                text = None
            elif table is not None:
                try:
                    text = bytes(table[character] for character in piece).decode().strip() or None
                except (KeyError, UnicodeDecodeError):
                    text = None
            elif self._prefix:
                text = piece.removeprefix(self._prefix) if piece != self._prefix else piece
            elif self._space:
                text = piece.removeprefix(self._space) or None
            found.append(text)
        return found

    def __repr__(self) -> str:
        return f"Tokenizer({type(self._tokenizer.model).__name__}, {len(self)} pieces)"


def word_means(states: Any, encoding: Encoding, how: Literal["mean", "first", "last"] = "mean") -> Any:
    """The states of words, from those of their pieces.

    Parameters
    ----------
    states
        (pieces, dim), a tensor or an array of floats: one row for each piece of `encoding`.
    encoding
        What the states are the states of.
    how
        A word's state is the mean of its pieces' states, or that of the first or the last of them.

    Returns
    -------
    tensor or array
        (words, dim), like `states`; zeros for a word of no piece, such as an empty one.

    Raises
    ------
    ValueError
        If there are not as many states as pieces.
    """
    one_of("how", how, ("mean", "first", "last"))
    if len(states) != len(encoding):
        raise ValueError(f"{len(states)} states for {len(encoding)} pieces")
    rows = torch.as_tensor(states)
    places = [(i, word) for i, word in enumerate(encoding.words) if word is not None]
    if how != "mean":  # of several rows for a word, the last one stays
        places = list({word: (i, word) for i, word in (reversed(places) if how == "first" else places)}.values())
    at = torch.tensor([i for i, _ in places], dtype=torch.int64, device=rows.device)
    words = torch.tensor([word for _, word in places], dtype=torch.int64, device=rows.device)
    sums = rows.new_zeros(encoding.n_words, *rows.shape[1:]).index_add(0, words, rows[at])
    if how == "mean":
        counts = torch.bincount(words, minlength=encoding.n_words).clamp(min=1)
        sums = sums / counts.to(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    return sums if isinstance(states, torch.Tensor) else sums.numpy()


def _untrained(kind: str, lowercase: bool) -> tokenizers.Tokenizer:
    """A tokenizer without a vocabulary."""
    made: Any  # the library's types know what its steps return, not what they take
    if kind == "bpe":
        made = tokenizers.Tokenizer(models.BPE())
        if lowercase:
            made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.post_processor = processors.ByteLevel(trim_offsets=True)
        made.decoder = decoders.ByteLevel()
    elif kind == "wordpiece":
        made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
    else:
        made = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
        if lowercase:
            made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if kind != "bpe":
        made.post_processor = _around({name: number for number, name in enumerate(_SPECIAL)})
    return cast("tokenizers.Tokenizer", made)


def _around(numbers: Mapping[str, int]) -> processors.TemplateProcessing:
    """What puts [CLS] and [SEP] around a text, and another [SEP] behind a second one."""
    special = [(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )


def _train_wordpiece(tokenizer: Any, texts: Iterable[Text], options: dict[str, Any]) -> None:
    """Give a WordPiece tokenizer its vocabulary.

    The library's own trainer joins pairs by frequency, as for BPE, but numbers the characters with ## in the order in
    which a hash table happens to give them: ties, and so vocabularies, differ from run to run. Here BPE is trained on
    words that begin with a mark, which is the same to the bit each time; what has the mark begins a word, what has
    none goes on with one. Rare characters, too, are chosen here, since the library breaks ties among them by chance.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(texts, Iterator):  # to be read twice
            texts = stack.enter_context(_Spool(texts))
        counts: collections.Counter[str] = collections.Counter()
        for text in _not_empty(_joined(texts)):
            counts.update(text)
        characters: collections.Counter[str] = collections.Counter()
        for character, count in counts.items():
            for plain in tokenizer.normalizer.normalize_str(character):
                if not plain.isspace() and plain != _MARK:
                    characters[plain] += count
        # Where one is missing, the whole word is unknown: those of nearly all text have places, if they leave a quarter
        # for longer pieces, and rare ones if they leave three quarters.
        chosen: dict[str, bool] = {}  # and whether it goes on with words, which takes a second place
        room, places, covered, total = options["vocab_size"] - len(_SPECIAL), 0, 0, sum(characters.values())
        for character in sorted(characters, key=lambda character: (-characters[character], character)):
            goes_on = not _stands_alone(tokenizer, character)
            places += 1 + goes_on
            if places > room * (0.75 if covered < _COVERED * total else 0.25):
                break
            chosen[character] = goes_on
            covered += characters[character]
        marked: Any = tokenizers.Tokenizer(models.BPE())
        marked.normalizer = tokenizer.normalizer
        marked.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(_MARK, "always")]
        )
        alphabet = [_MARK, *chosen]
        # There each has a piece with the mark and one without, here some have one alone.
        options = {**options, "vocab_size": options["vocab_size"] + sum(not goes_on for goes_on in chosen.values())}
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, limit_alphabet=len(alphabet), **options)
        marked.train_from_iterator(_joined(texts), trainer=trainer)
    joined = sorted(marked.get_vocab().items(), key=lambda item: item[1])
    alphabet = sorted(chosen)
    pieces = [*_SPECIAL, *alphabet, *("##" + character for character in alphabet if chosen[character])]
    pieces += [
        piece.removeprefix(_MARK) if piece.startswith(_MARK) else "##" + piece
        for piece, _ in joined
        if len(piece.removeprefix(_MARK)) > 1
    ]
    vocabulary = {piece: number for number, piece in enumerate(pieces[: len(_SPECIAL) + room])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.add_special_tokens(_SPECIAL)


def _stands_alone(tokenizer: Any, character: str) -> bool:
    """Whether a character is a word by itself wherever it stands, as punctuation is, and what Chinese is written in."""
    around = tokenizer.normalizer.normalize_str(f"a{character}a")
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(around)] == ["a", character, "a"]


_COVERED = 0.9999  # of the characters of texts, where there is room


class _Spool:
    """Texts that can be read once, kept in a temporary file so that they can be read again."""

    def __init__(self, texts: Iterator[Text]) -> None:
        self._texts = texts

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")
        try:
            for text in _joined(self._texts):
                self._file.write(json.dumps(text) + "\n")
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(json.loads, self._file)


def _not_empty(texts: Iterator[str]) -> Iterator[str]:
    first = next(texts, None)
    if first is None:
        raise ValueError("there is no text to train on")
    return itertools.chain([first], texts)


def _clean(text: str) -> str:
    return _tokens.replace_surrogates(text)[0]


def _joined(texts: Iterable[Text]) -> Iterator[str]:
    given: Iterable[Any] = texts
    for i, text in enumerate(given):
        if not isinstance(text, str):
            if not isinstance(text, Sequence) or not all(isinstance(word, str) for word in text):
                raise TypeError(f"texts[{i}] is a {type(text).__name__}: neither a text nor a list of words")
            text = " ".join(text)
        try:
            text.encode()
        except UnicodeEncodeError:
            text = _clean(text)
        yield text


_BYTE_SPACE = "Ġ"  # how GPT-2 writes the byte of a space
_MARK = "\u2581"  # how SentencePiece marks a word's beginning


def _word_marks(description: dict[str, Any]) -> tuple[str, str]:
    """What stands before a piece that goes on with a word, and before one that begins a word; "" if nothing does."""
    model = description["model"]
    if model["type"] == "WordPiece":
        return model["continuing_subword_prefix"], ""
    steps: list[Any] = [description.get("pre_tokenizer"), description.get("normalizer")]
    while steps:
        step = steps.pop()
        if not step:
            continue
        if step["type"] == "ByteLevel":
            return "", _BYTE_SPACE
        if step["type"] == "Metaspace":
            return "", step.get("replacement", _MARK)
        steps += step.get("pretokenizers", []) + step.get("normalizers", [])
    return "", ""


def _byte_table() -> dict[str, int]:
    """The byte that each character of GPT-2's alphabet stands for.

    Printable bytes of Latin-1 stand for themselves, the other ones for the characters from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def _old_bert(folder: Path) -> tokenizers.Tokenizer:
    config = folder / "tokenizer_config.json"
    options = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {line: number for number, line in enumerate(lines) if line}
    tokenizer: Any = _untrained("wordpiece", False)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(options.get("do_lower_case", True)),
        strip_accents=options.get("strip_accents"),
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
    )
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.add_special_tokens([name for name in _SPECIAL if name in vocabulary])
    tokenizer.post_processor = _around(vocabulary)
    return cast("tokenizers.Tokenizer", tokenizer)


def _old_gpt2(folder: Path) -> tokenizers.Tokenizer:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer: Any = _untrained("bpe", False)
    tokenizer.model = models.BPE(vocabulary, merges)
    config = folder / "config.json"
    if config.exists() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "roberta":
        ends = {name: vocabulary[name] for name in ("<s>", "</s>")}
        tokenizer.add_special_tokens([name for name in (*ends, "<pad>", "<unk>") if name in vocabulary])
        if "<mask>" in vocabulary:  # the space before it is its own
            tokenizer.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", ends["</s>"]), ("<s>", ends["<s>"]), add_prefix_space=False
        )
    elif _END_OF_TEXT in vocabulary:
        tokenizer.add_special_tokens([_END_OF_TEXT])
    return cast("tokenizers.Tokenizer", tokenizer)


def _of_text(raw: Any) -> Encoding:
    words: list[int | None] = raw.word_ids
    return Encoding(raw.ids, raw.offsets, words, max((word for word in words if word is not None), default=-1) + 1)


def _of_words(raw: Any, words: list[str], joined: bool) -> Encoding:
    if not joined:
        return Encoding(raw.ids, raw.offsets, raw.word_ids, len(words))
    owners: list[int | None] = []  # of each character of the joined text
    starts = []
    for number, word in enumerate(words):
        starts.append(len(owners))
        owners += [number] * len(word)
        owners.append(None)  # the space
    found: list[int | None] = []
    offsets = []
    for begin, end in raw.offsets:
        # A piece may have the space before its word in it, never one behind.
        owner = owners[end - 1] if end > begin else None
        found.append(owner)
        start = 0 if owner is None else starts[owner]
        offsets.append((0, 0) if owner is None else (max(begin, start) - start, end - start))
    return Encoding(raw.ids, offsets, found, len(words))


def _cut(encoding: Encoding, special: list[int], length: int) -> Encoding:
    """The encoding without the last pieces of the text, where it is longer; what was added behind the text stays."""
    if len(encoding) <= length:
        return encoding
    added = 0
    while added < length and special[len(special) - 1 - added]:
        added += 1
    kept = [*range(length - added), *range(len(encoding) - added, len(encoding))]
    return Encoding(
        [encoding.ids[i] for i in kept],
        [encoding.offsets[i] for i in kept],
        [encoding.words[i] for i in kept],
        encoding.n_words,
    )
