#!/usr/bin/env python3
"""Writes the seeds of the GGUF and tokenizer targets: small whole files, from which the fuzzer goes on."""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent / "seeds"
CODES = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def value(kind, content):
    if kind == "text":
        return struct.pack("<I", 8) + text(content)
    if kind == "texts":
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(map(text, content))
    if kind.endswith("s"):
        code, form = CODES[kind[:-1]]
        return struct.pack("<IIQ", 9, code, len(content)) + b"".join(struct.pack(form, x) for x in content)
    code, form = CODES[kind]
    return struct.pack("<I", code) + struct.pack(form, content)


def write(path, metadata, tensors=(), version=3):
    """Tensors are name, shape (fastest dimension first), type and bytes."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    out += b"".join(text(key) + value(*what) for key, what in metadata.items())
    data = b""
    for name, shape, code, content in tensors:
        out += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        out += struct.pack("<IQ", code, len(data))
        data += content + bytes(-len(content) % 32)
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out + bytes(-len(out) % 32) + data)


def bpe(pre, **more):
    others = iter(range(256, 324))
    spelled = [chr(byte if byte in PRINTABLE else next(others)) for byte in range(256)]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "a a", "aa aa"]
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    tokens = marks + spelled + [merge.replace(" ", "") for merge in merges]
    return {
        "tokenizer.ggml.model": ("text", "gpt2"),
        "tokenizer.ggml.pre": ("text", pre),
        "tokenizer.ggml.tokens": ("texts", tokens),
        "tokenizer.ggml.token_type": ("i32s", [3, 3, 3, 4] + [1] * (len(tokens) - 4)),
        "tokenizer.ggml.merges": ("texts", merges),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        **more,
    }


def sentencepiece(**more):
    pieces = ["▁", "a", "b", "h", "e", "l", "o", "▁h", "el", "ell", "ello", "▁hello", "aa", "aaaa", "日", "▁▁", "ab"]
    tokens = ["<unk>", "<s>", "</s>", "\n", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [2, 3, 3, 4] + [6] * 256 + [1] * len(pieces)
    kinds[-1] = 5
    return {
        "tokenizer.ggml.model": ("text", "llama"),
        "tokenizer.ggml.tokens": ("texts", tokens),
        "tokenizer.ggml.token_type": ("i32s", kinds),
        "tokenizer.ggml.scores": ("f32s", [0.0] * 260 + [-float(n) for n in range(len(pieces))]),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        **more,
    }


def model():
    """A Llama of one layer, all zeros."""
    metadata = {"general.architecture": ("text", "llama"), "general.alignment": ("u32", 32)}
    sizes = {"block_count": 1, "context_length": 8, "embedding_length": 32, "feed_forward_length": 32}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16}
    metadata |= {f"llama.{name}": ("u32", size) for name, size in sizes.items()}
    metadata["llama.attention.layer_norm_rms_epsilon"] = ("f32", 1e-5)
    metadata["llama.rope.freq_base"] = ("f32", 10000.0)
    metadata["k"] = ("bool", True)
    matrix = lambda name, rows: (name, [32, rows], 2, bytes(18 * rows))
    vector = lambda name: (name, [32], 0, bytes(128))
    rows = {"attn_q": 32, "attn_k": 16, "attn_v": 16, "attn_output": 32, "ffn_gate": 32, "ffn_up": 32, "ffn_down": 32}
    tensors = [matrix("token_embd.weight", 4), vector("output_norm.weight")]
    tensors += [vector(f"blk.0.{name}.weight") for name in ("attn_norm", "ffn_norm")]
    tensors += [matrix(f"blk.0.{name}.weight", count) for name, count in rows.items()]
    return metadata, tensors


write("gguf/model.gguf", *model())
write("gguf/version2.gguf", {"k": ("u64", 1), "": ("texts", ["a", "b"])}, [("t", [32, 2, 2], 0, bytes(512))], version=2)
write("tokenizer/bpe.gguf", bpe("smollm"))
write("tokenizer/qwen2.gguf", bpe("qwen2", **{"tokenizer.ggml.add_bos_token": ("bool", True)}))
write("tokenizer/llama3.gguf", bpe("llama-bpe"))
write("tokenizer/default.gguf", bpe("default"))
write("tokenizer/sentencepiece.gguf", sentencepiece())
write("tokenizer/gemma.gguf", sentencepiece(**{"tokenizer.ggml.add_space_prefix": ("bool", False)}))
