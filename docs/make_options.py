"""Write `options.md` from the program itself: each command, its arguments and its options.

Run it after an option or its help text has changed: python docs/make_options.py
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from vsrm_cli.cli.app import app

EXAMPLE = re.compile(r"^Example: (.*)$", re.MULTILINE)
OUTPUT = Path(__file__).parent / "options.md"

INTRODUCTION = """\
# Commands and options

<!-- Written by docs/make_options.py. Change the help text in vsrm_cli/cli, then run it again. -->

Each command also has `--help` (`-h`). `vsrm --version` prints the version,
`vsrm --install-completion` sets up completion for bash, zsh, fish or PowerShell: of commands,
options, and values such as the names of networks. Open a new terminal after it.

[Exit codes](#exit-codes) and [environment variables](#environment-variables) are at the end.
"""

CONCLUSION = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done; a damaged input counts as done, with a warning and `"truncated": true` in `--json` |
| 1 | failed; the reason is one sentence on stderr, and there is no output |
| 2 | wrong usage; the reason is one sentence on stderr, and there is no output |
| 3 | the result failed its own check and was not kept |
| 130 | interrupted; there is no output yet, and the same command resumes |

Progress, warnings and errors go to stderr. Stdout holds results only: tables, `--json`, or video.

## Environment variables

| name | what it does |
|---|---|
| `VSRM_MODEL`, `VSRM_DEVICE` | defaults of `--model` (of `vsrm upscale`) and `--device` |
| `VSRM_CACHE` | folder for downloads; by default `~/.cache/vsrm`, or the system's own place |
| `VSRM_KERNELS` | how the selective scan, the innermost loop of the networks, is computed |
| `HF_TOKEN`, `HF_HUB_OFFLINE` | as for every program that uses the Hugging Face Hub |
| `NO_COLOR` | no colors on the terminal |

`VSRM_KERNELS` is `auto` (the default) or one of these. All of them give the same frames up to
rounding, so if you doubt a result, run it again with another one. vsrm never replaces the one you
chose: if it cannot run here, the command stops and gives the reason.

| value | where it runs |
|---|---|
| `reference` | everywhere: plain PyTorch, step by step, very slow; it defines the right result |
| `chunked` | everywhere: plain PyTorch, many steps at once |
| `compiled` | on CPUs, with Numba (the extra `fast`) |
| `triton` | on CUDA, with Triton, which comes with PyTorch; two smaller fused kernels go with it |
| `mamba_ssm` | on CUDA, with mamba-ssm and its compiled scan (the extra `mamba`) |
"""


def options_page() -> str:
    """The whole page, as Markdown."""
    sections = [_section(name, command) for name, command in _commands(typer.main.get_command(app))]
    return "\n".join([INTRODUCTION, *sections, CONCLUSION])


def _commands(group: Any, prefix: str = "vsrm") -> Iterator[tuple[str, Any]]:
    """Every command by its full name, in the order of `--help`; a group before its own."""
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")


def _section(name: str, command: Any) -> str:
    """One command: what it does, its arguments, and a table for each group of its options."""
    parameters = [p for p in command.params if not p.hidden and p.name != "help"]
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    panels: dict[str, list[Any]] = {}
    for option in parameters:
        if option.param_type_name == "option":
            panels.setdefault(option.rich_help_panel or "", []).append(option)
    parts = [f"## {name}", EXAMPLE.sub(r"```sh\n\1\n```", inspect.cleandoc(command.help))]
    if arguments:
        rows = [f"| `{_cell(a.metavar or a.name.upper())}` | {_cell(a.help)} |" for a in arguments]
        parts.append("\n".join(["| argument | what it is |", "|---|---|", *rows]))
    for panel, options in panels.items():
        head = ["| option | default | what it does |", "|---|---|---|"]
        table = "\n".join([*head, *map(_row, options)])
        parts.append(f"**{panel}**\n\n{table}" if panel else table)
    return "\n\n".join(parts) + "\n"


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" `{_cell(option.metavar or 'VALUE')}`"
    return f"| {names}{value} | {_default(option)} | {_cell(option.help)} |"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return _cell(option.show_default)
    if option.is_flag or option.default is None or option.show_default is False:
        return ""
    return f"`{_cell(str(option.default))}`"


def _cell(text: str) -> str:
    """Text as it stands in a cell of a table."""
    return text.replace("|", r"\|")


if __name__ == "__main__":
    OUTPUT.write_text(options_page(), encoding="utf-8")
