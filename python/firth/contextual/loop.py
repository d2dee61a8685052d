"""The loop that trains any torch module: schedule, steps, evaluations, checkpoints.

Torch's generator is set from (seed, number of a batch's first example) before each batch, so that dropout is a
function of these, as the examples are (see `data`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from firth import files
from firth.checks import expect, functions, real_number, whole_number
from firth.contextual.data import Batches, random_bits
from firth.contextual.processes import Processes, device_of, pays_bf16, processes_of
from firth.contextual.transformer import Architecture
from firth.run import CHECKPOINT, records

if TYPE_CHECKING:
    from typing_extensions import Self

_CHECKPOINT_SECONDS = 600.0  # between two checkpoints where evaluations are rare
_KEEP_EVERY = 8  # steps from one copy of good weights to the next: a copy each step took 4 % of a small model's time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train, on how much at a time, and how fast.

    Attributes
    ----------
    steps
        Updates of the weights.
    batch_size
        Examples that a process holds at a time.
    length
        Tokens in an example; only for counting them.
    accumulate
        Batches whose gradients are added up for a step.
    learning_rate
        At the end of the warm-up.
    min_learning_rate
        At the last step, reached along half a cosine (Loshchilov and Hutter 2017); None: a tenth of `learning_rate`.
    warmup
        Share of the steps, 0 to 1, over which the rate rises linearly from 0.
    weight_decay
        AdamW's (Loshchilov and Hutter 2019), on matrices alone: not on embeddings, biases and norms.
    betas
        AdamW's means forget by these.
    clip
        The longest gradient; None: any.
    bf16
        Whether products are of bf16 under autocast; None: where there are units for it, on a GPU that has it and on a
        processor with AMX or AVX512-BF16. A step then takes about half the time; weights and sums stay float32.
    evaluate_every
        Steps between two evaluations; None: a twentieth of the steps. The last step is always followed by one.
    evaluate_batches
        Held-out batches for an evaluation, at most; 0 for none.
    seed
        Of dropout.
    """

    steps: int
    batch_size: int = 16
    length: int = 256
    accumulate: int = 1
    learning_rate: float = 1e-3
    min_learning_rate: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0
    bf16: bool | None = None
    evaluate_every: int | None = None
    evaluate_batches: int = 16
    seed: int = 1

    def __post_init__(self) -> None:
        kept: dict[str, Any] = {}  # as Python's own numbers, which JSON can hold
        for name, low in (("steps", 1), ("batch_size", 1), ("length", 1), ("accumulate", 1), ("evaluate_batches", 0)):
            kept[name] = whole_number(name, getattr(self, name), low=low)
        kept["seed"] = whole_number("seed", self.seed, high=2**63 - 1)
        kept["learning_rate"] = real_number("learning_rate", self.learning_rate, above=0.0)
        kept["weight_decay"] = real_number("weight_decay", self.weight_decay, low=0.0)
        if self.min_learning_rate is not None:
            kept["min_learning_rate"] = real_number("min_learning_rate", self.min_learning_rate, low=0.0)
            if self.min_learning_rate > self.learning_rate:
                raise ValueError(
                    f"min_learning_rate, {self.min_learning_rate}, is above learning_rate, {self.learning_rate}"
                )
        kept["warmup"] = real_number("warmup", self.warmup, low=0.0)
        if self.warmup > 1:
            raise ValueError(f"warmup must be at most 1, a share of the steps, not {self.warmup}")
        if self.clip is not None:
            kept["clip"] = real_number("clip", self.clip, above=0.0)
        if self.evaluate_every is not None:
            kept["evaluate_every"] = whole_number("evaluate_every", self.evaluate_every, low=1)
        first, second = (real_number(f"betas[{i}]", beta, low=0.0) for i, beta in enumerate(self.betas))
        if max(first, second) >= 1:
            raise ValueError(f"betas must be below 1, not {self.betas}")
        kept["betas"] = (first, second)
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = int(self.warmup * self.steps + 1e-6)  # 0.29 * 100 is below 29
        low = self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup + 1) / max(1, self.steps - warmup)
        return low + (self.learning_rate - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Where a training stands.

    Attributes
    ----------
    step
        Steps done.
    tokens
        Tokens seen, by all processes.
    loss
        Mean in nats for a target since the last evaluation, dropout included.
    validation_loss
        Mean in nats for a target of the validation split; NaN if it is empty.
    perplexity
        Its exponential.
    learning_rate
        Of the last step.
    tokens_per_second
        Since the last evaluation, by all processes, evaluations left out.
    seconds
        Of training since its beginning, evaluations left out.
    score
        What `measure` of `train` returned as the score; None without it.
    """

    step: int
    tokens: int
    loss: float
    validation_loss: float
    perplexity: float
    learning_rate: float
    tokens_per_second: float
    seconds: float
    score: float | None = None


# The sum of the targets' losses in nats, and how many targets there are.
Loss = Callable[[Any, Any], tuple[Tensor, Tensor | int]]


def train(
    module: nn.Module,
    batches: Batches,
    loss: Loss,
    schedule: Schedule,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
    callbacks: Iterable[Callable[[Evaluation], object]] = (),
    before_step: Callable[[int], object] | None = None,
    checkpoint: files.PathLike | None = None,
    resume: bool = False,
    history: list[Evaluation] | None = None,
    options: Mapping[str, Any] | None = None,
    measure: Callable[[], tuple[float, int, float]] | None = None,
    name: str | None = None,
) -> list[Evaluation]:
    """Train a module by AdamW.

    Under ``torchrun``, or in a process group that the caller has begun, each process takes its share of each step's
    examples, and all have the same weights (`torch.nn.parallel.DistributedDataParallel`). The first process writes
    checkpoints and shows the bar; evaluations are the same everywhere, but for seconds. A process group that is begun
    here stays until the process ends, for the next training.

    Parameters
    ----------
    module
        What to train; it is moved to `device` and stays there. Parameters that want no gradient stay as they are.
    batches
        What to learn from, see `Batches`.
    loss
        Called with the module and a batch; gives the *sum* of the targets' losses in nats, and their number. A step
        divides by the number of all its targets, however they are spread over batches and processes.
    schedule
        How long, and how.
    device
        "cpu", or a GPU of torch's; "cuda" under ``torchrun`` is the one of the process's LOCAL_RANK.
    progress
        Show a bar on stderr.
    callbacks
        Functions called with each `Evaluation`; one that returns True ends the training there. Under ``torchrun`` they
        are called in all processes.
    before_step
        Called with the number of each step before it, from 0: a place to freeze parameters, or set them free.
    checkpoint
        A folder for the state of the training, made if it is not there. Written after each evaluation, every ten
        minutes, and at Ctrl-C.
    resume
        Continue from the checkpoint where there is one.
    history
        A list that is emptied and takes the evaluations as they are made, so that they are at hand after an error.
    options
        What else a run that is resumed must share with the one it continues, such as JSON can hold.
    measure
        Called at each evaluation in place of `Batches.validation`. Returns the summed loss of the held-out targets in
        nats, their number, and a score of any kind, such as the accuracy.
    name
        What the bar calls the training; None: the module's class.

    Returns
    -------
    list of Evaluation
        `history`, or a list of its own; with those of the run that is continued.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C, after the step at hand, when the checkpoint is written. A second Ctrl-C does not wait for that.
    FloatingPointError
        If the loss or its gradient stops being finite, naming the step; the weights are put back to ones that gave
        a finite loss, at most eight steps before, and the checkpoint stays as it was.
    ValueError
        If the checkpoint is of another training, or is there and `resume` was not asked for; if nothing wants a
        gradient.
    """
    callbacks = functions("callbacks", callbacks)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the folder to continue from")
    place = device_of(device)
    if str(place) == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    processes = processes_of(place)
    with contextlib.ExitStack() as stack:
        was_training = module.training
        stack.callback(module.train, was_training)
        stack.enter_context(torch.random.fork_rng([place.index] if place.type == "cuda" else []))
        run = _Run(
            module,
            batches,
            loss,
            schedule,
            place,
            processes,
            None if checkpoint is None else Path(checkpoint),
            resume,
            {} if options is None else json.loads(json.dumps(dict(options))),
            measure,
        )
        if history is not None:
            history[:] = run.history
            run.history = history
        bar = stack.enter_context(
            tqdm(
                total=schedule.steps,
                initial=run.step,
                desc=name or type(module).__name__,
                unit=" steps",
                disable=not progress or processes.rank > 0,
            )
        )
        interrupt = stack.enter_context(_Interrupt())
        run.finish(bar, interrupt, callbacks, before_step)
        processes.total([0.0], place)  # none leaves before all are here: the first one may be host to the others
    return run.history


class _Interrupt:
    """Remembers a Ctrl-C until somebody asks; the second one goes through at once."""

    def __init__(self) -> None:
        self.pressed: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        self.previous = signal.getsignal(signal.SIGINT)
        # Python's signals come to the main thread; a handler that is not callable ignores them, or was set in C.
        self.active = threading.current_thread() is threading.main_thread() and callable(self.previous)
        if self.active:
            signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed is not None:
            self.answer()
        self.pressed = (number, frame)

    def answer(self) -> None:
        """Do what the Ctrl-C would have done, here or in another process."""
        pressed, self.pressed = self.pressed, None
        if pressed is not None and callable(self.previous):
            self.previous(*pressed)
        raise KeyboardInterrupt

    def __exit__(self, kind: object, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.previous)
        if self.pressed is not None and kind is None:
            self.answer()


class _WithLoss(nn.Module):
    """A module whose output is its loss, so that DDP sees all that happens between parameters and gradient."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(self.module, batch)


class _Run:
    """One call of `train`: where it stands, and how it goes on."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        loss: Loss,
        schedule: Schedule,
        device: torch.device,
        processes: Processes,
        folder: Path | None,
        resume: bool,
        options: dict[str, Any],
        measure: Callable[[], tuple[float, int, float]] | None,
    ) -> None:
        self.options = options
        self.measure = measure
        self.module = module
        self.batches = batches
        self.loss = loss
        self.schedule = schedule
        self.device = device
        self.processes = processes
        self.folder = folder
        self.step = 0
        self.seconds = 0.0
        # Since the last evaluation: the losses' sum, targets, seconds, steps.
        self.since = [0.0, 0.0, 0.0, 0.0]
        self.history: list[Evaluation] = []
        self.bf16 = pays_bf16(device) if schedule.bf16 is None else schedule.bf16
        state = None if folder is None else self.read_checkpoint(folder, resume)
        module.to(device)
        self.names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.parameters = list(module.parameters())
        if not any(parameter.requires_grad for parameter in self.parameters):
            raise ValueError("the module has no parameter that wants a gradient: there is nothing to train")
        self.optimizer = torch.optim.AdamW(
            _groups(module, schedule.weight_decay),
            lr=schedule.rate(0),
            betas=schedule.betas,
            fused=all(parameter.is_floating_point() for parameter in self.parameters),
        )
        if state is not None:
            self.restore(*state)
        with torch.no_grad():
            processes.share(_state(module).values())
        self.good = [parameter.detach().clone() for parameter in self.parameters]
        self.good_step = self.step
        self.wrapped: nn.Module = _WithLoss(module, loss)
        self.free: list[bool] | None = None  # which parameters want a gradient, when `wrapped` was made
        self.last_checkpoint = time.monotonic()

    def finish(
        self,
        bar: tqdm[Any],
        interrupt: _Interrupt,
        callbacks: list[Callable[[Evaluation], object]],
        before_step: Callable[[int], object] | None,
    ) -> None:
        every = self.schedule.evaluate_every or max(1, self.schedule.steps // 20)
        self.module.train()
        while self.step < self.schedule.steps:
            if before_step is not None:
                before_step(self.step)
            stop = self.train_step(interrupt)
            bar.update(1)
            if stop:
                self.write_checkpoint()
                interrupt.answer()
            if self.step % every == 0 or self.step == self.schedule.steps:
                evaluation = self.evaluate()
                shown = {"loss": evaluation.loss, "validation_loss": evaluation.validation_loss}
                bar.set_postfix({key: f"{value:.4f}" for key, value in shown.items() if not math.isnan(value)})
                self.write_checkpoint()
                answers = [
                    callback(evaluation) for callback in callbacks
                ]  # all of them, also when one asks for the end
                self.module.train()  # who looked at states may have turned dropout off
                wanted = float(any(answer is True for answer in answers))
                # One process alone must not leave the others waiting for it.
                end, pressed = self.processes.total([wanted, float(interrupt.pressed is not None)], self.device)
                if pressed:
                    interrupt.answer()
                if end:
                    return
            elif time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                self.write_checkpoint()

    def train_step(self, interrupt: _Interrupt) -> bool:
        """One update of the weights; whether somebody wants to stop after it."""
        start = time.perf_counter()
        schedule, processes = self.schedule, self.processes
        rate = schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        wrapped = self.synchronized()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for i in range(schedule.accumulate):
            number = (self.step * schedule.accumulate + i) * processes.count + processes.rank
            batch = _moved(self.batches(number * schedule.batch_size, schedule.batch_size), self.device)
            bits = random_bits(schedule.seed, 4, np.array([number * schedule.batch_size]))
            torch.manual_seed(int(bits[0] >> np.uint64(1)))
            with contextlib.ExitStack() as stack:
                if processes.count > 1 and i < schedule.accumulate - 1:
                    stack.enter_context(wrapped.no_sync())  # type: ignore[operator]
                if processes.count > 1 and self.since[3] == 0:
                    # Parameters that a loss leaves out are allowed; DDP complains where there are none.
                    stack.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", message=".*find_unused_parameters")
                with self.autocast():
                    total, count = wrapped(batch)
                total.backward()
            totals[0] += total.detach()
            totals[1] += count
        loss, targets, pressed = processes.total([*totals.tolist(), float(interrupt.pressed is not None)], self.device)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        scale = processes.count / max(targets, 1.0)  # DDP has divided by the number of processes
        norm = float(nn.utils.get_total_norm(gradients)) * scale
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.give_up(f"{'gradient' if math.isfinite(loss) else 'loss'} of step {self.step + 1}")
        if schedule.clip is not None and norm > schedule.clip:
            scale *= schedule.clip / norm
        if self.step - self.good_step >= _KEEP_EVERY:
            # These gave a finite loss; what the update makes of them, nobody knows yet.
            self.keep()
        for gradient in gradients:
            gradient.mul_(scale)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = time.perf_counter() - start
        self.seconds += seconds
        for i, value in enumerate((loss, targets, seconds, 1.0)):
            self.since[i] += value
        return pressed > 0

    def synchronized(self) -> nn.Module:
        """The module with its loss, in DDP where there are several processes."""
        if self.processes.count == 1:
            return self.wrapped
        free = [parameter.requires_grad for parameter in self.parameters]
        if free != self.free:  # DDP sees to those parameters that want a gradient when it is made
            inner = _WithLoss(self.module, self.loss)
            self.wrapped = nn.parallel.DistributedDataParallel(inner, find_unused_parameters=True)
            self.free = free
        return self.wrapped

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @torch.no_grad()
    def keep(self) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            good.copy_(parameter)
        self.good_step = self.step

    @torch.no_grad()
    def check_finite(self) -> None:
        """See what the last update left, before anybody keeps it: no loss has been computed of it yet."""
        # In float64 a sum of finite float32 numbers is finite.
        sums = [parameter.sum(dtype=torch.float64) for parameter in self.parameters if parameter.is_floating_point()]
        if not bool(torch.isfinite(torch.stack(sums)).all()):
            self.give_up(f"update of step {self.step}")

    @torch.no_grad()
    def give_up(self, what: str) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            parameter.copy_(good)
        self.optimizer.zero_grad(set_to_none=True)
        raise FloatingPointError(
            f"training diverged: the {what} is not finite. The weights are those after step {self.good_step}, when all "
            "was well. A lower learning rate or a longer warm-up helps."
        )

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """See how it stands, and note it in the history."""
        schedule, processes = self.schedule, self.processes
        totals: list[float] = [0.0, 0.0]
        score = None
        self.module.eval()
        if self.measure is not None:  # by each process of all held-out targets, which cancels out in the mean
            loss, n, score = self.measure()
            totals = [loss, float(n)]
        for i in range(processes.rank, 0 if self.measure else schedule.evaluate_batches, processes.count):
            batch = self.batches.validation(i * schedule.batch_size, schedule.batch_size)
            if batch is None:
                break
            with self.autocast():
                total, count = self.loss(self.module, _moved(batch, self.device))
            totals[0] += float(total)
            totals[1] += float(count)
        self.module.train()
        total_loss, targets = processes.total(totals, self.device)
        validation_loss = total_loss / targets if targets else math.nan
        if targets and not math.isfinite(validation_loss):
            self.give_up(f"validation loss after step {self.step}")
        self.check_finite()
        train_loss, seen, seconds, steps = self.since
        tokens = self.examples_per_step * schedule.length
        evaluation = Evaluation(
            step=self.step,
            tokens=self.step * tokens,
            loss=train_loss / seen if seen else math.nan,
            validation_loss=validation_loss,
            perplexity=math.exp(validation_loss) if not validation_loss > 700 else math.inf,
            learning_rate=schedule.rate(self.step - 1),
            tokens_per_second=steps * tokens / max(seconds, 1e-9),
            seconds=self.seconds,
            score=score,
        )
        self.history.append(evaluation)
        self.since = [0.0, 0.0, 0.0, 0.0]
        return evaluation

    @property
    def examples_per_step(self) -> int:
        return self.processes.count * self.schedule.accumulate * self.schedule.batch_size

    # ------------------------------------------------------------------------------------------------- checkpoints

    def description(self) -> dict[str, Any]:
        """What a run must share with the one it continues: however its examples are spread over processes."""
        schedule = dataclasses.asdict(self.schedule)
        for name in ("batch_size", "accumulate", "bf16"):
            del schedule[name]
        schedule["betas"] = list(self.schedule.betas)
        # Weights of the same shapes may be used otherwise: by other heads, with other dropout.
        architecture = getattr(self.module, "architecture", None)
        own = dataclasses.asdict(architecture) if isinstance(architecture, Architecture) else {}
        return {**schedule, **own, **self.options, "examples of a step": self.examples_per_step}

    def write_checkpoint(self) -> None:
        self.last_checkpoint = time.monotonic()
        if self.folder is None or self.processes.rank > 0:
            return
        self.check_finite()
        tensors = {f"module.{name}": tensor for name, tensor in _state(self.module).items()}
        steps = {}
        for parameter, state in self.optimizer.state.items():
            name = self.names[id(parameter)]
            steps[name] = float(state["step"])
            tensors[f"mean.{name}"] = state["exp_avg"]
            tensors[f"square.{name}"] = state["exp_avg_sq"]
        files.write_own(
            self.folder / CHECKPOINT,
            "checkpoint",
            {name: _array(tensor) for name, tensor in tensors.items()},
            {
                "model": type(self.module).__name__,
                "schedule": self.description(),
                "data": self.batches.fingerprint,
                "bf16": self.bf16,
                "history": [dataclasses.asdict(evaluation) for evaluation in self.history],
                "progress": [self.step, self.seconds, self.since],
                "steps": steps,
            },
        )

    def read_checkpoint(self, folder: Path, resume: bool) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        path = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        # Whether it can be written to is found out now, not after the first evaluation.
        with tempfile.TemporaryFile(dir=folder):
            pass
        # The first process decides; all know before it writes.
        exists = path.exists() and self.processes.rank == 0
        if not self.processes.total([float(exists)], self.device)[0]:
            return None
        if not resume:
            raise ValueError(
                f"{path} holds the state of an earlier training: pass resume=True to continue, or remove it"
            )
        tensors, metadata = files.read_own(path, "checkpoint", mmap=True)
        name = type(self.module).__name__
        if metadata.get("model") != name:
            raise ValueError(f"{path} is a checkpoint of a {metadata.get('model')}, not of a {name}")
        missing = {"schedule", "data", "history", "progress", "steps", "bf16"} - metadata.keys()
        if missing:
            raise ValueError(f"{path} is a damaged checkpoint: it lacks {', '.join(sorted(missing))}")
        for key in ("schedule", "steps"):
            if not isinstance(metadata[key], dict):
                raise ValueError(f"{path} is a damaged checkpoint: its {key} are not named")
        other = [
            f"{key} was {metadata['schedule'].get(key)!r}, is {value!r}"
            for key, value in self.description().items()
            if metadata["schedule"].get(key) != value
        ]
        if self.schedule.bf16 is None:
            self.bf16 = metadata["bf16"]
        elif self.schedule.bf16 != metadata["bf16"]:
            other.append(f"bf16 was {metadata['bf16']}, is {self.schedule.bf16}")
        if metadata["data"] != self.batches.fingerprint:
            other.append("the data are other ones")
        wanted = {f"module.{key}": list(tensor.shape) or [1] for key, tensor in _state(self.module).items()}
        for key, shape in wanted.items():
            if key not in tensors:
                other.append(f"it has no {key.removeprefix('module.')}")
            elif tensors[key].dtype != np.uint8 and list(tensors[key].shape) != shape:
                other.append(f"{key.removeprefix('module.')} was {list(tensors[key].shape)}, is {shape}")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata

    def restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        try:
            # All is checked before anything is taken on.
            history = records(metadata["history"], Evaluation, may_be_nan=("validation_loss", "perplexity", "score"))
            self.restore_progress(metadata["progress"], history)
            state_of_module = _state(self.module)
            for name, tensor in state_of_module.items():
                wanted = _array(tensor)
                expect(name, tensors[f"module.{name}"], wanted.dtype, wanted.shape)
            with torch.no_grad():
                for name, tensor in state_of_module.items():
                    tensor.copy_(_tensor(tensors[f"module.{name}"], tensor))
                state = {}
                order = [one for group in self.optimizer.param_groups for one in group["params"]]
                for i, parameter in enumerate(order):
                    name = self.names[id(parameter)]
                    if name in metadata["steps"]:
                        for moment in (f"mean.{name}", f"square.{name}"):
                            wanted = _array(parameter)
                            expect(moment, tensors[moment], wanted.dtype, wanted.shape)
                        state[i] = {
                            "step": torch.tensor(metadata["steps"][name], dtype=torch.float32),
                            "exp_avg": _tensor(tensors[f"mean.{name}"], parameter),
                            "exp_avg_sq": _tensor(tensors[f"square.{name}"], parameter),
                        }
            self.optimizer.load_state_dict(
                {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            self.history = history
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the checkpoint in {self.folder} is damaged: {error}") from None

    def restore_progress(self, stored: Any, history: list[Evaluation]) -> None:
        """Take on where a training stood; TypeError if none can have stood there."""
        steps = [one.step for one in history]
        match stored:
            case [int(step), float(seconds), [float(), float(), float(), float()] as since] if (
                0 <= step <= self.schedule.steps
                and all(0 <= one < math.inf for one in [seconds, *since[1:]])
                and math.isfinite(since[0])
                and all(a < b for a, b in itertools.pairwise([0, *steps, step + 1]))
            ):
                self.step, self.seconds, self.since = step, seconds, since
            case _:
                raise TypeError(
                    f"its progress {stored!r} with evaluations after steps {steps} is not that of a training of "
                    f"{self.schedule.steps} steps"
                )


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay and without."""
    embeddings = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        for parameter in part.parameters(recurse=False)
    }
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in module.parameters():
        groups[parameter.ndim < 2 or id(parameter) in embeddings].append(parameter)
    decayed, free = groups
    found = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch


def _state(module: nn.Module) -> dict[str, Tensor]:
    """All that a module's state dictionary holds, what has two names under the first one only."""
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


_PLAIN = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8}


def _array(tensor: Tensor) -> NDArray[Any]:
    """A tensor for firth's container; of types that it does not know, such as bf16, the bytes."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    found: NDArray[Any] = (tensor if tensor.dtype in _PLAIN else tensor.view(torch.uint8)).numpy()
    return found


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """The tensor that `_array` made an array of."""
    tensor = torch.from_numpy(np.array(array))
    if tensor.dtype == torch.uint8:
        tensor = tensor.view(like.dtype)
    return tensor.reshape(like.shape)
