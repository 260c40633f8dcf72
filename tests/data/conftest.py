"""Footage of every kind, and a cache of its own."""

import pytest
from clips import make_clip
from scenes import draw_folder, draw_pack, draw_photo


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VSRM_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder of everything."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "films").mkdir()
    make_clip(folder / "films" / "a.mp4", size=(96, 64))
    draw_folder(folder / "films" / "waves", frames=5, height=64, width=80)
    draw_photo(folder / "photos" / "p.png", height=64, width=64)
    draw_pack(folder / "pack.safetensors", photos=1, clips=1)
    return folder
