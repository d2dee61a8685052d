"""The command line: what it prints, what it refuses and when, and its exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import importlib.util
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import firth
import firth.text
from firth import cli
from firth.cli import classify, common, demo, static, vectors
from firth.cli import options as model_options
from firth.cli import text as text_commands
from firth.models.base import Model

# A compass: east and west, north and south are opposite; between two neighbors lies 45 degrees.
COMPASS = ["east", "northeast", "north", "northwest", "west", "southwest", "south", "southeast"]
MODELS: dict[str, type[Model]] = {
    "skipgram": firth.Word2Vec,
    "glove": firth.GloVe,
    "ppmi": firth.PPMI,
    "lsa": firth.LSA,
}
CONTEXTUAL = ("gpt", "bert", "elmo")  # commands whose options are made by modules that need torch
FASTTEXT = {"model": (), "del": (), "bin": ("--fasttext",), "ftz": ("--fasttext",)}  # by suffix
HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "tokenizers"))
TRAIN = [f"train {name}" for name in cli.train.commands if HAS_TORCH or name not in CONTEXTUAL]


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], input=stdin)


def refused(result: Result, code: int, *said: str) -> None:
    """One line on stderr, with all that was to be said, nothing on stdout, and the exit code."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    for text in said:
        assert text in result.stderr


def start(*arguments: object, buffered: bool = True, **options: object) -> subprocess.Popen[str]:
    """The program itself, in a process of its own that Ctrl-C reaches whatever its parents ignore."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from firth.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(firth.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONUNBUFFERED"] = "" if buffered else "1"
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    return subprocess.Popen(command, env=environment, text=True, **given)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def compass(tmp_path: Path) -> Path:
    angles = np.arange(8) * np.pi / 4
    path = tmp_path / "compass.txt"
    firth.Vectors(COMPASS, np.stack([np.cos(angles), np.sin(angles)], axis=1)).save(path)
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Two topics that never share a sentence."""
    draw = random.Random(1)
    topics = [[f"{letter}{i}" for i in range(10)] for letter in "ab"]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(draw.choices(topics[i % 2], k=10)) for i in range(400)))
    return path


# ---- the program


def test_help_leads_a_newcomer() -> None:
    for alone in (run(), run("--help"), run("-h")):
        assert alone.exit_code == 0
        assert "firth demo" in alone.stdout
        for command in ("demo", "train", "count", "phrases", "neighbors", "analogy", "evaluate", "convert"):
            assert f"\n  {command} " in alone.stdout
    assert "skipgram" in run("train").stdout


@pytest.mark.parametrize("command", [*TRAIN, "demo", "count", "phrases", "neighbors", "analogy", "evaluate", "convert"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"    firth {command} " in result.stdout
    assert "Example" in result.stdout


def importable(group: click.Group) -> dict[str, click.Command]:
    """The commands of a group, except those that need torch where it is missing."""
    return {name: group.commands[name] for name in group.commands if HAS_TORCH or name not in CONTEXTUAL}


def test_every_parameter_is_explained() -> None:
    def check(command: click.Command) -> None:
        assert command.help, command.name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, option.name  # type: ignore[attr-defined]
        for one in importable(command).values() if isinstance(command, click.Group) else ():
            check(one)

    check(cli.main)


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("firth ")
    assert firth.__version__ in result.stdout
    assert firth.cpu_info()["isa"] in result.stdout


def test_python_m_firth_is_the_program() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(firth.__file__).parents[1])}
    command = [sys.executable, "-m", "firth", "--version"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == run("--version").stdout


@pytest.mark.parametrize(
    "command", ["", "train", *TRAIN, "demo", "count", "phrases", "neighbors", "evaluate", "convert"]
)
def test_help_is_whole(command: str) -> None:
    """No summary is cut, and no bracket follows another."""
    shown = " ".join(run(*command.split(), "--help").stdout.split())
    assert "..." not in shown.replace("]...", "").replace("INPUT...", "").replace("FILE...", "")
    assert "] [" not in shown.split("Options: ")[1].split("Commands: ")[0]


def test_options_of_every_type() -> None:
    fields = [
        ("vector_size", int | None, 100),
        ("threads", int | None, None),
        ("alpha", float, 0.5),
        ("positive", bool, True),
        ("output", Literal["sum", "word"], "sum"),  # not the --output that says where vectors go
    ]
    model = dataclasses.make_dataclass("Other", fields)
    given = {}

    @click.command()
    @static._training_options(model)  # type: ignore[arg-type]
    def command(**arguments: object) -> None:
        given.update(arguments)

    def parsed(*arguments: str) -> dict[str, object]:
        assert CliRunner().invoke(command, ["in", "-o", "out", *arguments]).exit_code == 0
        return {name: given[name] for name, *_ in fields}

    assert parsed() == {"vector_size": 100, "threads": None, "alpha": 0.5, "positive": True, "output": "sum"}
    assert given["path"] == Path("out")
    assert given.keys().isdisjoint({"checkpoint", "resume"}), "those are for models with epochs"
    flags = ["--vector-size", "3", "--threads", "2", "--alpha", "1", "--signed", "--vectors", "word"]
    expected = {"vector_size": 3, "threads": 2, "alpha": 1.0, "positive": False, "output": "word"}
    assert parsed(*flags) == expected
    assert parsed("--positive")["positive"]
    for wrong in (["--vectors", "other"], ["--vector-size", "none"], ["--alpha", "much"], ["--checkpoint", "state"]):
        assert CliRunner().invoke(command, ["in", "-o", "out", *wrong]).exit_code == 2
    with pytest.raises(click.UsageError, match=r"^--vectors or --positive is wrong$"), model_options.as_flags(given):
        raise ValueError("output or positive is wrong")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], []])
def test_help_imports_only_what_it_shows(arguments: list[str]) -> None:
    """Neither the libraries that take long nor a module of commands."""
    program = f"""
import sys
from firth.cli import main
sys.argv[1:] = {arguments}
try:
    main()
except SystemExit:
    heavy = {{"numpy", "scipy", "torch", "tqdm"}} & sys.modules.keys()
    ours = {{name for name in sys.modules if name.startswith("firth.")}}
    print(*heavy, *ours - {{"firth._core", "firth.cli"}}, file=sys.stderr, end="")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(firth.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert "train" in done.stdout


def test_every_command_begins_with_the_summary_that_lists_show() -> None:
    for group in (cli.main, cli.train):
        shown = "".join(run(*[] if group is cli.main else ["train"]).stdout.split())
        for name, command in importable(group).items():
            assert command.help is not None
            summary = command.help.splitlines()[0] if name != "train" else "train"
            assert "".join(summary.split()) in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], ["nonsense", "Try: firth --help"]),
        (["train", "nonsense"], ["nonsense", "Try: firth train --help"]),
        (["neighbors"], ["VECTORS", "Try: firth neighbors --help"]),
        (["neighbors", "x", "y", "--nonsense"], ["--nonsense"]),
        (["convert", "x", "y", "--format", "z"], ["'--from'? Try: firth convert --help"]),
        (["convert", "x", "y", "--from"], ["'--from' requires an argument. Try: firth convert --help"]),
        (["train", "fasttext", "x", "--epochs"], ["requires an argument. Try: firth train fasttext --help"]),
        (["analogy", "x", "a", "b"], ["'C'"]),
        (["train", "skipgram", "text.txt"], ["--output"]),
        (["train", "fasttext", "text.txt", "-o", "o.txt", "--fasttext"], ["--fasttext needs --save-model"]),
        (["train", "fasttext", "text.txt", "-o", "o.txt", "--save-model", "m.bin"], ["m.bin", "add --fasttext"]),
        (["train", "classifier", "text.txt", "-o", "m.bin"], ["m.bin", "add --fasttext"]),
        (["quantize", "m.model", "-o", "m.ftz"], ["m.ftz", "add --fasttext"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--window", "wide"], ["--window", "wide"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--window", "0"], ["--window must be at least 1"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--min-learning-rate", "1"], ["--min-learning-rate (1.0) "]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--min-count", "0"], ["--min-count must be at least 1"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--max-size", "0"], ["--max-size must be at least 1"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--threads", "0"], ["--threads must be at least 1"]),
        (["train", "skipgram", "text.txt", "-o", "o.txt", "--resume"], ["--checkpoint"]),
        (["train", "skipgram", "text.txt", "-o", "o.xyz"], ["o.xyz", ".bin", ".safetensors"]),
        (
            ["train", "skipgram", "text.txt", "-o", "o.txt", "--save-model", "./o.txt"],
            ["--output and --save-model name"],
        ),
        (
            ["train", "skipgram", "text.txt", "-o", "s/checkpoint.safetensors", "--checkpoint", "s"],
            ["--output and --checkpoint name the same file"],
        ),
        (["count", "text.txt"], ["--output", "--glove"]),
        (["count", "text.txt", "--glove-vocab", "v.txt"], ["--output", "--glove"]),
        (["count", "text.txt", "-o", "o", "--glove-vocab", "v.txt"], ["--glove-vocab needs --glove"]),
        (["count", "text.txt", "-o", "o", "--glove", "./o"], ["--output and --glove name the same file"]),
        (["count", "text.txt", "--glove", "o", "--glove-vocab", "o"], ["--glove and --glove-vocab name the same file"]),
        (["count", "text.txt", "-o", "o", "--window", "0"], ["--window must be at least 1"]),
        (["count", "text.txt", "-o", "o", "--threads", "0"], ["--threads must be at least 1"]),
        (["count", "text.txt", "-o", "o", "--min-count", "0"], ["--min-count must be at least 1"]),
        (["count", "text.txt", "-o", "o", "--side", "above"], ["--side", "above", "left"]),
        (["count", "text.txt", "-o", "o", "--weighting", "heavy"], ["--weighting", "heavy", "harmonic"]),
        (["count", "text.txt", "-o", "o", "--memory", "much"], ["--memory", "'much' is not a number of bytes", "4G"]),
        (["count", "text.txt", "-o", "o", "--memory", "-1"], ["--memory", "'-1'"]),
        (["count", "text.txt", "-o", "o", "--memory", "4GG"], ["--memory", "'4GG'"]),
        (["phrases", "text.txt"], ["--output"]),
        (["phrases", "text.txt", "-o", "o", "--min-count", "0"], ["--min-count must be at least 1"]),
        (["phrases", "text.txt", "-o", "o", "--min-phrase-count", "0"], ["--min-phrase-count"]),
        (["phrases", "text.txt", "-o", "o", "--passes", "0"], ["--passes must be at least 1"]),
        (["phrases", "text.txt", "-o", "o", "--threads", "0"], ["--threads must be at least 1"]),
        (["phrases", "text.txt", "-o", "o", "--scoring", "chi"], ["--scoring", "chi", "npmi", "word2phrase"]),
        (["phrases", "text.txt", "-o", "o", "--threshold", "2"], ["--threshold must lie in -1 .. 1", "not 2"]),
        (["phrases", "text.txt", "-o", "o", "--threshold", "high"], ["--threshold", "high"]),
        (["phrases", "text.txt", "-o", "o", "--memory", "much"], ["--memory", "4G"]),
        (["phrases", "text.txt", "-o", "o", "--save-phrases", "./o"], ["--output and --save-phrases name the same"]),
        (["convert", "x.txt", "y"], ["y: which format?", ".txt"]),
        (["convert", "x.txt", "y.txt", "--to", "nonsense"], ["nonsense", "word2vec-text"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], said: list[str]) -> None:
    refused(run(*arguments), 2, *said)


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), KeyError("wrong"), FloatingPointError("wrong"), EOFError("wrong"), OSError(28, "wrong")],
)
def test_an_error_is_one_line_and_1(compass: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(vectors, "load_vectors", load)
    result = run("neighbors", compass, "east")
    refused(result, 1)
    assert result.stderr == "Error: wrong\n"


def test_a_mistake_of_ours_is_not_dressed_up(compass: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "load_vectors", lambda *_, **__: None)
    assert isinstance(run("neighbors", compass, "east").exception, AttributeError)


def test_a_missing_file_is_named() -> None:
    refused(run("neighbors", "missing.txt", "word"), 1, "missing.txt: No such file")
    refused(run("train", "skipgram", "missing.txt", "-o", "o.txt"), 1, "missing.txt")


def test_warnings_are_one_line(text: Path, tmp_path: Path) -> None:
    before = text.read_bytes()
    text.write_bytes(before + b"\n\xff a0\n")
    program = "from firth.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(firth.__file__).parents[1])}
    command = [sys.executable, "-c", program, "train", "skipgram", text, "-o", tmp_path / "o.txt", "-q"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line = before.count(b"\n") + 2
    assert result.stderr == f"Warning: {text}: 1 invalid UTF-8 sequence was read as U+FFFD, in line {line}\n"


def test_a_closed_pipe_is_quiet(compass: Path) -> None:
    process = start("neighbors", compass, *COMPASS * 2000)
    assert process.stdout is not None
    assert process.stdout.readline() == "east\n"
    process.stdout.close()
    process.stdout = None
    assert process.communicate()[1] == ""
    assert process.returncode == 1


@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_is_one_line(compass: Path, buffered: bool) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        process = start("neighbors", compass, "east", stdout=full, buffered=buffered)
        assert process.communicate()[1] == "Error: No space left on device\n"
        assert process.returncode == 1


# ---- train


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "skipgram",
            {"window": 3, "negative": 4, "sample": 0.01, "ns_exponent": 0.5, "epochs": 2, "seed": 7, "threads": 1}
            | {"vector_size": 20, "learning_rate": 0.05, "min_learning_rate": 0.001},
            "words/s",
        ),
        (
            "glove",
            {"window": 3, "side": "left", "weighting": "flat", "x_max": 5.0, "alpha": 0.5, "clip_value": 10.0}
            | {"vector_size": 20, "learning_rate": 0.1, "output": "word", "epochs": 2, "seed": 7, "threads": 2},
            "non-zeros/s",
        ),
        (
            "ppmi",
            {"vector_size": 20, "window": 3, "side": "left", "weighting": "flat", "shift": 2.0, "positive": False},
            "",
        ),
        (
            "ppmi",
            {"vector_size": 19, "context_smoothing": 1.0, "eigenvalue_weighting": 0.0, "seed": 3, "threads": 2},
            "",
        ),
        ("lsa", {"vector_size": 18, "weighting": "tf-idf", "eigenvalue_weighting": 0.5, "seed": 3, "threads": 2}, ""),
    ],
)
def test_train_gives_the_librarys_vectors_and_model(
    text: Path, tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    """`said` is the unit of the lines about epochs, where there are epochs."""
    output, model = tmp_path / "o.safetensors", tmp_path / "o.model"
    flags = [item for key, value in options.items() for item in (model_options.flag(key), value) if item is not False]
    flags = ["--signed" if flag == "--positive" else flag for flag in flags]
    result = run("train", name, text, "-o", output, "--save-model", model, "--min-count", 3, *flags)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("4,000 words of text, 20 different")
    assert lines[-1] == f"Saved 20 vectors of {options['vector_size']} dimensions in {output}"
    assert [line.split(":")[0] for line in lines[1:-1]] == (["epoch 1 of 2", "epoch 2 of 2"] if said else [])
    assert all(line.endswith(said) for line in lines[1:-1])
    expected = MODELS[name](**options).fit(firth.Corpus.from_file(text, min_count=3))
    vectors = firth.load_vectors(output)
    assert vectors.words == expected.vectors.words
    np.testing.assert_array_equal(vectors.matrix, expected.vectors.matrix)
    assert firth.load(model).get_params() == expected.get_params()
    if not said:
        refused(run("train", name, text, "-o", output, "--checkpoint", tmp_path / "state"), 2, "--checkpoint")


@pytest.mark.parametrize("name", MODELS)
def test_every_option_of_the_model_is_there_with_its_default(name: str) -> None:
    parameters = {parameter.name: parameter for parameter in cli.train.commands[name].params}
    settled = {"skipgram": {"architecture", "cbow_mean"}, "cbow": {"architecture"}}.get(name, set())
    for field in dataclasses.fields(MODELS[name]):
        if field.name not in settled:
            assert parameters[field.name].default == field.default
    assert not settled & parameters.keys()
    assert parameters["min_count"].default == 5
    assert parameters["tokenizer"].default == "whitespace"


def test_train_learns(text: Path, tmp_path: Path) -> None:
    assert run("train", "skipgram", text, "-o", tmp_path / "o.txt", "--epochs", 50, "--threads", 1).exit_code == 0
    shown = run("neighbors", tmp_path / "o.txt", "a0", "-n", 9).stdout.split()[1::2]
    assert sorted(shown) == [f"a{i}" for i in range(1, 10)]


@pytest.mark.parametrize("name", ["o.txt", "o.vec", "o.bin", "o.glove", "o.safetensors", "o.txt.gz"])
def test_the_suffix_says_the_format(text: Path, tmp_path: Path, name: str) -> None:
    assert run("train", "skipgram", text, "-o", tmp_path / name, "--epochs", 1, "-q").exit_code == 0
    assert len(firth.load_vectors(tmp_path / name)) == 20
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", name}


def test_train_reads_several_files_and_standard_input(text: Path, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("Zebra zebra " * 50)
    common = ["-o", tmp_path / "o.txt", "--epochs", 1]
    assert "4,100 words of text" in run("train", "skipgram", text, tmp_path / "more.txt", *common).stderr
    assert "100 words of text, 2 diff" in run("train", "skipgram", "-", *common, stdin="Zebra zebra\n" * 50).stderr
    words = run("train", "skipgram", "-", *common, "--tokenizer", "words", stdin="Zebra, zebra.\n" * 50)
    assert "100 words of text, 1 diff" in words.stderr
    few = run("train", "skipgram", text, *common, "--max-size", 3)
    assert "Saved 3 vectors" in few.stderr


def test_train_takes_a_saved_corpus(text: Path, tmp_path: Path) -> None:
    saved = tmp_path / "text.corpus"
    firth.Corpus.from_file(text).save(saved)
    common = ["-o", tmp_path / "o.txt", "--epochs", 1]
    assert "4,000 words of text" in run("train", "skipgram", saved, *common).stderr
    refused(run("train", "skipgram", saved, *common, "--min-count", 2), 2, "--min-count", str(saved))
    refused(run("train", "skipgram", saved, text, *common), 2, str(saved))


def some_vectors(path: Path) -> Path:
    draw = np.random.default_rng(1)
    firth.Vectors([f"word{i}" for i in range(50)], draw.normal(size=(50, 10))).save(path)
    return path


@pytest.mark.parametrize("name", ["v.txt", "v.bin", "v.glove", "v.safetensors", "v.txt.gz"])
def test_train_refuses_vectors_as_text(text: Path, tmp_path: Path, name: str) -> None:
    path = some_vectors(tmp_path / name)
    for inputs in ([path], [text, path]):
        refused(run("train", "skipgram", *inputs, "-o", tmp_path / "o.txt"), 1, f"{path} holds vectors", "not text")


def test_counts_tell_the_model_how_they_were_made(text: Path, tmp_path: Path) -> None:
    corpus = firth.Corpus.from_file(text)
    counts, output, model = tmp_path / "counts", tmp_path / "o.safetensors", tmp_path / "o.model"
    firth.count_cooccurrences(corpus, window=3, side="left", weighting="flat").save(counts)
    common = ["train", "glove", counts, "-o", output, "-q"]
    assert run(*common, "--save-model", model).output == ""
    expected = firth.GloVe(window=3, side="left", weighting="flat").fit(corpus)
    np.testing.assert_array_equal(firth.load_vectors(output).matrix, expected.vectors.matrix)
    assert {**firth.load(model).get_params(), "threads": None} == expected.get_params()
    for option in (["--window", 3], ["--side", "left"], ["--weighting", "flat"], ["--tokenizer", "words"]):
        refused(run(*common, *option), 2, f"{option[0]} was settled when the counts in {counts} were made")
    found = firth.load(counts)
    firth.Cooccurrences(found.csr, found.vocabulary).save(tmp_path / "unknown")
    assert run("train", "glove", tmp_path / "unknown", "-o", output, "-q", "--save-model", model).output == ""
    assert firth.load(model).get_params()["window"] == 10


def test_train_on_counts_goes_on_from_a_checkpoint(text: Path, tmp_path: Path) -> None:
    firth.count_cooccurrences(firth.Corpus.from_file(text)).save(tmp_path / "counts")
    common = ["train", "glove", tmp_path / "counts", "-o", tmp_path / "o.txt", "--checkpoint", tmp_path / "state", "-q"]
    assert run(*common).output == ""
    refused(run(*common), 1, "--resume")
    assert run(*common, "--resume").output == ""
    firth.count_cooccurrences(firth.Corpus.from_file(text), window=2).save(tmp_path / "counts")
    refused(run(*common, "--resume"), 1, "window was 10, is 2; the data differ")


def test_train_takes_saved_counts(text: Path, tmp_path: Path) -> None:
    corpus = firth.Corpus.from_file(text)
    counts, output, model = tmp_path / "counts", tmp_path / "o.safetensors", tmp_path / "o.model"
    firth.count_cooccurrences(corpus, window=3, side="left", weighting="flat").save(counts)
    common = ["train", "ppmi", "-o", output, "--save-model", model, "--vector-size", 20, "--threads", 1]
    result = run(*common, counts)
    assert result.exit_code == 0, result.output
    assert result.stderr == f"200 pairs of 20 words\nSaved 20 vectors of 20 dimensions in {output}\n"
    expected = firth.PPMI(vector_size=20, window=3, side="left", weighting="flat", threads=1).fit(corpus)
    np.testing.assert_array_equal(firth.load_vectors(output).matrix, expected.vectors.matrix)
    assert firth.load(model).get_params() == expected.get_params()
    assert run(*common, counts, "-q").output == ""
    refused(run(*common, counts, "--min-count", 2), 2, f"--min-count was settled when the counts in {counts} were made")
    refused(run(*common, counts, text), 2, f"{counts} holds saved counts, which stand alone")
    refused(run(*common, counts, "--save-model", counts), 2, f"{counts} is an input of this command")


@pytest.mark.parametrize("name", ["skipgram", "lsa"])
def test_train_refuses_counts_where_text_is_wanted(text: Path, tmp_path: Path, name: str) -> None:
    firth.count_cooccurrences(firth.Corpus.from_file(text)).save(tmp_path / "counts")
    result = run("train", name, tmp_path / "counts", "-o", tmp_path / "o.txt")
    refused(result, 1, f"counts holds counts, not text: firth train {name} takes the text itself")


def test_train_refuses_a_model_as_text(text: Path, tmp_path: Path) -> None:
    common = ["train", "skipgram", "-o", tmp_path / "o.txt", "-q", "--epochs", 1]
    assert run(*common, text, "--save-model", tmp_path / "text.model").exit_code == 0
    refused(run(*common, tmp_path / "text.model"), 1, "text.model holds vectors")


@pytest.mark.parametrize(
    "line",
    [
        "1 22 333 4 5 6 7 8 9 10 11 12",  # a walk over numbered nodes
        "noon 0.5",  # a table
        "10 12\nIt was the best of times, it was the worst of times, and so on and on; see 3.",
        "5 999999999\nAll of it is text",
    ],
)
def test_text_that_looks_like_vectors_is_text(tmp_path: Path, line: str) -> None:
    (tmp_path / "text.txt").write_text(f"{line}\n" * 30)
    result = run("train", "skipgram", tmp_path / "text.txt", "-o", tmp_path / "o.txt", "--epochs", 1)
    assert result.exit_code == 0, result.output


def test_one_of_a_thing_is_no_plural(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("1 1\nword 0.5\n")
    assert "Saved 1 vector of 1 dimension in" in run("convert", tmp_path / "one.txt", tmp_path / "o.txt").stderr
    assert "not among the 1 word of" in run("neighbors", tmp_path / "o.txt", "other").stderr
    assert [common.counted(n, "pass", "passes") for n in (0, 1, 1000)] == ["0 passes", "1 pass", "1,000 passes"]


def test_quiet_says_nothing(text: Path, tmp_path: Path) -> None:
    result = run("train", "skipgram", text, "-o", tmp_path / "o.txt", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("command", "which"),
    [
        ("train skipgram", "-o"),
        ("train skipgram -o o.txt", "--save-model"),
        ("count", "-o"),
        ("count", "--glove"),
        ("count --glove records", "--glove-vocab"),
        ("phrases", "-o"),
        ("phrases -o o", "--save-phrases"),
    ],
)
def test_an_output_that_cannot_be_is_found_before_reading(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, which: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(firth.Corpus, "from_file", lambda *_, **__: pytest.fail("read the text first"))
    begin, missing, folder = command.split(), tmp_path / "missing" / "o.txt", tmp_path / "folder.txt"
    refused(run(*begin, text, which, missing), 1, str(missing), "no folder")
    refused(run(*begin, text, which, text), 2, f"{text} is an input of this command")
    refused(run(*begin, text, tmp_path / "other", which, "p.txt"), 1, "other: No such file")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    folder.mkdir()
    refused(run(*begin, text, which, folder), 1, f"{folder} is a folder")


def test_vectors_whose_format_cannot_be_are_found_before_training(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firth.Corpus, "from_file", lambda *_, **__: pytest.fail("read the text first"))
    refused(run("train", "skipgram", text, "-o", tmp_path), 2, str(tmp_path))
    refused(run("train", "skipgram", text, "-o", tmp_path / "o.bin.xz"), 1, f"cannot write {tmp_path / 'o.bin.xz'}")


def test_a_folder_that_is_not_ours_is_found_before_training(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "elsewhere")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setattr(firth.Corpus, "from_file", lambda *_, **__: pytest.fail("read the text first"))
    output = tmp_path / "o.txt"
    refused(run("train", "skipgram", text, "-o", output), 1, f"cannot write {output}: Permission denied")


def test_a_text_is_never_overwritten_by_its_vectors(text: Path, tmp_path: Path) -> None:
    before = text.read_bytes()
    other = tmp_path / "o.txt"
    for arguments in (["-o", text], ["-o", other, "--save-model", text], ["-o", tmp_path / "." / text.name]):
        refused(run("train", "skipgram", other, text, *arguments), 2, str(text))
    refused(run("demo", text, "-o", text), 2, str(text))
    assert text.read_bytes() == before


def test_an_old_checkpoint_is_found_before_training(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["train", "skipgram", text, "-o", tmp_path / "o.txt", "--checkpoint", tmp_path / "state", "-q"]
    assert run(*common, "--epochs", 1).exit_code == 0
    assert run(*common, "--epochs", 1, "--resume").exit_code == 0
    refused(run(*common, "--epochs", 2, "--resume"), 1, "epochs was 1, is 2")
    monkeypatch.setattr(firth.Corpus, "from_file", lambda *_, **__: pytest.fail("read the text first"))
    refused(run(*common, "--epochs", 1), 1, str(tmp_path / "state"), "--resume")


def test_a_checkpoint_that_cannot_be_is_found_before_training(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firth.Corpus, "from_file", lambda *_, **__: pytest.fail("read the text first"))
    common = ["train", "skipgram", "-o", tmp_path / "o.txt", "--checkpoint"]
    refused(run(*common, text, text), 1, str(text), "File exists")
    refused(run(*common, tmp_path / "state", "missing.txt"), 1, "missing.txt")
    assert not (tmp_path / "state").exists()


def interrupt(*arguments: object, after: str = "epoch 2 of") -> list[str]:
    """The lines of a training from that one on, at which Ctrl-C is pressed."""
    with start("train", *arguments, "--threads", 1) as process:
        assert process.stderr is not None
        first = next((line for line in process.stderr if line.startswith(after)), "")
        process.send_signal(signal.SIGINT)
        lines = [first, *process.stderr]
        assert process.wait(60) == 130, lines
    return lines


def test_ctrl_c_says_what_was_kept_and_how_to_go_on(text: Path, tmp_path: Path) -> None:
    text.write_text(text.read_text() * 30)
    output, state = tmp_path / "o.txt", tmp_path / "state"
    common = ("skipgram", text, "-o", output, "--epochs", 3000)
    said = "".join(interrupt(*common))
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("Interrupted in epoch ")
    assert "--checkpoint" in said
    said = interrupt(*common, "--checkpoint", state)[-1]
    assert str(state) in said
    assert "--resume" in said
    assert not output.exists()
    assert int(interrupt(*common, "--checkpoint", state, "--resume", after="epoch ")[0].split()[1]) > 2


def test_a_classifier_resumes_and_is_the_same(tmp_path: Path, labeled: Path) -> None:
    """Its file in fastText's format, which has no history, to the byte."""
    whole, output, state = tmp_path / "whole.bin", tmp_path / "o.bin", tmp_path / "state"
    labeled.write_text(labeled.read_text() * 20)
    common = ("classifier", labeled, "--fasttext", "--vector-size", 8, "--epochs", 60)
    assert run("train", *common, "-o", whole, "--threads", 1, "-q").exit_code == 0
    resumable = (*common, "-o", output, "--checkpoint", state)
    assert interrupt(*resumable)[-1].startswith("Interrupted in epoch ")
    assert not output.exists()
    refused(run("train", *resumable), 1, "is left from an earlier run: add --resume")
    refused(run("train", *common, "-o", output, "--resume"), 2, "--resume needs --checkpoint")
    result = run("train", *resumable, "--resume", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "epoch 2 of" not in result.stderr
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("flags", [[], ["--deterministic"], ["--no-deterministic"]])
def test_flags_for_yes_and_no(text: Path, tmp_path: Path, flags: list[str]) -> None:
    output, model = tmp_path / "o.safetensors", tmp_path / "o.model"
    common = ["train", "skipgram", text, "-o", output, "--save-model", model, "--epochs", 1, "-q"]
    assert run(*common, *flags, "--threads", 2).output == ""
    assert firth.load(model).deterministic == (flags == ["--deterministic"])
    if flags == ["--deterministic"]:
        before = firth.load_vectors(output).matrix
        assert run(*common, *flags, "--threads", 1).output == ""
        np.testing.assert_array_equal(firth.load_vectors(output).matrix, before)


# ---- count


def same_counts(a: firth.Cooccurrences, b: firth.Cooccurrences) -> bool:
    return a.vocabulary.words == b.vocabulary.words and all(
        getattr(a.csr, part).tobytes() == getattr(b.csr, part).tobytes() for part in ("data", "indices", "indptr")
    )


def test_count_writes_the_librarys_counts(text: Path, tmp_path: Path) -> None:
    output, records, words = tmp_path / "o.counts", tmp_path / "cooccurrence.bin", tmp_path / "vocab.txt"
    options = {"window": 3, "side": "left", "weighting": "dynamic", "threads": 2}
    flags = [item for name, value in options.items() for item in (f"--{name}", value)]
    result = run("count", text, "-o", output, "--glove", records, "--glove-vocab", words, "--max-size", 15, *flags)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    corpus = firth.Corpus.from_file(text, max_size=15)
    expected = firth.count_cooccurrences(corpus, **options)  # type: ignore[arg-type]
    found = firth.load(output)
    assert same_counts(found, expected)
    assert (found.window, found.side, found.weighting) == (3, "left", "dynamic")
    assert same_counts(firth.Cooccurrences.from_glove(records, corpus.vocabulary), expected)
    pairs = zip(corpus.vocabulary.words, corpus.vocabulary.counts, strict=True)
    assert words.read_text() == "".join(f"{word} {count}\n" for word, count in pairs)
    assert "4,000 words of text, 20 different" in result.stderr
    assert f"Saved {expected.csr.nnz} pairs of 15 words in {output} and {records}\n" in result.stderr


def test_count_has_the_librarys_defaults(text: Path, tmp_path: Path) -> None:
    assert run("count", text, "-o", tmp_path / "o", "-q").output == ""
    assert same_counts(firth.load(tmp_path / "o"), firth.count_cooccurrences(firth.Corpus.from_file(text)))


def test_count_for_glove_alone(text: Path, tmp_path: Path) -> None:
    assert run("count", text, "--glove", tmp_path / "records", "-q").output == ""
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "records"}


def test_count_for_glove_into_a_pipe(text: Path, tmp_path: Path) -> None:
    """As GloVe's cooccur writes, for its shuffle to read."""
    assert run("count", text, "--glove", tmp_path / "records", "-q").output == ""
    reader, writer = os.pipe()
    with open(reader, "rb") as pipe:
        process = start("count", text, "--glove", f"/dev/fd/{writer}", "-q", pass_fds=[writer])
        os.close(writer)
        assert pipe.read() == (tmp_path / "records").read_bytes()
        assert process.communicate() == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("size", "n_bytes"),
    [("123456", 123456), ("100k", 102400), ("1.5M", 1572864), ("2GB", 2**31), ("4GiB", 2**32), ("1t", 2**40)],
)
def test_count_within_memory(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, n_bytes: int
) -> None:
    given = []

    def count(*arguments: object, memory: int, **options: object) -> firth.Cooccurrences:
        given.append(memory)
        return firth.count_cooccurrences(*arguments, memory=memory, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(text_commands, "count_cooccurrences", count)
    assert run("count", text, "-o", tmp_path / "o", "--memory", size).exit_code == 0
    assert given == [n_bytes]
    refused(run("count", text, "-o", tmp_path / "o", "--memory", "1k", "-q"), 1, "too little", "bytes")


def test_count_takes_a_saved_corpus_and_neither_counts_nor_vectors(text: Path, tmp_path: Path) -> None:
    corpus = firth.Corpus.from_file(text)
    corpus.save(tmp_path / "corpus")
    assert run("count", tmp_path / "corpus", "-o", tmp_path / "counts", "-q").output == ""
    assert same_counts(firth.load(tmp_path / "counts"), firth.count_cooccurrences(corpus))
    more = ["-o", tmp_path / "o"]
    refused(run("count", tmp_path / "corpus", *more, "--min-count", 2), 2, "--min-count was settled when the corpus")
    refused(run("count", tmp_path / "counts", *more), 1, "holds counts, not text: firth count takes the text")
    refused(run("count", some_vectors(tmp_path / "v.txt"), *more), 1, "holds vectors")
    assert not (tmp_path / "o").exists()


def test_words_that_glove_cannot_read_are_found_before_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firth.Corpus.from_iterable([["New York", "x"]], min_count=1).save(tmp_path / "corpus")
    monkeypatch.setattr(text_commands, "count_cooccurrences", lambda *_, **__: pytest.fail("counted first"))
    common = ["count", tmp_path / "corpus", "-q", "--glove", tmp_path / "records", "--glove-vocab", tmp_path / "v"]
    refused(run(*common), 1, "white space", "'New York'")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["count", "-o", "o"], "count_cooccurrences"), (["train", "ppmi", "-o", "o.txt"], "PPMI.fit")],
)
def test_ctrl_c_where_there_is_nothing_to_keep(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], what: str
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"firth.{what}" if "." in what else f"firth.cli.text.{what}", press)
    monkeypatch.chdir(tmp_path)
    result = run(*arguments, text, "-q")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "Interrupted.")
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("quiet", [False, True])
def test_bars_on_a_terminal(text: Path, tmp_path: Path, quiet: bool) -> None:
    import fcntl
    import termios

    mine, theirs = os.openpty()
    fcntl.ioctl(mine, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = start("count", text, "-o", tmp_path / "o", *["-q"] * quiet, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # which is how Linux says that the other end was closed
        while more := os.read(mine, 1 << 16):
            shown += more
    os.close(mine)
    assert process.communicate()[0] == ""
    assert process.returncode == 0
    assert (b"counting" in shown) == (b"Saved 200 pairs of 20 words" in shown) == (not quiet)
    assert bool(shown) != quiet


# ---- phrases


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Towns of two words, among words at random, and a bank with a word inside."""
    draw = random.Random(1)
    path = tmp_path / "places.txt"
    names = ["new york times", "los angeles", "bank of america"]
    with path.open("w") as file:
        for _ in range(600):
            file.write(" ".join([draw.choice(names), *(f"w{draw.randrange(50)}" for _ in range(4)), "of"]) + "\n")
    return path


def same_corpus(a: firth.Corpus, b: firth.Corpus) -> bool:
    return a.vocabulary.words == b.vocabulary.words and a.ids.tolist() == b.ids.tolist() and a.report == b.report


def test_phrases_writes_the_librarys_corpus_and_phrases(places: Path, tmp_path: Path) -> None:
    output, kept = tmp_path / "o.corpus", tmp_path / "o.phrases"
    flags = ["--passes", 2, "--threshold", 0.6, "--connectors", "of the", "--delimiter", "+", "--threads", 2]
    more = ["--min-phrase-count", 7, "--min-count", 40, "--max-size", 30, "--memory", "10M", "-n", 3]
    result = run("phrases", places, "-o", output, "--save-phrases", kept, *flags, *more)
    assert result.exit_code == 0, result.output
    corpus = firth.Corpus.from_file(places, min_count=1)
    learner = firth.Phrases(min_count=7, threshold=0.6, connectors={"of", "the"}, delimiter="+", passes=2).fit(corpus)
    expected = learner.apply(corpus, min_count=40, max_size=30)
    assert same_corpus(firth.load(output), expected)
    assert list(firth.load(kept)) == list(learner)
    assert {"new+york+times", "los+angeles", "bank+of+america"} <= set(expected.vocabulary)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == 3
    assert {line[0] for line in lines} <= set(learner.scores)
    assert [int(line[2]) for line in lines] == sorted((one.count for one in learner), reverse=True)[:3]
    assert all(float(line[1]) == pytest.approx(learner.scores[line[0]], abs=6e-4) for line in lines)
    assert (
        f"Saved {expected.n_tokens:,} words, 30 different, in {output}, with {len(learner)} phrases\n" in result.stderr
    )


def test_phrases_has_the_librarys_defaults(places: Path, tmp_path: Path) -> None:
    assert run("phrases", places, "-o", tmp_path / "o", "-q").output == ""
    corpus = firth.Corpus.from_file(places, min_count=1)
    expected = firth.Phrases().fit(corpus).apply(corpus, min_count=5)
    assert same_corpus(firth.load(tmp_path / "o"), expected)
    assert run("phrases", places, "-o", tmp_path / "p", "-q", "--scoring", "word2phrase").output == ""
    expected = firth.Phrases(scoring="word2phrase").fit(corpus).apply(corpus, min_count=5)
    assert same_corpus(firth.load(tmp_path / "p"), expected)
    none = run("phrases", places, "-o", tmp_path / "p", "--threshold", 1)
    assert none.stdout == ""
    assert "with 0 phrases" in none.stderr
    assert run("phrases", places, "-o", tmp_path / "p", "-n", 0).stdout == ""


def test_train_takes_a_corpus_with_phrases(places: Path, tmp_path: Path) -> None:
    assert run("phrases", places, "-o", tmp_path / "corpus", "-q").exit_code == 0
    options = ["--vector-size", 4, "--epochs", 1, "-q"]
    assert run("train", "skipgram", tmp_path / "corpus", "-o", tmp_path / "v.txt", *options).output == ""
    assert "los_angeles" in firth.load_vectors(tmp_path / "v.txt")


def test_phrases_takes_a_saved_corpus_and_neither_counts_nor_vectors(places: Path, tmp_path: Path) -> None:
    corpus = firth.Corpus.from_file(places, min_count=1)
    corpus.save(tmp_path / "corpus")
    # Rare words are left out at the end, of a saved corpus too.
    assert run("phrases", tmp_path / "corpus", "-o", tmp_path / "o", "-q", "--min-count", 45).output == ""
    expected = firth.Phrases().fit(corpus).apply(corpus, min_count=45)
    assert same_corpus(firth.load(tmp_path / "o"), expected)
    more = ["-o", tmp_path / "none"]
    refused(run("phrases", tmp_path / "corpus", *more, "--tokenizer", "words"), 2, "--tokenizer was settled")
    firth.count_cooccurrences(corpus).save(tmp_path / "counts")
    refused(run("phrases", tmp_path / "counts", *more), 1, "holds counts, not text: firth phrases takes the text")
    refused(run("phrases", some_vectors(tmp_path / "v.txt"), *more), 1, "holds vectors")
    refused(run("phrases", places, *more, "--min-count", 1000, "-q"), 1, "no word", "min_count=1000")
    assert not (tmp_path / "none").exists()


# ---- queries


def test_neighbors(compass: Path) -> None:
    result = run("neighbors", compass, "east", "northwest", "-n", 2)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "east",
        "  northeast   0.707",
        "  southeast   0.707",
        "northwest",
        "  north   0.707",
        "  west    0.707",
    ]


def test_neighbors_of_sums_and_differences(compass: Path) -> None:
    result = run("neighbors", compass, "northeast", "--plus", "northwest", "--minus", "south", "-n", 1)
    assert result.stdout.splitlines() == ["northeast + northwest - south", "  north   1.000"]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_neighbors_of_words_from_standard_input(compass: Path, arguments: list[str]) -> None:
    words = "east north\n\nwest\n" * 300
    result = run("neighbors", compass, "-n", 1, *arguments, stdin=words)
    assert result.exit_code == 0
    assert result.stdout.split()[::3] == words.split()
    assert run("neighbors", compass, stdin="").stdout == ""


def test_neighbors_of_words_that_are_typed(compass: Path) -> None:
    """On a terminal each line is answered at once, and an unknown word ends nothing."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start("neighbors", compass, "-n", 1, stdin=theirs, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    os.write(ours, b"up\n")
    assert process.stdout.readline() == f"Word: not among the 8 words of {compass}: 'up'\n"
    os.write(ours, b"east\n")
    assert process.stdout.readline() == "Word: east\n"
    os.write(ours, b"\x04")
    assert process.stdout.read() == "  northeast   0.707\nWord: \n"
    assert process.wait(timeout=60) == 0
    process.stdout.close()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("suffix", ["model", "bin"])
def test_neighbors_of_unseen_words(tmp_path: Path, text: Path, suffix: str) -> None:
    out, model = tmp_path / "v.txt", tmp_path / f"my.{suffix}"
    options = ("--vector-size", 8, "--bucket", 1000, "--epochs", 1, "--min-n", 2, "--threads", 1, "-q")
    assert run("train", "fasttext", text, "-o", out, "--save-model", model, *FASTTEXT[suffix], *options).exit_code == 0
    whole = firth.load(model) if suffix == "model" else firth.FastText.from_fasttext(model)
    result = run("neighbors", model, "a1a2", "a1", "-n", 2)
    assert result.exit_code == 0
    assert result.stderr == "'a1a2' is out of vocabulary; using the vector composed of its character n-grams\n"
    found = [line.split()[0] for line in result.stdout.splitlines()]
    nearest = whole.vectors.neighbors(["a1a2", "a1"], topn=2)
    assert found == ["a1a2", *(word for word, _ in nearest[0]), "a1", *(word for word, _ in nearest[1])]
    assert run("neighbors", model, "a1", "--plus", "a1a2", "-n", 1).exit_code == 0
    assert run("analogy", model, "a1", "a1a2", "b1", "-n", 1).exit_code == 0
    refused(run("neighbors", model, "a1a2", "--limit", 20), 1, "not among the 20 words", "'a1a2'")
    refused(run("neighbors", out, "a1a2"), 1, "not among the 20 words", "'a1a2'")


def test_unknown_words_are_named_and_the_others_shown(compass: Path) -> None:
    refused(run("neighbors", compass, "up"), 1, "'up'", "8 words", str(compass))
    refused(run("neighbors", compass, "east", "--minus", "up"), 1, "'up'")
    refused(run("analogy", compass, "east", "north", "up"), 1, "'up'")
    for result in (
        run("neighbors", compass, "up", "east", "East", "-n", 1),
        run("neighbors", compass, "-n", 1, stdin="up\neast\nEast\n"),
    ):
        assert result.exit_code == 1
        assert result.stdout.splitlines() == ["east", "  northeast   0.707"]
        assert result.stderr == f"Error: not among the 8 words of {compass}: 'up', 'East' ('east' is)\n"


def test_limit_reads_the_first_vectors_alone(compass: Path) -> None:
    assert run("neighbors", compass, "east", "--limit", 3).stdout.split()[1::2] == ["northeast", "north"]


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogy(compass: Path, method: str) -> None:
    result = run("analogy", compass, "east", "northeast", "north", "-n", 1, "--method", method)
    vectors = firth.load_vectors(compass)
    ((word, score),) = vectors.analogy("east", "northeast", "north", topn=1, method=method)  # type: ignore[arg-type]
    assert result.stdout.splitlines() == ["east is to northeast as north is to", f"  {word}  {score:6.3f}"]


# ---- evaluate


def test_evaluate_tells_the_two_kinds_apart(compass: Path, tmp_path: Path) -> None:
    pairs, questions = tmp_path / "pairs.csv", tmp_path / "questions.txt"
    pairs.write_text("Word 1,Word 2,Mean score\neast,northeast,9\neast,north,5\neast,west,1\neast,up,3\n")
    questions.write_text(
        ": turn\nnorth northwest east northeast\nnorth northwest south southwest\nnorth northwest up down\n: none\n"
    )
    result = run("evaluate", compass, pairs, questions)
    assert result.exit_code == 0, result.output
    answers = firth.evaluate.analogies(firth.load_vectors(compass), questions)
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["measure", "asked", "known", "coverage", "score"],
        ["pairs.csv", "rank", "correlation", "4", "3", "75.0%", "1.000"],
        ["questions.txt", "right", "answers", "3", "2", "66.7%", f"{answers.accuracy:.1%}"],
        ["turn", "3", "2", "66.7%", f"{answers.accuracy:.1%}"],
        ["none", "0", "0", "-", "-"],
    ]
    assert len({len(line) for line in result.stdout.splitlines()}) == 1  # the last column is flush right


@pytest.mark.parametrize("suffix", ["model", "bin"])
def test_evaluate_composes_what_a_subword_model_can(tmp_path: Path, suffix: str) -> None:
    corpus = firth.Corpus.from_iterable([["ships", "sail"], ["ships", "sank"]] * 9, min_count=1)
    model = firth.FastText(vector_size=8, sample=0, bucket=1000, threads=1, epochs=1).fit(corpus)
    model.save(tmp_path / "m.model")
    model.to_fasttext(tmp_path / "m.bin")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("ships sail 3\nSailing ships 2\nsanking sinking 1\n")
    result = run("evaluate", tmp_path / f"m.{suffix}", pairs)
    assert result.exit_code == 0, result.output
    score = firth.evaluate.similarity(model.vectors, pairs).spearman
    assert result.stdout.splitlines()[1].split() == [
        "pairs.txt",
        "rank",
        "correlation",
        "3",
        "3",
        "100.0%",
        f"{score:.3f}",
    ]
    assert "2 of the 3 known pairs have an out-of-vocabulary word" in result.stderr
    limited = run("evaluate", tmp_path / f"m.{suffix}", pairs, "--limit", 2)
    assert limited.stdout.splitlines()[1].split()[3:5] == ["3", "1"]


def test_evaluate_on_nothing_known(compass: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("# none\nup down 3\n")
    assert run("evaluate", compass, tmp_path / "pairs.txt").stdout.split()[-1] == "-"


def test_evaluate_refuses_other_files_before_it_reads_vectors(compass: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("up down 3\n")
    (tmp_path / "prose.txt").write_text("This is neither of the two kinds\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "questions.txt").write_text("man king woman queen\n")
    for name, said in (
        ("prose.txt", "line 1 should be two words and a score"),
        ("empty.txt", "neither pairs of words with scores nor analogies"),
        ("questions.txt", "line ': section'"),
    ):
        refused(run("evaluate", "missing.txt", tmp_path / "pairs.txt", tmp_path / name), 1, name, said)


def test_evaluate_real_gold_standards(data: Path) -> None:
    for path in sorted((data / "similarity").glob("*.txt")):
        assert isinstance(firth.evaluate.read_gold(path), list)
    assert isinstance(firth.evaluate.read_gold(data / "questions-words.txt"), dict)


# ---- convert


def test_convert(compass: Path, tmp_path: Path) -> None:
    result = run("convert", compass, tmp_path / "o.bin", "--limit", 5)
    assert result.exit_code == 0
    assert "Saved 5 vectors of 2 dimensions" in result.stderr
    assert (tmp_path / "o.bin").read_bytes().startswith(b"5 2\neast ")
    assert (
        run("convert", tmp_path / "o.bin", tmp_path / "o", "--from", "word2vec-binary", "--to", "glove").exit_code == 0
    )
    assert (tmp_path / "o").read_text().splitlines()[0].split() == ["east", "1", "0"]
    assert firth.load_vectors(tmp_path / "o").words == COMPASS[:5]


def test_convert_reads_standard_input_and_writes_standard_output(compass: Path, tmp_path: Path) -> None:
    data = compass.read_bytes()
    for packed in (data, gzip.compress(data)):
        result = run("convert", "-", tmp_path / "o.txt", stdin=packed)
        assert result.exit_code == 0, result.output
        assert (tmp_path / "o.txt").read_bytes() == data
    run("convert", compass, tmp_path / "o.bin")
    result = run("convert", tmp_path / "o.bin", "-")
    assert result.stdout.encode() == data
    assert "8 vectors of 2 dimensions on standard output" in result.stderr
    assert run("convert", "-", "-", "--to", "glove", stdin=data).stdout.encode() == data.split(b"\n", 1)[1]
    refused(run("convert", compass, "-", "--to", "safetensors"), 2, "standard output takes only text")
    refused(run("convert", "-", tmp_path / "o.txt", stdin=b""), 1, "standard input is in none", "it is empty")
    refused(run("convert", "-", tmp_path / "o.txt", stdin=b"2 2\na 1 1\n"), 1, "standard input: the header promises 2")


def test_convert_does_not_overwrite_its_input(compass: Path, tmp_path: Path) -> None:
    data = compass.read_bytes()
    soft, hard = tmp_path / "soft.txt", tmp_path / "hard.txt"
    soft.symlink_to(compass)
    hard.hardlink_to(compass)
    for source, target in [(compass, compass), (compass, soft), (soft, compass), (compass, hard), (soft, hard)]:
        refused(run("convert", source, target), 2, f"{target} is an input of this command; write to another file")
    with compass.open() as stdin:
        process = start("convert", "-", compass, stdin=stdin)
        assert f"{compass} is an input of this command" in process.communicate()[1]
        assert process.returncode == 2
    assert compass.read_bytes() == data


def test_vectors_may_come_from_a_pipe(compass: Path, tmp_path: Path) -> None:
    assert run("neighbors", "-", "east", "-n", 1, stdin=compass.read_bytes()).stdout.startswith("east\n")
    assert run("analogy", "-", "east", "west", "north", stdin=compass.read_bytes()).exit_code == 0
    (tmp_path / "gold").write_text("east west 0\neast northeast 1\n")
    assert "2      2" in run("evaluate", "-", tmp_path / "gold", stdin=compass.read_bytes()).stdout
    said = run("evaluate", compass, "-", stdin=gzip.compress(b"\xef\xbb\xbf: one\neast west north south\n")).stdout
    assert "standard input  right answers      1" in said
    refused(run("evaluate", compass, "-", stdin=b"east west\n"), 1, "standard input, line 1 should be two words and")
    refused(run("evaluate", "-", "-"), 2, "standard input can be only one of the files")
    refused(run("neighbors", "-", stdin=compass.read_bytes()), 2, "cannot hold both the vectors and the words")
    refused(run("neighbors", "-", "up", stdin=compass.read_bytes()), 1, "of standard input: 'up'")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(compass.read_bytes()))
    writer.start()
    assert run("neighbors", pipe, "east", "-n", 1).stdout.startswith("east\n")
    writer.join()


def test_words_and_texts_of_standard_input_may_be_compressed(compass: Path) -> None:
    plain = run("neighbors", compass, stdin=b"\xef\xbb\xbfeast\nnorth\n")
    assert plain.stdout.count("\n") > 4
    assert plain.exit_code == 0
    assert run("neighbors", compass, stdin=gzip.compress(b"east\nnorth\n")).stdout == plain.stdout
    refused(run("neighbors", compass, stdin="east\n".encode("utf-16")), 1, "standard input is UTF-16; convert it")


def test_output_that_cannot_be_standard_output_is_refused(text: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["count", text, "-o", "-"],
        ["count", text, "--glove", "-"],
        ["phrases", text, "-o", "-"],
        ["phrases", text, "-o", "x", "--save-phrases", "-"],
        ["train", "skipgram", text, "-o", "x.txt", "--save-model", "-"],
        ["train", "skipgram", text, "-o", "x.txt", "--checkpoint", "-"],
        ["train", "classifier", text, "-o", "-"],
        ["quantize", text, "-o", "-"],
        ["encode", tmp_path, "-o", "-"],
        ["attention-map", tmp_path, "a", "-o", "-"],
        ["demo", "-o", "-"],
        *([["train", name, text, "-o", "-"] for name in CONTEXTUAL] if HAS_TORCH else []),
    ):
        refused(run(*arguments), 2, "- means standard output, which takes only text; give a name")
    assert [path.name for path in tmp_path.iterdir()] == [text.name]


def test_vectors_and_glove_s_vocabulary_can_go_to_standard_output(text: Path, tmp_path: Path) -> None:
    common = ("--epochs", 1, "--vector-size", 3, "--threads", 1)
    result = run("train", "skipgram", text, "-o", "-", *common, "--save-model", tmp_path / "m")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("20 3\n")
    assert result.stdout.count("\n") == 21
    result = run("count", text, "--glove", tmp_path / "c", "--glove-vocab", "-", "-q")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.split()) == 40
    assert not Path("-").exists()


CLOSED_SCRIPT = """
import json, os, sys
from firth.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as error:
        codes.append(error.code)
for number in range(3):
    os.fstat(number)  # so that no file that is opened later has its number
with open("codes", "w") as file:
    json.dump(codes, file)
"""


@pytest.mark.parametrize("closed", [(2,), (1,), (0,), (0, 1, 2)])
def test_commands_work_with_closed_standard_streams(
    text: Path, compass: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    commands = {
        ("train", "skipgram", text, "-o", "v.txt", "--epochs", 1, "--vector-size", 3): 0,
        ("count", text, "-o", "counts"): 0,
        ("phrases", text, "-o", "corpus"): 0,
        ("demo", text, "-o", "d.txt", "--epochs", 1): 0,
        ("neighbors", compass, "east"): 0,
        ("convert", compass, "c.bin"): 0,
        ("convert", compass, "-"): 1 if 1 in closed else 0,
        ("neighbors", compass): 1 if 0 in closed else 0,
        ("train", "skipgram", "missing", "-o", "v.txt"): 1,
        ("--version",): 0,
    }
    given = json.dumps([list(map(str, arguments)) for arguments in commands])
    shell = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {shell}', sys.executable, CLOSED_SCRIPT, given]
    process = subprocess.run(command, check=False, capture_output=True, text=True, input="", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "codes").read_text()) == list(commands.values())
    said = "Error: standard input: it is closed" in process.stderr, "standard output is closed" in process.stderr
    assert said == ((0 in closed and 2 not in closed), (1 in closed and 2 not in closed))
    assert (tmp_path / "v.txt").read_text().startswith("20 3\n")
    assert (tmp_path / "c.bin").read_bytes().startswith(b"8 2\neast ")


# ---- demo


def test_demo_on_a_file(tmp_path: Path) -> None:
    draw = random.Random(1)
    nouns = ["wolf", "bird", "tree", "lake", "road", "barn", "hill", "farm", "star", "moon", "boat", "rope"]
    lines = []
    for _ in range(3000):
        noun = draw.choice(nouns)
        lines.append(f"One {noun} is here." if draw.random() < 0.5 else f"Many {noun}s are there!")
    (tmp_path / "my text.txt").write_text("\n".join(lines))
    output = tmp_path / "the vectors.bin"
    result = run("demo", tmp_path / "my text.txt", "-o", output, "--epochs", 5)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    for title in ("Text", "Training", "Neighbors", "A direction", "Analogies", "Saved"):
        assert f"\n{title}" in result.stdout
    assert "5 passes" in result.stdout
    assert "12,000 words" in result.stdout
    assert f"firth neighbors '{output}' " in result.stdout
    assert "in 6 of 6 such pairs" in result.stdout
    assert len(firth.load_vectors(output)) == 30


def test_demo_without_pairs_of_words(tmp_path: Path) -> None:
    (tmp_path / "o.txt").write_text("ein Satz ohne viel\n" * 20)
    result = run("demo", tmp_path / "o.txt", "-o", tmp_path / "v.txt", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "A direction" not in result.stdout
    assert "short text" in result.stdout
    assert len(firth.load_vectors(tmp_path / "v.txt")) == 4


def test_demo_replaces_its_own_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("ein Satz ohne viel\n" * 20)
    some_vectors(Path("mine.txt"))
    before = Path("mine.txt").read_bytes()
    refused(run("demo", "my.txt", "-o", "mine.txt", "--epochs", 1), 1, "mine.txt is there already")
    assert Path("mine.txt").read_bytes() == before
    for _ in range(2):
        assert run("demo", "my.txt", "--epochs", 1).exit_code == 0
    assert len(firth.load_vectors("firth-demo.txt")) == 4


def test_demo_refuses_before_it_reads(tmp_path: Path) -> None:
    refused(run("demo", "-o", tmp_path / "missing" / "v.txt"), 1, "no folder")
    refused(run("demo", "-o", tmp_path / "v.txt", "--epochs", 0), 2, "--epochs")
    refused(run("demo", tmp_path / "v.xyz", "-o", "v.xyz"), 2, "v.xyz")


def test_demo_on_the_documentation_of_python(tmp_path: Path) -> None:
    if not any(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        pytest.skip("this Python has no sources of its standard library")
    process = start("demo", "-o", "v.txt", "--epochs", "2", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (0, "")
    assert "docstrings of the" in stdout
    assert {"list", "file", "function"} <= set(firth.load_vectors(tmp_path / "v.txt").words)


def test_documentation_says_what_is_lacking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda _: "/nowhere")
    with pytest.raises(ValueError, match="no documentation"):
        demo.python_documentation(False)
    assert "no pydoc_data" in capsys.readouterr().out


def test_documentation_leaves_out_tests_and_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    for name in ("test/a.py", "site-packages/b.py", "kept/c.py", "kept/broken.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""Text of {name}."""\nclass A:\n    def f(self):\n        "Inner {name}."\n')
    (tmp_path / "kept/broken.py").write_text("def (\n")
    (tmp_path / "kept/warned.py").write_text("'''A bad escape: \\d.'''\n")
    assert demo.python_documentation(False) == ["Text of kept/c.py.", "Inner kept/c.py.", "A bad escape: \\d."]


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """Texts of two topics, each with its label."""
    draw = random.Random(1)
    path = tmp_path / "labeled.txt"
    topics = {"a": [f"a{i}" for i in range(10)], "b": [f"b{i}" for i in range(10)]}
    path.write_text("".join(f"__label__{t} {' '.join(draw.choices(topics[t], k=6))}\n" for t in "ab" * 100))
    return path


CLASSIFY = ("--vector-size", 8, "--learning-rate", 0.5, "--threads", 1, "-q")


@pytest.mark.parametrize("suffix", ["model", "bin"])
def test_classifier_from_text_to_labels(tmp_path: Path, labeled: Path, suffix: str) -> None:
    model = tmp_path / f"my.{suffix}"
    small = ("--bucket", 1000, "--word-ngrams", 2)
    assert run("train", "classifier", labeled, "-o", model, *FASTTEXT[suffix], *CLASSIFY, *small).exit_code == 0
    lines = tmp_path / "new.txt"
    lines.write_text("a1 a2 a3\nb1 b2\n__label__b a4 a5\n\n")
    for source in ((lines,), ()):
        result = run("predict", model, *source, stdin=lines.read_bytes())
        assert result.stdout.splitlines()[:3] == ["a", "b", "a"]
        assert len(result.stdout.splitlines()) == 4
    result = run("predict", model, lines, "-k", 2, "-p")
    first = result.stdout.splitlines()[0].split("\t")
    assert [cell.split()[0] for cell in first] == ["a", "b"]
    assert sum(float(cell.split()[1]) for cell in first) == pytest.approx(1, abs=2e-4)
    result = run("test", model, labeled, "--by-label")
    assert result.stdout.splitlines()[1].split() == ["all", "200", "100.0%", "100.0%", "100.0%"]
    assert [line.split()[:2] for line in result.stdout.splitlines()[2:]] == [["a", "100"], ["b", "100"]]
    for target in ("small.ftz", "small.model"):
        done = run(
            "quantize", model, "-o", tmp_path / target, *FASTTEXT[target[-3:]], "--cutoff", 20, "--retrain", labeled
        )
        assert done.exit_code == 0, done.stderr
        assert "2 labels" in done.stderr
        assert run("predict", tmp_path / target, lines).stdout.splitlines()[:2] == ["a", "b"]


@pytest.mark.parametrize("most", [1, 10_000])
def test_a_pipe_is_answered_line_by_line(
    tmp_path: Path, labeled: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    model = tmp_path / "my.model"
    assert run("train", "classifier", labeled, "-o", model, *CLASSIFY).exit_code == 0
    process = start("predict", model, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    for line, label in (("a1 a2\n", "a"), ("b1\n", "b"), ("b1 b2 b3\na1", "b")):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline() == f"{label}\n"  # while the pipe is open, and a line may have begun
    assert process.communicate()[0] == "a\n"
    monkeypatch.setattr(classify, "_TEXTS", most)
    lines = ["a1 a2", "", "b1", "b2 " * 5000] * 30
    for text in ("\n".join(lines), "\n".join([*lines, ""])):
        assert run("predict", model, stdin=text).stdout == "".join(
            f"{label}\n" for label in firth.load(model).predict(lines)
        )
    assert run("predict", model, stdin="").stdout == ""


def test_a_classifier_of_numbers_is_tested_on_a_file(tmp_path: Path, labeled: Path) -> None:
    texts, labels = zip(*((line[10:], int(line[9] == "b")) for line in labeled.read_text().splitlines()), strict=True)
    firth.FastTextClassifier(vector_size=8, learning_rate=0.5).fit(list(texts), list(labels)).save(tmp_path / "m")
    numbered = tmp_path / "numbered.txt"
    numbered.write_text(labeled.read_text().replace("__label__a", "__label__0").replace("__label__b", "__label__1"))
    result = run("test", tmp_path / "m", numbered)
    assert result.stdout.splitlines()[1].split() == ["all", "200", "100.0%", "100.0%", "100.0%"]


def test_classifier_tells_of_its_epochs(tmp_path: Path, labeled: Path) -> None:
    result = run("train", "classifier", labeled, "-o", tmp_path / "m", *CLASSIFY[:-1], "--validation", "0.2")
    assert "epoch 5 of 5: loss" in result.stderr
    assert "accuracy on the validation split 100.0%" in result.stderr
    assert "Saved a classifier of 2 labels" in result.stderr
    other = run("train", "classifier", labeled, "-o", tmp_path / "m", *CLASSIFY, "--validation", labeled)
    assert other.exit_code == 0


def test_classifier_refuses_bad_input(tmp_path: Path, labeled: Path, text: Path, compass: Path) -> None:
    out = tmp_path / "m"
    refused(run("train", "classifier", text, "-o", out), 1, "no line of", "__label__")
    refused(run("train", "classifier", tmp_path / "none", "-o", out), 1, "none")
    refused(run("train", "classifier", labeled, "-o", labeled), 2, "is an input of this command")
    for flag in ("--validation", "--pretrained-vectors"):
        (tmp_path / "v.txt").write_text("1 2\na 1 2\n")
        target = tmp_path / "v.txt"
        refused(run("train", "classifier", labeled, "-o", target, flag, target), 2, "is an input of this command")
    refused(run("train", "classifier", labeled, "-o", out, "--patience", 3), 1, "needs validation")
    refused(run("train", "classifier", labeled, "-o", out, "--min-n", 5, "--max-n", 2), 2, "--min-n")
    refused(run("predict", compass, labeled), 1)
    assert run("train", "skipgram", text, "-o", tmp_path / "v.txt", "--save-model", out, "--epochs", 1).exit_code == 0
    refused(run("predict", out, labeled), 1, "holds a Word2Vec, not a classifier")
    refused(run("test", out, labeled, "-k", 0), 2, "-k")


# ---- contextual models

needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch and tokenizers")
TINY = [
    "--layers=1",
    "--heads=2",
    "--dim=16",
    "--length=16",
    "--tokenizer=wordlevel",
    "--learning-rate=0.01",
    "--threads=1",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GPT and a BERT of a text in which one of eight words comes again and again."""
    folder = tmp_path_factory.mktemp("contextual")
    draw = random.Random(1)
    text = folder / "text.txt"
    text.write_text("\n".join(" ".join([f"w{draw.randrange(8)}"] * 40) for _ in range(100)))
    made = {"text": text}
    for name in ("gpt", "bert"):
        made[name] = folder / name
        result = run("train", name, text, "-o", made[name], *TINY, "--steps", 30 if name == "gpt" else 180)
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert f"step {30 if name == 'gpt' else 180}: loss " in result.stderr
        assert f"Saved <{name.upper()}(" in result.stderr
        assert " tokens, layers=1, heads=2, dim=16, length=16> in " in result.stderr
    return made


@needs_torch
def test_generate_prints_the_prompt_and_what_follows(folders: dict[str, Path]) -> None:
    shown = run("generate", folders["gpt"], "w3 w3 w3", "-n", 4, "--temperature", 0)
    assert shown.stdout == "w3 w3 w3 w3 w3 w3 w3\n"
    assert run("generate", folders["gpt"], "-n", 4, "--temperature", 0, stdin="w3 w3 w3").stdout == shown.stdout
    ended = run("generate", folders["gpt"], "w3 w3", "--temperature", 0, "--stop", "3")
    assert ended.stdout == "w3 w3 w\n"
    seeded = [run("generate", folders["gpt"], "w3", "--seed", 5, "--top-p", 0.9).stdout for _ in range(2)]
    assert seeded[0] == seeded[1]
    refused(run("generate", folders["gpt"], "w3", "--top-p", 7), 2, "--top-p must be at most 1")
    refused(run("generate", folders["bert"], "w3"), 1, "holds a BERT: this takes a GPT")
    refused(run("generate", folders["text"], "w3"), 1, "is not a folder")
    refused(run("generate", folders["gpt"], "w3", "--stop", ""), 2, "--stop must hold non-empty strings")
    refused(run("generate", folders["gpt"], "w3", "--device", "abacus"), 2, "--device must be one of torch's")


@needs_torch
def test_fill_mask_shows_pieces_and_probabilities(folders: dict[str, Path]) -> None:
    text = "w3 w3 [MASK] w3 w3"
    shown = run("fill-mask", folders["bert"], text, "-n", 2)
    lines = shown.stdout.splitlines()
    assert lines[0] == text
    assert lines[1].split()[0] == "w3"
    assert float(lines[1].split()[1]) > float(lines[2].split()[1])
    assert len(lines) == 3
    assert run("fill-mask", folders["bert"], "-n", 2, stdin=f"{text}\n\n").stdout == shown.stdout
    refused(run("fill-mask", folders["gpt"], text), 1, "holds a GPT: this takes a BERT")
    refused(run("fill-mask", folders["bert"], "w3"), 1, "no [MASK]: 'w3'")


@needs_torch
def test_encode_writes_a_row_a_line(folders: dict[str, Path], tmp_path: Path) -> None:
    from firth.contextual import load

    lines = ["w1 w2", "", "w3"]
    (tmp_path / "new.txt").write_text("\n".join(lines))
    out = tmp_path / "states.npy"
    for name in ("gpt", "bert"):
        result = run("encode", folders[name], tmp_path / "new.txt", "-o", out, "--normalize", "--layer", 0)
        assert "Saved 3 vectors of 16 dimensions" in result.stderr
        expected = load(folders[name]).encode(lines, pooling="mean", normalize=True, layer=0)
        np.testing.assert_array_equal(np.load(out), expected)
    for asked, layers in (("all", "all"), ("-1,0", [-1, 0])):
        result = run("encode", folders["gpt"], tmp_path / "new.txt", "-o", out, "--pooling", "last", f"--layer={asked}")
        assert "Saved 3 vectors of 16 dimensions for each of 2 layers" in result.stderr
        expected = load(folders["gpt"]).encode(lines, pooling="last", layer=layers)
        np.testing.assert_array_equal(np.load(out), expected)
    long = run("encode", folders["gpt"], "-o", out, stdin="w1 " * 50)
    refused(long, 2, "standard input, line 1 has 50 tokens", "--truncate=16")
    assert run("encode", folders["gpt"], "-o", out, "--truncate", 16, stdin="w1 " * 50).exit_code == 0
    refused(run("encode", folders["gpt"], "-o", tmp_path / "x.txt", stdin="w1"), 2, ".npy")
    refused(run("encode", folders["gpt"], "-o", out, "--layer", 9, stdin="w1"), 2, "--layer must be at most 1")
    refused(
        run("encode", folders["gpt"], "-o", out, "--layer", "last", stdin="w1"),
        2,
        "neither whole numbers nor all nor mixture",
    )
    refused(run("encode", folders["gpt"], "-o", out, "--layer", "mixture", stdin="w1"), 2, "for an ELMo", "a GPT")
    (tmp_path / "odd.txt").write_bytes(b"w1\nw\xff2\nw3 w3\n")
    with pytest.warns(UserWarning, match=r"odd\.txt: 1 invalid UTF-8 sequence was read as U\+FFFD"):
        list(firth.text.read_lines(tmp_path / "odd.txt"))


@needs_torch
def test_encode_pools_as_a_folder_of_sentence_transformers_says(folders: dict[str, Path], tmp_path: Path) -> None:
    from firth.contextual import load

    shutil.copytree(folders["bert"], tmp_path / "bert")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"name": path, "path": path, "type": f"sentence_transformers.models.{kinds[path]}"} for path in kinds]
    (tmp_path / "bert" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "bert" / "1_Pooling").mkdir()
    (tmp_path / "bert" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    model, lines = load(tmp_path / "bert"), ["w1 w2", "w3"]
    for options, pooling in ([], None), (["--pooling", "mean"], "mean"):
        result = run("encode", tmp_path / "bert", "-o", tmp_path / "x.npy", *options, stdin="\n".join(lines))
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), model.encode(lines, pooling=pooling))
    np.testing.assert_array_equal(model.encode(lines), model.encode(lines, pooling="cls"))


@needs_torch
def test_a_model_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such folder, a name is one of a repository; a path is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(run("generate", "gpt2", "w3"), 1, "no folder 'gpt2' here", "pip install 'firth[hub]'")
    refused(run("encode", tmp_path / "gpt2", "-o", "x.npy", stdin="w1"), 1, "gpt2 is not a folder with config.json")


@needs_torch
def test_a_classifier_s_folder_is_its_transformer_s(folders: dict[str, Path], tmp_path: Path) -> None:
    from firth.contextual import SentenceClassifier

    model = SentenceClassifier(encoder=firth.load(folders["gpt"]), epochs=10, learning_rate=1e-2)
    model.fit(["w1 w1", "w2 w2"] * 4, ["a", "b"] * 4).save(tmp_path / "tuned")
    assert run("encode", tmp_path / "tuned", "-o", tmp_path / "x.npy", stdin="w1 w3\nw2").exit_code == 0
    expected = firth.load(tmp_path / "tuned").encoder.encode(["w1 w3", "w2"], pooling="mean")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
    assert not np.array_equal(expected, firth.load(folders["gpt"]).encode(["w1 w3", "w2"], pooling="mean"))


@needs_torch
def test_elmo_is_trained_and_encodes(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny = ["--hidden=8", "--projection=4", "--character-dim=4", "--max-characters=8", "--steps=3", "--threads=1"]
    folder = tmp_path / "elmo"
    result = run("train", "elmo", folders["text"], "-o", folder, *tiny, "--softmax", "sampled", "--split", "words")
    assert result.exit_code == 0, result.output
    assert " words/s" in result.stderr
    model = firth.load(folder)
    assert (model.hidden, model.projection, model.softmax, model.split) == (8, 4, "sampled", "words")
    out = tmp_path / "states.npy"
    for layer, asked in ((), "mixture"), (("--layer", "mixture"), "mixture"), (("--layer", 1), 1):
        assert run("encode", folder, "-o", out, *layer, stdin="W1 w2, w3\n\n").exit_code == 0
        expected = model.encode(["W1 w2, w3"], layer=asked)[0].mean(0)
        np.testing.assert_array_equal(np.load(out), [expected, np.zeros(8)])
    for pooling, row in (("first", 0), ("last", 2)):
        assert (
            run("encode", folder, "-o", out, "--pooling", pooling, "--layer=all", stdin="W1 w2, w3\n\n").exit_code == 0
        )
        expected = model.encode(["W1 w2, w3"], layer="all")[0][:, row]
        np.testing.assert_array_equal(np.load(out), [expected, np.zeros((3, 8))])
    refused(run("attention-map", folder, "w1", "-o", tmp_path / "map.npz"), 1, "holds an ELMo: this takes a GPT or")
    refused(run("encode", folder, "-o", out, "--pooling", "cls", stdin="w1"), 2, "this is an ELMo")
    refused(run("encode", folder, "-o", out, "--device", "abacus", stdin="w1"), 2, "--device must be one of torch's")
    refused(run("train", "elmo", folders["text"], "-o", folder, "--device", "abacus"), 2, "--device must be")


@needs_torch
def test_attention_map_draws_and_writes_arrays(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "map.npz"
    assert run("attention-map", folders["bert"], "w1 w2", "-o", out, "--head", 1).exit_code == 0
    with np.load(out) as arrays:
        assert arrays["tokens"].tolist() == ["[CLS]", "w1", "w2", "[SEP]"]
        assert arrays["heads"].tolist() == [1]
        np.testing.assert_allclose(arrays["layer0"].sum(2), 1, atol=1e-5)
    refused(run("attention-map", folders["bert"], "w1", "-o", out, "--layer", 3), 1, "--layer must be at most 0")
    refused(run("attention-map", folders["bert"], "w1", "-o", tmp_path / "map.gif"), 2, "must end in")
    pytest.importorskip("matplotlib")
    result = run("attention-map", folders["bert"], "w1 w2", "-o", tmp_path / "map.svg", "--kind", "lines")
    assert "Saved 1 layer of 2 heads" in result.stderr
    assert "<svg" in (tmp_path / "map.svg").read_text()


@needs_torch
def test_contextual_training_is_checked_first(folders: dict[str, Path], tmp_path: Path) -> None:
    text, out = folders["text"], tmp_path / "out"
    refused(run("train", "gpt", text, "-o", out, "--heads", 3), 2, "--dim (256) must be a multiple of --heads (3)")
    refused(run("train", "gpt", text, "-o", text), 1, "is a file; a model is a folder")
    refused(run("train", "gpt", text, "-o", out / "deep"), 1, "there is no folder")
    refused(run("train", "gpt", tmp_path / "none.txt", "-o", out), 1, "none.txt")
    refused(run("train", "gpt", text, "-o", out, "--resume"), 2, "--resume needs --checkpoint")
    refused(run("train", "bert", text, "-o", out, "--tokenizer", "bpe"), 2, "no [MASK] token")
    refused(run("train", "gpt", "-", "-o", out, stdin="\n \n"), 1, "there is no text in standard input")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "checkpoint.safetensors").touch()
    left = run("train", "gpt", text, "-o", out, "--checkpoint", tmp_path / "state")
    refused(left, 1, "checkpoint.safetensors is left from an earlier run: add --resume")
    assert not out.exists()


@needs_torch
def test_contextual_options_are_all_there() -> None:
    """Those that are left out are made of more than a number, a choice or a flag, or compare implementations."""
    from firth import contextual

    left_out = {
        "tokenizer",
        "pretrained_vectors",
        "attention",
        "tied",
        "filters",
        "highway",
        "cell_clip",
        "projection_clip",
    }
    for name in CONTEXTUAL:
        kind = getattr(contextual, {"elmo": "ELMo"}.get(name, name.upper()))
        fields = {field.name for field in dataclasses.fields(kind)}
        offered = {option.name for option in cli.train.commands[name].params}
        assert fields - left_out <= offered, fields - left_out - offered
    shown = " ".join(run("train", "gpt", "--help").stdout.split())
    assert "Steps between two evaluations on the validation split. [default: (a twentieth of the steps)]" in shown
    assert "[default: (a tenth of --learning-rate)]" in shown


@needs_torch
def test_documents_end_at_blank_lines(tmp_path: Path) -> None:
    """With a state for lines, and with one for documents: they differ, and standard input is as the file."""
    text = tmp_path / "text.txt"
    text.write_text("w1 w2\nw3 w4\n\n" * 40)
    begin = ["train", "gpt", *TINY, "--steps", 2, "--documents"]
    for name, where, how in (("a", text, "blank_lines"), ("b", "-", "blank_lines"), ("c", text, "lines")):
        result = run(*begin, how, where, "-o", tmp_path / name, stdin=text.read_bytes())
        assert result.exit_code == 0, result.output
    rows = {name: firth.load(tmp_path / name).vectors.matrix for name in "abc"}
    assert (rows["a"] == rows["b"]).all()
    assert not np.array_equal(rows["a"], rows["c"])


@needs_torch
def test_contextual_training_starts_from_vectors_and_resumes(folders: dict[str, Path], tmp_path: Path) -> None:
    vectors = firth.Vectors([f"w{i}" for i in range(8)], np.random.default_rng(1).standard_normal((8, 16)))
    vectors.save(tmp_path / "vectors.txt")
    begin = ["train", "gpt", folders["text"], *TINY, "--steps", 5, "--pretrained-vectors", tmp_path / "vectors.txt"]
    state = ["--checkpoint", tmp_path / "state"]
    assert run(*begin, "-o", tmp_path / "a", "--embedding-mode", "frozen", *state, "-q").stderr == ""
    model = firth.load(tmp_path / "a")
    one, given = model.vectors["w1"], vectors["w1"]
    np.testing.assert_allclose(one / np.linalg.norm(one), given / np.linalg.norm(given), rtol=1e-5)
    again = run(*begin, "-o", tmp_path / "b", "--embedding-mode", "frozen", *state)
    refused(again, 1, "state")
    resumed = run(*begin, "-o", tmp_path / "b", "--embedding-mode", "frozen", *state, "--resume", "-q")
    assert resumed.exit_code == 0
    assert (firth.load(tmp_path / "b").vectors.matrix == model.vectors.matrix).all()


@needs_torch
def test_standard_input_is_learnt_from(folders: dict[str, Path], tmp_path: Path) -> None:
    result = run("train", "gpt", "-", "-o", tmp_path / "m", *TINY, "--steps", 30, stdin=folders["text"].read_bytes())
    assert result.exit_code == 0, result.output
    assert (firth.load(tmp_path / "m").vectors.matrix == firth.load(folders["gpt"]).vectors.matrix).all()
    result = run("train", "gpt", "-", "-o", tmp_path / "n", *TINY, stdin="the bank".encode("utf-16"))
    refused(result, 1, "Error: standard input is UTF-16; convert it: iconv -f UTF-16 -t UTF-8\n")


@needs_torch
def test_a_text_in_a_pipe_is_read_once_though_it_is_used_twice(folders: dict[str, Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(gzip.compress(folders["text"].read_bytes())))
    writer.start()
    result = run("train", "gpt", pipe, "-o", tmp_path / "m", *TINY, "--steps", 2)
    writer.join()
    assert result.exit_code == 0, result.output
