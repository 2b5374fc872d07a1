"""A small real hub on this machine: repositories at their commits, over the part of the HTTP API that its clients use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Files = Mapping[str, bytes]  # path in the repository -> content


@contextmanager
def hub(datasets: Mapping[str, Mapping[str, Files]], models: Mapping[str, Mapping[str, Files]]) -> Iterator[str]:
    """Yield the address of a hub that serves `owner/name` -> commit -> files; the last commit is also `main`."""
    kinds = {"datasets": datasets, "models": models}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            self._answer(json.loads(body) if body.startswith("{") else parse_qs(body))

        def _answer(self, asked: Mapping[str, object] | None = None) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            api = parts[0] == "api"
            kind, parts = (parts[1], parts[2:]) if api else ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)  # fmt: skip
            repository = kinds.get(kind, {}).get("/".join(parts[:2]))
            action, revision, path = (parts[2:3] or [""])[0], (parts[3:4] or ["main"])[0], "/".join(parts[4:])
            if repository is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            commit = revision if revision in repository else list(repository)[-1] if revision == "main" else ""
            if not commit:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = repository[commit]
            if not api:
                if path not in files:
                    return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
                tag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
                return self._send(200, files[path], {"ETag": tag, "X-Repo-Commit": commit})
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            if action == "paths-info":
                wanted = (asked or {}).get("paths", [])
                folders = {name.rpartition("/")[0] for name in files}
                known = [entry for entry in entries if entry["path"] in wanted]  # type: ignore[operator]
                known += [{"type": "directory", "path": one, "oid": "0" * 40} for one in wanted if one in folders]  # type: ignore[attr-defined]
                return self._send(200, json.dumps(known).encode())
            if action == "tree":
                under = f"{path}/" if path else ""
                inner = [one for one in entries if str(one["path"]).startswith(under)]
                here = [one for one in inner if "/" not in str(one["path"])[len(under) :]]
                folders = {under + str(one["path"])[len(under) :].split("/")[0] for one in inner if one not in here}
                here += [{"type": "directory", "path": one, "oid": "0" * 40} for one in sorted(folders)]
                return self._send(200, json.dumps(here).encode())
            siblings = [{"rfilename": name} for name in files]
            told = {"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings, "private": False, "tags": []}
            return self._send(200, json.dumps(told).encode())

        def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
