"""`raypipe serve`: the online service, and the keys of its callers.

In: arguments. Out: a running service; a key. Does not know: how a request is answered.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides

if TYPE_CHECKING:
    from raypipe.serve.config import ServeConfig

app = typer.Typer(
    invoke_without_command=True,
    help="Serve the pipeline over HTTP and DICOMweb, with a page to look at.\n\n"
    "    raypipe serve                              127.0.0.1:8000, no keys\n\n"
    "    raypipe serve key --owner radiology        make a key for a caller\n\n"
    "    raypipe serve -c configs/serve.yaml        keys, limits, pools\n\n"
    "Then open http://127.0.0.1:8000, or:\n\n"
    "    curl -F files=@study.zip http://127.0.0.1:8000/v1/analyze\n\n"
    "The API is described at /docs. Jobs outlive a restart: they lie in jobs.folder. On a cluster: "
    "`serve deploy configs/serve.yaml`. Research use only.",
)


@app.callback()
def serve(
    context: typer.Context,
    config: ConfigFile = None,
    overrides: Overrides = None,
    host: Annotated[str | None, typer.Option(help="Short for --set http.host=...")] = None,
    port: Annotated[int | None, typer.Option(help="Short for --set http.port=...")] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config and stop.")
    ] = False,
) -> None:
    """Run the service until it is interrupted."""
    if context.invoked_subcommand is not None:
        return
    from raypipe.config import load_settings
    from raypipe.serve.config import ServeConfig

    chosen = [*(overrides or ())]
    chosen += [f"http.host={host}"] if host is not None else []
    chosen += [f"http.port={port}"] if port is not None else []
    settings = load_settings(ServeConfig, config, chosen)
    if print_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    _run(settings)


def _run(settings: "ServeConfig") -> None:
    import signal
    import threading

    from raypipe.serve.app import start, stop

    stopped = threading.Event()
    start(settings)
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, lambda *_: stopped.set())
    scheme = "https" if settings.http.tls_certificate is not None else "http"
    address = f"{scheme}://{settings.http.host}:{settings.http.port}"
    keys = "no key is asked for" if settings.auth.mode == "none" else "callers need a key"
    typer.echo(f"raypipe serves at {address} ({keys}); the API is at {address}/docs")
    while not stopped.wait(1.0):
        pass
    typer.echo("draining; jobs that are not done go on after the next start", err=True)
    stop(settings)


@app.command()
def key(
    owner: Annotated[
        str, typer.Option(help="Whose jobs the key sees; several keys may share an owner.")
    ],
    role: Annotated[
        list[str] | None,
        typer.Option(help="analyze (send, read, cancel own jobs), read, admin; repeatable."),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option("--append", help="Add the entry to this file (auth.keys_file)."),
    ] = None,
) -> None:
    """Make an API key. The key is shown once; the config holds its hash alone.

    raypipe serve key --owner radiology

    raypipe serve key --owner radiology --role read --append keys.yaml
    """
    import yaml

    from raypipe.errors import ConfigError
    from raypipe.serve.auth import new_key
    from raypipe.serve.auth_config import Role

    unknown = sorted(set(role or ()) - set(Role))
    if unknown:
        raise ConfigError(f"--role {unknown[0]!r}: write one of {', '.join(Role)}")
    secret, entry = new_key(owner, [Role(name) for name in role or (Role.ANALYZE.value,)])
    text = yaml.safe_dump([entry.model_dump(mode="json")], sort_keys=False)
    typer.echo(f"key, shown this once:\n  {secret}\n")
    if keys_file is None:
        typer.echo(f"entry for auth.keys of the config:\n{text}", nl=False)
        return
    with keys_file.open("a", encoding="utf-8") as file:
        file.write(text)
    typer.echo(f"its entry is in {keys_file}: name the file as auth.keys_file")
