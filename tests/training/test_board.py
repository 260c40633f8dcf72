"""TensorBoard is given every line and picture where it is installed, and not missed elsewhere."""

import sys
from types import ModuleType

import pytest
import torch

from vsrm_cli.training import board as boards
from vsrm_cli.training.report import Board
from vsrm_cli.training.validation import Piece, Verdict

LINE = {"step": 7, "loss": 0.5, "lr": 0.1}
PIECE = Piece("waves", 3, *[torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2)


class Writer:
    """Stands in for TensorBoard's own."""

    def __init__(self, folder):
        self.seen = [("folder", folder)]
        writers.append(self)

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))

    def add_image(self, name, picture, step):
        self.seen.append((name, tuple(picture.shape), step))

    def close(self):
        self.seen.append("closed")


writers: list[Writer] = []


@pytest.fixture
def is_installed(monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(boards, "find_spec", lambda _: object())
    writers.clear()


@pytest.mark.usefixtures("is_installed")
def test_where_it_is_installed_it_is_given_lines_and_pictures(tmp_path):
    board = Board(tmp_path)

    board.add_line(LINE)
    board.add_pictures([PIECE], Verdict(7, [], [torch.zeros(3, 8, 8)]))
    board.close()

    ((folder, *seen),) = (writer.seen for writer in writers)
    assert folder == ("folder", str(tmp_path / "tensorboard"))
    assert sorted(seen[:2]) == [("loss", 0.5, 7), ("lr", 0.1, 7)]
    assert seen[2:] == [("waves", (3, 8, 8), 7), "closed"]


def test_where_it_is_not_installed_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "find_spec", lambda _: None)
    board = Board(tmp_path)

    board.add_line(LINE)
    board.close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("is_installed")
def test_a_process_that_writes_nothing_has_no_board():
    Board(None).add_line(LINE)

    assert writers == []
