"""A local server of the Hugging Face Hub's API, for folders on this machine.

It answers what ``huggingface_hub`` asks for to list and download a model: ``/api/models/...`` and
``/ORG/NAME/resolve/...``. The library itself is the real one.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """A model that is served, and the names of the files that were downloaded."""

    model: str
    folder: Path
    address: str = ""
    downloads: list[str] = field(default_factory=list)

    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _describe(name: str, path: Path) -> dict[str, object]:
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _digest(path)}


def _make_handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            api, resolve = f"/api/models/{hub.model}", f"/{hub.model}/resolve/"
            files = hub.files()
            if path.startswith(f"{api}/tree/"):
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": file.stat().st_size,
                        "oid": _digest(file),
                    }
                    for name, file in files.items()
                ]
                self._send(json.dumps(tree).encode(), {}, with_body)
            elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                siblings = [{"rfilename": name} for name in files]
                info = {"id": hub.model, "sha": COMMIT, "siblings": siblings}
                self._send(json.dumps(info).encode(), {}, with_body)
            elif path.startswith(api):
                self._fail("RevisionNotFound")
            elif path.startswith(resolve):
                name = path.removeprefix(resolve).partition("/")[2]
                if name not in files:
                    return self._fail("EntryNotFound")
                if with_body:
                    hub.downloads.append(name)
                headers = {"ETag": f'"{_digest(files[name])}"', "X-Repo-Commit": COMMIT}
                self._send(files[name].read_bytes(), headers, with_body)
            else:
                self._fail("RepoNotFound")
            return None

        def _send(self, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _fail(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


@contextmanager
def serve_hub(model: str, folder: Path) -> Iterator[HubServer]:
    """Serve a folder as a model of the Hub while the context is open."""
    hub = HubServer(model, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
