"""Read text: files, pipes, open files, lists and columns of tables; compressed or not, by lines or by documents."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import select
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, cast

from tqdm import tqdm

from firth import _tokens
from firth.checks import column, one_of, stacklevel_of_caller
from firth.files import PathLike, compression_of, is_compressed, name_of, open_binary

if TYPE_CHECKING:
    from firth import _core

Source: TypeAlias = PathLike | IO[bytes] | IO[str]
Text: TypeAlias = str | Sequence[str]
Texts: TypeAlias = Source | Iterable[Text] | Sequence[Source]  # what `read_texts` takes
Documents = Literal["lines", "blank_lines"]

BLOCK = 8 << 20  # bytes read at a time; between blocks the bar moves and Ctrl-C is seen
_BATCH = 1000  # texts that a tokenizer gets at a time
_SHORTEST = 9  # bytes at the start that stay in one block: they identify the kind of file
_HEAD = 1 << 16  # bytes at the start of a file that decide whether it is text
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
UTF8_MARK = b"\xef\xbb\xbf"
# All control characters except white space, the separators (28 to 31) of str.split, and the escapes of terminals.
_CONTROL = bytes([*range(9), *range(14, 27), 127])
_KNOWN = {
    b"PK\x03\x04": "a zip archive (or a document that is one, such as .docx); extract the text in it",
    b"%PDF-": "a PDF document; extract its text",
    b"PAR1": "a Parquet file; give its column of texts to from_iterable",
    b"\x93NUMPY": "an array of NumPy",
    **{b"\x80%c" % protocol: "a pickle, which firth never opens" for protocol in range(2, 6)},
}


def read_texts(source: Texts, *, documents: Documents = "lines", progress: bool = False) -> Iterator[Text]:
    """Read the texts of a source, one after another.

    Parameters
    ----------
    source
        Text files in UTF-8, compressed (gzip, bzip2, xz, Zstandard) or not: a path, "-" for standard input, an open
        file, or a list of `Path` objects or open files. Or the texts themselves: an iterable of strings or of lists of
        words, such as a list, a generator, a `firth.Corpus`, or a column of a table (pandas, Polars, Arrow).
    documents
        Where a text of a file ends: at the end of each line, or at blank lines. Empty texts are left out.

    Yields
    ------
    str or list of str
        The lines or documents of files, without the line end; the items of an iterable as they are.

    Warns
    -----
    UserWarning
        If a file holds invalid UTF-8, which is read as U+FFFD, with its name and line.

    Raises
    ------
    TypeError, ValueError
        If `source` is neither a file nor an iterable of texts, or a file is not text in UTF-8.
    """
    one_of("documents", documents, ("lines", "blank_lines"))
    paths = paths_of(source)
    if paths is None:
        return iter(column("texts", source))
    lines = read_lines(paths, progress=progress)
    if documents == "lines":
        return (line for line in lines if line and not line.isspace())
    groups = itertools.groupby(lines, key=lambda line: not line or line.isspace())
    return ("\n".join(group) for blank, group in groups if not blank)


def read_lines(source: Source | Sequence[Source], *, progress: bool = False) -> Iterator[str]:
    """Every line of some files, blank ones included, without the line end; otherwise as `read_texts`."""
    reader = TextFiles(source, progress=progress)

    def lines() -> Iterator[str]:
        yield from reader.lines()
        reader.warn()

    return lines()


def arriving_lines(source: Any, most: int) -> Iterator[list[bytes]]:
    """Lines of a file of `open_text`, without line ends, at most `most` at a time.

    Of a pipe or a terminal there are fewer, so that each line is answered soon after it arrives.
    """
    lines: list[bytes] = []
    begun: list[bytes] = []  # of a line whose end has not arrived
    since = 0.0
    while data := source.read1(1 << 20):
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*begun, ended[0]])
            begun.clear()
        begun.append(rest)
        since = since if lines else time.monotonic()
        lines += ended
        while lines and (len(lines) >= most or time.monotonic() - since > 0.1 or _waits(source)):
            yield lines[:most]
            lines = lines[most:]
    if last := b"".join(begun):
        lines.append(last)
    if lines:
        yield lines


def _waits(source: Any) -> bool:
    """Whether nothing can be read for the moment in which a program that writes steadily fills a pipe again."""
    try:
        return not select.select([source], [], [], 0.01)[0]
    except (OSError, ValueError):  # not a pipe, or a system where select takes only sockets
        return True


@contextlib.contextmanager
def rereadable(sources: Sequence[PathLike]) -> Iterator[list[Path]]:
    """Paths of text files that can be read more than once: pipes and standard input are copied to temporary files."""
    with contextlib.ExitStack() as stack:
        paths = []
        for one in sources:
            path = Path(one)
            if one == "-" or not path.is_file():
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="firth-"))
                path = Path(folder, os.path.basename(name_of(one)))
                with open_text(one) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
            paths.append(path)
        yield paths


def paths_of(source: Any) -> list[Any] | None:
    """The files that a source names: a path, an open file, or a list of `Path` objects or open files; else None.

    A string in a list is a text. FileNotFoundError if a string by itself names no file; ValueError if all strings of a
    list name files, because they were probably meant as paths.
    """
    if is_file(source):
        if isinstance(source, str) and source != "-" and not os.path.exists(source):
            raise FileNotFoundError(f"there is no file {source[:200]!r}; a text is given in a list: [text]")
        return [source]
    if not isinstance(source, list | tuple) or not source:
        return None
    if is_file(source[0]) and not isinstance(source[0], str):
        return list(source)
    if all(isinstance(one, str) and len(one) < 1024 and "\0" not in one and os.path.isfile(one) for one in source):
        raise ValueError(f"strings in a list are texts, and these name files: give [Path({source[0]!r}), ...]")
    return None


def is_file(source: object) -> bool:
    """Whether this is a path or an open file."""
    return isinstance(source, str | os.PathLike) or hasattr(source, "read")


def checked_sources(source: Source | Sequence[Source]) -> list[Source]:
    """The files to read, each checked before the first one is read."""
    if is_file(source):
        sources: list[Source] = [cast("Source", source)]
    elif isinstance(source, list | tuple):
        sources = list(source)
    else:
        raise TypeError(f"source must be a path, an open file or a list of them, not a {type(source).__name__}")
    if not sources:
        raise ValueError("the list of files is empty")
    for i, one in enumerate(sources):
        if not is_file(one):
            raise TypeError(f"source[{i}] must be a path or an open file, not a {type(one).__name__}")
        if isinstance(one, str | os.PathLike) and one != "-":
            if os.path.isdir(one):
                raise IsADirectoryError(f"{os.fspath(one)} is a directory; give the files in it, one by one")
            os.stat(one)
    return sources


def warn_of_replaced(name: str, n: int, what: str = "invalid UTF-8 sequence", line: int | None = None) -> None:
    """Warn that `n` parts of a text were replaced by U+FFFD, the first one in this line."""
    found = f"1 {what} was" if n == 1 else f"{n} {what}s were"
    where = "" if line is None else f", {'' if n == 1 else 'the first '}in line {line}"
    warnings.warn(f"{name}: {found} read as U+FFFD{where}", UserWarning, stacklevel=stacklevel_of_caller())


def open_text(source: PathLike | IO[bytes]) -> BinaryIO:
    """`open_binary` for text in UTF-8, after its byte order mark; ValueError as from `text_start`."""
    file = cast(io.BufferedReader, open_binary(source))
    try:
        file.read(text_start(file.peek(), name_of(source)))
    except BaseException:
        file.close()
        raise
    return file


def text_start(head: bytes, name: str) -> int:
    """The length of the byte order mark of a text with these first bytes; ValueError if it is not text in UTF-8.

    `head` is the first 64 KiB of the file, or all of a shorter one. `Corpus.from_file` documents the limits. They allow
    for the flaws of real texts, which are replaced and counted elsewhere: a line in another encoding, a stray NUL,
    Latin-1 throughout, with less than two invalid characters in ten in every language with Latin letters. Cyrillic,
    Greek or Chinese text in their own encodings has far more, and its words would consist of U+FFFD.
    """
    problem = not_text(head)
    if problem:
        raise ValueError(f"{name} is {problem}")
    return len(UTF8_MARK) if head.startswith(UTF8_MARK) else 0


def not_text(head: bytes) -> str:
    """Why a file with these first bytes is not text in UTF-8, and the remedy; empty if it is text."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return f"{encoding}; convert it: iconv -f {encoding} -t UTF-8"
    if head[4:9] == b"\0\0\0\0{":  # the length of a JSON header, below 2^32, and the header
        return "a safetensors file, not a text: firth.load opens what firth has saved, firth.load_vectors any vectors"
    if compression_of(head):  # still: one layer is off by now
        return "compressed twice; decompress it once"
    for magic, known in _KNOWN.items():
        if head.startswith(magic):
            return f"not text: it is {known}"
    if head[257:262] == b"ustar":
        return "not text: it is a tar archive; extract the files in it"
    head = head[:_HEAD]
    nul = head.count(0)
    control = len(head) - len(head.translate(None, _CONTROL))
    if control > max(1, len(head) / 5) and (encoding := _wide_encoding(head)):
        return f"{encoding} without a byte order mark; convert it: iconv -f {encoding} -t UTF-8"
    characters = head.decode(errors="replace")
    invalid = characters.count("\ufffd") - head.count(b"\xef\xbf\xbd")
    if nul > max(1, len(head) / 1000) or control > max(1, len(head) / 100):
        what = f"{control:,} of its first {len(head):,} bytes are control characters or NUL"
    elif invalid > max(15, 0.3 * len(characters)):
        what = f"{invalid:,} of its first {len(characters):,} characters are invalid"
    else:
        return ""
    return f"not text in UTF-8: {what}. If it is text in another encoding, convert it: iconv -f ENCODING -t UTF-8"


def _wide_encoding(head: bytes) -> str:
    """The encoding of UTF-16 or UTF-32 text without a mark; empty if it is not such text."""
    head = head[: len(head) // 4 * 4] or head[: len(head) // 2 * 2]
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):
        text = head.decode(encoding, errors="replace")
        # Hardly any bytes are UTF-32 by chance. In UTF-16 a byte is a control character or NUL where the character is
        # Latin, Greek, Cyrillic, Hebrew or Arabic; in the other byte order these would be Chinese ones.
        beyond = "\ufffd" if "32" in encoding else "\u0800"
        if "\0" not in text and sum(letter < beyond for letter in text) > 0.8 * len(text):
            return encoding
    return ""


class TextFiles:
    """Text files in UTF-8, read one after another, either into a counter (`feed`) or line by line (`lines`).

    With `strict`, invalid UTF-8 raises ValueError. Otherwise each invalid part becomes U+FFFD, and `warn` reports it.
    `block` bytes are read at a time.
    """

    def __init__(
        self, source: Source | Sequence[Source], *, strict: bool = False, block: int = BLOCK, progress: bool = False
    ) -> None:
        self.sources = checked_sources(source)
        # By file: the number of invalid parts, and the first line with one, from 1, or None if not known.
        self.invalid: dict[str, tuple[int, int | None]] = {}
        self._strict, self._block, self._progress = strict, block, progress

    @property
    def names(self) -> str:
        """The names of the first files."""
        return ", ".join(map(name_of, self.sources[:3])) + (", ..." if len(self.sources) > 3 else "")

    @property
    def n_invalid(self) -> int:
        """Invalid parts of all files."""
        return sum(n for n, _ in self.invalid.values())

    def note_invalid(self, name: str, n: int, line: int | None = None) -> None:
        """Count invalid parts of a file."""
        if n:
            before, first = self.invalid.get(name, (0, line))
            self.invalid[name] = (before + n, first)

    def warn(self) -> None:
        """Warn of the files with invalid UTF-8."""
        for name, (n, line) in self.invalid.items():
            warn_of_replaced(name, n, line=line)

    def feed(self, counter: _core.TextCounter) -> None:
        """Count the words of all files."""
        with self._bar() as bar:
            for source in self.sources:
                name, before = name_of(source), counter.invalid
                for i, (at, block) in enumerate(self._blocks(source, bar)):
                    if i == 0:
                        counter.begin_file(at)
                    counter.feed(block)
                    self._check(counter, name)
                counter.end_file()
                self._check(counter, name)
                if counter.invalid > before and counter.first_invalid is not None:
                    self.note_invalid(name, counter.invalid - before, counter.first_invalid[1] + 1)

    def lines(self) -> Iterator[str]:
        """Every line of every file, without the line end."""
        with self._bar() as bar:
            for source in self.sources:
                name, byte, line = name_of(source), 0, 0
                rest: list[bytes] = []  # of a line that continues in the next block
                for at, block in self._blocks(source, bar):
                    byte = at - sum(map(len, rest))  # where the current line begins
                    *ended, last = bytes(block).split(b"\n")
                    for end in ended:
                        raw = b"".join([*rest, end])
                        rest.clear()
                        yield self._decoded(raw, name, line, byte)
                        byte += len(raw) + 1
                        line += 1
                    if last:
                        rest.append(last)
                if rest:
                    yield self._decoded(b"".join(rest), name, line, byte)

    def _bar(self) -> tqdm[Any]:
        plain = [one for one in self.sources if isinstance(one, str | os.PathLike) and one != "-"]
        known = self._progress and len(plain) == len(self.sources) and not any(map(is_compressed, plain))
        total = sum(os.stat(one).st_size for one in plain) if known else None
        return tqdm(total=total, desc="reading", unit="B", unit_scale=True, disable=not self._progress)

    def _blocks(self, source: Source, bar: tqdm[Any]) -> Iterator[tuple[int, memoryview]]:
        """A file without its byte order mark: position and bytes of each block, valid until the next one."""
        name, step = name_of(source), self._block
        with contextlib.ExitStack() as stack:
            if not isinstance(source, str | os.PathLike) and isinstance(source.read(0), str):
                blocks = self._text_blocks(source, name)
            else:
                blocks = self._byte_blocks(stack.enter_context(open_binary(cast("Any", source))), name)
            at = 0
            for block in blocks:
                # The first block may be longer than the others.
                for begin in range(text_start(bytes(block[:_HEAD]), name) if at == 0 else 0, len(block), step):
                    yield at + begin, block[begin : begin + step]
                at += len(block)
                bar.update(len(block))

    def _byte_blocks(self, file: BinaryIO, name: str) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(max(_SHORTEST, self._block)))
        while True:
            n = 0
            while n < len(buffer):
                got = file.readinto(buffer[n:])  # type: ignore[attr-defined]
                if got is None:
                    raise BlockingIOError(f"{name} has no data yet and does not wait: make it blocking")
                if not got:
                    break
                n += got
            if n:
                yield buffer[:n]
            if n < len(buffer):
                return

    def _text_blocks(self, file: Any, name: str) -> Iterator[memoryview]:
        while text := file.read(max(_SHORTEST, self._block)):
            try:
                data = text.encode()
            except UnicodeEncodeError:
                if self._strict:
                    data = text.encode(errors="surrogatepass")  # invalid, so that it is reported with its line
                else:
                    text, n = _tokens.replace_surrogates(text)
                    self.note_invalid(name, n)
                    data = text.encode()
            yield memoryview(data)

    def _check(self, counter: _core.TextCounter, name: str) -> None:
        if self._strict and counter.first_invalid is not None:
            byte, line = counter.first_invalid
            raise _invalid_text(name, line, byte)

    def _decoded(self, raw: bytes, name: str, line: int, byte: int) -> str:
        raw = raw.removesuffix(b"\r")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            if self._strict:
                raise _invalid_text(name, line, byte + error.start) from None
        text = raw.decode(errors="replace")
        self.note_invalid(name, text.count("\ufffd") - raw.count(b"\xef\xbf\xbd"), line + 1)
        return text


def _invalid_text(name: str, line: int, byte: int) -> ValueError:
    return ValueError(
        f"{name}, line {line + 1}, byte {byte}: invalid UTF-8; convert the file, or read it with errors='replace'"
    )


def fast_tokenizer(tokenizer: Any) -> Any:
    """The ``tokenizers.Tokenizer`` that this is or uses; None if it does not use one."""
    inner = getattr(tokenizer, "backend_tokenizer", tokenizer)  # of firth.contextual's and transformers' tokenizers
    return inner if hasattr(inner, "encode_batch") and hasattr(inner, "to_str") else None


def tokenized(texts: Iterator[str], tokenizer: Any, name: str = "documents") -> Iterator[Sequence[str]]:
    """The tokens of each text: by a function, or by a tokenizer of a library, without special tokens or truncation."""
    fast = fast_tokenizer(tokenizer)
    if fast is not None:
        # A copy, because the caller's may truncate or pad.
        whole = type(fast).from_str(fast.to_str())
        whole.no_truncation()
        whole.no_padding()
        while batch := list(itertools.islice(texts, _BATCH)):
            for encoding in whole.encode_batch(batch, add_special_tokens=False):
                yield encoding.tokens
        return
    # Tokenizers of transformers that are written in Python return numbers when called.
    tokenize = tokenizer.tokenize if hasattr(tokenizer, "convert_tokens_to_ids") else tokenizer
    for i, text in enumerate(texts):
        tokens = tokenize(text)
        if not isinstance(tokens, list | tuple):
            raise TypeError(f"the tokenizer must return lists of str, not {type(tokens).__name__}, as for {name}[{i}]")
        yield tokens


class CleanTexts:
    """Strings with their lone surrogates replaced and counted, or refused if `strict`."""

    def __init__(self, texts: Iterator[Any], *, strict: bool, name: str) -> None:
        self.texts, self.strict, self.name, self.invalid = texts, strict, name, 0

    def unchanged(self) -> Iterator[str]:
        """The strings as they are; TypeError for an item that is not a string."""
        for i, text in enumerate(self.texts):
            if not isinstance(text, str):
                raise TypeError(f"{self.name}[{i}] is of type {type(text).__name__}, not a string as {self.name}[0] is")
            yield text

    def __iter__(self) -> Iterator[str]:
        for i, text in enumerate(self.unchanged()):
            replaced, n = _tokens.replace_surrogates(text)
            if n and self.strict:
                raise ValueError(
                    f"{self.name}[{i}] holds a lone surrogate, which is not valid text; replace it, or give "
                    "errors='replace'"
                )
            self.invalid += n
            yield replaced
