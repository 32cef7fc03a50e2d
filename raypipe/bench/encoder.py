"""Throughput of the encoder on CPUs as a share of what the machine's matrix products reach.

In: a size, threads, batches. Out: seconds, FLOPs per second and their share of the peak measured
in the same run; time and FLOPs of every part. Does not know: weights, accelerators.

FLOPs are those of convolutions, matrix products and attention, two for a multiply-add, as
torch.utils.flop_counter counts them; norms, activations and copies count nothing, but take time.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raypipe.allocator import keep_freed_memory
from raypipe.bench.machine import machine
from raypipe.knowledge.graph import load_graph
from raypipe.model.encoder import IMAGE_SIZE, Encoder
from raypipe.model.network import config_for
from raypipe.settings import Settings

Size = Literal["small", "paper"]
PAPER_GFLOP = 156.8
"""What the paper states for a slice of 256 x 256."""
TARGET_SHARE = 0.5
_PEAK_EDGE = 2048


class PartResult(Settings):
    """One part of the encoder."""

    name: str
    gflop: float = Field(description="of a slice")
    flop_share: float
    time_share: float
    peak_share: float = Field(description="FLOPs per second over the machine's peak")


class EncoderRun(Settings):
    """The encoder at one number of threads and slices."""

    threads: int
    batch: int
    peak_gflops: float = Field(description="of a float32 matrix product, best of several")
    seconds: float = Field(description="of one batch, median")
    best_seconds: float
    slices_per_second: float
    gflops: float = Field(description="FLOPs per second / 1e9, at the median")
    peak_share: float
    parts: tuple[PartResult, ...]


class EncoderResult(Settings):
    """All runs of one size."""

    size: Size
    compiled: bool
    parameters: int
    gflop_per_slice: float
    paper_gflop: float | None
    runs: tuple[EncoderRun, ...]
    machine: dict[str, str | int]


def bench_encoder(
    size: Size,
    *,
    threads: Sequence[int],
    batches: Sequence[int],
    repeats: int = 7,
    compiled: bool = False,
) -> EncoderResult:
    """Time the encoder with random weights, float32, channels-last.

    Args:
        size: preset.
        threads: numbers of CPU threads to run with.
        batches: numbers of slices to run at once.
        repeats: timed passes of each; the median counts.
        compiled: run it through torch.compile.
    """
    torch.manual_seed(0)
    sizes = config_for(load_graph(), size=size)
    encoder = Encoder(sizes.encoder, in_channels=3 * sizes.context_slices).eval()
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    flops = flops_by_part(encoder)
    keep_freed_memory()  # as a detector does
    before = torch.get_num_threads()
    runs = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            for batch in batches:
                runs.append(_run(encoder, flops, (count, batch, repeats), compiled))
    finally:
        torch.set_num_threads(before)
    return EncoderResult(
        size=size,
        compiled=compiled,
        parameters=sum(p.numel() for p in encoder.parameters()),
        gflop_per_slice=sum(flops.values()) / 1e9,
        paper_gflop=PAPER_GFLOP if size == "paper" else None,
        runs=tuple(runs),
        machine=machine(),
    )


def parts_of(encoder: Encoder) -> dict[str, nn.Module]:
    """The parts that a pass runs one after the other."""
    stages = {f"stage {i + 1}": stage for i, stage in enumerate(encoder.stages)}
    blocks = {"stem blocks": encoder.stem_blocks} if len(encoder.stem_blocks) else {}
    return {"stem": encoder.stem, **blocks, **stages, "out": encoder.out}


def flops_by_part(encoder: Encoder) -> dict[str, int]:
    """FLOPs of each part for one slice; counted on shapes alone, nothing is computed."""
    with torch.device("meta"):
        shadow = Encoder(encoder.config, encoder.stem.in_channels)
        x = torch.empty(1, encoder.stem.in_channels, IMAGE_SIZE, IMAGE_SIZE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(x)
    counted = counter.get_flop_counts()
    names = {id(module): name for name, module in shadow.named_modules()}
    return {
        part: sum(counted[f"Encoder.{names[id(module)]}"].values())
        for part, module in parts_of(shadow).items()
    }


def peak_gflops(repeats: int = 5) -> float:
    """What one float32 matrix product reaches on this machine now, in GFLOP/s; the best counts."""
    a, b = torch.rand(2, _PEAK_EDGE, _PEAK_EDGE).unbind(0)
    out = torch.empty(_PEAK_EDGE, _PEAK_EDGE)
    best = min(_seconds(lambda: torch.mm(a, b, out=out)) for _ in range(repeats))
    return 2.0 * _PEAK_EDGE**3 / best / 1e9


def _run(
    encoder: Encoder, flops: dict[str, int], told: tuple[int, int, int], compiled: bool
) -> EncoderRun:
    threads, batch, repeats = told
    shape = (batch, encoder.stem.in_channels, IMAGE_SIZE, IMAGE_SIZE)
    x = torch.rand(shape).contiguous(memory_format=torch.channels_last)
    forward = torch.compile(encoder) if compiled else encoder
    with torch.inference_mode():
        forward(x)
        peak = peak_gflops()
        times = [_seconds(lambda: forward(x)) for _ in range(repeats)]
        peak = max(peak, peak_gflops())  # a machine that slows down must not look better
        spent = _time_of_parts(encoder, x, repeats)
    median, total = statistics.median(times), sum(flops.values())
    gflops = batch * total / median / 1e9
    whole = sum(spent.values())
    return EncoderRun(
        threads=threads,
        batch=batch,
        peak_gflops=peak,
        seconds=median,
        best_seconds=min(times),
        slices_per_second=batch / median,
        gflops=gflops,
        peak_share=gflops / peak,
        parts=tuple(
            PartResult(
                name=name,
                gflop=count / 1e9,
                flop_share=count / total,
                time_share=spent[name] / whole,
                peak_share=batch * count / spent[name] / 1e9 / peak,
            )
            for name, count in flops.items()
        ),
    )


def _time_of_parts(encoder: Encoder, x_bchw: Tensor, repeats: int) -> dict[str, float]:
    """Seconds of each part, the median over passes."""
    parts = parts_of(encoder)
    passes: list[dict[str, float]] = []
    for _ in range(repeats):
        spent: dict[str, float] = {}
        with _timed(parts, spent):
            encoder(x_bchw)
        passes.append(spent)
    return {name: statistics.median(p[name] for p in passes) for name in parts}


@contextmanager
def _timed(parts: dict[str, nn.Module], spent: dict[str, float]) -> Iterator[None]:
    started: dict[str, float] = {}

    def before(name: str) -> Callable[..., None]:
        return lambda *_: started.update({name: time.perf_counter()})

    def after(name: str) -> Callable[..., None]:
        return lambda *_: spent.update({name: time.perf_counter() - started[name]})

    hooks = []
    for name, module in parts.items():
        hooks.append(module.register_forward_pre_hook(before(name)))
        hooks.append(module.register_forward_hook(after(name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
