"""OpenTelemetry, where it is configured: a span for every request (FastAPI's own) and every step of a video, sent where
OTEL_EXPORTER_OTLP_ENDPOINT says. Needs the extra: pip install 'yozora[otel]'."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from opentelemetry import trace

from yozora import __version__
from yozora.errors import ConfigError

__all__ = ["finish", "set_up", "step_span"]

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def set_up() -> None:
    """Sends spans of this process, if the environment says where to. Raises ConfigError where the extra is missing."""
    if not any(os.environ.get(name) for name in VARIABLES):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ConfigError(f"{VARIABLES[0]} is set, and {error.name} is missing: pip install 'yozora[otel]'") from None
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "yozora"), "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def step_span(step: str, job_id: str, attempt: int) -> AbstractContextManager[trace.Span]:
    """A span around a step of a video; costs next to nothing where spans go nowhere."""
    about = {"yozora.job_id": job_id, "yozora.attempt": attempt}
    return trace.get_tracer("yozora", __version__).start_as_current_span(f"video {step}", attributes=about)


def finish() -> None:
    """Sends what has not been sent yet."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()
