"""The README tells the truth: its commands, its options, its code and its links."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import av
import pytest
import typer

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.cli import app as cli
from vsrm_cli.ops.dispatch import NAMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("weights/*.md")]
FRAME = re.compile("[─-╿]")  # the lines around Rich's tables


def code_blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def marked_command(mark):
    return re.search(rf"^<!-- {mark} -->\n```sh\n(.*?)^```", README, re.M | re.S)[1]


COMMANDS = ("upscale", "finetune")


def options_of_the_program(name):
    command = typer.main.get_command(cli.app).commands[name]
    return {p.opts[0]: p for p in command.params if p.opts[0].startswith("--")}


def options_of_the_readme(name):
    """What the README says of each option of a command, in one line, by its name."""
    (block,) = (b for b in code_blocks("text") if b.startswith(f"Usage: vsrm {name} "))
    words = " ".join(FRAME.sub(" ", block).split())
    parts = re.split(r"(?:\* )?(--[a-z-]+) ", words)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("mark", ["sample command", "test command"])
def test_a_marked_command_is_one_line_that_sets_itself_up(mark):
    command = marked_command(mark)

    assert command.count("\n") == 1
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints")


def test_the_commands_stand_on_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:24])

    assert marked_command("sample command") in first_screen
    assert marked_command("test command") in first_screen


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_option_and_no_other(command):
    assert set(options_of_the_readme(command)) == {*options_of_the_program(command), "--help"}


@pytest.mark.parametrize(
    ("command", "name"), [(c, name) for c in COMMANDS for name in options_of_the_program(c)]
)
def test_the_readme_tells_what_an_option_does_and_its_default(command, name):
    option = options_of_the_program(command)[name]
    shown = f"({option.show_default})" if isinstance(option.show_default, str) else option.default
    has_default = not (option.required or option.is_flag)

    told = options_of_the_readme(command)[name]

    assert option.help in told
    assert ("[required]" in told) == option.required
    assert all(short in told for short in option.opts[1:])
    assert (f"[default: {shown}]" in told) == has_default


@pytest.mark.parametrize("code", code_blocks("python"))
def test_the_python_of_the_readme_imports_what_exists(code):
    compile(code, "README.md", "exec")

    imports = re.findall(r"^from (\S+) import (.+)$", code, re.M)

    for module, names in imports:
        for name in names.split(", "):
            assert hasattr(import_module(module), name)


@pytest.mark.parametrize("model", MODELS)
def test_the_readme_names_every_network(model):
    assert f"| `{model}` |" in README


@pytest.mark.parametrize("kernel", ["auto", *NAMES])
def test_the_readme_names_every_kernel(kernel):
    assert f"`{kernel}`" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))

    assert all((page.parent / link).exists() for link in links)


def test_the_table_of_pains_names_tests_that_exist():
    table = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    written = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))

    named = re.findall(r"`(test_\w+)`", table)

    assert len(named) > 40
    assert [name for name in named if f"def {name}(" not in written] == []


def test_the_architecture_lists_every_module_and_no_other():
    plan = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    files = {path.name for path in (ROOT / "vsrm_cli").rglob("*.py")} - {"__init__.py"}

    assert set(re.findall(r"\w+\.py\b", plan)) == files


def test_the_constraints_pin_every_direct_requirement():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["fast"] + extras["test"]
    names = [re.match("[a-z0-9-]+", requirement)[0] for requirement in wanted]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")

    missing = [name for name in names if f"\n{name}==" not in pins]

    assert missing == []
    assert "\ntorch==2.13.0\n" in pins


def test_the_sample_is_a_small_video_with_sound():
    sample = ROOT / "tests" / "data" / "sample.mp4"

    with av.open(str(sample)) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio

        assert (video.width, video.height, video.frames, video.average_rate) == (192, 108, 60, 24)
        assert sound.codec_context.name == "aac"
    assert sample.stat().st_size < 600_000
