"""The options that every command which starts a server has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tzk_core.cli.inputs import device_option

__all__ = ["archive_options", "model_store_option", "serving_options"]


def model_store_option(help_text: str) -> Callable[[Callable], Callable]:
    """Adds ``--model-store``."""
    return click.option(
        "--model-store",
        type=click.Path(path_type=Path),
        default=Path("model_store"),
        show_default=True,
        help=help_text,
    )


def archive_options(command: Callable) -> Callable:
    """Adds ``--bf16`` and ``--backend``."""
    options = [
        click.option(
            "--bf16",
            is_flag=True,
            help="On a GPU, networks in bfloat16 where the model allows it; each worker measures "
            "that.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["torch", "compile", "onnx"]),
            default="torch",
            show_default=True,
            help="What runs the model's large parts; onnx runs them on the CPU, and needs the "
            "extra 'export' here, and where it is served onnxruntime.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def serving_options(command: Callable) -> Callable:
    """Adds the options of ``launcher.Settings`` other than the model store."""
    path = click.Path(path_type=Path)
    options = [
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            help="Beyond loopback only with keys, or --insecure.",
        ),
        click.option("--port", type=int, default=8080, show_default=True, help="0: any free one."),
        click.option("--management-port", type=int, help="[default: port + 1]"),
        click.option("--metrics-port", type=int, help="[default: port + 2]"),
        click.option(
            "--keys-file", type=path, help="Who may call: a key a line. Also: TZK_API_KEYS=key,key."
        ),
        click.option("--insecure", is_flag=True, help="Let everybody who reaches --host call."),
        click.option(
            "--drain",
            type=click.FloatRange(min=0),
            default=30.0,
            show_default=True,
            help="Seconds that requests in flight have at the end.",
        ),
        click.option("--access-log", help="A file, or - for standard output  [default: in --logs]"),
        device_option,
        click.option(
            "--config",
            type=path,
            help="TorchServe's configuration  [default: ./config.properties, else tzk's own]",
        ),
        click.option("--logs", type=path, help="Keep the logs in this folder."),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="Of each worker  [default: processors / workers]",
        ),
        click.option(
            "--start-timeout",
            type=click.IntRange(1, 86_400),
            help="Seconds in which every worker must be ready  [default: 120, or the "
            "configuration's startupTimeout; at least 900 for archives of --backend compile]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command
