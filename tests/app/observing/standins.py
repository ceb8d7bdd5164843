"""Stand-ins of the services that watch: a collector of OpenTelemetry's spans, and LangSmith's HTTP API."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import langsmith.utils
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    #: 0 unset, 1 ok, 2 error.
    status: int
    words: str
    service: str


@dataclass
class Service:
    """An HTTP server in a thread, which keeps what it is sent and answers with a status."""

    status: int = 200
    bodies: list[tuple[str, str, bytes]] = field(default_factory=list)
    port: int = 0
    #: Set while it answers nobody.
    silent: threading.Event = field(default_factory=threading.Event)
    answer: bytes = b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        service, closing = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if service.silent.is_set():
                    closing.wait()
                    return
                service.bodies.append((self.path, self.headers.get("content-type", ""), body))
                self.send_response(service.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(service.answer)))
                self.end_headers()
                self.wfile.write(service.answer)

            do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names of http.server

            def log_message(self, *words: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            closing.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Collector(Service):
    """Takes spans by OTLP over HTTP."""

    def spans(self) -> list[Seen]:
        """What has arrived so far."""
        found = []
        for path, _, body in list(self.bodies):
            assert path == "/v1/traces", path
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = _attributes(resource.resource.attributes)
                for scope in resource.scope_spans:
                    found += [
                        Seen(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            _attributes(span.attributes),
                            span.status.code,
                            span.status.message,
                            about["service.name"],
                        )
                        for span in scope.spans
                    ]
        return found


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in given}


class LangSmith(Service):
    """Takes runs as LangSmith's API does, in many parts."""

    @classmethod
    def ready(cls) -> LangSmith:
        """One that says how it wants its runs."""
        ingest = {
            "use_multipart_endpoint": True,
            "size_limit": 20,
            "size_limit_bytes": 1_000_000,
            "scale_up_nthreads_limit": 2,
            "scale_up_qsize_trigger": 100,
            "scale_down_nempty_trigger": 2,
        }
        return cls(answer=json.dumps({"version": "1", "batch_ingest_config": ingest}).encode())

    @contextmanager
    def chosen(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """While the block is open, the environment wants traces to go here."""
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2_made_up")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", self.url)
        monkeypatch.setenv("LANGSMITH_PROJECT", "support-desk")
        monkeypatch.setenv("LANGSMITH_USE_DAEMON", "true")
        # LangSmith remembers what it read from the environment.
        langsmith.utils.get_env_var.cache_clear()
        yield
        langsmith.utils.get_env_var.cache_clear()

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every run by its id, with what came later."""
        found: dict[str, dict[str, Any]] = {}
        for path, kind, body in list(self.bodies):
            if path.endswith("/runs/multipart"):
                for name, content in _parts(kind, body):
                    _, run_id, *member = name.split(".")
                    whole = found.setdefault(run_id, {})
                    whole |= {member[0]: content} if member else content
        return found

    @property
    def text(self) -> str:
        """Everything that it was sent."""
        return "\n".join(body.decode(errors="replace") for _, _, body in self.bodies)


def _parts(kind: str, body: bytes) -> Iterator[tuple[str, Any]]:
    message: Message = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body)
    for part in message.get_payload():
        assert isinstance(part, Message)
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        yield str(name), json.loads(content)
