"""A local web server that can be made to misbehave."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Host(ThreadingHTTPServer):
    """Serves one file under every path, in the way that its attributes say.

    Attributes:
        content: The file.
        cuts: After how many bytes to hang up, one number for each of the first responses.
        supports_ranges: Whether a part may be requested.
        declared: The Content-Length; None for the true one, "" for none.
        statuses: The status codes with which the first requests are refused.
        content_type: The Content-Type.
        redirect: The URL of a redirect for every request.
        requests: The headers of every request so far.
        pause: Waited for before the content is sent.
    """

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.cuts = []
        self.supports_ranges = True
        self.declared = None
        self.statuses = []
        self.content_type = "application/octet-stream"
        self.redirect = None
        self.requests = []
        self.pause = threading.Event()
        self.pause.set()
        self.url = f"http://127.0.0.1:{self.server_port}/file.pth"

    def handle_error(self, request, client_address):
        """Print nothing when clients hang up."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        host = self.server
        host.requests.append(self.headers)
        if host.statuses:
            return self._refuse(host.statuses.pop(0))
        if host.redirect:
            self.send_response(302)
            self.send_header("Location", host.redirect)
            return self.end_headers()
        start = self._start()
        if start >= len(host.content) > 0 and start:
            return self._refuse(416)
        part = host.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(host.content) - 1}/{len(host.content)}"
            )
        declared = len(part) if host.declared is None else host.declared
        if declared != "":
            self.send_header("Content-Length", str(declared))
        self.send_header("Content-Type", host.content_type)
        self.end_headers()
        host.pause.wait(20)
        self.wfile.write(part[: host.cuts.pop(0)] if host.cuts else part)
        return None

    def _start(self):
        wanted = self.headers.get("Range", "")
        if not self.server.supports_ranges or not wanted:
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _refuse(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serve(content):
    """A host that serves these bytes as long as the context lasts."""
    host = Host(content)
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        host.pause.set()
        host.shutdown()
        thread.join()
        host.server_close()
