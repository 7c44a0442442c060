"""The verbs: arguments enter, a table or JSON on stdout leaves; a failure is one line on stderr and exit code 1 (2: usage).

Everything heavy is imported inside the verb that needs it, so that ``modelium --help`` and the remote verbs start quickly.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from modelium.cli.invocation import Invocation
from modelium.errors import ModeliumError

app = typer.Typer(
    name="modelium",
    help="Drop a Hugging Face folder into models/incoming, call it at /predict/NAME.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runtime = typer.Typer(
    help="The model runtime: Triton, torch and transformers in an environment of their own.", no_args_is_help=True
)
app.add_typer(runtime, name="runtime")

_HERE = "On this machine"
_REMOTE = "Ask a running Modelium"


def _path(text: str) -> Path:
    """An empty one is an unset variable of a shell's; it would mean the working directory."""
    if not text:
        raise typer.BadParameter("it is empty: give a model's folder or file")
    return Path(text)


Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Gpus = Annotated[
    list[str] | None,
    typer.Option("--gpu", help="Plan as if this machine had a GPU with that memory, as 80GiB; once for each GPU."),
]
Name = Annotated[str, typer.Argument(help="The model's name, as `modelium list` shows it.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Ends by SystemExit."""
    try:
        app(arguments)
    except ModeliumError as error:
        sys.stderr.write(f"modelium: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _version(wanted: bool) -> None:
    if wanted:
        from modelium import __version__

        sys.stdout.write(f"modelium {__version__}\n")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Default: $MODELIUM_CONFIG, else your own ./modelium.yaml.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", envvar="MODELIUM_URL", help="The gateway. Default: from the configuration.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the gateway's API key. Default: $MODELIUM_API_KEY.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    context.obj = Invocation(config=config, url=url, api_key_file=api_key_file)


# -- on this machine -----------------------------------------------------------------------------------------------


@app.command(rich_help_panel=_HERE)
def serve(
    context: typer.Context,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Watch, decide, load, answer: until SIGTERM or Ctrl-C."""
    from modelium.cli.serving import run

    run(_invocation(context).settings(to_serve=True), log_level)


@app.command("inspect", rich_help_panel=_HERE)
def inspect_(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(parser=_path, help="A model's folder or .onnx file; it is only read.")],
    gpu: Gpus = None,
    as_json: Json = False,
) -> None:
    """What a folder is, and how it would be served: no server needed."""
    from modelium.cli import offline, report, terminal

    inspected = offline.inspect(path, _invocation(context).settings(), gpus=_sizes(gpu))
    terminal.emit(inspected.as_json() if as_json else report.inspection(inspected))
    if not inspected.servable:
        raise typer.Exit(1)


@app.command(rich_help_panel=_HERE)
def render(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(parser=_path, help="A model's folder or .onnx file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the entry's directory is put.")],
    gpu: Gpus = None,
    as_json: Json = False,
) -> None:
    """Write the Triton model-repository entry of a folder: no server needed."""
    from modelium.cli import offline, report, terminal

    rendered = offline.render(path, out, _invocation(context).settings(), gpus=_sizes(gpu))
    terminal.emit(rendered.as_json() if as_json else report.rendering(rendered))


@app.command(rich_help_panel=_HERE)
def simulate(
    context: typer.Context,
    trace: Annotated[
        str | None,
        typer.Argument(
            help="CSV of `time_s,model[,duration_s]`, `-`, or `zipf:requests=10000,models=50`; default: of a running Modelium."
        ),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="CSV or JSON of `name,bytes,load_seconds`, or made:16GiB; default: made up.")
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="Devices, as 8x80GiB (the default) or 2x24GiB,host:64GiB.")] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Once for each; default: as configured, and those to compare.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Take what is not given (trace, models, fleet) of this Modelium.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is made up.", min=0)] = None,
    duration: Annotated[float, typer.Option(help="Seconds of an answer whose line does not say.", min=0)] = 1.0,
    picture: Annotated[Path | None, typer.Option(help="Draw it, too: a PNG.", dir_okay=False)] = None,
    as_json: Json = False,
) -> None:
    """What requests would have waited, under each policy: no server needed."""
    from modelium.cli import simulated, terminal
    from modelium.simulation.picture import draw

    asked = simulated.Asked(trace=trace, models=models, fleet=fleet, policies=policy or (), seed=seed, duration_s=duration)
    invocation = _invocation(context)
    invocation.url = url or invocation.url
    remote = invocation.remote() if url or trace is None else None
    setting, names = simulated.prepare(asked, invocation.settings(), remote)
    outcomes = simulated.run(setting, names, picture)
    terminal.emit(simulated.as_json(setting, outcomes) if as_json else simulated.table(setting, outcomes))
    if picture is not None:  # at the end: where it cannot be written after all, the figures are not lost
        draw(outcomes, simulated.title(setting), picture)


@app.command(rich_help_panel=_HERE)
def config(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it is valid.")] = False,
    as_json: Json = False,
) -> None:
    """The configuration in effect: the file, the environment and the defaults."""
    from modelium.cli import report, terminal

    settings = _invocation(context).settings()
    if check:
        terminal.emit("the configuration is valid")
    else:
        terminal.emit(settings.model_dump_json(indent=2) if as_json else report.configuration(settings))


@app.command(rich_help_panel=_HERE)
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Can this machine serve? Each check with what to do about it; exit code 1 if one fails."""
    from modelium.cli import diagnosis, report, terminal
    from modelium.cli.checks import Outcome

    checks = diagnosis.examine(_invocation(context).settings())
    terminal.emit(diagnosis.as_json(checks) if as_json else report.checks(checks))
    if any(check.outcome is Outcome.FAIL for check in checks):
        raise typer.Exit(1)


@runtime.command("install")
def runtime_install(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Option(help="Default: triton.runtime_directory of the configuration.")] = None,
    extras: Annotated[
        list[str] | None, typer.Option("--with", help="Further requirements: `vllm` (language models), `ray`, `test`.")
    ] = None,
    python: Annotated[str | None, typer.Option(help="Another Python for it, as 3.12; default: Modelium's own.")] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is an NVIDIA GPU.")] = "auto",
) -> None:
    """Make the environment that runs models, or bring it up to date."""
    from modelium import runtime_env
    from modelium.cli import report, terminal

    configured = _invocation(context).settings().triton.runtime_directory
    wanted = directory or configured
    found = runtime_env.install(wanted, extras=extras or (), python=python, accelerator=accelerator)
    terminal.emit(report.runtime(found))
    if wanted.absolute() != configured.absolute():
        terminal.emit(f"to use it: triton: {{runtime_directory: {wanted}}} in modelium.yaml")
    if found.problems:
        raise typer.Exit(1)


@runtime.command("show")
def runtime_show(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Option(help="Default: triton.runtime_directory of the configuration.")] = None,
    as_json: Json = False,
) -> None:
    """What is in the environment that runs models."""
    from modelium import runtime_env
    from modelium.cli import report, terminal

    found = runtime_env.inspect(directory or _invocation(context).settings().triton.runtime_directory)
    terminal.emit(report.runtime_json(found) if as_json else report.runtime(found))
    if found.problems:
        raise typer.Exit(1)


# -- ask a running Modelium ----------------------------------------------------------------------------------------


@app.command("list", rich_help_panel=_REMOTE)
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Every model: its state, memory and use."""
    from modelium.cli import replies, show, terminal

    reply = _invocation(context).remote().get("/models")
    terminal.emit(reply if as_json else show.models(replies.models(reply)))


@app.command(rich_help_panel=_REMOTE)
def status(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """One model: what it is, where it runs, how it is used, what was decided about it."""
    from modelium.cli import replies, show, terminal
    from modelium.cli.ray import ray_beside
    from modelium.cli.remote import model_path

    remote = _invocation(context).remote()
    reply = remote.get(model_path(name))
    if as_json:
        terminal.emit(reply)
    else:
        found = replies.model(reply)
        terminal.emit(show.model(found, ray_beside(remote, found)))


@app.command(rich_help_panel=_REMOTE)
def why(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """The last decisions about a model, each with its rule and reason."""
    from modelium.cli import replies, show, terminal
    from modelium.cli.remote import model_path

    reply = _invocation(context).remote().get(model_path(name))
    model = replies.model(reply)
    terminal.emit(replies.decisions_json(model) if as_json else show.reasons(model))


@app.command(rich_help_panel=_REMOTE)
def plan(
    context: typer.Context,
    dropped: Annotated[
        Path | None,
        typer.Option("--with", parser=_path, metavar="PATH", help="What would happen if this folder or file were dropped."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What the next pass would do, without doing it."""
    from modelium.cli import replies, show, terminal

    invocation = _invocation(context)
    if dropped is None:
        reply = invocation.remote().get("/plan")
    else:
        from modelium.analysis.wire import encode
        from modelium.cli import offline

        body = encode(offline.analyze(dropped, invocation.settings()))
        reply = invocation.remote().post("/plan", timeout_s=30, body=body)
    terminal.emit(reply if as_json else show.plan(replies.plan(reply)))


Timeout = Annotated[float, typer.Option(help="Seconds to wait for it.", min=0.1)]


@app.command(rich_help_panel=_REMOTE)
def load(context: typer.Context, name: Name, timeout: Timeout = 600, as_json: Json = False) -> None:
    """Load a model now and wait until it answers."""
    _act(context, name, "load", timeout, as_json, waiting=f"loading {name}")


@app.command(rich_help_panel=_REMOTE)
def unload(context: typer.Context, name: Name, timeout: Timeout = 120, as_json: Json = False) -> None:
    """Unload a model and wait until its memory is back."""
    _act(context, name, "unload", timeout, as_json, waiting=f"unloading {name}")


@app.command(rich_help_panel=_REMOTE)
def pin(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Never evict a model."""
    _act(context, name, "pin", 30, as_json)


@app.command(rich_help_panel=_REMOTE)
def unpin(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Let a model be evicted again."""
    _act(context, name, "unpin", 30, as_json)


def _act(context: typer.Context, name: str, verb: str, timeout_s: float, as_json: bool, waiting: str = "") -> None:
    from modelium.cli import replies, show, terminal
    from modelium.cli.remote import model_path

    remote = _invocation(context).remote()
    with terminal.spinner(waiting):
        reply = remote.post(model_path(name, verb), timeout_s=timeout_s)
    terminal.emit(reply if as_json else show.outcome(verb, replies.model(reply)))


def _sizes(gpus: list[str] | None) -> list[int]:
    """``80GiB`` → bytes; wrong usage where it is no size."""
    if not gpus:
        return []
    from modelium.cli.machine import gpu_bytes

    try:
        return [gpu_bytes(gpu) for gpu in gpus]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--gpu") from None


def _invocation(context: typer.Context) -> Invocation:
    invocation = context.find_object(Invocation)
    assert invocation is not None  # the callback has set it
    return invocation
