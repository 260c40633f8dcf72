"""Footage of every kind, and an empty cache."""

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
    """A folder with a video, a folder of frames, a photo and a pack."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "videos").mkdir()
    make_clip(folder / "videos" / "a.mp4", size=(96, 64))
    draw_folder(folder / "videos" / "waves", frames=5, height=64, width=80)
    draw_photo(folder / "photos" / "p.png", height=64, width=64)
    draw_pack(folder / "pack.safetensors", photos=1, clips=1)
    return folder
