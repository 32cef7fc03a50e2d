"""Which pool to enlarge when accelerators wait.

In: the busy share of each pool. Out: a sentence, or None where nothing is to be said.
Does not know: how busy shares are measured.
"""

from collections.abc import Mapping

from raypipe.config import RunConfig


def pool_advice(busy: Mapping[str, float], run: RunConfig) -> str | None:
    """What holds the accelerators up; None while they work, or where there are none.

    Args:
        busy: stage -> share of the time in which its actors had work.
        run: pools and the share below which a pool counts as waiting.
    """
    pools = run.pools
    waiting = [
        stage
        for stage in pools
        if pools[stage].gpus > 0 and stage in busy and busy[stage] < run.busy_warning_share
    ]
    if not waiting:
        return None
    told = " and ".join(f"{stage} {busy[stage]:.0%} busy" for stage in waiting)
    working = [s for s in pools if busy.get(s, 0.0) >= run.busy_warning_share]
    if working:
        slowest = max(working, key=lambda stage: busy[stage])
        return (
            f"GPUs wait ({told}) for the stage {slowest}, which is {busy[slowest]:.0%} busy: "
            f"enlarge run.{slowest}.max_size (now {pools[slowest].max_size})"
        )
    return (
        f"GPUs wait for data ({told}): loading is the bottleneck; add CPU nodes, or lower "
        f"run.load.cpus (now {run.load.cpus:g}) where the source and not the CPU is slow"
    )
