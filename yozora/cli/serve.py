"""`yozora serve`, `yozora worker`, `yozora keys`: the service."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yozora.errors import YozoraError, needing

if TYPE_CHECKING:
    from yozora.serve.context import Service
    from yozora.serve.settings import Settings

keys = typer.Typer(help="Accounts and API keys of a service with --accounts.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="The folder for database, files and scratch.")]
Url = Annotated[str | None, typer.Option(help="postgresql://… for many machines; else SQLite in --data.")]
Files = Annotated[str | None, typer.Option("--storage", help="s3://BUCKET/PREFIX or a folder; else one in --data.")]
Model = Annotated[str | None, typer.Option(help="The model that is used where none is asked for.")]
Others = Annotated[str | None, typer.Option(help="Further models, separated by commas.")]
Words = Annotated[
    str | None,
    typer.Option("--rewriter", help="mini, openai:MODEL@URL, a folder, or none; mini for the shipped model."),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 …: a worker a GPU.")]
Memory = Annotated[float | None, typer.Option("--memory-gb", help="For loaded models; 0: two of any size.")]
Slots = Annotated[int | None, typer.Option(help="Videos that a worker makes at a time.")]
Batch = Annotated[int | None, typer.Option(help="How many of these share a pass of the model, at most.")]
Level = Annotated[str, typer.Option(help="debug, info, warning or error.")]


def serve(
    host: Annotated[str | None, typer.Option(help="Where to listen; other than 127.0.0.1 needs --accounts.")] = None,
    port: Annotated[int | None, typer.Option(help="0 is any that is free.")] = None,
    accounts: Annotated[bool, typer.Option("--accounts", help="API keys and sign-in, for many users.")] = False,
    hosts: Annotated[str | None, typer.Option(help="Further names of this machine, separated by commas.")] = None,
    proxies: Annotated[str | None, typer.Option(help="Addresses of proxies that are believed; * is any.")] = None,
    workers: Annotated[int | None, typer.Option(help="1, or 0 where `yozora worker` does the work.")] = None,
    data: Data = None,
    database_url: Url = None,
    storage: Files = None,
    model: Model = None,
    models: Others = None,
    rewriter: Words = None,
    device: Device = None,
    memory: Memory = None,
    slots: Slots = None,
    batch: Batch = None,
    log_level: Level = "info",
) -> None:
    """Serve OpenAI's Videos API under /v1, and Yozora's own under /api. Needs nothing else on one machine."""
    settings = _settings(
        host=host, port=port, accounts=accounts or None, hosts=hosts, proxies=proxies, workers=workers, data=data,
        models=models, database_url=database_url, storage=storage, model=model, rewriter=rewriter, device=device,
        memory_gb=memory, slots=slots, batch=batch,
    )  # fmt: skip
    from yozora.serve.run import run_server

    _end(run_server(settings, log_level))


def worker(
    data: Data = None,
    database_url: Url = None,
    storage: Files = None,
    model: Model = None,
    models: Others = None,
    rewriter: Words = None,
    device: Device = None,
    memory: Memory = None,
    slots: Slots = None,
    batch: Batch = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus's metrics at this port.")] = None,
    log_level: Level = "info",
) -> None:
    """Make the videos that any `yozora serve` on the same database has been asked for.

    Started by torchrun, several processes with a GPU each make every video together.
    """
    settings = _settings(
        data=data, database_url=database_url, storage=storage, model=model, models=models, rewriter=rewriter,
        device=device, memory_gb=memory, slots=slots, batch=batch,
    )  # fmt: skip
    from yozora.cli.together import together
    from yozora.serve.run import run_worker

    with together(settings.device) as mesh:
        code = run_worker(settings, metrics_port, log_level, mesh)
    _end(code)


@keys.command("create")
def create_key(
    email: Annotated[str, typer.Argument(help="Whose; an account is made where there is none.")],
    birth_year: Annotated[int | None, typer.Option(help="For a new account: 18 or older.")] = None,
    role: Annotated[str, typer.Option(help="For a new account: user, reviewer or admin.")] = "user",
    plan: Annotated[str, typer.Option(help="For a new account; see plans.toml.")] = "free",
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    data: Data = None,
    database_url: Url = None,
) -> None:
    """Make an API key and print it: it is shown this once."""
    with _opened(_settings(data=data, database_url=database_url)) as service:
        from yozora.serve.accounts import create_account, find_account
        from yozora.serve.accounts import create_key as make

        user = find_account(service.database, email)
        if user is None:
            if birth_year is None:
                raise YozoraError(f"there is no account {email}: give --birth-year to make one")
            user = create_account(service.database, email, None, birth_year, role, plan)
        print(make(service.database, user.id, name)[0])


@keys.command("list")
def list_keys(
    email: Annotated[str, typer.Argument(help="Whose.")], data: Data = None, database_url: Url = None
) -> None:
    """List somebody's keys by their ends."""
    with _opened(_settings(data=data, database_url=database_url)) as service:
        from yozora.serve.accounts import find_account
        from yozora.serve.accounts import list_keys as found

        user = find_account(service.database, email)
        if user is None:
            raise YozoraError(f"there is no account {email}")
        for row in found(service.database, user.id):
            print(f"{row.id}  …{row.hint}  {row.name}")


class _opened:
    """The service's database for as long as a block lasts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __enter__(self) -> Service:
        from yozora.serve.context import open_service

        self.service = open_service(self.settings)
        return self.service

    def __exit__(self, *exception: object) -> None:
        self.service.close()


def _settings(**given: Any) -> Settings:
    """What is said on the command line, else in the environment. Raises ConfigError, YozoraError."""
    with needing("the service needs", "serve"):
        from yozora.serve.settings import read_settings

        return read_settings(**given)


def _end(code: int) -> None:
    """Ends the process. A thread that still samples, or waits for a database that is gone, must not keep it alive: its
    job has been handed back."""
    sys.stdout.flush()
    sys.stderr.flush()
    others = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    if others:
        os._exit(code)
    raise typer.Exit(code)
