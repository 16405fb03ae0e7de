"""An OpenAI-compatible HTTP service over ONNX Runtime GenAI, small enough to be read in an evening.

Two processes. The *front* (FastAPI) speaks HTTP: it checks what comes in, keeps a queue with a bound, streams answers and counts.
The *engine* owns the model and makes tokens. They are apart because onnxruntime-genai 0.14 computes without letting other threads
of its process run (it holds Python's global lock): in one process a long prompt would silence every stream and every health check.

A request's way: transport.py (time limits) -> limits.py (size, depth) -> schemas.py (types, ranges) -> app.py (routes)
-> queue.py (the bound, and the line to the engine) -> engine.py (turns) -> decode.py (one request's tokens) -> and back.
"""
