#!/usr/bin/env python3
"""Writes what Hugging Face's tokenizers and Google's sentencepiece make of a hard corpus.

    pip install tokenizers==0.22.2 sentencepiece==0.2.1 gguf protobuf
    make_tokenizer_references.py SMOLLM2.gguf QWEN2.gguf GEMMA3.gguf

Both libraries are independent of ours. Vocabularies, merges and scores come from the model files; the
expressions that cut text are those of the models' own `tokenizer.json`. Three files are written beside this
one: the models' ids, the cuts alone of every pre-tokenizer, and a small SentencePiece model with a space
before each text and with unused pieces, which none of the model files has.
"""

import io
import json
import pathlib
import random
import sys

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

HERE = pathlib.Path(__file__).parent
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# By the names that llama.cpp gives them, each expression isolating what it matches.
CUTS = {
    "gpt-2": [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
    "qwen2": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "llama-bpe": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "gpt-4o": [
        rf"[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}*{LETTERS[1]}+{CONTRACTIONS}?"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}+{LETTERS[1]}*{CONTRACTIONS}?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "tekken": [
        rf"[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}*{LETTERS[1]}+|[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}+{LETTERS[1]}*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "default": [
        r"[\p{P}\$\+<=>\^\~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    ],
}
CUTS["smollm"] = [r"\p{N}", *CUTS["gpt-2"]]

HARD = [
    "", " ", "  ", "\n", "\n\n", "\r\n\r\n x", "\t\tTabs\t and  spaces \t\n", "   \n   \n x", "a\n b\n  c\n   d",
    "Hello, world!", "  leading and   multiple spaces\n\n\tTabs", "trailing spaces    ", "x\u00a0y\u2003z\u3000w",
    "2024-01-15 costs $1,234.56", "1234567890123", "०१२३४ ٣٤٥ ௧௨௩ ①②③ Ⅳ ½ x²", "3.14159e-10 0xDEADBEEF 1_000_000",
    "don't I'LL we've they'd 'S it's", "rock 'n' roll ''s 'tis", "naïve café — “quotes” ‘single’ … „low“",
    "e\u0301 vs \u00e9, o\u0308 vs \u00f6, \u1100\u1161 vs \uac00, \u212b \u2126", "Z\u0351\u036b\u0343a\u0323\u0306lgo",
    "😀😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇯🇵🇩🇪 ☺️ ❤️‍🔥", "a👩🏾‍💻b", "日本語のテキスト、東京都。", "中文字符測試，简体与繁體。", "한국어 문장입니다. 가나다",
    "مرحبا بالعالم، كيف حالك؟", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Привет, мир! ЁЖ", "Γειά σου Κόσμε ΑΣΣ", "ქართული ᏣᎳᎩ ግዕዝ",
    "ltr \u202ertl\u202c \u200bzero\u200cwidth\u200djoiner\ufeff", "\u0000\u0001\u0004\u0006\u0013\u001f\u007f\u0085\u2028\u2029",
    "\ue000private \U000f0000 \U0010fffd \ufffd \U000e0001",
    'fn main() { println!("{}", 1u32 << 3); }', "def f(x):\n    if x:\n        return x ** 2  # done\n\n\n", "for(int i=0;i<10;++i){a[i]+=b[i]&0xff;}",
    '{"a": [1, 2.5, null], "b": "\\u00e9\\n"}', "<html><body class=\"x\">\n<p>&amp;</p></body></html>", "SELECT * FROM t WHERE a <> 'b';",
    "https://example.com/a/b?c=d&e=%20#frag user@example.com C:\\path\\file", "$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$",
    "a" * 31, "aaaa bbbb " * 12, " " * 33, "\n" * 40, "\t" * 35, "=" * 70, "ab" * 50, "🦀" * 9, "的" * 40, "!?" * 20 + "...",
    "camelCase snake_case SCREAMING_CASE kebab-case PascalCase XMLHttpRequest iPhone's", "ǅ ǈ ʰ ª º ſ 'ſ ß ẞ İ ı ﬁ",
    "▁under▁score ▁", "Ġ Ċ ĉ ċ", "<0x0A> <0xFF>", "<unk> </s> [INST] [/INST]", "<|im_start|>user\nhi<|im_end|>\n", "x<|im_end|>y <|im_ <|endoftext|>",
    "<start_of_image> <table><tr></tr></table>", "supercalifragilisticexpialidocious Donaudampfschifffahrtsgesellschaftskapitän", "\u2581\u2581", "``` `code` ~~~",
]
PARTS = [
    " ", "  ", "\n", "\n\n", "\t", "\r\n", "a", "the", "The", "ING", "'s", "'LL", "é", "e\u0301", "\u0323", "日", "語", "カ", "가", "ع", "ال", "क", "्", "ा", "😀",
    "\u200d", "🏽", "\ufe0f", "1", "42", "٣", "½", ".", "...", ",", "!", "-", "_", "=", "==", "(", ")", "{", "}", "\"", "/", "//", "\\", "$", "<", ">", "▁", "\u00a0",
    "\u3000", "\u0085", "\u0000", "\U000e0067", "\ue000", "ſ", "ǅ", "ʰ", "Я", "ß",
]


def corpus():
    """The hard texts, and mixtures of hard parts from a fixed seed."""
    dice = random.Random(1)
    mixed = ["".join(dice.choice(PARTS) for _ in range(dice.randint(2, 24))) for _ in range(160)]
    return HARD + mixed


def cut_by(expressions):
    return [pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions]


def contents(path, *names):
    fields = gguf.GGUFReader(path).fields
    return [fields["tokenizer.ggml." + name].contents() for name in names]


def byte_level(path, cuts, normalizer=None):
    tokens, types, merges = contents(path, "tokens", "token_type", "merges")
    merges = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, types) if k == 3])
    tokenizer.add_tokens([AddedToken(t, special=False) for t, k in zip(tokens, types) if k == 4])
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut_by(cuts), spell])
    if normalizer:
        tokenizer.normalizer = normalizer
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def sentencepiece_of(path):
    """GGUF spells user-defined pieces with plain spaces, sentencepiece with its own mark."""
    tokens, types, scores = contents(path, "tokens", "token_type", "scores")
    model = proto.ModelProto()
    for index, (token, kind, score) in enumerate(zip(tokens, types, scores)):
        text = token.replace(" ", "▁") if kind == 4 else token
        model.pieces.add(piece=text, score=score, type=2 if index == 3 else kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(tokens)
    for name, id in {"pad": 0, "eos": 1, "bos": 2, "unk": 3}.items():
        setattr(model.trainer_spec, name + "_id", id)
        setattr(model.trainer_spec, name + "_piece", tokens[id])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode


def small_sentencepiece(texts):
    """Trains a model on the corpus, and takes some pieces out of use that others were merged from."""
    out = io.BytesIO()
    lines = [text for text in texts if text.strip()] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=900, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98,
        user_defined_symbols=["<think>", "\n"], num_threads=1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    model = proto.ModelProto.FromString(out.getvalue())
    dice = random.Random(2)
    for piece in model.pieces:
        if piece.type == 1 and len(piece.piece) > 1 and dice.random() < 0.2:
            piece.type = 5
    encode = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).encode
    texts = [text for text in texts if "\n" not in text and "<" not in text and "\0" not in text]
    return {
        "tokens": [piece.piece for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "types": [piece.type for piece in model.pieces],
        "cases": [{"text": text, "ids": encode(text)} for text in texts],
    }


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def main(smollm2, qwen2, gemma3):
    texts = corpus()
    encoders = {
        "smollm2": byte_level(smollm2, CUTS["smollm"]),
        "qwen25coder15b": byte_level(qwen2, CUTS["qwen2"], normalizers.NFC()),
        "gemma3-270m": sentencepiece_of(gemma3),
    }
    ids = {name: [encode(text) for text in texts] for name, encode in encoders.items()}
    write("tokenizers.json", {"texts": texts, "ids": ids})
    cuts = {}
    for name, expressions in CUTS.items():
        sequence = pre_tokenizers.Sequence(cut_by(expressions))
        cuts[name] = [[len(piece) for piece, _ in sequence.pre_tokenize_str(text)] for text in texts]
    write("pre_tokenizers.json", {"texts": texts, "characters": cuts})
    write("sentencepiece.json", small_sentencepiece(texts))


if __name__ == "__main__":
    main(*sys.argv[1:])
