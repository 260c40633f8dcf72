"""Weight files of the Hugging Face Hub: which one is used, and the errors."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from vsrm_cli.checkpoints.hub import fetch_from_hub, is_hub_id
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.errors import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """A small Hub: one repository, "someone/network", with a branch "main" and a tag "v1".

    Attributes:
        files: What the repository holds, by name.
        status: With which status to refuse everything, and the Hub's word for why; None to serve.
        asked: Method, path and token of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = {}
        self.refusal = None
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub = self.server
        hub.asked.append((self.command, self.path, self.headers.get("Authorization")))
        if hub.refusal == ("hang up",):
            return self.close_connection
        if hub.refusal:
            return self._send(hub.refusal[0], b"", {"X-Error-Code": hub.refusal[1]})
        path = self.path.split("?")[0]
        api = "/api/models/someone/network"
        for revision in ("main", "v1", COMMIT):
            if path in (api, f"{api}/revision/{revision}"):
                siblings = [{"rfilename": name} for name in hub.files]
                facts = {"id": "someone/network", "sha": COMMIT, "siblings": siblings}
                return self._send(200, json.dumps(facts).encode(), {})
            if path == f"{api}/tree/{revision}":
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0"}
                    for name, data in hub.files.items()
                ]
                return self._send(200, json.dumps(tree).encode(), {})
            prefix = f"/someone/network/resolve/{revision}/"
            if path.startswith(prefix):
                name = path.removeprefix(prefix)
                if name not in hub.files:
                    return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                etag = f'"{len(hub.files[name])}-{name}"'
                return self._send(200, hub.files[name], {"ETag": etag, "X-Repo-Commit": COMMIT})
        code = "RevisionNotFound" if "/someone/network" in path else "RepoNotFound"
        return self._send(404, b"", {"X-Error-Code": code})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def point_to(monkeypatch, url):
    """What HF_ENDPOINT does when it is set before the start."""
    constants = huggingface_hub.constants
    path = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    constants = huggingface_hub.constants
    point_to(monkeypatch, hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def refuse(name, reason):
    with pytest.raises(WeightsError, match=reason) as error:
        fetch_from_hub(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["README.md", "model.safetensors", "other.safetensors", "old.pth"], "model.safetensors"),
        (["README.md", "net.safetensors", "old.pth"], "net.safetensors"),
        (["README.md", "weights/net.pth"], "weights/net.pth"),
    ],
)
def test_the_weight_file_of_a_repository_is_found(hub, files, chosen):
    hub.files = {name: name.encode() for name in files}

    path = fetch_from_hub("someone/network")

    assert path.read_bytes() == chosen.encode()


def test_a_hub_id_is_a_model(hub):
    hub.files = {"model.safetensors": b"weights"}

    assert locate("someone/network").read_bytes() == b"weights"


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_can_be_pinned(hub, revision):
    hub.files = {"model.safetensors": b"weights"}

    assert fetch_from_hub(f"someone/network@{revision}").read_bytes() == b"weights"
    assert all(revision in path for _, path, _ in hub.asked)


@pytest.mark.parametrize("file", ["model.safetensors", "net.pth"])
def test_downloaded_files_need_no_connection(hub, monkeypatch, file):
    hub.files = {file: b"weights"}
    fetch_from_hub("someone/network")
    count = len(hub.asked)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    assert fetch_from_hub("someone/network").read_bytes() == b"weights"
    assert len(hub.asked) == count


def test_offline_the_error_suggests_a_command(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    refuse("someone/network", r"cannot be reached.*'vsrm models pull someone/network'")
    assert hub.asked == []


def test_an_unreachable_hub_is_reported(hub, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)

    refuse("someone/network", r"cannot be reached.*'vsrm models pull someone/network'")


def test_an_unresolvable_hub_is_reported_at_once(hub, monkeypatch, capfd):
    point_to(monkeypatch, "http://nowhere.invalid")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    began = time.monotonic()

    refuse("someone/network", "cannot be reached")
    assert time.monotonic() - began < 10
    assert capfd.readouterr().err == ""


def test_a_dropped_connection_to_the_hub_is_reported(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.refusal = ("hang up",)

    refuse("someone/network", "cannot be reached")


def test_the_token_is_sent(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files = {"model.safetensors": b"weights"}

    fetch_from_hub("someone/network")

    assert {token for _, _, token in hub.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], r"has no \.safetensors or \.pth file"),
        (["README.md"], r"has no \.safetensors or \.pth file"),
        (["a.safetensors", "b.safetensors"], r"several weight files \(a\.safetensors, b\.saf"),
        (["a.pth", "b.pth"], r"several weight files \(a\.pth, b\.pth\)"),
    ],
)
def test_a_repository_without_a_single_weight_file_is_reported(hub, files, reason):
    hub.files = dict.fromkeys(files, b"x")

    refuse("someone/network", reason)


def test_a_missing_repository_is_reported(hub):
    refuse("some/where", "no file 'some/where', and no Hub repository some/where")


def test_a_missing_revision_is_reported(hub):
    hub.files = {"model.safetensors": b"weights"}

    refuse("someone/network@v2", "has no revision 'v2'")


def test_a_gated_repository_is_reported(hub):
    hub.refusal = (403, "GatedRepo")

    refuse("someone/network", "accept its terms.*HF_TOKEN")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/name", True),
        ("owner/name@v1.0", True),
        ("owner/name@refs/pr/1", True),
        ("owner-1/na.me_2", True),
        ("name", False),
        ("a/b/c", False),
        ("runs/model.safetensors", False),
        ("../name", True),  # for the Hub's own client to refuse
        ("/owner/name", False),
        ("owner/name@", False),
    ],
)
def test_hub_ids_are_recognized(name, is_one):
    assert is_hub_id(name) is is_one


def test_a_relative_path_is_no_hub_id(hub):
    refuse("../name", "neither a file nor a Hub id")
