"""Texts to tokens and back: byte-level BPE, WordPiece and whole words, through the `tokenizers` library."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import normalizers, pre_tokenizers, processors, trainers

from firth import files
from firth.checks import column, one_of, text_or_words, whole_number
from firth.contextual.tokenizer_training import (
    END_OF_TEXT,
    MARK,
    SPECIAL,
    Kind,
    as_strings,
    not_empty,
    old_bert,
    old_gpt2,
    template,
    train_wordpiece,
    untrained,
    without_surrogates,
)
from firth.text import Text

if TYPE_CHECKING:
    from typing_extensions import Self


FILE = "tokenizer.json"  # in a folder of the Hugging Face layout
_ROLES = {  # the usual names of special tokens, the likelier first
    "padding": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "start": ("[CLS]", "<s>"),
    "end": ("[SEP]", "</s>", END_OF_TEXT),
    "unknown": ("[UNK]", "<unk>"),
}


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The tokens of one text.

    Attributes
    ----------
    ids
        The tokens' ids.
    offsets
        Where each token lies: its first character and the one after its last, in the text, or in its own word if words
        were given. (0, 0) for tokens without text, such as [CLS].
    words
        The number of the word that each token belongs to, None for tokens without a word. The words are those given;
        those of a text are the tokenizer's (punctuation is a word by itself).
    n_words
        How many words were given, or found.
    cut
        The number of the first word that lost tokens to a limit of length; None if no word did.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]
    n_words: int
    cut: int | None = None

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Converts texts to tokens of a vocabulary, and back; made by `train`, `load`, or from another library's tokenizer.

    TypeError if that tokenizer is something else, or a slow one, which runs in Python and has no file format.
    ValueError if it has no vocabulary, or a name of a special token is not in it.

    Parameters
    ----------
    tokenizer
        A `tokenizers.Tokenizer`, or a fast tokenizer of `transformers`, as `AutoTokenizer.from_pretrained` returns it.
        It is copied: later changes to it have no effect here.
    padding, mask, start, end, unknown
        The names of its special tokens. None: the ones that a tokenizer of `transformers` names, or the usual ones,
        such as [MASK] or <mask>, where the vocabulary has them.

    Attributes
    ----------
    padding, mask, start, end, unknown : int or None
        The ids of the tokens with these roles, None where the vocabulary has no such token.

    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        padding: str | None = None,
        mask: str | None = None,
        start: str | None = None,
        end: str | None = None,
        unknown: str | None = None,
    ) -> None:
        given, names = _backend(tokenizer)
        asked = {"padding": padding, "mask": mask, "start": start, "end": end, "unknown": unknown}
        # A copy: the caller's settings of truncation and padding must have no effect here.
        self._tokenizer: Any = tokenizers.Tokenizer.from_str(given.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if not self._tokenizer.get_vocab_size():
            raise ValueError("the tokenizer has no vocabulary: train it first")
        roles: dict[str, int | None] = {}
        for role, usual in _ROLES.items():
            name = asked[role]
            if name is not None and self.get(name) is None:
                raise ValueError(
                    f"{role}={name!r} is not a token of this tokenizer: add it by add_special_tokens first"
                )
            spellings = [names[role], *usual] if role in names else [*usual]
            found = map(self.get, spellings if name is None else [name])
            roles[role] = next((number for number in found if number is not None), None)
        self.padding, self.mask, self.start, self.end, self.unknown = (roles[role] for role in _ROLES)
        self._make_special([number for number in roles.values() if number is not None])
        # For training texts, where "[MASK]" is text like any other.
        self._plain: Any = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._prefix, self._space = _word_marks(json.loads(self._tokenizer.to_str()))

    def _make_special(self, numbers: list[int]) -> None:
        """Look for tokens with a role in texts, and put these around a text where there is a mask, as in BERT."""
        added = self._tokenizer.get_added_tokens_decoder()
        ordinary = [number for number in numbers if number not in added or not added[number].special]
        self._tokenizer.add_special_tokens([self._tokenizer.id_to_token(number) for number in ordinary])
        if self.mask is None:
            return
        if self._tokenizer.num_special_tokens_to_add(False):
            # Training must see what use sees: only tokens that are put around a text are its ends.
            there = self._tokenizer.encode("", add_special_tokens=True).ids
            self.start, self.end = (one if one in there else None for one in (self.start, self.end))
            return
        before, behind = ([] if one is None else [self._tokenizer.id_to_token(one)] for one in (self.start, self.end))
        if before or behind:
            around = template({name: self._tokenizer.token_to_id(name) for name in (*before, *behind)}, before, behind)
            present = self._tokenizer.post_processor
            self._tokenizer.post_processor = around if present is None else processors.Sequence([present, around])

    @classmethod
    def train(
        cls,
        texts: Iterable[Text],
        *,
        tokenizer: Kind,
        vocabulary_size: int = 8192,
        min_count: int = 2,
        lowercase: bool = False,
        progress: bool = False,
    ) -> Self:
        """Train a tokenizer on texts.

        ValueError if there is no text, or the vocabulary is too small: bytes alone are 256 tokens. TypeError if
        something in `texts` is neither a text nor a list of words.

        Parameters
        ----------
        texts
            Texts, or lists of words; read once.
        tokenizer
            "bpe": pairs of bytes, merged in the order of their frequency (Sennrich et al. 2016, on bytes as in GPT-2).
            No word is unknown, and decoding restores every byte. "wordpiece": as BERT's, words and punctuation are
            split into the longest tokens of the vocabulary, those within words beginning with ##. A word with a
            character outside the vocabulary is [UNK]. Hence the characters that make up 99.99 % of the texts come
            first, in at most three quarters of the vocabulary. [CLS] and [SEP] stand around a text. "wordlevel": the
            most frequent words, separated by white space; other words are [UNK]; [CLS] and [SEP] as above.
        vocabulary_size
            At most this many tokens, special ones included.
        min_count
            Rarer pairs, or words, become no tokens.
        lowercase
            Whether to lowercase; "wordpiece" then also drops accents, as BERT's does.
        progress
            Show a bar on stderr.

        """
        one_of("tokenizer", tokenizer, get_args(Kind))
        least = {"bpe": 257, "wordpiece": 32, "wordlevel": len(SPECIAL) + 1}[tokenizer]
        whole_number("vocabulary_size", vocabulary_size, low=least, high=2**31 - 1)
        whole_number("min_count", min_count, low=1)
        column("texts", texts)
        made: Any = untrained(tokenizer, lowercase)
        options: dict[str, Any] = {"vocab_size": vocabulary_size, "min_frequency": min_count, "show_progress": progress}
        if tokenizer == "wordpiece":
            train_wordpiece(made, texts, options)
            return cls(made)
        trainer: Any = trainers.WordLevelTrainer(special_tokens=SPECIAL, **options)
        if tokenizer == "bpe":
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, **options)
        made.train_from_iterator(not_empty(as_strings(texts)), trainer=trainer)
        if tokenizer == "wordlevel" and made.get_vocab_size() == len(SPECIAL):
            raise ValueError(
                f"no word occurs min_count={min_count} times, so all would be [UNK]: give more text, a lower "
                "min_count, or tokenizer='wordpiece'"
            )
        return cls(made)

    @classmethod
    def load(cls, path: files.PathLike) -> Self:
        """Read a tokenizer: a ``tokenizer.json`` of any origin, or a folder that holds one.

        Also a folder with the older ``vocab.txt`` of BERT, or ``vocab.json`` and ``merges.txt`` of GPT-2. OSError if
        there is none, ValueError if it is damaged.
        """
        place = Path(path)
        try:
            if not place.is_dir():
                return cls(tokenizers.Tokenizer.from_str(place.read_text(encoding="utf-8")))
            if (place / FILE).exists():
                given = tokenizers.Tokenizer.from_str((place / FILE).read_text(encoding="utf-8"))
                roles = _saved_names(place)
                return cls(given, **{role: name for role, name in roles.items() if given.token_to_id(name) is not None})
            if (place / "vocab.txt").exists():
                return cls(old_bert(place))
            if (place / "vocab.json").exists() and (place / "merges.txt").exists():
                return cls(old_gpt2(place))
        except OSError:
            raise
        except Exception as error:  # the library raises bare Exception
            names = (FILE, "vocab.txt", "vocab.json", "merges.txt")
            for one in [place / name for name in names] if place.is_dir() else [place]:
                if one.exists():
                    files.refuse_pointer(one)
            raise ValueError(f"the tokenizer in {place} cannot be read: {error}") from None
        raise FileNotFoundError(
            f"{place} holds no {FILE}, no vocab.txt, and no vocab.json with merges.txt: "
            f"save_pretrained of its tokenizer in transformers writes a {FILE}"
        )

    def save(self, path: files.PathLike, *, special: bool = True) -> None:
        """Write the tokenizer to a file, if the name of `path` ends in .json, or else to a folder, which is created if
        missing.

        A folder holds ``tokenizer.json`` and the configuration that ``transformers.AutoTokenizer`` reads. `special`
        decides whether other libraries that read the file add the tokens that `encode` adds around a text.
        """
        place = Path(path)
        if place.suffix != ".json" or place.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            names = {
                "pad_token": self.padding,
                "mask_token": self.mask,
                "cls_token": self.start,
                **dict.fromkeys(("bos_token", "eos_token") if self.start is None else ("sep_token",), self.end),
                "unk_token": self.unknown,
            }
            config = {name: self.tokens[number] for name, number in names.items() if number is not None}
            with files.replacing(place / "tokenizer_config.json") as file:
                file.write(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}, indent=2).encode())
            place = place / FILE
        text = self._tokenizer.to_str(pretty=True)
        if not special and self._tokenizer.num_special_tokens_to_add(False):
            trim = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
            bare = {**json.loads(text), "post_processor": trim if self._space == _BYTE_SPACE else None}
            text = json.dumps(bare, indent=2, ensure_ascii=False)
        with files.replacing(place) as file:
            file.write(text.encode())

    def encode(self, text: Text, *, special: bool = True, length: int | None = None) -> Encoding:
        """Convert a text, or a list of words, to tokens: `encode_batch` of one."""
        return self.encode_batch([text], special=special, length=length)[0]

    def encode_batch(self, texts: Sequence[Text], *, special: bool = True, length: int | None = None) -> list[Encoding]:
        """Convert texts to tokens, on all processors; TypeError for anything but texts and lists of words.

        Parameters
        ----------
        texts
            Each a text, or a list of words; no token crosses the limit of two given words.
        special
            Whether to add the tokens that the tokenizer puts around a text, [CLS] and [SEP]; byte-level BPE adds none.
        length
            Truncate to at most this many tokens for each text, added ones included.

        """
        if length is not None:
            whole_number("length", length, low=1)
        items = column("texts", texts, advice=", or call encode")
        given = [text_or_words(f"texts[{i}]", text) for i, text in enumerate(items)]
        found: list[Encoding] = []
        for text, raw in zip(given, self._raw(given, special), strict=True):
            one = _of_text(raw) if isinstance(text, str) else _of_words(raw, text, bool(self._space))
            found.append(one if length is None else _cut(one, raw.special_tokens_mask, length))
        return found

    def encode_pairs(
        self, pairs: Sequence[tuple[Text, Text]], *, special: bool = True, length: int | None = None
    ) -> list[tuple[list[int], list[int]]]:
        """The ids and types of the tokens of pairs of texts: type 1 is the second text's, where they are distinguished.

        Parameters
        ----------
        pairs
            Two texts each, which may be lists of words.
        special
            Whether to add the tokens that the tokenizer puts around and between two texts, as BERT's [CLS] and [SEP].
            Otherwise the end-of-text token, if there is one, stands between them.
        length
            At most this many tokens for each pair, added ones included: the longer text loses its last tokens first.
            ValueError if there is no room for the tokens that are added.
        """
        between = [] if special or self.end is None else [self.end]
        added = self._tokenizer.num_special_tokens_to_add(True) if special else len(between)
        if length is not None:
            whole_number("length", length, low=1)
            if length < added:
                raise ValueError(f"a pair of texts takes {added} special tokens, and only {length} tokens are allowed")
        halves: list[list[str | list[str]]] = [[], []]
        for pair in pairs:
            for half, text in zip(halves, pair, strict=True):
                half.append(text if isinstance(text, str) else list(text))
        firsts, seconds = halves
        found = []
        for first, second in zip(self._raw(firsts, False), self._raw(seconds, False), strict=True):
            if length is not None:
                kept = _longest_first(len(first), len(second), length - added)
                first.truncate(kept[0])
                second.truncate(kept[1])
            if special:
                whole = self._tokenizer.post_process(first, second, True)
                found.append((whole.ids, whole.type_ids))
            else:
                ids = [*first.ids, *between, *second.ids]
                found.append((ids, [0] * (len(ids) - len(second)) + [1] * len(second)))
        return found

    def _raw(self, given: Sequence[str | list[str]], special: bool) -> list[Any]:
        """The library's encodings of texts and lists of words."""
        found: list[Any] = []
        for lists, group in itertools.groupby(given, key=lambda text: not isinstance(text, str)):
            chosen: list[Any] = list(group)
            # Where a space is part of the next token, words are joined to a text: their tokens depend on the spaces.
            inputs = [" ".join(words) for words in chosen] if lists and self._space else chosen
            found += self._encoded(self._tokenizer, inputs, lists and not self._space, special)
        return found

    def encode_ids(self, texts: Sequence[Text]) -> list[NDArray[np.int32]]:
        """The ids of training texts, for each text int32 (tokens,): nothing is added, and "[MASK]" in a text is plain
        text.

        A list of words is read as a text, with a space between words. TypeError for anything else.
        """
        joined = list(as_strings(column("texts", texts)))
        found = [np.array(raw.ids, np.int32) for raw in self._encoded(self._plain, joined, False, False)]
        if self.unknown is not None:  # a whole word may be spelled like a special token
            for ids in found:
                ids[self.special[ids]] = self.unknown
        return found

    @staticmethod
    def _encoded(tokenizer: Any, inputs: list[Any], split: bool, special: bool) -> list[Any]:
        # `encode_batch_fast` keeps no offsets, which training texts, the long ones, do not need.
        plain = tokenizer.encode_special_tokens and hasattr(tokenizer, "encode_batch_fast")
        encode = tokenizer.encode_batch_fast if plain else tokenizer.encode_batch
        try:
            found = encode(inputs, is_pretokenized=split, add_special_tokens=special)
        except (UnicodeEncodeError, TypeError):  # a lone surrogate
            clean = [
                without_surrogates(text) if isinstance(text, str) else [without_surrogates(word) for word in text]
                for text in inputs
            ]
            found = encode(clean, is_pretokenized=split, add_special_tokens=special)
        return cast("list[Any]", found)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of tokens, without special ones unless `special`; IndexError for an id outside the vocabulary."""
        numbers = [operator.index(number) for number in ids]
        for number in numbers:
            if not 0 <= number < len(self):
                raise IndexError(f"there is no token {number}: the vocabulary has {len(self)}")
        return str(self._tokenizer.decode(numbers, skip_special_tokens=not special))

    def __len__(self) -> int:
        return len(self.tokens)

    def get(self, token: str, default: int | None = None) -> int | None:
        """The id of a token as the vocabulary spells it, or `default`."""
        number: int | None = self._tokenizer.token_to_id(token)
        return default if number is None else number

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens, as the vocabulary spells them; "" for an id without a token."""
        numbers = self._tokenizer.get_vocab(with_added_tokens=True)
        tokens = [""] * (max(numbers.values(), default=-1) + 1)
        for token, number in numbers.items():
            tokens[number] = token
        return tokens

    @cached_property
    def special(self) -> NDArray[np.bool_]:
        """Which tokens are special, bool (tokens,)."""
        special = np.zeros(len(self), np.bool_)
        added = self._tokenizer.get_added_tokens_decoder()
        special[[number for number, token in added.items() if token.special]] = True
        return special

    @cached_property
    def continues(self) -> NDArray[np.bool_]:
        """Which tokens continue a word, bool (tokens,).

        WordPiece marks these with ##. Where the space before a word is part of its first token (GPT-2's BPE), they are
        those without a space that begin with a letter, a digit or a part of a character. There the first word of a text
        looks the same. Whole words never continue another.
        """
        found = np.zeros(len(self), np.bool_)
        for number, token in enumerate(self.tokens):
            if self._prefix:
                found[number] = token.startswith(self._prefix) and len(token) > len(self._prefix)
            elif self._space:
                found[number] = not token.startswith(self._space) and (token[:1].isalnum() or token[:1] > "\x7f")
        return found & ~self.special

    @cached_property
    def spellings(self) -> list[str | None]:
        """The text of each token, without marks; None for special tokens and for parts of a character."""
        table = _byte_table() if self._space == _BYTE_SPACE else None
        found: list[str | None] = []
        for token, special in zip(self.tokens, self.special, strict=True):
            text: str | None = token
            if special or not token:
                text = None
            elif table is not None:
                try:
                    text = bytes(table[character] for character in token).decode().strip() or None
                except (KeyError, UnicodeDecodeError):
                    text = None
            elif self._prefix:
                text = token.removeprefix(self._prefix) if token != self._prefix else token
            elif self._space:
                text = token.removeprefix(self._space) or None
            found.append(text)
        return found

    @property
    def backend_tokenizer(self) -> Any:
        """The ``tokenizers.Tokenizer`` inside; tokenizers of `transformers` have it under the same name."""
        return self._tokenizer

    def __repr__(self) -> str:
        return f"Tokenizer({type(self._tokenizer.model).__name__}, {len(self)} tokens)"


def _backend(given: Any) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The `tokenizers.Tokenizer` in a tokenizer of another library, and the names of its special tokens."""
    kind = type(given).__name__
    if isinstance(given, tokenizers.Tokenizer):
        return given, {}
    if isinstance(given, Tokenizer):
        roles = {role: getattr(given, role) for role in _ROLES}
        names = {role: given.tokens[number] for role, number in roles.items() if number is not None}
        return given.backend_tokenizer, names
    # transformers' fast ones, and those of tokenizers.implementations.
    inner = getattr(given, "backend_tokenizer", getattr(given, "_tokenizer", None))
    if isinstance(inner, tokenizers.Tokenizer):
        return inner, _names(getattr(given, "special_tokens_map", {}))
    if hasattr(given, "convert_tokens_to_ids"):
        raise TypeError(
            f"{kind} is a slow tokenizer, which runs in Python: give a fast one, PreTrainedTokenizerFast, which "
            "AutoTokenizer.from_pretrained returns where there is one, or train one with Tokenizer.train"
        )
    raise TypeError(
        "tokenizer must be a firth.contextual.Tokenizer, a tokenizers.Tokenizer or a fast tokenizer of transformers, "
        f"not {kind}; Tokenizer.load(path) opens one"
    )


def lowercased(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that lowercases first."""
    given, names = _backend(tokenizer)
    description = given.to_str()
    normalizer = json.loads(description).get("normalizer") or {}
    if any(one.get("type") == "Lowercase" for one in (normalizer, *normalizer.get("normalizers", []))):
        return tokenizer
    made: Any = tokenizers.Tokenizer.from_str(description)
    others: list[Any] = [] if made.normalizer is None else [made.normalizer]
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])
    return Tokenizer(made, **names)


def _names(described: Mapping[str, Any]) -> dict[str, str]:
    """The names of special tokens by their roles, from the names of `transformers`."""
    given = {key: value.get("content") if isinstance(value, Mapping) else value for key, value in described.items()}
    end = given.get("sep_token") or given.get("eos_token")
    found = {"padding": given.get("pad_token"), "mask": given.get("mask_token"), "end": end}
    # GPT-2 has one token for all of these roles, which stands at the end of a text.
    start = given.get("cls_token") or given.get("bos_token")
    found |= {role: name for role, name in (("start", start), ("unknown", given.get("unk_token"))) if name != end}
    return {role: str(name) for role, name in found.items() if name}


def _saved_names(folder: Path) -> dict[str, str]:
    """The names of special tokens in the files beside a tokenizer.json."""
    described: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            described |= json.loads((folder / name).read_text(encoding="utf-8"))
    return _names(described)


_BYTE_SPACE = "Ġ"  # how GPT-2 writes the byte of a space


def _word_marks(description: dict[str, Any]) -> tuple[str, str]:
    """The mark of a token that continues a word, and of one that begins a word; "" for none."""
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
            return "", step.get("replacement", MARK)
        steps += step.get("pretokenizers", []) + step.get("normalizers", [])
    return "", ""


def _byte_table() -> dict[str, int]:
    """The byte of each character of GPT-2's alphabet: printable bytes are themselves, the others follow from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


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
        # A token may hold the space before its word, never one after it.
        owner = owners[end - 1] if end > begin else None
        found.append(owner)
        start = 0 if owner is None else starts[owner]
        offsets.append((0, 0) if owner is None else (max(begin, start) - start, end - start))
    return Encoding(raw.ids, offsets, found, len(words))


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept, if the longer one loses its last ones until both fit."""
    less = min(first, second, room // 2)
    more = min(max(first, second), room - less)
    return (less, more) if first <= second else (more, less)


def _cut(encoding: Encoding, special: list[int], length: int) -> Encoding:
    """The encoding without the last tokens of a text that is too long; tokens added after the text stay."""
    if len(encoding) <= length:
        return encoding
    added = min(length, sum(itertools.takewhile(bool, reversed(special))))
    end = len(encoding) - added
    lost = [word for word in encoding.words[length - added : end] if word is not None]

    def kept(items: list[Any]) -> list[Any]:
        return items[: length - added] + items[end:]

    return Encoding(
        kept(encoding.ids),
        kept(encoding.offsets),
        kept(encoding.words),
        encoding.n_words,
        min(lost, default=None),
    )
