"""`vllm bench serve`, several times in one process: run by the Python of vLLM's environment.

Each line of stdin is a list of words as one would type them behind `vllm bench serve`; when that run is over, its figures come back
as one line of JSON that begins with RESULT. The imports, which take longer than all runs, happen once.

Its clock, client and arithmetic are vLLM's own. Only the file of prompts is read here (vLLM's reader needs pandas, which its environment
does not have), and the medians are taken where it computes them: it prints them only where it was given a tokenizer.
"""

import json
import sys
from pathlib import Path

from vllm.benchmarks import serve
from vllm.benchmarks.datasets import SampleRequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

KEYS = ("completed", "median_ttft_ms", "median_tpot_ms", "output_throughput", "total_input", "total_output")


def read(args, _tokenizer):
    texts = [json.loads(line)["prompt"] for line in Path(args.dataset_path).read_text().splitlines()]
    return [SampleRequest(prompt=text, prompt_len=1, expected_output_len=args.custom_output_len) for text in texts]


def keep(*args, **more):
    computed.append(calculate(*args, **more))
    return computed[-1]


computed, calculate = [], serve.calculate_metrics
serve.get_samples, serve.calculate_metrics = read, keep
parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
print("RESULT {}", flush=True)
for line in sys.stdin:
    serve.main(parser.parse_args(json.loads(line)))
    print("\nRESULT", json.dumps({key: float(getattr(computed[-1][0], key)) for key in KEYS}), flush=True)
