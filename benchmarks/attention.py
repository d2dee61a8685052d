"""Fused attention compared with PyTorch's `scaled_dot_product_attention` on the processor.

    python benchmarks/attention.py --quick                    a few sizes
    python benchmarks/attention.py                            everything; a quarter of an hour
    python benchmarks/attention.py --only float32,memory
    python benchmarks/attention.py --show results.json        the tables of an earlier run

Both sides take turns in one process on the same tensors until a second is over. Each call is timed, and figures are
medians. Every result is first compared with float64. README.md in this folder describes the sections.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

Run = dict[str, Any]

WIDTHS = (32, 64, 128)
# Length of the sequences, batches and heads: 4,096 or 8,192 queries in all.
SIZES = ((64, 8, 8), (128, 4, 8), (256, 2, 8), (512, 1, 8), (1024, 1, 8), (2048, 1, 4), (4096, 1, 2), (8192, 1, 1))
ONE_HEAD = ((64, 1, 1), (512, 1, 1), (2048, 1, 1))
QUICK = ((128, 4, 8), (1024, 1, 4))

# The peak rate of multiply-adds: sixteen independent sums of whole vectors.
PEAK = """
typedef float Vec __attribute__((vector_size(64)));
double multiply_add(long n) {
    Vec sum[16], a, b;
    for (int i = 0; i < 16; ++i) a[i] = 0.999f, b[i] = 0.001f;
    for (int i = 0; i < 16; ++i) sum[i] = a * (float)(i + 1);
    for (long j = 0; j < n; ++j) {
        for (int i = 0; i < 16; ++i) sum[i] = sum[i] * a + b;
    }
    float all = 0;
    for (int i = 0; i < 16; ++i) for (int l = 0; l < 16; ++l) all += sum[i][l];
    return all;
}
"""

# --- Measuring -------------------------------------------------------------------------------------------------------


def alternate(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median seconds of both sides, which take turns until the time is over, at least three times."""
    found: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found[0]) < 3:
        for side, work in zip(found, (ours, theirs), strict=True):
            start = time.perf_counter()
            work()
            side.append(time.perf_counter() - start)
    return common.median(found[0]), common.median(found[1])


def peak_gflops(threads: int) -> float | None:
    """Peak rate of this machine's multiply-adds, in GFLOP/s; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    import threading

    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(PEAK)
        subprocess.run(
            [compiler, "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", str(source), "-o", str(library)],
            check=True,
        )
        work = ctypes.CDLL(str(library)).multiply_add
        work.argtypes, work.restype = [ctypes.c_long], ctypes.c_double
        n, best = 20_000_000, math.inf
        for _ in range(5):
            start = time.perf_counter()
            all_threads = [threading.Thread(target=work, args=(n,)) for _ in range(threads)]
            for thread in all_threads:
                thread.start()
            for thread in all_threads:
                thread.join()
            best = min(best, time.perf_counter() - start)
    return threads * n * 16 * 16 * 2 / best / 1e9


def error(found: Any, exact: Any) -> float:
    """The largest difference, relative to the largest number."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


class Case:
    """One shape: tensors, and both sides' work on them."""

    def __init__(
        self, length: int, batch: int, heads: int, width: int, dtype: str, causal: bool, threads: int, **extra: Any
    ) -> None:
        import torch

        import firth

        self.torch, self.firth, self.threads = torch, firth, threads
        torch.manual_seed(0)
        kind = getattr(torch, dtype)
        self.tensors = [torch.randn(batch, heads, length, width).to(kind) for _ in range(4)]
        self.causal = causal
        self.flops = 4 * batch * heads * length * length * width * (0.5 if causal else 1)
        self.ours_extra = extra.get("ours", {})
        self.theirs_extra = extra.get("theirs", {})
        self.bias = extra.get("bias")

    def ours(self) -> Any:
        q, k, v, _ = self.tensors
        return self.firth.attention(q, k, v, causal=self.causal, threads=self.threads, **self.ours_extra)

    def theirs(self) -> Any:
        with self.torch.no_grad():
            q, k, v, _ = self.tensors
            return self.torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=self.causal, **self.theirs_extra
            )

    def ours_both(self) -> tuple[Any, ...]:
        q, k, v, moved = self.tensors
        options = {"causal": self.causal, "threads": self.threads, **self.ours_extra}
        out, lse = self.firth.attention(q, k, v, **options, return_lse=True)
        return out, *self.firth.attention_backward(moved, q, k, v, out, lse, **options)

    def theirs_both(self, exact: bool = False) -> tuple[Any, ...]:
        torch = self.torch
        leaves = [x.double() if exact else x for x in self.tensors[:3]]
        leaves = [x.detach().requires_grad_() for x in leaves]
        extra = dict(self.theirs_extra)
        if self.bias is not None:
            bias = (self.bias.double() if exact else self.bias).detach().requires_grad_()
            leaves.append(bias)
            extra["attn_mask"] = bias
        elif exact and "attn_mask" in extra and extra["attn_mask"].is_floating_point():
            extra["attn_mask"] = extra["attn_mask"].double()
        out = torch.nn.functional.scaled_dot_product_attention(*leaves[:3], is_causal=self.causal, **extra)
        out.backward(self.tensors[3].double() if exact else self.tensors[3])
        return out.detach(), *(leaf.grad for leaf in leaves)

    def errors(self) -> tuple[list[float], list[float]]:
        exact = self.theirs_both(exact=True)
        return tuple(
            [error(a, b) for a, b in zip(found, exact, strict=False)]
            for found in (self.ours_both(), self.theirs_both())
        )


def measure(case: Case, seconds: float, both: bool = True, check: bool = True) -> Run:
    """Seconds of both sides, forward and with backward, and their errors."""
    run: Run = {"flops": case.flops}
    if check:
        run["errors"], run["their_errors"] = case.errors()
    run["forward"], run["their_forward"] = alternate(case.ours, case.theirs, seconds)
    if both:
        run["both"], run["their_both"] = alternate(case.ours_both, case.theirs_both, seconds)
    return run


# --- The sections ----------------------------------------------------------------------------------------------------


def grid(settings: argparse.Namespace, dtype: str) -> list[Run]:
    """Every length, width, causal and full, many heads and one."""
    runs = []
    sizes = QUICK if settings.quick else SIZES + ONE_HEAD
    for width in WIDTHS:
        for length, batch, heads in sizes:
            for causal in (True, False):
                case = Case(length, batch, heads, width, dtype, causal, settings.threads)
                run = measure(case, settings.seconds, check=length <= 2048)
                runs.append({"width": width, "length": length, "batch": batch, "heads": heads, "causal": causal, **run})
                progress(dtype, runs[-1])
    return runs


def fallbacks(settings: argparse.Namespace) -> list[Run]:
    """Cases that PyTorch's fused kernel does not support: dropout, a bias with a gradient, padded batches."""
    import torch

    runs = []
    for length, batch, heads in (
        ((256, 2, 8), (1024, 1, 8)) if settings.quick else ((256, 4, 8), (1024, 1, 8), (2048, 1, 4))
    ):
        width = 64
        lengths = torch.linspace(length / 4, length, batch + 1).long()[1:]
        if batch == 1:
            lengths = torch.tensor([length // 2])
        visible = (torch.arange(length)[None] < lengths[:, None])[:, None, None].expand(batch, heads, length, length)
        bias = torch.randn(1, heads, length, length)
        kinds: dict[str, dict[str, Any]] = {
            "dropout": {"ours": {"dropout": 0.1}, "theirs": {"dropout_p": 0.1}},
            "bias with gradient": {"ours": {"bias": bias}, "theirs": {"attn_mask": bias}, "bias": bias},
            "lengths": {"ours": {"lengths": lengths}, "theirs": {"attn_mask": visible}},
        }
        for kind, extra in kinds.items():
            case = Case(length, batch, heads, width, "float32", False, settings.threads, **extra)
            # PyTorch drops other weights than firth, so results cannot be compared.
            run = measure(case, settings.seconds, check=kind != "dropout")
            runs.append({"kind": kind, "width": width, "length": length, "batch": batch, "heads": heads, **run})
            progress(kind, runs[-1])
    return runs


def decoding(settings: argparse.Namespace) -> list[Run]:
    """One query against a cache, in bytes read per second, and the rate at which memory can be summed."""
    import numpy as np
    import torch

    runs = []
    for length, key_heads, group in ((4096, 32, 1), (16384, 8, 1), (16384, 8, 4), (65536, 1, 4)):
        for dtype in ("float32", "bfloat16"):
            case = Case(length, 1, key_heads, 128, dtype, False, settings.threads)
            query = torch.randn(1, key_heads * group, 1, 128).to(case.tensors[0].dtype)
            case.tensors[0] = query
            case.theirs_extra = {"enable_gqa": True} if group > 1 else {}
            ours, theirs = alternate(case.ours, case.theirs, settings.seconds)
            size = 2 * case.tensors[1].numel() * case.tensors[1].element_size()
            runs.append(
                {"length": length, "key_heads": key_heads, "group": group, "dtype": dtype, "bytes": size}
                | {"forward": ours, "their_forward": theirs}
            )
            progress("decoding", runs[-1])
    block = np.ones((settings.threads, 1 << 25), np.float32)
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(settings.threads) as pool:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(np.add.reduce, block))
            seconds.append(time.perf_counter() - start)
    return [*runs, {"reading": block.nbytes / min(seconds)}]


def threads(settings: argparse.Namespace) -> list[Run]:
    """One head of 8,192 alone, on one thread and on all."""
    runs = []
    for causal in (True, False):
        one = Case(8192, 1, 1, 64, "float32", causal, 1)
        many = Case(8192, 1, 1, 64, "float32", causal, settings.threads)
        forward = alternate(many.ours, one.ours, settings.seconds)
        both = alternate(many.ours_both, one.ours_both, settings.seconds)
        runs.append({"causal": causal, "forward": forward, "both": both})
        progress("threads", {})
    return runs


def peak_bytes() -> int:
    """Peak memory since the peak was reset (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_memory(who: str, both: bool, length: int, threads: int) -> Run:
    """In a process of its own: what the work needs beyond its inputs and outputs, in bytes."""
    case = Case(length, 1, 1, 64, "float32", True, threads)
    small = Case(64, 1, 1, 64, "float32", True, threads)
    work = ("ours" if who == "firth" else "theirs") + ("_both" if both else "")
    getattr(small, work)()  # threads' stacks, and what libraries keep
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the memory in use now
    before = peak_bytes()
    getattr(case, work)()
    after = peak_bytes()
    outputs = (4 if both else 1) * length * 64 * 4
    return {"extra": after - before - outputs}


def memory(settings: argparse.Namespace) -> list[Run]:
    """Peak memory of one head of 8,192."""
    runs = []
    for both in (False, True):
        for who in ("firth", "torch"):
            arguments = {"who": who, "both": both, "length": 8192, "threads": settings.threads}
            run = common.run_fresh(__file__, "peak_memory", settings.threads, arguments)
            runs.append({"who": who, "both": both, "square": 8192 * 8192 * 4, **run})
            progress("memory", run)
    return runs


SECTIONS: dict[str, Callable[[argparse.Namespace], list[Run]]] = {
    "float32": lambda settings: grid(settings, "float32"),
    "bfloat16": lambda settings: grid(settings, "bfloat16"),
    "fallbacks": fallbacks,
    "decoding": decoding,
    "threads": threads,
    "memory": memory,
}


def progress(name: str, run: Run) -> None:
    shape = " ".join(f"{key}={value}" for key, value in run.items() if key in ("width", "length", "heads", "causal"))
    ratio = f" {run['their_forward'] / run['forward']:.2f}" if "their_forward" in run else ""
    ratio += f" {run['their_both'] / run['both']:.2f}" if "their_both" in run else ""
    print(f"{name} {shape}{ratio}", file=sys.stderr, flush=True)


# --- The tables ------------------------------------------------------------------------------------------------------


def mean(values: list[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def ratios(runs: list[Run], what: str) -> list[float]:
    return [run[f"their_{what}"] / run[what] for run in runs]


def rate(run: Run, what: str) -> float:
    return float(run["flops"] * (1 if what == "forward" else 3.5) / run[what] / 1e9)


def grid_text(name: str, runs: list[Run], results: Run) -> str:
    rows = [
        [
            f"{run['length']} x {run['width']}",
            str(run["batch"] * run["heads"]),
            "causal" if run["causal"] else "full",
            f"{1e3 * run['forward']:.2f}",
            f"{run['their_forward'] / run['forward']:.2f}",
            f"{rate(run, 'forward'):.0f}",
            f"{1e3 * run['both']:.2f}",
            f"{run['their_both'] / run['both']:.2f}",
            f"{rate(run, 'both'):.0f}",
            f"{max(run['errors']):.1e} / {max(run['their_errors']):.1e}" if "errors" in run else "",
        ]
        for run in runs
    ]
    headings = ["length x width", "heads", "", "forward, ms", "PyTorch / firth", "GFLOP/s"]
    headings += ["with backward, ms", "PyTorch / firth", "GFLOP/s", "largest error / PyTorch's"]
    lines = []
    for what, words in (("forward", "forward"), ("both", "forward and backward")):
        for causal in (True, False):
            some = ratios([run for run in runs if run["causal"] == causal], what)
            lines.append(
                f"- {words}, {'causal' if causal else 'full'}: PyTorch takes {mean(some):.2f} times as long "
                f"(geometric mean; {min(some):.2f} to {max(some):.2f})"
            )
    long = [run for run in runs if not run["causal"] and run["length"] >= 1024]
    if long and results["peak_gflops"]:
        for what in ("forward", "both"):
            shares = [100 * rate(run, what) / results["peak_gflops"] for run in long]
            lines.append(
                f"- full, 1,024 and longer, {'forward' if what == 'forward' else 'forward and backward'}: "
                f"{common.median(shares):.0f} % of the multiply-add peak ({min(shares):.0f} to {max(shares):.0f})"
            )
    worst = [max(run["errors"]) / max(run["their_errors"]) for run in runs if "errors" in run]
    if worst:
        lines.append(f"- largest error against float64, times PyTorch's: {mean(worst):.2f} (at most {max(worst):.2f})")
    return f"### {name}\n\n" + "\n".join(lines) + "\n\n" + common.table(headings, rows)


def report(results: Run) -> str:
    """The tables of a result file."""
    machine = results["machine"]
    peak = f"{results['peak_gflops']:.0f}" if results["peak_gflops"] else "?"
    parts = [
        f"{common.machine_line(machine, packages=['torch'])}, kernels {results['isa']}. "
        f"{results['threads']} threads. A float32 matrix product: {results['matmul_gflops']:.0f} GFLOP/s with PyTorch; "
        f"multiply-adds alone: {peak} GFLOP/s."
    ]
    sections = results["sections"]
    parts += [grid_text(name, sections[name], results) for name in ("float32", "bfloat16") if name in sections]
    if "fallbacks" in sections:
        rows = [
            [
                run["kind"],
                f"{run['length']} x {run['width']}",
                str(run["batch"] * run["heads"]),
                f"{1e3 * run['forward']:.2f}",
                f"{run['their_forward'] / run['forward']:.2f}",
                f"{1e3 * run['both']:.2f}",
                f"{run['their_both'] / run['both']:.2f}",
            ]
            for run in sections["fallbacks"]
        ]
        headings = ["", "length x width", "heads", "forward, ms", "PyTorch / firth"]
        headings += ["with backward, ms", "PyTorch / firth"]
        parts.append("### Cases that PyTorch's fused kernel does not support\n\n" + common.table(headings, rows))
    if "decoding" in sections:
        *runs, last = sections["decoding"]
        rows = [
            [
                f"{run['length']:,} keys, {run['key_heads']} heads, {run['group']} queries per head",
                run["dtype"],
                f"{1e3 * run['forward']:.2f}",
                f"{run['bytes'] / run['forward'] / 1e9:.1f}",
                f"{run['their_forward'] / run['forward']:.2f}",
            ]
            for run in runs
        ]
        headings = ["one query against", "", "ms", "GB/s", "PyTorch / firth"]
        parts.append(
            "### Decoding: one query against a cache\n\n"
            f"Memory is read and summed at {last['reading'] / 1e9:.1f} GB/s.\n\n" + common.table(headings, rows)
        )
    if "threads" in sections:
        rows = [
            ["causal" if run["causal"] else "full", *(f"{run[w][1] / run[w][0]:.2f}" for w in ("forward", "both"))]
            for run in sections["threads"]
        ]
        headings = ["one head of 8,192", "forward, speed relative to one thread", "with backward"]
        parts.append("### Threads\n\n" + common.table(headings, rows))
    if "memory" in sections:
        rows = [
            [
                f"{run['who']}, {'forward and backward' if run['both'] else 'forward'}",
                f"{run['extra'] / 1e6:.2f}" if "extra" in run else run["failed"],
                f"1 / {run['square'] / max(run.get('extra', math.nan), 1):,.0f}" if "extra" in run else "",
            ]
            for run in sections["memory"]
        ]
        headings = ["one head of 8,192, causal", "beyond inputs and outputs, MB", "of the square matrix"]
        parts.append("### Memory\n\n" + common.table(headings, rows))
    return "\n\n".join(parts)


def main() -> None:
    if common.served((peak_memory,)):
        return
    parser = common.arguments(__doc__, SECTIONS, "a few sizes")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    settings = common.parsed(parser, __file__, SECTIONS, report)
    machine = common.describe_machine(("torch", "numpy"))
    import torch

    import firth

    torch.set_num_threads(settings.threads)
    a = torch.randn(2048, 2048)
    a @ a
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    results: Run = {
        "machine": machine,
        "threads": settings.threads,
        "isa": firth.cpu_info()["isa"],
        "matmul_gflops": 5 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9,
        "peak_gflops": peak_gflops(settings.threads),
        "sections": {},
    }
    for name in settings.only:
        results["sections"][name] = SECTIONS[name](settings)
        common.write_json(settings.json, results)
    common.finish(report(results), settings.json)


if __name__ == "__main__":
    main()
