"""What is counted. Names and buckets are OpenTelemetry's for generative AI, as Prometheus writes them, where it has one;
what it has no name for begins with the service's own.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest

_LABELS = ("gen_ai_operation_name", "gen_ai_request_model")
_REQUEST = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


class Metrics:
    """A registry of its own, so that two services in one test do not count together."""

    def __init__(self, model: str, own: str = "onnx_service") -> None:
        self._model = model  # the served name, never what a client wrote: each new label value is kept for ever
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds", "From the request to the end of its answer; error_type is empty where it went well",
            (*_LABELS, "error_type"), buckets=_REQUEST, registry=registry,
        )  # fmt: skip
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request to its first text (TTFT)",
            _LABELS,
            buckets=_FIRST,
            registry=registry,
        )
        self._each = Histogram(
            "gen_ai_server_time_per_output_token_seconds", "Mean time of a token after the first, of one answer (TPOT)",
            _LABELS, buckets=_EACH, registry=registry,
        )  # fmt: skip
        self._tokens = Counter(f"{own}_tokens", "Tokens read (input) and made (output)", ("gen_ai_token_type",), registry=registry)
        self._rejected = Counter(f"{own}_rejected", "Requests that were refused, by reason", ("reason",), registry=registry)
        self.queue_length = Gauge(f"{own}_queue_length", "Requests that wait for their turn", registry=registry)
        self.in_flight = Gauge(f"{own}_in_flight", "Requests that are being answered", registry=registry)
        self.ready = Gauge(f"{own}_ready", "1: it would answer a request now", registry=registry)

    def rejected(self, reason: str) -> None:
        self._rejected.labels(reason).inc()

    def finished(
        self, operation: str, seconds: float, first: float | None, last: float | None, tokens: tuple[int, int], error: str = ""
    ) -> None:
        """seconds: of the whole request. first, last: when its first and last text came, after its start. tokens: input, output."""
        names = (operation, self._model)
        self._duration.labels(*names, error).observe(seconds)
        if first is not None:
            self._first.labels(*names).observe(first)
            if last is not None and tokens[1] > 1:
                self._each.labels(*names).observe((last - first) / (tokens[1] - 1))
        for kind, count in zip(("input", "output"), tokens, strict=True):
            self._tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        return generate_latest(self.registry)
