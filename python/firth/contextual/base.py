"""What GPT, BERT and ELMo share: the options of training, `fit`, and how a folder is written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from firth import files
from firth.checks import functions, stacklevel_of_caller
from firth.contextual import huggingface, loop
from firth.contextual.data import Batches
from firth.contextual.processes import device_of, is_first_process, process_count
from firth.contextual.transformer import evaluating
from firth.models.base import Learner, one_at_a_time
from firth.options import option, seed_option, threads_option
from firth.run import History

if typing.TYPE_CHECKING:
    from typing_extensions import Self

_FEW_STEPS = 10  # fewer train nothing useful: without `steps` they are hardly intended
_FORMAT = "firth contextual"
FIRST_MODEL = "call fit(texts) first, or from_pretrained(folder)"


@dataclasses.dataclass(kw_only=True)
class Setup:
    """One training: the module, its data, and the model's attributes when training starts.

    `module`, `batches` and `loss` are those of `loop.train`, `examples` the number of examples in an epoch, `state` the
    attributes, `schedule` fields of the `Schedule` that are not options, and `shared` the values that a resumed run
    must share with the first one. `before_step` is used around the training, and gives the function called before each
    step.
    """

    module: nn.Module
    batches: Batches
    loss: loop.Loss
    examples: float
    state: dict[str, Any]
    shared: dict[str, Any]
    schedule: dict[str, Any] = dataclasses.field(default_factory=dict)
    before_step: contextlib.AbstractContextManager[Callable[[int], object] | None] = dataclasses.field(
        default_factory=contextlib.nullcontext
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class TrainedModel(loop.Optimization, Learner):
    """A torch module that is trained on texts: the options of the training and of the device."""

    epochs: float = option(1.0, above=0, high=1_000_000, help="Passes over the text.")
    steps: int | None = option(None, low=1, high=2**62, help="Steps of training.", unset="as `epochs` say")
    validation: float = option(0.05, low=0, high=0.99, help="Share of the texts in the validation split.")
    device: str = option("cpu", help="Where to compute, as torch names it: cpu, cuda.")
    seed: int = seed_option(" with the same number of threads")
    threads: int | None = threads_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.place()
        self._from_folder = False  # whether the weights were read

    def _module(self) -> nn.Module:
        """The trained module; AttributeError before `fit`."""
        raise NotImplementedError

    @one_at_a_time
    def fit(
        self,
        data: Any,
        *,
        progress: bool = False,
        callbacks: Iterable[Callable[[Any], object]] = (),
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
        pretrained: bool = False,
    ) -> Self:
        """Train on texts, from random weights or from pretrained ones.

        Parameters
        ----------
        data
            Texts: strings or lists of words, a `firth.Corpus`, or the path of a file or a list of `Path`. GPT and BERT
            also take `TokenIds` of the model's tokenizer, and end the texts of a file as `documents` says. Without a
            tokenizer they read the texts twice, so an iterator needs `tokenizer`. ELMo reads a text from each line; a
            corpus for it should be made with ``min_count=1``.
        progress
            Show bars on stderr.
        callbacks
            Functions called with the model after each evaluation, which is then the last of `history`. Training stops
            if one returns True.
        checkpoint
            Folder for the training state, created if missing. Written after each evaluation, every ten minutes, at
            Ctrl-C, and at SIGTERM, which then ends the process with status 143.
        resume
            Continue from the checkpoint, if there is one, along the same loss curve as an uninterrupted training.
        pretrained
            Start from the weights of a folder or of an earlier `fit`. The architecture and the tokenizer (of ELMo, the
            predicted words) stay; a mixture of ELMo is the mean of the layers again.
            ``load(folder, learning_rate=5e-5, epochs=1)`` replaces training options of the folder.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C. The model keeps what was trained so far.
        FloatingPointError
            If the loss is not finite, naming the step. The weights are then the last good ones.
        TypeError, ValueError
            If there is no text, or `data` cannot be read as texts; if the checkpoint belongs to another training, or
            exists and `resume` is False. The model then stays as it was.

        Notes
        -----
        Under ``torchrun --nproc-per-node 2`` two processes train one model, with `batch_size` sequences each. Each
        process tokenizes all texts; the first one shows bars and writes checkpoints. `threads` limits torch; tokenizers
        use all processors, or RAYON_NUM_THREADS of the environment.
        """
        progress = progress and is_first_process()
        if self._from_folder and not pretrained:
            warnings.warn(
                f"{type(self).__name__}.fit starts from random weights, not from those of the folder; "
                "fit(..., pretrained=True) continues from them",
                stacklevel=stacklevel_of_caller(),
            )
        if pretrained:
            self._check_pretrained()
        called = functions("callbacks", callbacks)
        folder = None if checkpoint is None else Path(checkpoint)
        module = None
        try:
            with self.threaded(), torch.random.fork_rng(devices=[]), undone_on_error(self, FloatingPointError):
                setup = self._prepare(data, folder, resume=resume, pretrained=pretrained, progress=progress)
                each = self.batch_size * self.accumulate * process_count()
                steps = self.steps or max(1, round(self.epochs * setup.examples / each))
                if self.steps is None:
                    warn_of_few_steps(self, steps, type(self).__name__, "steps")
                module = setup.module
                from_folder = pretrained and self._from_folder
                self.__dict__.update(setup.state, history=History(), _from_folder=from_folder)
                with setup.before_step as before_step:
                    loop.train(
                        module,
                        setup.batches,
                        setup.loss,
                        loop.Schedule.of(self, **{"steps": steps, **setup.schedule}),
                        device=self.place(),
                        progress=progress,
                        callbacks=[lambda _, one=one: one(self) for one in called],  # type: ignore[misc]
                        before_step=before_step,
                        checkpoint=folder,
                        resume=resume,
                        history=self.history,
                        options={"pretrained": pretrained, **setup.shared},
                        name=type(self).__name__,
                        epoch_steps=setup.examples / each,
                    )
        finally:
            if module is not None:
                module.eval()
        return self

    def _prepare(self, data: Any, folder: Path | None, *, resume: bool, pretrained: bool, progress: bool) -> Setup:
        """What one call of `fit` trains, and on what; the model itself does not change."""
        raise NotImplementedError

    def _check_pretrained(self) -> None:
        """ValueError if there are no weights to continue from."""
        try:
            self._module()
        except AttributeError:
            name = type(self).__name__
            raise ValueError(f"pretrained=True, and this {name} has no weights yet: {FIRST_MODEL}") from None

    @contextlib.contextmanager
    def threaded(self) -> Iterator[None]:
        """Torch with the number of threads in `threads`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Without gradients and dropout, also in a callback during training."""
        with evaluating(self._module()), self.threaded(), torch.inference_mode():
            yield

    def place(self) -> torch.device:
        """The device as torch's object."""
        return device_of(self.device)

    def check_finite(self, *modules: nn.Module) -> None:
        """ValueError if weights are not finite: such a model is never saved."""
        for module in modules:
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum(dtype=torch.float64))):
                    raise ValueError(
                        f"cannot save this {type(self).__name__}: {name} holds numbers that are not finite. Train it "
                        "again, with a lower learning_rate"
                    )

    def _description(self) -> dict[str, Any]:
        return {"format": _FORMAT, "version": files.VERSION, **super()._description()}

    @contextlib.contextmanager
    def _saving(self, path: files.PathLike, *, stale: Sequence[str] = ()) -> Iterator[Path]:
        """A new folder, whose files replace those in `path` when all of them are written.

        `stale` are files that another kind of model may have left there.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file: a {type(self).__name__} is saved as a folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as name:
            yield Path(name)
            for one in stale:
                (folder / one).unlink(missing_ok=True)
            for place in sorted(one for one in Path(name).rglob("*") if one.is_file()):
                to = folder / place.relative_to(name)
                to.parent.mkdir(parents=True, exist_ok=True)
                os.replace(place, to)


def warn_of_few_steps(model: Any, steps: int, what: str, remedy: str) -> None:
    """Warn if the options of a model leave so few steps that `what` is hardly trained."""
    if steps < _FEW_STEPS:
        warnings.warn(
            f"these texts make {steps} step{'' if steps == 1 else 's'} of training, too few for {what} to be trained "
            f"well: set more epochs than {model.epochs:g}, a smaller batch_size than {model.batch_size}, or {remedy}",
            stacklevel=stacklevel_of_caller(),
        )


@contextlib.contextmanager
def undone_on_error(model: Any, *kept: type[BaseException]) -> Iterator[None]:
    """Restore a model's attributes after any error but Ctrl-C and those of `kept`."""
    before = model.__dict__.copy()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, (KeyboardInterrupt, *kept)):
            model.__dict__.clear()
            model.__dict__.update(before)
        raise


def read_description(place: Path, kind: str) -> dict[str, Any]:
    """The description that `save` of a model of this kind wrote; ValueError if it is of another kind."""
    described = huggingface.read_json(place)
    if described.get("format") != _FORMAT or described.get("model") != kind:
        other = described.get("model") or described.get("model_type")
        raise ValueError(f"{place} describes a model {other!r}, not the {kind} of firth")
    if described.get("version") != files.VERSION:
        raise ValueError(f"{place} has version {described.get('version')}; this firth reads {files.VERSION}")
    return described
