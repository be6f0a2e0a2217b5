"""What a user's program does with the official client: usage: openai_client.py URL MODEL"""

import sys

import openai
import pydantic

url, model = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "What is the capital of Japan? Answer in one sentence."}]
expected = "The capital of Japan is Tokyo."

chat = client.chat.completions.create(model=model, messages=messages, temperature=0, seed=1)
assert chat.choices[0].message.content == expected, chat
assert chat.choices[0].finish_reason == "stop"
assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (42, 8), chat.usage
assert chat.system_fingerprint.startswith("fp_")
print("chat", end=" ")

stream = client.chat.completions.create(
    model=model,
    messages=messages,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
    logprobs=True,
    top_logprobs=2,
)
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == expected, text
assert chunks[-1].usage.total_tokens == 50
assert len(chunks[1].choices[0].logprobs.content[0].top_logprobs) == 2
print("stream", end=" ")

completion = client.completions.create(
    model=model, prompt="The capital of France is", max_tokens=1, temperature=0, logprobs=1
)
assert completion.choices[0].text == " Paris", completion
assert completion.choices[0].logprobs.tokens == [" Paris"]
print("completions", end=" ")

many = client.completions.create(
    model=model,
    prompt=["The capital of France is", "The capital of Japan is"],
    n=2,
    max_tokens=1,
    temperature=0,
    echo=True,
    logprobs=0,
)
assert [c.text.split()[-1] for c in many.choices] == ["Paris", "Paris", "Tokyo", "Tokyo"], many
assert many.choices[0].logprobs.token_logprobs[0] is None
print("lists", end=" ")

choices = list(
    client.chat.completions.create(
        model=model, messages=messages, n=2, seed=1, max_tokens=8, stream=True
    )
)
assert {c.choices[0].index for c in choices} == {0, 1}
print("n", end=" ")


class City(pydantic.BaseModel):
    name: str
    population: int
    districts: list[str] = pydantic.Field(max_length=2)


parsed = client.chat.completions.parse(
    model=model,
    messages=[{"role": "user", "content": "Tokyo as JSON, please."}],
    response_format=City,
    temperature=0,
    max_tokens=256,
)
assert isinstance(parsed.choices[0].message.parsed, City), parsed
anything = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Tokyo as JSON, please."}],
    response_format={"type": "json_object"},
    extra_body={"min_p": 0.1},
    temperature=0.5,
    seed=2,
    max_tokens=128,
)
assert anything.choices[0].message.content.startswith("{"), anything
print("structured", end=" ")

assert [m.id for m in client.models.list()] == [model]
assert client.models.retrieve(model).id == model
print("models", end=" ")

try:
    client.chat.completions.create(model="no-such-model", messages=messages)
    raise AssertionError("no error")
except openai.NotFoundError as error:
    assert error.code == "model_not_found" and error.param == "model", error
try:
    client.chat.completions.create(model=model, messages=messages, temperature=9)
    raise AssertionError("no error")
except openai.BadRequestError as error:
    assert error.param == "temperature", error
print("errors")
