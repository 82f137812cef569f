"""A hub on loopback that speaks what huggingface_hub asks of the real one, with folders as its repositories.

Large files are kept apart as the hub keeps them: /resolve/ redirects to another host, here `localhost` in place of
`127.0.0.1`, which must never be sent the token.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Files from this size on are kept apart.
LARGE_BYTES = 4096


@dataclass
class Repository:
    """A folder as a repository.

    Attributes:
        folder: its files.
        gated: whether the account must have accepted its terms.
        private: whether it is hidden from those without a token.
    """

    folder: Path
    gated: bool = False
    private: bool = False

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Content by name."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@dataclass
class HubServer:
    """`with HubServer() as hub:` listens at `hub.endpoint`.

    Attributes:
        repositories: by name, `owner/name`.
        token: the one that opens gated and private repositories.
        failing: HTTP status that everything is answered with, if it is not 0.
        cut: file of which the first answer ends half-way.
        damaged: file that arrives changed.
        requests: method, host, path and Authorization of each.
        connections: every one that was opened.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "-".join(("token", "of", "these", "tests"))
    failing: int = 0
    cut: str = ""
    damaged: str = ""
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Answer):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No longer listen, and end what is open."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fetched(self) -> list[str]:
        """The files whose content was asked for, in order."""
        return [
            path.partition("/resolve/" + COMMIT + "/")[2] or path.rpartition("?")[2]
            for method, _, path, _ in self.requests
            if method == "GET" and ("/resolve/" in path or path.startswith("/large/"))
        ]


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def setup(self) -> None:
        super().setup()
        self.server_state.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server_state, unquote(self.path)
        token = self.headers.get("Authorization", "")
        hub.requests.append((self.command, self.headers["Host"].partition(":")[0], path, token))
        if hub.failing:
            self._send(hub.failing)
        elif path.startswith("/large/"):
            self._content(*self._large(path))
        elif path.startswith("/api/models/"):
            owner, name, *rest = urlsplit(path).path.removeprefix("/api/models/").split("/")
            self._api(f"{owner}/{name}", rest)
        elif "/resolve/" in path:
            owner, name, _, revision, *rest = path.lstrip("/").split("/")
            self._resolve(f"{owner}/{name}", revision, "/".join(rest))
        else:
            self._send(404)

    def _api(self, name: str, rest: list[str]) -> None:
        repository = self._open(name)
        if repository is None:
            return
        if rest[0] == "revision" and rest[1] in ("main", COMMIT[:7], COMMIT):
            self._json({"id": name, "sha": COMMIT, "siblings": []})
        elif rest[0] == "tree" and rest[1] == COMMIT:
            self._json([self._listed(path, content) for path, content in repository.files.items()])
        else:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._open(name)
        if repository is None:
            return
        if revision != COMMIT:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif repository.gated and not self._has_token():
            self._send(401, {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif len(content := repository.files[file]) < LARGE_BYTES:
            self._content(file, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_name(content)}"'})
        else:
            digest = hashlib.sha256(content).hexdigest()
            port = self.server_state.port
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"http://localhost:{port}/large/{name}?{file}",
            }
            self._send(302, headers)

    def _open(self, name: str) -> Repository | None:
        """The repository, if this client may see it; the hub does not tell a hidden one from one that is not."""
        repository = self.server_state.repositories.get(name)
        if repository is None or (repository.private and not self._has_token()):
            self._send(401, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _has_token(self) -> bool:
        return bool(self.headers.get("Authorization") == f"Bearer {self.server_state.token}")

    def _large(self, path: str) -> tuple[str, bytes, dict[str, str]]:
        name, _, file = path.removeprefix("/large/").partition("?")
        content = self.server_state.repositories[name].files[file]
        return file, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}

    def _content(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        hub, first, status = self.server_state, 0, 200
        if file == hub.damaged:
            content = bytes(reversed(content))
        if asked := self.headers.get("Range"):
            first, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers |= {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        whole = content[first:]
        if self.command == "GET" and file == hub.cut:
            hub.cut = ""
            self._send(status, headers, whole[: len(whole) // 2], length=len(whole))
            self.close_connection = True
            return
        self._send(status, headers, whole)

    @staticmethod
    def _listed(path: str, content: bytes) -> dict[str, object]:
        told: dict[str, object] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": _git_name(content),
        }
        if len(content) >= LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return told

    def _json(self, document: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _send(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
