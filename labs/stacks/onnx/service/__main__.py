"""python -m service --model FOLDER --port 8000"""

import sys

from service.app import create
from service.settings import parse
from service.transport import serve

settings = parse()
if not settings.model_wait_seconds and not (settings.model / "genai_config.json").is_file():
    sys.exit(f"{settings.model} has no genai_config.json: it is no folder of ONNX Runtime GenAI")
serve(create(settings), settings)
