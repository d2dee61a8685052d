"""Tokenizers of the `tokenizers` library: made, trained, and read from the older files of BERT and GPT-2."""

from __future__ import annotations

import collections
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from firth import _tokens
from firth.checks import text_or_words
from firth.text import Text

Kind = Literal["bpe", "wordpiece", "wordlevel"]  # tokenizers that can be trained

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
END_OF_TEXT = "<|endoftext|>"
MARK = "\u2581"  # how SentencePiece marks a word's beginning


def untrained(kind: str, lowercase: bool) -> tokenizers.Tokenizer:
    """A tokenizer without a vocabulary."""
    made: Any  # the library's types know what its steps return, not what they take
    if kind == "bpe":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.post_processor = processors.ByteLevel(trim_offsets=True)
        made.decoder = decoders.ByteLevel()
    else:
        model = models.WordPiece if kind == "wordpiece" else models.WordLevel
        made = tokenizers.Tokenizer(model(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.post_processor = template({name: number for number, name in enumerate(SPECIAL)})
    if kind == "wordpiece":
        made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
    elif lowercase:
        made.normalizer = normalizers.Lowercase()
    return cast("tokenizers.Tokenizer", made)


def template(
    numbers: Mapping[str, int], before: Sequence[str] = ("[CLS]",), behind: Sequence[str] = ("[SEP]",)
) -> processors.TemplateProcessing:
    """The processor that puts [CLS] and [SEP] around a text, and another [SEP] after a second one."""
    special = [(name, numbers[name]) for name in dict.fromkeys((*before, *behind))]
    second = ["$B:1", *(f"{name}:1" for name in behind)]
    single: Any = [*before, "$A", *behind]
    return processors.TemplateProcessing(single=single, pair=single + second, special_tokens=special)


def train_wordpiece(tokenizer: Any, texts: Iterable[Text], options: dict[str, Any]) -> None:
    """Train the vocabulary of a WordPiece tokenizer.

    The library's own trainer merges pairs by frequency, as for BPE, but numbers the characters with ## in the order of
    a hash table: ties, and so vocabularies, differ from run to run. Here BPE, which is deterministic, is trained on
    words that begin with a mark. Tokens with the mark begin a word, the others continue one. Rare characters are chosen
    here for the same reason.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        if isinstance(texts, Iterator):  # to be read twice
            texts = _Spool(texts, file)
        counts: collections.Counter[str] = collections.Counter()
        for text in not_empty(as_strings(texts)):
            counts.update(text)
        characters: collections.Counter[str] = collections.Counter()
        for character, count in counts.items():
            for plain in tokenizer.normalizer.normalize_str(character):
                if not plain.isspace() and plain != MARK:
                    characters[plain] += count
        # A word with an unknown character is unknown: common characters are chosen first, in at most three quarters of
        # the vocabulary; rare ones only while a quarter suffices for all.
        chosen: dict[str, bool] = {}  # and whether it can continue a word, which takes a second place
        room, places, covered, total = options["vocab_size"] - len(SPECIAL), 0, 0, sum(characters.values())
        for character in sorted(characters, key=lambda character: (-characters[character], character)):
            continues = not _stands_alone(tokenizer, character)
            places += 1 + continues
            if places > room * (0.75 if covered < _COVERED * total else 0.25):
                break
            chosen[character] = continues
            covered += characters[character]
        marked: Any = tokenizers.Tokenizer(models.BPE())
        marked.normalizer = tokenizer.normalizer
        marked.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Metaspace(MARK, "always")]
        )
        alphabet = [MARK, *chosen]
        # There each character has a token with the mark and one without, here some have only one.
        options = {**options, "vocab_size": options["vocab_size"] + sum(not one for one in chosen.values())}
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, limit_alphabet=len(alphabet), **options)
        marked.train_from_iterator(as_strings(texts), trainer=trainer)
    joined = sorted(marked.get_vocab().items(), key=lambda item: item[1])
    alphabet = sorted(chosen)
    tokens = [*SPECIAL, *alphabet, *("##" + character for character in alphabet if chosen[character])]
    tokens += [
        token.removeprefix(MARK) if token.startswith(MARK) else "##" + token
        for token, _ in joined
        if len(token.removeprefix(MARK)) > 1
    ]
    vocabulary = {token: number for number, token in enumerate(tokens[: len(SPECIAL) + room])}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.add_special_tokens(SPECIAL)


def _stands_alone(tokenizer: Any, character: str) -> bool:
    """Whether a character is always a word by itself, as punctuation and Chinese characters are."""
    around = tokenizer.normalizer.normalize_str(f"a{character}a")
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(around)] == ["a", character, "a"]


_COVERED = 0.9999  # of the characters of texts, where there is room


class _Spool:
    """Texts that can be read only once, kept in a file."""

    def __init__(self, texts: Iterator[Text], file: IO[str]) -> None:
        self._file = file
        file.writelines(json.dumps(text) + "\n" for text in as_strings(texts))

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return map(json.loads, self._file)


def not_empty(texts: Iterator[str]) -> Iterator[str]:
    """The texts; ValueError if there is none."""
    first = next(texts, None)
    if first is None:
        raise ValueError("there is no text to train on")
    return itertools.chain([first], texts)


def without_surrogates(text: str) -> str:
    """A text with U+FFFD in place of lone surrogates."""
    return _tokens.replace_surrogates(text)[0]


def as_strings(texts: Iterable[Text]) -> Iterator[str]:
    """Texts as strings that can be encoded: words are joined by spaces."""
    for i, given in enumerate(texts):
        found = text_or_words(f"texts[{i}]", given)
        text = found if isinstance(found, str) else " ".join(found)
        try:
            text.encode()
        except UnicodeEncodeError:
            text = without_surrogates(text)
        yield text


def old_bert(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder with the vocab.txt of BERT."""
    config = folder / "tokenizer_config.json"
    options = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {line: number for number, line in enumerate(lines) if line}
    tokenizer: Any = untrained("wordpiece", False)
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(options.get("do_lower_case", True)),
        strip_accents=options.get("strip_accents"),
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
    )
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.add_special_tokens([name for name in SPECIAL if name in vocabulary])
    tokenizer.post_processor = template(vocabulary)
    return cast("tokenizers.Tokenizer", tokenizer)


def old_gpt2(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder with the vocab.json and merges.txt of GPT-2 or RoBERTa."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer: Any = untrained("bpe", False)
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
    elif END_OF_TEXT in vocabulary:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return cast("tokenizers.Tokenizer", tokenizer)
