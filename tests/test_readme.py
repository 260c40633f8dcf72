"""Commands, options, code and links in the README and in docs are correct."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import av
import pytest
import typer

from docs.make_options import OUTPUT, options_page
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.cli import app as cli
from vsrm_cli.ops.dispatch import NAMES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]


def code_blocks(language, pages=GUIDES):
    found = (
        re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        for page in pages
    )
    return [block for blocks in found for block in blocks]


def marked_command(mark):
    return re.search(rf"^<!-- {mark} -->\n```sh\n(.*?)^```", README, re.M | re.S)[1]


def commands_of_the_program(group=None, words=()):
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands_of_the_program(command, (*words, name))


PROGRAM = dict(commands_of_the_program())
OF_EVERY_COMMAND = {"--help", "-h", "--version", "--install-completion"}


FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code_of(text):
    """The lines of a guide's shell blocks, and its code in sentences."""
    blocks = [code for language, code in FENCE.findall(text) if language in ("sh", "powershell")]
    inline = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    return [line for block in blocks for line in block.splitlines()] + inline


def commands_in_words():
    """Each `vsrm ...` of the guides, in code blocks and in sentences, as a list of words."""
    for page in GUIDES:
        for line in code_of(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            for part in re.split(r"[|&;]+", line.split(" #")[0]):
                called = re.search(r"(?:^|(?<!--model)[ /\\])(?:vsrm|vsrm_cli) ([^.\s].*)", part)
                if called:
                    yield shlex.split(called[1])


def command_of(words):
    """The command that some words call, by the longest name that fits."""
    return PROGRAM.get(tuple(words[:2])) or PROGRAM.get(tuple(words[:1]))


@pytest.mark.parametrize("mark", ["sample command", "test command"])
def test_a_marked_command_is_one_line_with_its_setup(mark):
    command = marked_command(mark)

    assert command.count("\n") == 1
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints")


def test_the_readme_shows_the_sample_command_first_and_the_test_command_last():
    lines = README.splitlines()

    assert marked_command("sample command") in "\n".join(lines[:24])
    assert marked_command("test command") in "\n".join(lines[len(lines) * 2 // 3 :])


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 230


def test_the_options_page_is_generated_from_the_program():
    written = OUTPUT.read_text(encoding="utf-8")

    assert written == options_page(), "run: python docs/make_options.py"


@pytest.mark.parametrize("name", PROGRAM, ids=" ".join)
def test_the_options_page_names_every_option_of_every_command(name):
    (section,) = re.findall(
        rf"^## vsrm {' '.join(name)}\n(.*?)(?=^## )", options_page(), re.M | re.S
    )

    missing = [
        option
        for parameter in PROGRAM[name].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-") and option not in OF_EVERY_COMMAND
        if f"`{option}`" not in section
    ]

    assert missing == []


def test_every_command_in_the_guides_exists_with_its_options():
    unknown = []
    for words in commands_in_words():
        command = command_of(words)
        known = set(OF_EVERY_COMMAND)
        if command is not None:
            known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        elif not words[0].startswith("--"):
            unknown.append(words)
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        unknown += [(words, option) for option in sorted(used - known)]

    assert len(list(commands_in_words())) > 60
    assert unknown == []


def test_every_option_named_in_a_sentence_exists():
    known = {o for c in PROGRAM.values() for p in c.params for o in (*p.opts, *p.secondary_opts)}
    elsewhere = {"--torch-backend", "--target"}  # of uv and of Docker

    named = {
        option
        for page in GUIDES
        for option in re.findall(r"`(--[a-z][a-z-]*)[^`]*`", page.read_text(encoding="utf-8"))
    }

    assert named - known - OF_EVERY_COMMAND - elsewhere == set()


@pytest.mark.parametrize("page", GUIDES[1:], ids=lambda page: page.name)
def test_the_readme_leads_to_every_page_of_docs(page):
    assert f"](docs/{page.name})" in README


@pytest.mark.parametrize("code", code_blocks("python"))
def test_the_python_code_in_the_guides_imports_existing_names(code):
    compile(code, "guide", "exec")

    imports = re.findall(r"^from (\S+) import (.+)$", code, re.M)

    for module, names in imports:
        for name in names.split(", "):
            assert hasattr(import_module(module), name)


@pytest.mark.parametrize("model", MODELS)
def test_the_readme_names_every_network(model):
    assert f"| `{model}` |" in README


@pytest.mark.parametrize("kernel", ["auto", *NAMES])
def test_the_options_page_names_every_kernel(kernel):
    assert f"`{kernel}`" in options_page()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_works(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))

    assert all((page.parent / link).exists() for link in links)


def test_the_table_of_complaints_names_tests_that_exist():
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
