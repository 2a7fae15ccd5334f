"""The processes that train one network together: alone, or as many as torchrun started, each on its own device.

Every process draws the same order and the same random changes for a whole batch, and works on its part of it; the
gradients and the moments of batch normalisation are those of the whole. So the losses are those that one process has.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from calotype import processes
from calotype.errors import CalotypeError, ParamsError


@dataclass(frozen=True)
class Ranks:
    """A process, one of ``size``. The first one leads: it alone writes, logs and speaks."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """The part of a batch that this process works on, (B, …) to (B / size, …); what does not divide is left out."""
        part = len(batch) // self.size
        return batch[self.rank * part : (self.rank + 1) * part]

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def device(self, device: torch.device) -> torch.device:
        """Of several GPUs, the one of this process."""
        return torch.device("cuda", self.local_rank) if self.size > 1 and device.type == "cuda" else device

    def with_whole_moments(self, model: nn.Module) -> nn.Module:
        """Let batch normalisation take mean and variance over the parts of all processes."""
        if self.size == 1:
            return model
        if next(model.parameters()).device.type == "cuda":
            synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return synchronised
        # torch's own knows no CPU.
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = WholeBatchNorm
        return model

    def with_whole_gradients(self, model: nn.Module) -> nn.Module:
        """Let each backward pass end with the mean of all processes' gradients."""
        if self.size == 1:
            return model
        devices = [self.local_rank] if next(model.parameters()).device.type == "cuda" else None
        return DistributedDataParallel(model, devices, broadcast_buffers=False, gradient_as_bucket_view=True)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the others wait until the leader has done it: what it leaves in a file, they need not do again."""
        if self.size > 1 and not self.leads:
            distributed.barrier()
        yield
        if self.size > 1 and self.leads:
            distributed.barrier()


ALONE = Ranks()


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the moments of the whole batch, of which every process holds an equal part."""

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        maps = features.float()
        count = maps.numel() / maps.shape[1] * distributed.get_world_size()
        mean = _Total.apply(maps.sum((0, 2, 3), keepdim=True)) / count
        centred = maps - mean
        variance = _Total.apply(centred.square().sum((0, 2, 3), keepdim=True)) / count
        self._follow(mean.detach().flatten(), variance.detach().flatten() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt() * self.weight.view(1, -1, 1, 1)
        normalised: Tensor = torch.addcmul(self.bias.view(1, -1, 1, 1), centred, scale)
        return normalised.to(features.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        pace = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, pace)
        self.running_var.lerp_(variance, pace)


class _Total(torch.autograd.Function):
    """A sum over all processes, and backwards the sum of their gradients."""

    @staticmethod
    def forward(_: object, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def check(count: int, batch_size: int, device: torch.device) -> None:
    """Refuse what cannot be shared out on this machine.

    Raises
    ------
    ParamsError
        If a batch does not divide, or there are fewer GPUs than processes.
    """
    if batch_size % count:
        raise ParamsError(
            f"train.batch_size: found {batch_size} for {count} processes; expected a multiple of {count}, "
            "which share each batch. Change train.batch_size or train.processes."
        )
    if device.type == "cuda" and not processes.count() and count > torch.cuda.device_count():
        raise ParamsError(
            f"train.processes: found {count}; expected at most {torch.cuda.device_count()}, one for each GPU here."
        )


def launch(count: int) -> None:
    """Run this command again in so many processes on this machine, and wait for them.

    Raises
    ------
    CalotypeError
        If one of them failed; it has said why. The exit code is that of the first to fail.
    KeyboardInterrupt
        If they were told to stop.
    """
    import logging

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What failed is said by the process that failed.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=processes.OWN_RUN,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        local_addr="127.0.0.1",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "calotype", "train")
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        failed = CalotypeError(f"train: process {rank + 1} of {count} ended with {failure.exitcode}.")
        failed.exit_code = failure.exitcode if failure.exitcode > 0 else 1
        raise failed from error
    except SignalException as error:
        raise KeyboardInterrupt from error


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The place of this process among those that torchrun started; alone if it did not.

    Raises
    ------
    CalotypeError
        If another process is lost.
    """
    if not processes.count():
        yield ALONE
        return
    made = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    if device.type == "cuda":
        torch.cuda.set_device(made.local_rank)
    # The leader may decode a large set while the others wait.
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    try:
        yield made
    except RuntimeError as error:
        # Mostly another process is gone, and has said why.
        reason = str(error).splitlines()[0][:200]
        raise CalotypeError(f"train: process {made.rank + 1} of {made.size} stopped: {reason}") from error
    finally:
        distributed.destroy_process_group()
