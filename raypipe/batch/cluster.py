"""Join or start Ray, refuse a job that the cluster has no room for, read what workers died of.

In: a RunConfig. Out: an initialised Ray, or a ConfigError.
Does not know: the graph, the data.
"""

import logging
import os
import re
import time
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from raypipe.allocator import share_heaps
from raypipe.config import RunConfig
from raypipe.cores import usable_cores
from raypipe.errors import ConfigError, RaypipeError

_LOOK_S = 1.0
_FILTER_CPUS = 1.0
"""Ray Data's own actor that leaves out what is done already, while a job resumes."""


def actor_cpus(run: RunConfig) -> float:
    """Logical CPUs that the actors take from the start."""
    return sum(pool.cpus * pool.min_size for pool in run.pools.values())


def start_ray(run: RunConfig) -> None:
    """Join the configured cluster, the one of RAY_ADDRESS, or start Ray here; nothing if joined.

    Raises:
        ConfigError: the actors that the config asks for do not fit, where Ray would wait for ever.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = run.ray_address or os.environ.get("RAY_ADDRESS")
        options = {"address": address} if address else _local_options(run)
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    _check_room(run)


def told_by_worker(error: BaseException) -> RaypipeError | None:
    """Our own error that took a worker down, from the text that Ray hands on of it."""
    found = re.findall(r"^raypipe\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
    if not isinstance(error, RayError) or not found:
        return None
    name, message = found[-1]
    return RaypipeError(message) if name != ConfigError.__name__ else ConfigError(message)


def prepare_ray() -> None:
    """Heaps, logs and events of a Ray that is started on this machine next."""
    share_heaps()
    # Ray warns of every actor of Ray Data that its arguments could get lost; they cannot here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # What every task did is written down for a dashboard, which this Ray does not have.
    os.environ.setdefault("RAY_task_events_report_interval_ms", "0")


def _local_options(run: RunConfig) -> dict[str, Any]:
    prepare_ray()
    # The actors' logical CPUs come on top of the real ones: they mostly wait for each other, and
    # counting them against the loaders would leave cores idle.
    cores = usable_cores()
    actors = sum(pool.cpus * pool.max_size for pool in run.pools.values())
    options: dict[str, Any] = {
        "num_cpus": int(cores + actors + _FILTER_CPUS + 0.999),
        "include_dashboard": False,
    }
    if run.object_store_gib is not None:
        options["object_store_memory"] = int(run.object_store_gib * 1024**3)
    return options


def _check_room(run: RunConfig) -> None:
    limit = time.monotonic() + run.nodes_limit_s
    while (lacks := _lacks(run)) and time.monotonic() < limit:
        _ask_for_nodes(run)
        time.sleep(_LOOK_S)
    if run.nodes_limit_s:
        request_resources(bundles=[])  # else the nodes would stay after the job
    if lacks:
        raise ConfigError(
            f"run.detect and run.describe ask for {lacks} (one loading task and Ray's resume "
            "filter included): lower min_size, cpus or gpus, add nodes, or let run.nodes_limit_s "
            "wait for nodes that an autoscaler starts"
        )


def _lacks(run: RunConfig) -> str:
    have = ray.cluster_resources()
    cpus = actor_cpus(run) + run.load.cpus + _FILTER_CPUS
    gpus = sum(pool.gpus * pool.min_size for pool in run.pools.values())
    return ", ".join(
        f"{need:g} logical {name}, the cluster has {have.get(key, 0.0):g}"
        for name, need, key in (("CPUs", cpus, "CPU"), ("GPUs", gpus, "GPU"))
        if need > have.get(key, 0.0)
    )


def _ask_for_nodes(run: RunConfig) -> None:
    pools = [pool for pool in run.pools.values() for _ in range(pool.min_size)]
    actors = [{"CPU": pool.cpus, "GPU": pool.gpus} for pool in pools]
    request_resources(bundles=[*actors, {"CPU": run.load.cpus}, {"CPU": _FILTER_CPUS}])
