"""The application: deployments with their resources, and how it is started.

    import_path: raypipe.serve.app:build        in a file for `serve deploy`

In: a ServeConfig. Out: a running application, or a ConfigError.
Does not know: what a deployment does.
"""

import os
from collections.abc import Mapping
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle

from raypipe.allocator import share_heaps
from raypipe.config import load_settings
from raypipe.cores import usable_cores
from raypipe.errors import ConfigError
from raypipe.serve import deployments
from raypipe.serve.auth import Authenticator
from raypipe.serve.config import ServeConfig
from raypipe.serve.service import Service
from raypipe.serve.store import JobStore

_QUEUE = {
    "num_replicas": 1,  # one owner of the jobs
    "max_ongoing_requests": 100_000,  # most of them wait for a job to change
    "ray_actor_options": {"num_cpus": 0.1},
    "health_check_period_s": 5.0,
    "graceful_shutdown_timeout_s": 20.0,
    "graceful_shutdown_wait_loop_s": 0.5,
}


@serve.ingress()
class Ingress:
    """Answers HTTP."""

    def __init__(self, config: ServeConfig, queue: DeploymentHandle[Any]) -> None:
        store = JobStore(config.jobs.folder, config.pipeline.archive.storage)
        self._service = Service(config, Authenticator(config.auth), store, queue)

    def __serve_build_asgi_app__(self) -> Any:
        from raypipe.serve.api import make_api

        return make_api(self._service)


def application(config: ServeConfig) -> Application:
    """The deployments, bound to each other."""
    Authenticator(config.auth)  # a wrong file of keys shows here and not in a replica
    pools = config.pools
    logging = {"log_level": config.log_level, "enable_access_log": False}
    # Serve's own access log would hold study UIDs of DICOMweb paths.
    loader = _deployment(deployments.Loader, pools.loader.options(), logging).bind(config)
    detector = _deployment(deployments.Detector, pools.detector.options(), logging).bind(config)
    reporter = _deployment(deployments.Reporter, pools.reporter.options(), logging).bind(config)
    queue = _deployment(deployments.Queue, _QUEUE, logging).bind(config, loader, detector, reporter)
    full = {"status_code": 503, "retry_after_s": config.http.retry_after_s}
    ingress = pools.ingress.options() | {"backpressure_config": full}
    bound: Application = _deployment(Ingress, ingress, logging).bind(config, queue)
    return bound


def _deployment(kind: type, options: Mapping[str, Any], logging: Mapping[str, Any]) -> Any:
    return serve.deployment(name=kind.__name__, logging_config=dict(logging), **options)(kind)


def build(args: Mapping[str, Any]) -> Application:
    """The application of a file for `serve deploy`.

    Args:
        args: `config`: path of a YAML file, or the settings themselves.

    Raises:
        ConfigError: a setting breaks a rule.
    """
    if set(args) == {"config"}:
        return application(load_settings(ServeConfig, args["config"], ()))
    try:
        return application(ServeConfig.model_validate(dict(args)))
    except ValidationError as error:
        rules = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"args of the application are not valid: {rules}") from error


def start(config: ServeConfig) -> None:
    """Start Ray where it does not run, the HTTP proxies, and the application.

    Raises:
        ConfigError: a setting or a file that it names cannot be used.
    """
    run = config.pipeline.run
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = run.ray_address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"address": address} if address else _local(config)
        ray.init(log_to_driver=False, **options)
    http = config.http
    tls = {}
    if http.tls_certificate is not None:
        tls = {"ssl_certfile": str(http.tls_certificate), "ssl_keyfile": str(http.tls_key)}
    serve.start(
        http_options=HTTPOptions(
            host=http.host, port=http.port, request_timeout_s=http.request_timeout_s, **tls
        ),
        logging_config={"enable_access_log": False},
    )
    serve.run(application(config), name=config.name, route_prefix="/")


def stop(config: ServeConfig) -> None:
    """Stop the application; jobs that run are put back and the next start takes them up."""
    serve.delete(config.name)


def _local(config: ServeConfig) -> dict[str, Any]:
    share_heaps()
    # Ray starts replicas with niceness 15, so that they give way to every idle process: a network
    # whose threads wait for each other loses a fifth of its time to that.
    os.environ.setdefault("RAY_worker_niceness", "0")
    pools = config.pools
    listed = (pools.ingress, pools.loader, pools.detector, pools.reporter)
    wanted = sum(pool.cpus * pool.max_replicas for pool in listed) + 1
    options: dict[str, Any] = {
        # logical CPUs: replicas that wait for each other must not keep each other out
        "num_cpus": max(usable_cores(), int(wanted + 0.999)),
        "include_dashboard": False,
    }
    if config.pipeline.run.object_store_gib is not None:
        options["object_store_memory"] = int(config.pipeline.run.object_store_gib * 1024**3)
    return options
