"""Opens files and folders by their contents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firth import corpus, counts, fasttext_format, files, formats, phrases  # noqa: F401  # some to register their readers
from firth.models import FastText, FastTextClassifier
from firth.run import CHECKPOINT
from firth.vectors import Vectors

# Files of tokenizers, of which a folder has one: firth's and Hugging Face's, BERT's and GPT-2's older ones.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")


def load(path: files.PathLike, *, format: str | None = None) -> Any:
    """Open a file or folder as the object that was saved there, with its options, its `history` and all it has trained.

    Arrays of a corpus, counts and token ids stay in the file and are mapped.

    Parameters
    ----------
    path
        A file: a model, a classifier, vectors, a corpus, counts, phrases or token ids that its `save` wrote; a model or
        classifier in fastText's format; a ``tokenizer.json``; vectors in any format of `load_vectors`. A folder: a
        contextual model, as `firth.contextual.load` reads it, or a tokenizer.
    format
        The format of a file of vectors, as in `load_vectors`, if its contents are ambiguous: text whose first line is
        two whole numbers may be word2vec's or GloVe's.

    Raises
    ------
    ValueError
        If firth does not open such files, saying what it looks like; if it is damaged, or of a newer version of firth.
    ImportError
        For a contextual model, a tokenizer or token ids if torch is not installed.
    """
    if Path(path).is_dir():
        return _load_folder(Path(path))
    if format is not None or not Path(path).is_file():  # a pipe can be read only once
        return load_vectors(path, format=format)
    found = formats.recognized(path)
    name = "" if found is None else found.name
    if name == "fasttext":
        return (FastTextClassifier if fasttext_format.is_classifier(path) else FastText).from_fasttext(path)
    if name == "safetensors" and not files.is_compressed(path):
        kind = files.own_kind(files.read_tensors(path, mmap=True)[1])
        if kind == "token ids":
            from firth import contextual

            return contextual.TokenIds.open(path)
        if kind not in ("", "vectors"):
            return files.load_own(path)
    if found is None and Path(path).suffix.lower() == ".json":
        from firth import contextual

        return contextual.Tokenizer.load(path)
    return load_vectors(path)


def load_vectors(
    path: files.PathLike,
    *,
    format: str | None = None,
    limit: int | None = None,
    errors: formats.Errors = "strict",
    mmap: bool = False,
) -> Vectors:
    """Read the vectors of a file: words and matrix alone, of any format and of a whole model.

    Parameters
    ----------
    path
        word2vec's text or binary format, GloVe's text, a fastText model (.bin or .ftz), or safetensors (firth's
        vectors and models); all but the last may be compressed (gzip, bzip2, xz, Zstandard). "-" is standard input.
    format
        "word2vec-text", "word2vec-binary", "glove", "fasttext" or "safetensors"; None: the contents decide, not the
        name, as a .bin may be word2vec's or fastText's.
    limit
        Read only the first so many words.
    errors
        "strict": an unusable line is an error. "skip": such lines are left out, with a warning.
    mmap
        Map a safetensors file instead of reading it: rows are read from disk when they are used.

    Raises
    ------
    ValueError
        With the first bad lines: a wrong number of fields, something that is not a number, a repeated word, a header
        with other sizes, a binary file that is cut short.

    Warns
    -----
    UserWarning
        If words are not UTF-8: bad bytes become U+FFFD, and of words that are then equal the first is kept.

    Notes
    -----
    The vectors of a fastText model are those of its words, each the mean of the word's row and those of its n-grams.
    In text the last vector_size fields of a line are the numbers, so a word may contain blanks. "inf" and "nan"
    are numbers and are kept as they are, in every format; such rows are never found by a search.
    """
    return Vectors(*formats.read(path, format=format, limit=limit, errors=errors, mmap=mmap))


def _load_folder(folder: Path) -> Any:
    from firth import contextual

    # A checkpoint's folder may hold a tokenizer too; the contextual models say how to resume from it.
    other = any((folder / name).exists() for name in ("config.json", CHECKPOINT))
    if not other and any((folder / name).exists() for name in _TOKENIZER_FILES):
        return contextual.Tokenizer.load(folder)
    return contextual.load(folder)
