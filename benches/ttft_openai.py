"""TTFT, inter-token and end-to-end latency as the official OpenAI client sees them, one request at a time.

    pip install openai
    python3 benches/ttft_openai.py URL REQUESTS MAX_TOKENS

The peer that `inferno bench --concurrency 1` is compared with; both should say the same.
"""

import statistics
import sys
import time

from openai import OpenAI

url, requests, max_tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
ttft, gaps, ends = [], [], []
for _ in range(requests):
    began, last = time.perf_counter(), None
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Tell me about rivers."}], max_tokens=max_tokens,
        stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
    for event in stream:
        now = time.perf_counter()
        if event.choices and event.choices[0].delta.content:
            (ttft if last is None else gaps).append(now - (began if last is None else last))
            last = now
    ends.append(time.perf_counter() - began)

for name, samples in ("TTFT", ttft), ("inter-token", gaps), ("end-to-end", ends):
    ms = sorted(1000 * sample for sample in samples)
    p50, p90, p99 = (ms[min(len(ms) - 1, int(share * len(ms)))] for share in (0.5, 0.9, 0.99))
    print(f"{name:12} mean {statistics.mean(ms):8.1f}  p50 {p50:8.1f}  p90 {p90:8.1f}  p99 {p99:8.1f}  count {len(ms)}")
