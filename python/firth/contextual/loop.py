"""The loop that trains any torch module: schedule, steps, evaluations, checkpoints.

Torch's generator is set from (seed, number of a batch's first example) before each batch, so that dropout is a
function of these, as the examples are (see `data`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firth import files
from firth.checks import expect, functions, real_number
from firth.contextual.data import Batches, random_bits
from firth.contextual.processes import Processes, device_of, moved, pays_bf16, processes_of
from firth.contextual.transformer import Architecture
from firth.options import Options, option
from firth.run import History, Record, Run, Tensors

_KEEP_EVERY = 8  # steps from one copy of good weights to the next: a copy each step took 4 % of a small model's time


@dataclasses.dataclass(kw_only=True, eq=False)
class Optimization(Options):
    """The options of steps and evaluations, for `Schedule` and for the models that make one."""

    batch_size: int = option(32, low=1, high=1_000_000, help="Sequences in a batch.")
    accumulate: int = option(1, low=1, high=1_000_000, help="Batches whose gradients are added up for one step.")
    learning_rate: float = option(1e-3, above=0, high=1e3, help="Largest step size.")
    min_learning_rate: float | None = option(
        None, low=0, high=1e3, help="Step size at the end.", unset="a tenth of `learning_rate`"
    )
    warmup: float = option(0.05, low=0, high=1, help="Share of the steps over which the step size rises.")
    weight_decay: float = option(0.1, low=0, high=1e3, help="Weight decay of matrices, times the step size.")
    clip: float | None = option(1.0, above=0, high=3e38, help="Largest norm of the gradient.", unset="any")
    evaluate_every: int | None = option(
        None,
        low=1,
        high=2**62,
        help="Steps between two evaluations on the validation split.",
        unset="a twentieth of the steps",
    )
    evaluate_batches: int = option(16, low=0, high=2**62, help="Batches in such an evaluation, at most.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_learning_rate is not None and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate}) must not be above learning_rate ({self.learning_rate})"
            )


@dataclasses.dataclass(kw_only=True, eq=False)
class Schedule(Optimization):
    """How long to train, on how many examples at a time, and how fast.

    After the warm-up the learning rate falls along half a cosine (Loshchilov and Hutter 2017). AdamW (Loshchilov and
    Hutter 2019) decays matrices, not embeddings, biases and norms. bf16 takes about half the time; weights and sums
    stay float32. An evaluation follows the last step. `length` decides only `units_per_second` of the history.
    """

    steps: int = option(low=1, help="Updates of the weights.")
    batch_size: int = option(16, low=1, high=1_000_000, help="Examples that a process holds at a time.")
    length: int = option(256, low=1, help="Tokens in an example.")
    learning_rate: float = option(1e-3, above=0, high=3e38)
    betas: tuple[float, float] = option((0.9, 0.95), checked=False, help="Decay rates of AdamW's moments.")
    bf16: bool | None = option(None, help="Multiply matrices in bf16.", unset="where the hardware has units for it")
    seed: int = option(1, low=0, high=2**63 - 1, help="Seed of dropout.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, beta in enumerate(self.betas):
            if real_number(f"betas[{i}]", beta, low=0.0) >= 1:
                raise ValueError(f"betas must be below 1, not {self.betas}")

    @classmethod
    def of(cls, model: Options, **others: Any) -> Schedule:
        """The schedule with a model's options of the same names, and with `others`."""
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in (model.get_params() | others).items() if name in names})

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = int(self.warmup * self.steps + 1e-6)  # 0.29 * 100 is below 29
        low = self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup + 1) / max(1, self.steps - warmup)
        return low + (self.learning_rate - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2


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
    callbacks: Iterable[Callable[[Record], object]] = (),
    before_step: Callable[[int], object] | None = None,
    checkpoint: files.PathLike | None = None,
    resume: bool = False,
    history: History | None = None,
    options: Mapping[str, Any] | None = None,
    measure: Callable[[], tuple[float, int, float]] | None = None,
    name: str | None = None,
    epoch_steps: float | None = None,
) -> History:
    """Train a module by AdamW.

    Under ``torchrun``, or in a process group that the caller has begun, each process takes its share of each step's
    examples, and all have the same weights (`torch.nn.parallel.DistributedDataParallel`). The first process writes
    checkpoints and shows the bar; evaluations are the same everywhere, but for seconds. A process group that is begun
    here stays until the process ends, for the next training.

    Parameters
    ----------
    module
        What to train; it is moved to `device` and stays there. Parameters that require no gradient stay as they are.
    batches
        The training examples, see `Batches`.
    loss
        Called with the module and a batch; returns the *sum* of the targets' losses in nats, and their number. A step
        divides by the number of all its targets, however they are spread over batches and processes.
    device
        "cpu", or a GPU of torch's; "cuda" under ``torchrun`` is the one of the process's LOCAL_RANK.
    progress, checkpoint, resume
        As for `GPT.fit`, with its errors.
    callbacks
        Functions called with each `firth.Record`; one that returns True ends the training. Under ``torchrun`` they are
        called in all processes.
    before_step
        Called with the number of each step before it, from 0: a place to freeze parameters.
    history
        A list that is emptied, takes the evaluations as they are made, and is returned; None: a new one.
    options
        What else a resumed run must share with the one it continues; JSON values.
    measure
        Called at each evaluation in place of `Batches.validation`. Returns the summed loss of the validation targets in
        nats, their number, and a score of any kind, such as the accuracy.
    name
        What the bar and checkpoints call the training; None: the module's class.
    epoch_steps
        Steps in a pass over the data, for the records; None: all.

    Raises
    ------
    FloatingPointError
        If the loss or its gradient stops being finite, naming the step. The weights are then ones that gave a finite
        loss, at most eight steps before, and the checkpoint stays as it was.
    """
    called = functions("callbacks", callbacks)
    place = device_of(device)
    if str(place) == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    processes = processes_of(place)
    with contextlib.ExitStack() as stack:
        stack.callback(module.train, module.training)
        stack.enter_context(torch.random.fork_rng([place.index] if place.type == "cuda" else []))
        run = _StepRun(
            module,
            batches,
            loss,
            schedule,
            device=place,
            processes=processes,
            before_step=before_step,
            measure=measure,
            epoch_steps=epoch_steps or schedule.steps,
            options={} if options is None else json.loads(json.dumps(dict(options))),
            kind=name or type(module).__name__,
            history=History() if history is None else history,
            checkpoint=checkpoint,
            resume=resume,
        )
        module.train()
        # A callback that looks at hidden states may turn dropout off.
        answers = [functools.partial(lambda callback: callback(run.history[-1]), one) for one in called]
        run.finish([*answers, module.train], progress=progress)
        processes.total([0.0], place)  # none leaves before all are here: the first one may be host to the others
    return run.history


class _WithLoss(nn.Module):
    """A module whose output is its loss, so that DDP sees all that happens between parameters and gradient."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(self.module, batch)


class _StepRun(Run):
    """One call of `train`: units are steps."""

    largest_chunk = 1

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        loss: Loss,
        schedule: Schedule,
        *,
        device: torch.device,
        processes: Processes,
        before_step: Callable[[int], object] | None,
        measure: Callable[[], tuple[float, int, float]] | None,
        epoch_steps: float,
        options: dict[str, Any],
        history: History,
        **others: Any,
    ) -> None:
        self.module, self.batches, self.loss, self.schedule = module, batches, loss, schedule
        self.device, self.processes, self.first = device, processes, processes.rank == 0
        self.before_step, self.measure, self.epoch_steps = before_step, measure, epoch_steps
        history.clear()
        identity = {**self._identity(), **options}
        super().__init__(unit="steps", identity=identity, data=lambda: batches.fingerprint, history=history, **others)
        self.interrupt.hold = processes.count > 1  # all processes stop after the same step
        self.stop = False
        self.current = 0
        self.total = schedule.steps
        self.every = schedule.evaluate_every or max(1, schedule.steps // 20)
        # Since the last record: the sum of the losses, targets, seconds, steps.
        self.counted = [0.0, 0.0, 0.0, 0.0]
        self.bf16 = pays_bf16(device) if schedule.bf16 is None else schedule.bf16
        if schedule.bf16 is None and self.stored is not None:
            self.bf16 = bool(self.stored[1].get("bf16"))
        module.to(device)
        self.names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.parameters = list(module.parameters())
        if not any(parameter.requires_grad for parameter in self.parameters):
            raise ValueError("no parameter of the module requires a gradient: there is nothing to train")
        self.optimizer = torch.optim.AdamW(
            _groups(module, schedule.weight_decay),
            lr=schedule.rate(0),
            betas=schedule.betas,
            fused=all(parameter.is_floating_point() for parameter in self.parameters),
        )
        self.resume()
        with torch.no_grad():
            processes.share(_state(module).values())
        self.good = [parameter.detach().clone() for parameter in self.parameters]
        self.good_step = self.position
        self.wrapped: nn.Module = _WithLoss(module, loss)
        self.free: list[bool] | None = None  # which parameters required a gradient when `wrapped` was made

    def next_record(self) -> int | None:
        done = self.history[-1].step or 0 if self.history else 0
        return None if done == self.total else min(self.total, (done // self.every + 1) * self.every)

    def advance(self, end: int) -> None:
        while self.position < end:
            if self.before_step is not None:
                self.before_step(self.position)
            self._train_step()

    def interrupted(self) -> bool:
        return self.stop

    def agreed(self, flag: bool) -> bool:
        return self.processes.total([float(flag)], self.device)[0] > 0

    def where(self) -> str:
        return f"step {self.current}"

    def where_record(self) -> str:
        return f"step {self.history[-1].step}"

    def remains(self) -> str:
        return f"The weights are those after step {self.good_step}."

    def _train_step(self) -> None:
        """One update of the weights."""
        self.current = self.position + 1
        start = time.perf_counter()
        schedule, processes = self.schedule, self.processes
        rate = schedule.rate(self.position)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        wrapped = self.synchronized()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for i in range(schedule.accumulate):
            number = (self.position * schedule.accumulate + i) * processes.count + processes.rank
            batch = moved(self.batches(number * schedule.batch_size, schedule.batch_size), self.device)
            bits = random_bits(schedule.seed, 4, np.array([number * schedule.batch_size]))
            torch.manual_seed(int(bits[0] >> np.uint64(1)))
            with contextlib.ExitStack() as stack:
                if processes.count > 1 and i < schedule.accumulate - 1:
                    stack.enter_context(wrapped.no_sync())  # type: ignore[operator]
                if processes.count > 1 and self.counted[3] == 0:
                    # Parameters that a loss leaves out are allowed; DDP complains where there are none.
                    stack.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", message=".*find_unused_parameters")
                with self.autocast():
                    total, count = wrapped(batch)
                total.backward()
            totals[0] += total.detach()
            totals[1] += count
        loss, targets, pressed = processes.total(
            [*totals.tolist(), float(self.interrupt.signal is not None)], self.device
        )
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        scale = processes.count / max(targets, 1.0)  # DDP has divided by the number of processes
        norm = float(nn.utils.get_total_norm(gradients)) * scale
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.diverged(f"the {'gradient' if math.isfinite(loss) else 'loss'} is not finite")
        if schedule.clip is not None and norm > schedule.clip:
            scale *= schedule.clip / norm
        if self.position - self.good_step >= _KEEP_EVERY:
            # These weights gave a finite loss; those after the update are not evaluated yet.
            self._keep_good()
        for gradient in gradients:
            gradient.mul_(scale)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.position += 1
        for i, value in enumerate((loss, targets, time.perf_counter() - start, 1.0)):
            self.counted[i] += value
        self.stop = pressed > 0

    def synchronized(self) -> nn.Module:
        """The module with its loss, in DDP where there are several processes."""
        if self.processes.count == 1:
            return self.wrapped
        free = [parameter.requires_grad for parameter in self.parameters]
        if free != self.free:  # DDP looks only once which parameters require a gradient
            inner = _WithLoss(self.module, self.loss)
            self.wrapped = nn.parallel.DistributedDataParallel(inner, find_unused_parameters=True)
            self.free = free
        return self.wrapped

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def keep(self) -> None:
        """Nothing: the last update may be what makes the next loss infinite, so `advance` copies older weights."""

    @torch.no_grad()
    def _keep_good(self) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            good.copy_(parameter)
        self.good_step = self.position

    @torch.no_grad()
    def revert(self) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            parameter.copy_(good)
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def not_finite(self) -> str | None:
        # In float64 a sum of finite float32 numbers is finite.
        sums = [parameter.sum(dtype=torch.float64) for parameter in self.parameters if parameter.is_floating_point()]
        return None if bool(torch.isfinite(torch.stack(sums)).all()) else "the weights"

    @torch.no_grad()
    def record(self) -> Record:
        schedule, processes = self.schedule, self.processes
        totals: list[float] = [0.0, 0.0]
        score = None
        self.module.eval()
        if self.measure is not None:  # by each process of all validation targets, which cancels out in the mean
            loss, n, score = self.measure()
            totals = [loss, float(n)]
        for i in range(processes.rank, 0 if self.measure else schedule.evaluate_batches, processes.count):
            batch = self.batches.validation(i * schedule.batch_size, schedule.batch_size)
            if batch is None:
                break
            with self.autocast():
                total, count = self.loss(self.module, moved(batch, self.device))
            totals[0] += float(total)
            totals[1] += float(count)
        self.module.train()
        total_loss, targets = processes.total(totals, self.device)
        validation_loss = total_loss / targets if targets else None
        if validation_loss is not None and not math.isfinite(validation_loss):
            self.diverged("the validation loss is not finite")
        train_loss, seen, seconds, steps = self.counted
        tokens = steps * self.examples_per_step * schedule.length
        self.counted = [0.0, 0.0, 0.0, 0.0]
        return Record(
            epoch=self.position / self.epoch_steps,
            loss=train_loss / max(seen, 1.0),
            learning_rate=schedule.rate(self.position - 1),
            units_per_second=tokens / max(seconds, 1e-9),
            seconds=seconds + (self.history[-1].seconds if self.history else 0.0),
            step=self.position,
            validation_loss=validation_loss,
            score=None if score is None or math.isnan(score) else score,
        )

    @property
    def examples_per_step(self) -> int:
        return self.processes.count * self.schedule.accumulate * self.schedule.batch_size

    # ---- checkpoints

    def _identity(self) -> dict[str, Any]:
        """What a run shares with the one that it continues, however examples are spread over processes."""
        schedule = self.schedule.get_params()
        for name in ("batch_size", "accumulate", *(["bf16"] if self.schedule.bf16 is None else [])):
            del schedule[name]
        schedule["betas"] = list(self.schedule.betas)
        # Weights of the same shapes may be used otherwise: by other heads, with other dropout.
        architecture = getattr(self.module, "architecture", None)
        own = dataclasses.asdict(architecture) if isinstance(architecture, Architecture) else {}
        shapes = {f"the shape of {name}": list(tensor.shape) for name, tensor in _state(self.module).items()}
        return {**schedule, **own, **shapes, "examples of a step": self.examples_per_step}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        tensors = {f"module.{name}": tensor for name, tensor in _state(self.module).items()}
        steps = {}
        for parameter, state in self.optimizer.state.items():
            name = self.names[id(parameter)]
            steps[name] = float(state["step"])
            tensors[f"mean.{name}"] = state["exp_avg"]
            tensors[f"square.{name}"] = state["exp_avg_sq"]
        metadata = {"bf16": self.bf16, "progress": [self.position, self.counted], "steps": steps}
        return {name: _array(tensor) for name, tensor in tensors.items()}, metadata

    def restore(self, tensors: Tensors, metadata: dict[str, Any], history: History) -> None:
        position, counted = self._checked_progress(metadata["progress"], history)
        steps = metadata["steps"]
        if not isinstance(steps, dict):
            raise TypeError("its steps have no names")
        module = _state(self.module)
        order = [one for group in self.optimizer.param_groups for one in group["params"]]
        named = {self.names[id(one)]: one for one in order if self.names[id(one)] in steps}
        like = {f"module.{name}": tensor for name, tensor in module.items()}
        like |= {f"{moment}.{name}": one for name, one in named.items() for moment in ("mean", "square")}
        for name, tensor in like.items():
            wanted = _array(tensor)
            expect(name, tensors[name], wanted.dtype, wanted.shape)
        state = {
            i: {
                "step": torch.tensor(steps[self.names[id(one)]], dtype=torch.float32),
                "exp_avg": _tensor(tensors[f"mean.{self.names[id(one)]}"], one),
                "exp_avg_sq": _tensor(tensors[f"square.{self.names[id(one)]}"], one),
            }
            for i, one in enumerate(order)
            if self.names[id(one)] in named
        }
        with torch.no_grad():
            for name, tensor in module.items():
                tensor.copy_(_tensor(tensors[f"module.{name}"], tensor))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.position, self.counted = position, counted

    def _checked_progress(self, stored: Any, history: History) -> tuple[int, list[float]]:
        """Where a training was; TypeError if none can have been there."""
        steps = [one.step for one in history]
        match stored:
            case [int(position), [float(), float(), float(), float()] as counted] if (
                0 <= position <= self.schedule.steps
                and all(0 <= one < math.inf for one in counted[1:])
                and math.isfinite(counted[0])
                and all(
                    b is not None and a is not None and a < b for a, b in itertools.pairwise([0, *steps, position + 1])
                )
            ):
                return position, counted
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
