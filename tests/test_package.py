"""The package: what an installation contains, and how soon the program answers."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from vsrm_cli.checkpoints.catalog import FOR_CLEAN, MODELS
from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.models.vsrm_compact import VSRMCompact

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
ABOUT = f"""
import vsrm_cli
network = vsrm_cli.load_model({FOR_CLEAN!r}, device="cpu")
print(vsrm_cli.__file__, network.name, sep="\\n")
"""

# Everything is imported once for what others import, which stays; then our own modules are again.
# `/proc` stays, too, and with it what is asked for only where it is.
AS_ON_WINDOWS = """
import importlib, os, pkgutil, sys
from pathlib import Path
from types import ModuleType
import vsrm_cli

kernels = ("triton_gpu", "triton_kernels", "fused_triton", "mamba_ssm", "__main__")
found = [each.name for each in pkgutil.walk_packages(vsrm_cli.__path__, "vsrm_cli.")]
ours = [name for name in found if not name.endswith(kernels)]
for name in ours:
    importlib.import_module(name)
for name in ("vsrm_cli", *ours):
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # an import of it fails
for name in ("sysconf", "sched_getaffinity", "fork", "getuid"):
    delattr(os, name)
sys.modules["msvcrt"] = locks = ModuleType("msvcrt")
locks.LK_NBLCK, locks.locking = 2, lambda *_: None
sys.platform = "win32"

for name in ours:
    importlib.import_module(name)
from stub_network import draw_clip, load_nearest
from vsrm_cli.upscale import job
job.load_model = load_nearest
summary = job.upscale_video(draw_clip(Path("small.mp4")), Path("large.mp4"))
print(len(ours) > 100, summary.frames_out, sorted(path.name for path in Path().iterdir()))
"""


def run(*words, **options):
    """Run Python and return what it printed; a failure shows what it said."""
    result = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy of the sources that holds untrained weights."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    caches = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("vsrm_cli", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    entry = MODELS[FOR_CLEAN]
    save_weights(VSRMCompact(entry.config), source / "weights" / entry.file, {"name": "untrained"})

    run("-c", BUILD, folder, cwd=source)

    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_holds_the_package_the_weights_and_the_command(wheel):
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vsrm_cli").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    others = {
        "vsrm_cli/py.typed",
        "vsrm_cli/weights/README.md",
        f"vsrm_cli/weights/{MODELS[FOR_CLEAN].file}",
    }

    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        commands = content.read(entry_points).decode()

    assert {name for name in names if ".dist-info/" not in name} == modules | others
    assert "vsrm = vsrm_cli.__main__:main" in commands


@pytest.mark.slow
def test_an_sdist_holds_what_its_tests_and_readme_need_and_nothing_that_was_built(tmp_path):
    source = tmp_path / "source"
    litter = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", ".*_cache")
    shutil.copytree(ROOT, source, ignore=litter)

    run("-c", BUILD.replace("build_wheel", "build_sdist"), tmp_path, cwd=source)

    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    weights = {f"weights/{entry.file}" for entry in MODELS.values() if entry.file}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    others = {"LICENSE", "constraints.txt", "weights/README.md", "benchmarks/before_after.png"}
    assert weights | tests | others | {"tests/conftest.py", "tests/data/sample.mp4"} <= names
    assert not [name for name in names if "__pycache__" in name or "/.venv" in name]


@pytest.mark.slow
def test_an_installation_finds_its_weights_from_any_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)

    told = run("-c", ABOUT, cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(site)})

    assert told.splitlines() == [str(site / "vsrm_cli" / "__init__.py"), "untrained"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems are simulated here")
def test_a_job_needs_nothing_that_windows_lacks(tmp_path):
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))

    told = run("-c", AS_ON_WINDOWS, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths})

    assert told == "True 10 ['large.mp4', 'small.mp4']\n"


def test_help_answers_in_less_than_half_a_second(tmp_path):
    def seconds():
        # Of the processor: other programs may hold the machine up for as long as they like.
        began = os.times()
        run("-m", "vsrm_cli", "--help", cwd=ROOT)
        ended = os.times()
        return (ended.children_user + ended.children_system) - (
            began.children_user + began.children_system
        )

    best = min(seconds() for _ in range(3))

    assert best < 0.5


@pytest.mark.parametrize("module", ["vsrm_cli", "vsrm_cli.cli.app", "vsrm_cli.cli.console"])
def test_importing_the_package_does_not_import_torch(module):
    told = run("-c", f"import sys, {module}; print('torch' in sys.modules)", cwd=ROOT)

    assert told.strip() == "False"


def test_every_module_belongs_to_a_package_that_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "vsrm_cli").rglob("*.py")
    }

    assert set(packages) == folders | {"vsrm_cli.weights"}


def test_the_dockerfile_copies_what_exists_and_what_is_not_ignored():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n!")

    assert copied == {name.split("\n")[0] for name in kept[1:]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "vsrm_cli", "weights"} <= copied
