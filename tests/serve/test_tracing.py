"""In a process of its own: OpenTelemetry's provider can be set once a process."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading

SCRIPT = """
from yozora.serve import tracing
tracing.set_up()
with tracing.step_span("generate", "video_1", 2):
    pass
tracing.finish()
"""


def test_spans_go_where_the_environment_says() -> None:
    came: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, timeout=120)
        server.shutdown()
        thread.join()
    (path, body) = came[0]
    assert path == "/v1/traces" and b"video generate" in body and b"video_1" in body
