"""Tokenizers: tokens, offsets, words, and files."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")

from firth.contextual.encoding import word_means  # noqa: E402
from firth.contextual.tokenizer import Encoding, Tokenizer  # noqa: E402

TEXTS = [
    "The bank of the river is muddy.",
    "The bank charged a fee; don't pay the fee!",
    "Banks charge banking fees, naïve banks.",
    "Überall 漢字 and 😀 in the bank",
] * 10
KINDS = {"bpe": 400, "wordpiece": 200, "wordlevel": 60}


@pytest.fixture(scope="module")
def trained():
    return {kind: Tokenizer.train(TEXTS, tokenizer=kind, vocabulary_size=size) for kind, size in KINDS.items()}


@pytest.fixture(params=KINDS)
def tokenizer(request, trained):
    return trained[request.param]


def spelt(tokenizer, encoding):
    return [tokenizer.tokens[i] for i in encoding.ids]


def test_special_tokens(trained):
    for kind in ("wordpiece", "wordlevel"):
        one = trained[kind]
        assert [one.tokens[i] for i in (one.padding, one.unknown, one.start, one.end, one.mask)] == [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
        ]
        assert one.special.sum() == 5
    bpe = trained["bpe"]
    assert (bpe.padding, bpe.mask, bpe.start, bpe.unknown) == (None, None, None, None)
    assert bpe.tokens[bpe.end] == "<|endoftext|>"
    assert np.flatnonzero(bpe.special).tolist() == [bpe.end]


def test_vocabulary_is_as_large_as_asked():
    assert len(Tokenizer.train(TEXTS, tokenizer="wordlevel", vocabulary_size=20)) == 20
    assert len(Tokenizer.train(TEXTS, tokenizer="wordpiece", vocabulary_size=60)) == 60
    assert len(Tokenizer.train(TEXTS, tokenizer="bpe", vocabulary_size=300)) == 300
    assert len(Tokenizer.train(TEXTS, tokenizer="bpe", vocabulary_size=257)) == 257  # bytes and the end of a text


def test_tokens_and_numbers(tokenizer):
    assert len(tokenizer) == len(tokenizer.tokens) == len(set(tokenizer.tokens))
    assert [tokenizer.get(token) for token in tokenizer.tokens] == list(range(len(tokenizer)))
    assert tokenizer.get("no such token") is None
    assert tokenizer.get("no such token", 3) == 3


def test_same_vocabulary_in_every_process(trained):
    """Hash tables are seeded anew in each process: nothing may depend on their order."""
    script = (
        "import sys, json; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from firth.contextual.tokenizer import Tokenizer\n"
        "texts, kinds = json.loads(sys.argv[2])\n"
        "trained = [Tokenizer.train(iter(texts), tokenizer=kind, vocabulary_size=size) for kind, size in kinds.items()]\n"  # noqa: E501
        "print(json.dumps([one.tokens for one in trained]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, json.dumps(sys.path), json.dumps([TEXTS, KINDS])],
        capture_output=True,
        check=True,
    )
    assert json.loads(found.stdout) == [trained[kind].tokens for kind in KINDS]


def test_rare_characters_are_left_out_by_count_then_by_order():
    """Two places for each character, beginning and going on; one for what stands alone, such as a stop."""
    texts = ["aaaa bbb ccc", "yzxwvu."] * 5 + ["d e f g h i j"] * 2
    tokens = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=32).tokens
    found = [*".abcuvwxyz", *(f"##{letter}" for letter in "abcuvwxyz")]  # 19 places, and d's would be two more
    assert tokens[5:24] == found  # three quarters of 27 are 20
    assert "d" not in tokens
    # What is beyond 99.99 % of the text has a quarter.
    texts = ["aaaa bbb ccc"] * 3000 + ["d"]
    for size, found in (32, False), (60, True):
        assert ("d" in Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=size).tokens) == found


def test_chinese_is_known():
    """Two thousand characters, which stand alone, and a word that is trained beside them."""
    draw = np.random.default_rng(1)
    characters = [chr(0x4E00 + i) for i in range(2000)]
    texts = ["".join(characters[i : i + 40]) + " firth" for i in range(0, 2000, 40)] * 2
    texts += ["".join(draw.choice(characters[:500], 40)) for _ in range(100)]
    tokenizer = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=3000)
    assert set(characters) <= set(tokenizer.tokens)
    assert not any(f"##{character}" in tokenizer.tokens for character in characters)
    assert "firth" in tokenizer.tokens
    encoded = tokenizer.encode("".join(characters), special=False)
    assert spelt(tokenizer, encoded) == characters
    small = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=1000)  # the most frequent, in three quarters
    assert sum(token >= "\u4e00" for token in small.tokens) == 995 * 3 // 4 - 2 * len("firth")
    assert "firth" in small.tokens


def test_wordpiece_learns_the_frequent_parts():
    texts = ["walking talking walked talked", "walk talk"] * 20
    tokenizer = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=60)
    assert {"walk", "talk", "walking", "talked"} <= set(tokenizer.tokens)
    assert spelt(tokenizer, tokenizer.encode("walktalk", special=False)) == ["walk", "##talk"]


def test_min_count():
    texts = ["often often once"]
    assert Tokenizer.train(texts, tokenizer="wordlevel", vocabulary_size=50).tokens[5:] == ["often"]
    assert Tokenizer.train(texts, tokenizer="wordlevel", vocabulary_size=50, min_count=1).tokens[5:] == [
        "often",
        "once",
    ]
    assert "once" not in Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=50).tokens
    assert "once" in Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=50, min_count=1).tokens


def test_lowercase(trained):
    for kind, size in KINDS.items():
        folded = Tokenizer.train(TEXTS, tokenizer=kind, vocabulary_size=size, lowercase=True)
        assert folded.encode("THE BANK").ids == folded.encode("the bank").ids
        assert trained[kind].encode("THE BANK").ids != trained[kind].encode("the bank").ids
    folded = Tokenizer.train(["naïve"] * 3, tokenizer="wordpiece", vocabulary_size=50, lowercase=True)
    assert folded.decode(folded.encode("NAÏVE").ids) == "naive"


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_words_train_as_their_text(kind, trained):
    lists = [text.split() for text in TEXTS]
    assert Tokenizer.train(lists, tokenizer=kind, vocabulary_size=KINDS[kind]).tokens == trained[kind].tokens


def test_offsets_point_into_the_text(trained):
    text = "The bank's naïve fee 漢😀."
    for kind in ("bpe", "wordpiece"):
        one = trained[kind]
        encoding = one.encode(text)
        for i, (begin, end), spelling in zip(encoding.ids, encoding.offsets, spelt(one, encoding), strict=True):
            assert one.special[i] or one.spellings[i] in (None, text[begin:end]), spelling
    encoding = trained["wordlevel"].encode("The  bank of")
    assert encoding.offsets == [(0, 0), (0, 3), (5, 9), (10, 12), (0, 0)]


def test_special_around_a_text(trained):
    for kind in ("wordpiece", "wordlevel"):
        one = trained[kind]
        assert spelt(one, one.encode("the bank")) == ["[CLS]", "the", "bank", "[SEP]"]
        assert spelt(one, one.encode("the bank", special=False)) == ["the", "bank"]
        assert spelt(one, one.encode("[MASK] bank", special=False)) == ["[MASK]", "bank"]
    assert spelt(trained["bpe"], trained["bpe"].encode("The bank")) == ["The", "Ġbank"]


def test_words_of_a_text(trained):
    assert trained["wordpiece"].encode("The bank's fee").words == [None, 0, 1, 2, 3, 4, None]
    assert trained["wordlevel"].encode("The bank's fee").words == [None, 0, 1, 2, None]
    assert trained["wordpiece"].encode("").n_words == 0


def test_words_given(tokenizer):
    """The example of the words: empty, with a space inside, with punctuation, unknown to the vocabulary."""
    words = ["The", "bank's", "", "bank ing", "漢字x", "fee"]
    encoding = tokenizer.encode(words)
    assert encoding.n_words == len(words)
    assert sorted({word for word in encoding.words if word is not None}) == [0, 1, 3, 4, 5]
    assert [word for word in encoding.words if word is not None] == sorted(
        word for word in encoding.words if word is not None
    )
    for (begin, end), word in zip(encoding.offsets, encoding.words, strict=True):
        assert (begin, end) == (0, 0) if word is None else 0 <= begin < end <= len(words[word])
    for number in (0, 1, 3, 4, 5):  # tokens of a word cover it, but for white space
        covered = {
            i
            for offset, word in zip(encoding.offsets, encoding.words, strict=True)
            if word == number
            for i in range(*offset)
        }
        assert covered == {i for i, character in enumerate(words[number]) if not character.isspace()}


def test_bpe_gives_words_the_tokens_of_the_text(trained):
    """Byte-level tokens hold the space before a word: without it, each word would be the first of a text."""
    one = trained["bpe"]
    text = "The bank charged a fee"
    assert one.encode(text.split()).ids == one.encode(text).ids
    assert one.encode(text.split()).words == [0, 1, 2, 3, 4]
    assert one.encode(text.split()).offsets == [(0, 3), (0, 4), (0, 7), (0, 1), (0, 3)]


def test_batches_are_texts_one_by_one(tokenizer):
    texts = ["The bank", ["The", "fee"], "", ["pay"], "漢"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_bytes_come_back(trained):
    for text in (*TEXTS, " two  spaces\n\tand\x00 \u00a0 ends ", "\u202e\U0001f600"):
        assert trained["bpe"].decode(trained["bpe"].encode(text).ids) == text


def test_decode(trained):
    one = trained["wordpiece"]
    ids = one.encode("The bank charged [MASK]").ids
    assert one.decode(ids) == "The bank charged"
    assert one.decode(np.array(ids), special=True) == "[CLS] The bank charged [MASK] [SEP]"
    with pytest.raises(IndexError, match=f"no token {len(one)}"):
        one.decode([len(one)])
    with pytest.raises(IndexError, match="no token -1"):
        one.decode([-1])


def test_cut_to_a_length(tokenizer):
    text = "the bank of the river is muddy"
    whole = tokenizer.encode(text)
    behind = 0 if tokenizer.start is None else 1
    for length in range(1, len(whole) + 2):
        cut = tokenizer.encode(text, length=length)
        kept = min(length, len(whole))
        ending = min(behind, kept)
        assert cut.ids == whole.ids[: kept - ending] + whole.ids[len(whole) - ending :]
        assert len(cut.ids) == len(cut.offsets) == len(cut.words) == kept


def test_texts_to_learn_from_hold_nothing_special(tokenizer):
    texts = ["a [MASK] b [SEP] <|endoftext|> [PAD] the bank", ["[CLS]", "fee"]]
    for ids in tokenizer.encode_ids(texts):
        special = set(np.flatnonzero(tokenizer.special)) - {tokenizer.unknown}
        assert ids.dtype == np.int32
        assert not special & set(ids.tolist())
    assert tokenizer.encode_ids(["the bank"])[0].tolist() == tokenizer.encode("the bank", special=False).ids


def test_what_goes_on_with_a_word(trained):
    one = trained["wordpiece"]
    assert all(one.continues[i] == token.startswith("##") for i, token in enumerate(one.tokens))
    assert not trained["wordlevel"].continues.any()
    one = trained["bpe"]
    continues = {token: bool(one.continues[i]) for i, token in enumerate(one.tokens)}
    assert continues["s"]
    assert not continues["Ġbank"]
    assert not continues["."]
    assert not continues["Ġ"]
    assert not continues["<|endoftext|>"]


def test_spellings(trained):
    one = trained["wordpiece"]
    assert one.spellings[one.start] is None
    assert one.spellings[one.get("##s")] == "s"
    assert one.spellings[one.get("bank")] == "bank"
    one = trained["bpe"]
    assert one.spellings[one.get("Ġbank")] == "bank"
    assert one.spellings[one.get("ĠnaÃ¯ve")] == "naïve"
    assert one.spellings[one.get("Ã")] is None  # half a character
    assert one.spellings[one.get("Ġ")] is None
    assert trained["wordlevel"].spellings[trained["wordlevel"].get("muddy.")] == "muddy."


def test_lone_surrogates_do_no_harm(tokenizer):
    assert tokenizer.encode("the \udc80 bank").ids == tokenizer.encode("the \ufffd bank").ids
    assert tokenizer.encode(["the", "\udc80"]).ids == tokenizer.encode(["the", "\ufffd"]).ids
    Tokenizer.train(["a \udc80 b"] * 3, tokenizer="wordpiece", vocabulary_size=40)


def test_offsets_of_odd_characters_lie_in_their_words(tokenizer):
    """Marks of their own, characters joined, or longer in lower case, halves of pairs, and none that is seen."""
    odd = [
        "İ",
        "e\u0301",
        "\u0307x",
        "👩\u200d👩\u200d👧",
        "🇩🇪",
        "a\x00b",
        "\ud83d\ude00",
        "ﷺ",
        "ŉ",
        "\ufeffa",
        "\u00a0",
        "",
        "한",
    ]
    for words in ([one, "the", other] for one in odd for other in odd):
        encoding = tokenizer.encode(words)
        owners = [word for word in encoding.words if word is not None]
        assert encoding.n_words == 3
        assert owners == sorted(owners)
        for (begin, end), word in zip(encoding.offsets, encoding.words, strict=True):
            assert 0 <= begin <= end <= (0 if word is None else len(words[word]))
        whole = tokenizer.encode(" ".join(words))
        assert all(0 <= begin <= end <= len(" ".join(words)) for begin, end in whole.offsets)


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "folder")
    tokenizer.save(tmp_path / "one.json")
    for path in (tmp_path / "folder", tmp_path / "one.json", str(tmp_path / "folder" / "tokenizer.json")):
        loaded = Tokenizer.load(path)
        assert loaded.tokens == tokenizer.tokens
        assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
        assert (loaded.padding, loaded.mask, loaded.start, loaded.end, loaded.unknown) == (
            tokenizer.padding,
            tokenizer.mask,
            tokenizer.start,
            tokenizer.end,
            tokenizer.unknown,
        )
    assert len(list((tmp_path / "folder").iterdir())) == 2


def test_loaded_tokenizers_neither_cut_nor_pad(trained, tmp_path):
    """Published ones are often set to: MiniLM's cuts at 128 and fills up to it."""
    other = tokenizers.Tokenizer.from_str(trained["wordpiece"]._tokenizer.to_str())
    other.enable_truncation(4)
    other.enable_padding(length=9)
    other.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode("the bank of the river").ids == trained["wordpiece"].encode("the bank of the river").ids


def test_older_folders(trained, tmp_path):
    one = trained["wordpiece"]
    (tmp_path / "vocab.txt").write_text("\n".join(one.tokens) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode_batch(TEXTS) == one.encode_batch(TEXTS)
    assert loaded.special.tolist() == one.special.tolist()
    # What its tokenizer_config.json says else decides numbers, too.
    (tmp_path / "vocab.txt").write_text(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncafé\ncafe\n日本\n日\n本\n", encoding="utf-8"
    )
    for accents, chinese, tokens in ((False, False, [5, 7]), (None, True, [6, 8, 9])):
        said = {"do_lower_case": True, "strip_accents": accents, "tokenize_chinese_chars": chinese}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
        assert Tokenizer.load(tmp_path).encode("Café 日本", special=False).ids == tokens
    one = trained["bpe"]
    folder = tmp_path / "gpt2"
    folder.mkdir()
    model = json.loads(one._tokenizer.to_str())["model"]
    vocabulary = {token: number for number, token in enumerate(one.tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges + "\n", encoding="utf-8")
    loaded = Tokenizer.load(folder)
    assert loaded.encode_batch(TEXTS) == one.encode_batch(TEXTS)
    assert loaded.end == one.end


def test_old_folders_of_roberta(trained, tmp_path):
    """vocab.json and merges.txt as of GPT-2, but <s> and </s> stand around a text, and <mask> is one token."""
    transformers = pytest.importorskip("transformers")
    model = json.loads(trained["bpe"]._tokenizer.to_str())["model"]
    names = ["<s>", "<pad>", "</s>", "<unk>", *(name for name in model["vocab"] if name != "<|endoftext|>"), "<mask>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in model["merges"]), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    ours = Tokenizer.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in TEXTS[:4]:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert (ours.start, ours.padding, ours.end, ours.unknown, ours.mask) == (0, 1, 2, 3, len(names) - 1)
    assert ours.encode("a <mask>").ids == [*ours.encode("a").ids[:-1], ours.mask, ours.end]
    assert ours.special.tolist() == [name[0] == "<" and name[-1] == ">" and len(name) > 2 for name in names]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_it(kind, trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained[kind].save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in TEXTS[:4]:
        assert theirs(text)["input_ids"] == trained[kind].encode(text).ids
    assert theirs.mask_token_id == trained[kind].mask
    assert theirs.pad_token_id == trained[kind].padding


@pytest.mark.parametrize("kind", [*KINDS, "roberta"])
def test_a_file_without_special_tokens_around_texts(kind, trained, tmp_path):
    """As a GPT needs it: everything else stays, the places of tokens in a text too."""
    one = trained["bpe" if kind == "roberta" else kind]
    if kind == "roberta":
        inner = tokenizers.Tokenizer.from_str(one._tokenizer.to_str())
        inner.add_special_tokens(["<s>", "</s>"])
        ends = [(name, inner.token_to_id(name)) for name in ("</s>", "<s>")]
        inner.post_processor = tokenizers.processors.RobertaProcessing(*ends)
        one = Tokenizer(inner, start="<s>", end="</s>")
    one.save(tmp_path, special=False)
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(TEXTS, special=False) == one.encode_batch(TEXTS, special=False)
    assert roles(again) == roles(one)
    bare = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("the bank")
    whole = one.encode("the bank", special=False)
    assert (bare.ids, bare.offsets) == (whole.ids, whole.offsets)


ROLES = ("padding", "mask", "start", "end", "unknown")


def roles(tokenizer):
    numbers = [getattr(tokenizer, role) for role in ROLES]
    return [None if number is None else tokenizer.tokens[number] for number in numbers]


def of_words(*special):
    """A tokenizer of the library: whole words, and special tokens that it knows nothing of."""
    words = ["the", "bank", "of", "river", *special]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, special[0]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return made


def test_special_tokens_by_their_usual_names_or_by_those_given(tmp_path):
    usual = Tokenizer(of_words("<unk>", "<pad>", "<mask>", "<s>", "</s>"))
    assert roles(usual) == ["<pad>", "<mask>", "<s>", "</s>", "<unk>"]
    raw = of_words("?", "_", "___", "(", ")")
    assert roles(Tokenizer(raw)) == [None] * 5
    own = Tokenizer(raw, padding="_", mask="___", start="(", end=")", unknown="?")
    assert roles(own) == ["_", "___", "(", ")", "?"]
    assert own.special.sum() == 5
    assert not raw.get_added_tokens_decoder()  # theirs stays as it is
    for one, text in ((usual, "the <mask> bank"), (own, "the ___ bank")):
        ids = one.encode(text).ids  # with what stands around a text, as models with a mask are trained
        assert ids == [one.start, one.get("the"), one.mask, one.get("bank"), one.end]
        assert one.encode_ids(["the lake ___ <mask>"])[0].tolist() == [one.get("the"), *[one.unknown] * 3]
    own.save(tmp_path)
    for again in (Tokenizer.load(tmp_path), Tokenizer(own), pickle.loads(pickle.dumps(own))):
        assert roles(again) == roles(own)
        assert again.encode("the ___ bank") == own.encode("the ___ bank")
    with pytest.raises(ValueError, match=r"mask='\[MASK\]' is not a token of this tokenizer: add it"):
        Tokenizer(raw, mask="[MASK]")


def test_a_post_processor_stays_where_there_is_one(trained):
    """Around a text stands what the tokenizer itself puts there; a byte-level one goes on trimming its offsets."""
    raw = of_words("<unk>", "<mask>", "<s>", "</s>")
    raw.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 7)])
    one = Tokenizer(raw)
    assert one.encode("the bank").ids == [0, 1, one.end]
    assert one.start is None  # or a model would be trained on texts that begin with it, and used on others
    bytewise = tokenizers.Tokenizer.from_str(trained["bpe"]._tokenizer.to_str())
    bytewise.add_special_tokens(["<mask>", "<s>", "</s>"])
    one = Tokenizer(bytewise)
    found = one.encode("The bank")
    assert (found.ids[0], found.ids[-1]) == (one.start, one.end)
    assert found.offsets == [(0, 0), *trained["bpe"].encode("The bank").offsets, (0, 0)]


def test_tokenizers_of_transformers(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    names = {"unk_token": "?", "pad_token": "_", "mask_token": "___", "bos_token": "(", "eos_token": ")"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=of_words("?", "_", "___", "(", ")"), **names)
    ours = Tokenizer(theirs)
    assert roles(ours) == ["_", "___", "(", ")", "?"]
    assert ours.encode("the lake", special=False).ids == theirs("the lake")["input_ids"]
    one_for_all = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    gpt2 = transformers.PreTrainedTokenizerFast(tokenizer_object=trained["bpe"]._tokenizer, **one_for_all)
    assert roles(Tokenizer(gpt2)) == ["<|endoftext|>", None, None, "<|endoftext|>", None]
    gpt2.save_pretrained(tmp_path)
    assert roles(Tokenizer.load(tmp_path)) == roles(Tokenizer(gpt2))
    with pytest.raises(TypeError, match=r"ByT5Tokenizer is a slow tokenizer, .*: give a fast one"):
        Tokenizer(transformers.ByT5Tokenizer())


def test_what_is_no_tokenizer():
    for given in ("bert-base-uncased", object(), len):
        with pytest.raises(TypeError, match=r"must be a firth\.contextual\.Tokenizer, a tokenizers\.Tokenizer or"):
            Tokenizer(given)
    with pytest.raises(ValueError, match="no vocabulary: train it first"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()))
    implementation = tokenizers.ByteLevelBPETokenizer()
    implementation.train_from_iterator(TEXTS, vocab_size=300)
    assert Tokenizer(implementation).encode("the bank", special=False).ids == implementation.encode("the bank").ids


def test_word_means():
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    encoding = Encoding([7, 1, 2, 3, 4, 8], [(0, 0)] * 6, [None, 0, 0, 2, 2, None], 4)
    wanted = {
        "mean": [[3, 4], [0, 0], [7, 8], [0, 0]],
        "first": [[2, 3], [0, 0], [6, 7], [0, 0]],
        "last": [[4, 5], [0, 0], [8, 9], [0, 0]],
    }
    for how, rows in wanted.items():
        found = word_means(states, encoding, how)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert found.tolist() == rows
        tensor = word_means(torch.from_numpy(states), encoding, how)
        assert tensor.tolist() == rows
    assert word_means(states, encoding).tolist() == wanted["mean"]


def test_word_means_refuses(trained):
    encoding = trained["wordlevel"].encode("the bank")
    with pytest.raises(ValueError, match="3 hidden states for 4 tokens"):
        word_means(np.zeros((3, 2), np.float32), encoding)
    with pytest.raises(ValueError, match="how must be 'mean', 'max', 'first' or 'last', not 'cls'"):
        word_means(np.zeros((4, 2), np.float32), encoding, "cls")


def test_refusals(trained, tmp_path):
    with pytest.raises(ValueError, match="tokenizer must be"):
        Tokenizer.train(TEXTS, tokenizer="letters")
    with pytest.raises(ValueError, match="vocabulary_size must be at least 257"):
        Tokenizer.train(TEXTS, tokenizer="bpe", vocabulary_size=256)
    with pytest.raises(TypeError, match="one text"):
        Tokenizer.train("a text", tokenizer="bpe")
    for kind in KINDS:
        with pytest.raises(ValueError, match="no text"):
            Tokenizer.train([], tokenizer=kind)
        with pytest.raises(TypeError, match=r"texts\[1\] is of type int"):
            Tokenizer.train(["a", 3], tokenizer=kind)
        with pytest.raises(TypeError, match=r"texts\[0\]\[1\] is of type int"):
            Tokenizer.train([["a", 3]], tokenizer=kind)
    with pytest.raises(TypeError, match="one text"):
        trained["bpe"].encode_batch("a text")
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        trained["bpe"].encode_batch(["a", ["b", 3]])
    with pytest.raises(TypeError, match="one text"):
        trained["bpe"].encode_ids("a text")
    with pytest.raises(TypeError, match=r"texts\[1\] is of type int"):
        trained["bpe"].encode_ids(["a", 3])
    with pytest.raises(TypeError, match="float"):
        trained["bpe"].decode([1.5])
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        Tokenizer.load(tmp_path)
