"""`firth demo`: a tour on the documentation that every Python carries, or on a file of the user's."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import ast
import itertools
import shlex
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from tqdm import tqdm

from firth.cli.common import OUTPUT, STREAM, check_output, counted, typed
from firth.corpus import Corpus
from firth.files import PathLike, name_of
from firth.models import Word2Vec
from firth.vectors import Vectors

_OUTPUT = Path("firth-demo.txt")  # where vectors go if nobody says otherwise

_WORDS_READ = 30_000_000  # over all epochs: a few seconds
_PAIRS = 30
_ASKED = ("list", "socket", "left", "red", "month", "encode")  # frequent in Python's documentation
# Folders of the standard library that are tests, programs or other people's packages.
_SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


@click.command()
@click.argument("file", required=False, type=STREAM)
@click.option("-o", "--output", type=OUTPUT, default=_OUTPUT, help="File of the vectors.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    show_default="as many as take a few seconds, at most 30",
    help="Passes over the text.",
)
def demo(file: PathLike | None, output: Path, epochs: int | None) -> None:
    """Reads the documentation that comes with Python (nothing is downloaded), or FILE, a text in any language that
    puts spaces between words; trains a vector for each word; and queries the vectors.

    \b
    Examples:
      firth demo
      firth demo my.txt
    """
    check_output(output, inputs=[] if file is None else [file])
    if output.exists() and output != _OUTPUT:
        raise click.ClickException(
            f"{output} is there already, and the demo replaces {_OUTPUT} alone; give another name"
        )
    bars = typed(sys.stderr)
    _title("Text")
    min_count = 10 if file is None else 5
    if file is None:
        corpus = Corpus.from_iterable(python_documentation(bars), min_count=min_count, tokenizer="words")
    else:
        corpus = Corpus.from_file(file, min_count=min_count, tokenizer="words", progress=bars)
        _say(f"{name_of(file)}, in lower case and split into words.")
    read, words = corpus.report, corpus.vocabulary.words
    _say(
        f"{counted(read.tokens_read, 'word')}, {read.distinct_words_read:,} different. Without the rare ones, seen less"
    )
    _say(f"than {min_count} times: {counted(read.tokens_kept, 'word')}, {len(words):,} different.")
    if corpus.n_tokens < 100_000:
        _say("This is a short text: expect rough answers.")

    if epochs is None:
        epochs = max(1, min(30, _WORDS_READ // max(1, corpus.n_tokens)))
    model = Word2Vec(vector_size=100, window=5, negative=5, epochs=epochs)
    _title("Training")
    _say("word2vec's skip-gram: each word has a vector of 100 dimensions, from which the model predicts the words")
    _say("around it. Nothing but the text says what a word means.")
    model.fit(corpus, progress=bars)
    history = model.history
    seconds = sum(epoch.seconds for epoch in history)
    _say(
        f"{counted(epochs, 'pass', 'passes')}, {epochs * corpus.n_tokens / 1e6:.1f} million words in {seconds:.1f} s: "
        f"{epochs * corpus.n_tokens / seconds / 1e6:.1f} million a second on {counted(model.n_threads, 'thread')}."
    )
    _say(f"The loss fell from {history[0].loss:.3f} to {history[-1].loss:.3f}.")

    vectors = model.vectors
    asked = [word for word in _ASKED if word in vectors] if file is None else _telling(vectors)
    _title("Neighbors: words in similar contexts have similar vectors")
    for word, near in zip(asked, vectors.neighbors(asked, topn=6), strict=True):
        _say(f"{word:<12} {', '.join(other for other, _ in near)}")
    _show_plural(vectors, [word for word in words if word.isalpha()])

    _title("Saved")
    vectors.save(output)
    _say(f"{counted(len(words), 'vector')} in {output}. Query them yourself:")
    _say("")
    _say(f"firth neighbors {shlex.quote(str(output))} {' '.join(asked[:2])}")
    _say("")
    _say("and with a text of your own: firth demo my.txt, or firth train skipgram my.txt -o vectors.txt")


def _show_plural(vectors: Vectors, words: Sequence[str]) -> None:
    """A direction and analogies from pairs that differ by an s: every other pair is held back to be asked about."""
    present = set(words)
    pairs = [
        (word, word + "s")
        for word in words
        if len(word) > 2
        and word[-1] != "s"
        and word + "s" in present
        # English: what can be -ed or -ing is a verb as well, whose s is not the plural's.
        and not present & {word + "d", word + "ed", word + "ing"}
    ][:_PAIRS]
    if len(pairs) < 8:
        return
    taught, held = pairs[0::2], pairs[1::2]
    _title("A direction: from a word to the same word with an s")
    direction = vectors.direction(taught)
    _say(f"The mean difference of {len(taught)} pairs ({', '.join('/'.join(pair) for pair in taught[:3])}, ...).")
    _say("Words of other pairs, projected on it:")
    places = [[float(x) for x in direction.project(pair)] for pair in held]
    width = max(len(b) for _, b in held[:6])
    for (a, b), (x, y) in zip(held[:6], places, strict=False):
        _say(f"{a:<{width}} {x:6.2f}    {b:<{width}} {y:6.2f}")
    _say(f"The s lies further along in {sum(x < y for x, y in places)} of {len(held)} such pairs.")

    _title("Analogies: the difference of two words, carried over to a third")
    asked = [(a, b, c, d) for a, b in taught for c, d in held]
    right = [question for question in asked if vectors.analogy(*question[:3], topn=1)[0][0] == question[3]]
    examples: list[tuple[str, ...]] = []
    for question in right:
        if not set(question) & set(itertools.chain(*examples)) and len(examples) < 3:
            examples.append(question)
    for a, b, c, d in examples:
        _say(f"{a} is to {b} as {c} is to {d}")
    _say(f"{len(right)} of {len(asked)} such questions are answered correctly, with {len(vectors):,} candidates.")


def _telling(vectors: Vectors) -> list[str]:
    """Some words of middling frequency that have a clear set of neighbors."""
    words = [word for word in vectors.words[100:2000] if len(word) > 3 and word.isalpha()] or vectors.words[:6]
    closeness = {word: near[-1][1] for word, near in zip(words, vectors.neighbors(words, topn=5), strict=True) if near}
    part = -(-len(words) // 6)
    return [max(words[i : i + part], key=lambda word: closeness.get(word, -1)) for i in range(0, len(words), part)]


def python_documentation(progress: bool) -> list[str]:
    """About 320,000 words of English: the topics of Python's `help()` and the docstrings of the standard library.

    Python may be installed without one of them. ValueError if both are missing.
    """
    texts: list[str] = []
    try:
        from pydoc_data.topics import topics
    except ImportError:
        _say("This Python has no pydoc_data, the texts of help(); continuing without them.")
    else:
        texts += topics.values()
        _say(f"The {len(topics)} topics of Python's own help()")
    library = Path(sysconfig.get_path("stdlib"))
    sources = sorted(path for path in library.rglob("*.py") if not _SKIPPED & set(path.relative_to(library).parts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the style of what is parsed
        bar = tqdm(sources, desc="Reading docstrings", unit="file", disable=not progress)
        docstrings = [text for path in bar for text in _docstrings(path)]
    if docstrings:
        _say(f"and the {len(docstrings):,} docstrings of the {len(sources):,} modules in {library}")
    else:
        _say(f"This Python has no sources of its standard library in {library}; continuing without them.")
    if not texts and not docstrings:
        raise ValueError("this Python carries no documentation: give a text, firth demo FILE")
    return texts + docstrings


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # templates and deliberately broken files
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield text


def _title(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _say(text: str) -> None:
    click.echo(f"   {text}".rstrip())
