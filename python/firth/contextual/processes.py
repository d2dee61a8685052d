"""Where training runs: the device, and the processes that train together (torch.distributed)."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

if dist.is_available():
    # Its functions have the process group as a default value, if there is one when they are imported, and DDP imports
    # them. They would keep the group beyond its end, and its threads, which abort the process if they still release a
    # tensor while Python ends.
    import torch.distributed.nn.functional


@dataclasses.dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """The sums over all processes."""
        if self.count == 1:
            return values
        # NCCL adds up what lies on the GPU only.
        where = device if dist.get_backend() == "nccl" else torch.device("cpu")
        tensor = torch.tensor(values, dtype=torch.float64, device=where)
        dist.all_reduce(tensor)
        found: list[float] = tensor.tolist()
        return found

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's tensors."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def device_of(name: str | torch.device) -> torch.device:
    """A device of torch; ValueError if torch does not know the name, or does not see the device here."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be one of torch's, such as 'cpu' or 'cuda', not {str(name)!r}") from None
    there = device.type == "cpu"
    if device.type == "cuda":
        there = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    elif device.type == "mps":
        there = torch.backends.mps.is_available()
    elif not there and device.type != "meta":
        with contextlib.suppress(Exception):  # the error of a missing back end depends on the device
            torch.empty(0, device=device)
            there = True
    if not there:
        raise ValueError(f"device={str(name)!r}, and torch sees no such device here")
    return device


def moved(batch: Any, device: torch.device) -> Any:
    """The tensors of a batch on a device, in the same dictionaries, lists and tuples."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def is_first_process() -> bool:
    """Whether this process is the one that writes and shows something, of those that train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together."""
    if not dist.is_available():
        return 1
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def processes_of(device: torch.device) -> Processes:
    """The processes that train together: those of the caller's group, or those that torchrun has begun, or this one."""
    if not dist.is_available() or (not dist.is_initialized() and process_count() < 2):
        return Processes()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # It stays: a new group would find the addresses of this one in the store of torchrun, and wait for them.
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def pays_bf16(device: torch.device) -> bool:
    """Whether bf16 is the default: on hardware with units for its products, see `Schedule`."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
