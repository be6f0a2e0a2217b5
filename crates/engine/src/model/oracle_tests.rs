//! The decoder against a plain forward pass in double precision, switch by switch.
//!
//! The oracle reads the same tensors and knows nothing of blocks, tiles, caches or fused passes. What it is told
//! of a model is said here, test by test, and not read from the metadata, so that a wrong reading shows.

#![allow(clippy::unwrap_used)]
use crate::batch::Batch;
use crate::gguf::GgufFile;
use crate::model::Decoder;
use crate::runner::Runner;
use crate::testing::TinyModel;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use inferno_kernels::Cpu;

const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const WIDE: usize = 128;
const LAYERS: usize = 2;
const VOCAB: usize = 265;
const EPS: f64 = 1e-5;

/// What the oracle is told of a model.
#[derive(Clone)]
struct Facts {
    /// Elements of a head that turn, in neighbours or in halves.
    rotated: usize,
    neighbours: bool,
    /// Radians per token of a pair, by layer; nothing where a layer does not rotate.
    angle: fn(layer: usize, pair: usize) -> Option<f64>,
    magnitude: f64,
    window: fn(layer: usize) -> usize,
    scale: f64,
    attention_cap: Option<f64>,
    logit_cap: Option<f64>,
    embedding_scale: f64,
    residual_scale: f64,
    logit_divisor: f64,
    gelu: bool,
    /// Experts that a token goes through.
    used: usize,
    normalised: bool,
}

const LLAMA: Facts = Facts {
    rotated: HEAD_DIM,
    neighbours: true,
    angle: |_, pair| Some(plain(10_000.0, pair, HEAD_DIM)),
    magnitude: 1.0,
    window: |_| usize::MAX,
    scale: 0.25,
    attention_cap: None,
    logit_cap: None,
    embedding_scale: 1.0,
    residual_scale: 1.0,
    logit_divisor: 1.0,
    gelu: false,
    used: 0,
    normalised: true,
};

/// `base^(−2 · pair / width)`.
fn plain(base: f64, pair: usize, width: usize) -> f64 {
    base.powf(-2.0 * pair as f64 / width as f64)
}

type Row = Vec<f64>;

/// The tensors of a file, as numbers.
struct Oracle {
    file: GgufFile,
    facts: Facts,
}

impl Oracle {
    fn vector(&mut self, name: &str, len: usize) -> Option<Row> {
        let there = self.file.has(name);
        there.then(|| self.file.vector(name, len).unwrap().into_iter().map(f64::from).collect())
    }

    fn row(&mut self, name: &str, rows: usize, cols: usize, row: usize) -> Row {
        let weight = self.file.weight(name, rows, cols).unwrap();
        let mut out = vec![0.0; cols];
        weight.row_into(row, &mut out);
        out.into_iter().map(f64::from).collect()
    }

    /// Rows `from..from + count` of the matrix, times `x`.
    fn product(&mut self, name: &str, rows: usize, x: &[f64], from: usize, count: usize) -> Row {
        let row = |row| {
            let weight = self.row(name, rows, x.len(), row);
            weight.iter().zip(x).map(|(w, x)| w * x).sum()
        };
        (from..from + count).map(row).collect()
    }

    fn layer(&self, number: usize, part: &str) -> String {
        format!("blk.{number}.{part}")
    }

    /// `x` normalised by the weight of this name, in pieces of its length; as it is where there is none.
    fn norm(&mut self, name: &str, x: &[f64], piece: usize) -> Row {
        let Some(weight) = self.vector(name, piece) else { return x.to_vec() };
        let pieces = x.chunks(piece).flat_map(|x| {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / piece as f64;
            x.iter().zip(&weight).map(move |(x, w)| x / (mean + EPS).sqrt() * w)
        });
        pieces.collect()
    }

    /// Queries, keys and values of a row.
    fn qkv(&mut self, number: usize, x: &[f64], position: usize) -> (Row, Row, Row) {
        let (queries, keys) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
        let fused = self.layer(number, "attn_qkv.weight");
        let mut parts: Vec<Row> = Vec::new();
        for (part, rows, at) in
            [("q", queries, 0), ("k", keys, queries), ("v", keys, queries + keys)]
        {
            let mut y = match self.file.has(&fused) {
                true => self.product(&fused, queries + 2 * keys, x, at, rows),
                false => {
                    let name = self.layer(number, &format!("attn_{part}.weight"));
                    self.product(&name, rows, x, 0, rows)
                }
            };
            let bias = self.layer(number, &format!("attn_{part}.bias"));
            if let Some(bias) = self.vector(&bias, rows) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
            let norm = self.layer(number, &format!("attn_{part}_norm.weight"));
            let whole = self.file.has(&norm) && self.file.vector(&norm, HEAD_DIM).is_err();
            y = self.norm(&norm, &y, if whole { rows } else { HEAD_DIM });
            if part != "v" {
                self.rotate(number, &mut y, position);
            }
            parts.push(y);
        }
        let values = parts.pop().unwrap();
        let keys = parts.pop().unwrap();
        (parts.pop().unwrap(), keys, values)
    }

    fn rotate(&self, number: usize, x: &mut [f64], position: usize) {
        let facts = &self.facts;
        for head in x.chunks_mut(HEAD_DIM) {
            for pair in 0..facts.rotated / 2 {
                let Some(angle) = (facts.angle)(number, pair) else { return };
                let (i, j) = match facts.neighbours {
                    true => (2 * pair, 2 * pair + 1),
                    false => (pair, pair + facts.rotated / 2),
                };
                let (sin, cos) = (angle * position as f64).sin_cos();
                let (a, b) = (head[i], head[j]);
                head[i] = facts.magnitude * (a * cos - b * sin);
                head[j] = facts.magnitude * (a * sin + b * cos);
            }
        }
    }

    /// Attention of the last row over all.
    fn attend(&self, number: usize, q: &[f64], keys: &[Row], values: &[Row]) -> Row {
        let facts = &self.facts;
        let first = keys.len().saturating_sub((facts.window)(number));
        let mut out = Vec::new();
        for head in 0..HEADS {
            let kv = head / (HEADS / KV_HEADS) * HEAD_DIM;
            let q = &q[head * HEAD_DIM..][..HEAD_DIM];
            let score = |key: &Row| {
                let dot: f64 = q.iter().zip(&key[kv..]).map(|(q, k)| q * k).sum();
                let score = dot * facts.scale;
                facts.attention_cap.map_or(score, |cap| cap * (score / cap).tanh()).exp()
            };
            let weights: Vec<f64> = keys[first..].iter().map(score).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..HEAD_DIM {
                let of_key = |(weight, value): (&f64, &Row)| weight / total * value[kv + i];
                out.push(weights.iter().zip(&values[first..]).map(of_key).sum());
            }
        }
        out
    }

    /// A gated network, its gate and up in two tensors or in one.
    fn gated(&mut self, number: usize, suffix: &str, x: &[f64]) -> Row {
        let name = |part: &str| format!("blk.{number}.ffn_{part}{suffix}.weight");
        let (gate, up) = match self.file.has(&name("gate")) {
            true => (
                self.product(&name("gate"), WIDE, x, 0, WIDE),
                self.product(&name("up"), WIDE, x, 0, WIDE),
            ),
            false => (
                self.product(&name("up"), 2 * WIDE, x, 0, WIDE),
                self.product(&name("up"), 2 * WIDE, x, WIDE, WIDE),
            ),
        };
        let inner = gate.iter().zip(up).map(|(gate, up)| self.activation(*gate) * up);
        let inner: Row = inner.collect();
        self.product(&name("down"), HIDDEN, &inner, 0, HIDDEN)
    }

    fn activation(&self, x: f64) -> f64 {
        match self.facts.gelu {
            true => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x.powi(3))).tanh()),
            false => x / (1.0 + (-x).exp()),
        }
    }

    /// The experts' sum, each expert's matrices a slice of the stack.
    fn mixture(&mut self, number: usize, x: &[f64]) -> Row {
        let scores =
            self.product(&self.layer(number, "ffn_gate_inp.weight"), EXPERTS, x, 0, EXPERTS);
        let mut ranked: Vec<usize> = (0..EXPERTS).collect();
        ranked.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        ranked.truncate(self.facts.used);
        let whole: f64 = scores.iter().map(|score| score.exp()).sum();
        let chosen: f64 = ranked.iter().map(|expert| scores[*expert].exp()).sum();
        let mut out = vec![0.0; HIDDEN];
        for expert in ranked {
            let mut slice = |part: &str, rows: usize, x: &[f64]| -> Row {
                let name = format!("blk.{number}.ffn_{part}_exps.weight");
                let stack = self.file.stacked_weights(&name, EXPERTS, rows, x.len()).unwrap();
                let mut row = vec![0.0; x.len()];
                let dot = |index| {
                    stack[expert].row_into(index, &mut row);
                    row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
                };
                (0..rows).map(dot).collect()
            };
            let (gate, up) = (slice("gate", EXPERT_WIDE, x), slice("up", EXPERT_WIDE, x));
            let inner: Row =
                gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            let y = slice("down", HIDDEN, &inner);
            let total = if self.facts.normalised { chosen } else { whole };
            let weight = scores[expert].exp() / total;
            out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
        }
        let gate = self.layer(number, "ffn_gate_inp_shexp.weight");
        if let Some(gate) = self.vector(&gate, HIDDEN) {
            let score: f64 = gate.iter().zip(x).map(|(g, x)| g * x).sum();
            let y = self.gated(number, "_shexp", x);
            out.iter_mut().zip(y).for_each(|(out, y)| *out += y / (1.0 + (-score).exp()));
        }
        out
    }

    /// The logits after each token of `tokens`.
    fn logits(&mut self, tokens: &[usize]) -> Vec<Row> {
        let mut stream: Vec<Row> = Vec::new();
        for token in tokens {
            let row = self.row("token_embd.weight", VOCAB, HIDDEN, *token);
            stream.push(row.into_iter().map(|x| x * self.facts.embedding_scale).collect());
        }
        for number in 0..LAYERS {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, x) in stream.iter_mut().enumerate() {
                let normed = self.norm(&self.layer(number, "attn_norm.weight"), x, HIDDEN);
                let (q, key, value) = self.qkv(number, &normed, position);
                keys.push(key);
                values.push(value);
                let attended = self.attend(number, &q, &keys, &values);
                let name = self.layer(number, "attn_output.weight");
                let y = self.product(&name, HIDDEN, &attended, 0, HIDDEN);
                let y = self.norm(&self.layer(number, "post_attention_norm.weight"), &y, HIDDEN);
                x.iter_mut().zip(y).for_each(|(x, y)| *x += self.facts.residual_scale * y);
                let normed = self.norm(&self.layer(number, "ffn_norm.weight"), x, HIDDEN);
                let y = match self.facts.used {
                    0 => self.gated(number, "", &normed),
                    _ => self.mixture(number, &normed),
                };
                let y = self.norm(&self.layer(number, "post_ffw_norm.weight"), &y, HIDDEN);
                x.iter_mut().zip(y).for_each(|(x, y)| *x += self.facts.residual_scale * y);
            }
        }
        let head = match self.file.has("output.weight") {
            true => "output.weight",
            false => "token_embd.weight",
        };
        let mut logits = Vec::new();
        for x in stream {
            let x = self.norm("output_norm.weight", &x, HIDDEN);
            let row = self.product(head, VOCAB, &x, 0, VOCAB);
            let divided = row.into_iter().map(|x| x / self.facts.logit_divisor);
            let cap = self.facts.logit_cap;
            logits.push(divided.map(|x| cap.map_or(x, |cap| cap * (x / cap).tanh())).collect());
        }
        logits
    }
}

const EXPERTS: usize = 4;
const EXPERT_WIDE: usize = 32;

/// Rows of the prompt.
const TOKENS: usize = 40;

/// A model of an architecture with floats for weights, so that only the decoder's own rounding is left.
fn model(
    architecture: &str,
    metadata: &[(&str, Value)],
    tensors: &[(&str, &[usize])],
) -> TinyModel {
    let named =
        metadata.iter().map(|(key, value)| (format!("{architecture}.{key}"), value.clone()));
    let tensors = tensors.iter().flat_map(|(name, shape)| {
        let names = match name.strip_prefix("blk.N.") {
            Some(part) => (0..LAYERS).map(|layer| format!("blk.{layer}.{part}")).collect(),
            None => vec![(*name).to_owned()],
        };
        names.into_iter().map(|name| (name, shape.to_vec()))
    });
    TinyModel {
        architecture: architecture.into(),
        metadata: named.collect(),
        tensors: tensors.collect(),
        dtype: GgmlDType::F32,
        embedding_dtype: GgmlDType::F32,
        ..TinyModel::default()
    }
}

/// Computes the same prompt with the decoder, in two chunks, and with the oracle.
#[track_caller]
fn agrees(model: &TinyModel, facts: &Facts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model.write(&path).unwrap();
    let open = || GgufFile::open(&path).unwrap().unwrap();
    let tokens: Vec<usize> = (0..TOKENS).map(|i| (i * 37 + 11) % VOCAB).collect();
    let want = Oracle { file: open(), facts: facts.clone() }.logits(&tokens);
    let decoder = Decoder::load(&mut open()).unwrap();
    assert_eq!(decoder.vocab(), VOCAB);
    let mut runner = Runner::new(Cpu::new(2).unwrap(), decoder, 2);
    let mut got = Vec::new();
    for rows in [0..25, 25..TOKENS] {
        let batch = Batch {
            tokens: tokens[rows.clone()].iter().map(|token| *token as u32).collect(),
            positions: rows.clone().map(|position| position as u32).collect(),
            sequences: vec![0; rows.len()],
            tables: vec![vec![1, 0]],
            sampled: (0..rows.len()).collect(),
        };
        got.extend(runner.step(&batch).chunks(VOCAB).map(<[f32]>::to_vec));
    }
    let largest = want.iter().flatten().fold(0.0f64, |most, x| most.max(x.abs()));
    for (position, (got, want)) in got.iter().zip(&want).enumerate() {
        for (got, want) in got.iter().zip(want) {
            // Keys and values are kept to eleven bits.
            let error = (f64::from(*got) - want).abs() / largest;
            assert!(error < 3e-3, "position {position}: {got} is not {want} (of {largest})");
        }
    }
}

#[test]
fn llama() {
    agrees(&model("llama", &[], &[]), &LLAMA);
    let untied = model("llama", &[], &[("output.weight", &[VOCAB, HIDDEN])]);
    agrees(&untied, &LLAMA);
}

#[test]
fn linear_and_llama_3_scaling() {
    let scaled = model("llama", &[("rope.scaling.factor", Value::F32(4.0))], &[]);
    agrees(&scaled, &Facts { angle: |_, pair| Some(plain(1e4, pair, 16) / 4.0), ..LLAMA });
    let base = model("llama", &[("rope.freq_base", Value::F32(500.0))], &[]);
    agrees(&base, &Facts { angle: |_, pair| Some(plain(500.0, pair, 16)), ..LLAMA });
}

/// Neutral norms are around 1, which is what a test's factors of frequencies are, too.
#[test]
fn factors_of_llama_3_divide_frequencies() {
    let factors = model("llama", &[], &[("rope_freqs.weight", &[8])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    factors.write(&path).unwrap();
    let mut file = GgufFile::open(&path).unwrap().unwrap();
    let divisors = file.vector("rope_freqs.weight", 8).unwrap();
    let decoder = Decoder::load(&mut file).unwrap();
    for (pair, frequency) in decoder.config().ropes[0].frequencies.iter().enumerate() {
        let want = plain(1e4, pair, 16) / f64::from(divisors[pair]);
        assert!((frequency / want - 1.0).abs() < 1e-9 && divisors[pair] != 1.0);
    }
}

#[test]
fn yarn_keeps_what_turns_often_and_stretches_the_rest() {
    let metadata = [
        ("rope.scaling.type", Value::String("yarn".into())),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scaling.original_context_length", Value::U32(64)),
        ("rope.dimension_count", Value::U32(16)),
    ];
    // The pair that turns 32 times over 64 tokens would be number −0.99, and once, 2.02: the ramp is 0 to 3.
    let angle = |_, pair: usize| {
        let kept = 1.0 - (pair as f64 / 3.0).min(1.0);
        Some(plain(1e4, pair, 16) * (kept + (1.0 - kept) / 4.0))
    };
    let magnitude = 1.0 + 0.1 * 4.0f64.ln();
    agrees(&model("llama", &metadata, &[]), &Facts { angle, magnitude, ..LLAMA });
}

#[test]
fn qwen_2_has_biases_and_turns_halves() {
    let biases: [(&str, &[usize]); 3] =
        [("blk.N.attn_q.bias", &[64]), ("blk.N.attn_k.bias", &[32]), ("blk.N.attn_v.bias", &[32])];
    let facts = Facts { neighbours: false, ..LLAMA };
    agrees(&model("qwen2", &[], &biases), &facts);
    // Without them it is not a whole Qwen 2; a Llama may have them or not.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model("qwen2", &[], &[]).write(&path).unwrap();
    let refused = Decoder::load(&mut GgufFile::open(&path).unwrap().unwrap());
    assert!(refused.err().unwrap().to_string().contains("attn_q.bias is missing"));
    agrees(&model("llama", &[], &biases), &LLAMA);
}

const HEAD_NORMS: [(&str, &[usize]); 2] =
    [("blk.N.attn_q_norm.weight", &[16]), ("blk.N.attn_k_norm.weight", &[16])];

#[test]
fn qwen_3_norms_each_head() {
    agrees(&model("qwen3", &[], &HEAD_NORMS), &Facts { neighbours: false, ..LLAMA });
}

const POST_NORMS: [(&str, &[usize]); 2] =
    [("blk.N.post_attention_norm.weight", &[64]), ("blk.N.post_ffw_norm.weight", &[64])];

#[test]
fn gemma_2_has_windows_and_softcaps() {
    let metadata = [
        ("attention.sliding_window", Value::U32(10)),
        ("attn_logit_softcapping", Value::F32(2.0)),
        ("final_logit_softcapping", Value::F32(20.0)),
    ];
    let facts = Facts {
        neighbours: false,
        window: |layer| if layer == 0 { 10 } else { usize::MAX },
        attention_cap: Some(2.0),
        logit_cap: Some(20.0),
        embedding_scale: 8.0,
        gelu: true,
        ..LLAMA
    };
    agrees(&model("gemma2", &metadata, &POST_NORMS), &facts);
}

#[test]
fn gemma_3_turns_windows_by_another_base() {
    let metadata = [
        ("attention.sliding_window", Value::U32(7)),
        ("attention.sliding_window_pattern", Value::U32(2)),
        ("rope.freq_base", Value::F32(1e6)),
        ("rope.scaling.factor", Value::F32(8.0)),
    ];
    let facts = Facts {
        neighbours: false,
        angle: |layer, pair| {
            Some(if layer == 0 { plain(1e4, pair, 16) } else { plain(1e6, pair, 16) / 8.0 })
        },
        window: |layer| if layer == 0 { 7 } else { usize::MAX },
        embedding_scale: 8.0,
        gelu: true,
        ..LLAMA
    };
    agrees(&model("gemma3", &metadata, &[POST_NORMS, HEAD_NORMS].concat()), &facts);
}

#[test]
fn phi_3_fuses_and_turns_a_part() {
    let tensors: [(&str, &[usize]); 2] =
        [("blk.N.attn_qkv.weight", &[128, 64]), ("blk.N.ffn_up.weight", &[256, 64])];
    let metadata =
        [("rope.dimension_count", Value::U32(8)), ("attention.sliding_window", Value::U32(20))];
    let facts = Facts {
        rotated: 8,
        neighbours: false,
        angle: |_, pair| Some(plain(1e4, pair, 8)),
        window: |_| 20,
        ..LLAMA
    };
    let mut fused = model("phi3", &metadata, &tensors);
    fused.skip = ["attn_q.", "attn_k.", "attn_v.", "ffn_gate."].map(String::from).to_vec();
    agrees(&fused, &facts);
}

#[test]
fn granite_scales_everything() {
    let metadata = [
        ("attention.scale", Value::F32(0.1)),
        ("embedding_scale", Value::F32(12.0)),
        ("residual_scale", Value::F32(0.22)),
        ("logit_scale", Value::F32(8.0)),
    ];
    let facts = Facts {
        scale: f64::from(0.1f32),
        embedding_scale: 12.0,
        residual_scale: f64::from(0.22f32),
        logit_divisor: 8.0,
        ..LLAMA
    };
    agrees(&model("granite", &metadata, &[]), &facts);
}

#[test]
fn olmo_2_norms_outputs_and_whole_rows() {
    let norms: [(&str, &[usize]); 2] =
        [("blk.N.attn_q_norm.weight", &[64]), ("blk.N.attn_k_norm.weight", &[32])];
    let mut olmo = model("olmo2", &[], &[POST_NORMS, norms].concat());
    olmo.skip = vec!["attn_norm".into(), "ffn_norm".into()];
    agrees(&olmo, &Facts { neighbours: false, ..LLAMA });
}

#[test]
fn smollm_3_leaves_every_fourth_layer_unturned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model("smollm3", &[], &[]).write(&path).unwrap();
    let mut file = GgufFile::open(&path).unwrap().unwrap();
    let decoder = Decoder::load(&mut file).unwrap();
    assert!(decoder.config().layers.iter().all(|layer| layer.rope == Some(0)), "of two, all turn");
    agrees(&model("smollm3", &[], &[]), &LLAMA);
    // Granite's flag leaves all unturned.
    let still = model("granite", &[("rope.scaling.finetuned", Value::Bool(false))], &[]);
    agrees(&still, &Facts { angle: |_, _| None, ..LLAMA });
}

const MIXTURE: [(&str, &[usize]); 4] = [
    ("blk.N.ffn_gate_inp.weight", &[EXPERTS, HIDDEN]),
    ("blk.N.ffn_gate_exps.weight", &[EXPERTS, EXPERT_WIDE, HIDDEN]),
    ("blk.N.ffn_up_exps.weight", &[EXPERTS, EXPERT_WIDE, HIDDEN]),
    ("blk.N.ffn_down_exps.weight", &[EXPERTS, HIDDEN, EXPERT_WIDE]),
];

fn mixture(architecture: &str, tensors: &[(&str, &[usize])]) -> TinyModel {
    let metadata = [
        ("expert_count", Value::U32(EXPERTS as u32)),
        ("expert_used_count", Value::U32(2)),
        ("expert_feed_forward_length", Value::U32(EXPERT_WIDE as u32)),
    ];
    let mut model = model(architecture, &metadata, &[&MIXTURE[..], tensors].concat());
    model.skip = vec!["ffn_gate.".into(), "ffn_up.".into(), "ffn_down.".into()];
    model
}

#[test]
fn qwen_3_moe_sends_each_token_through_its_experts() {
    agrees(&mixture("qwen3moe", &HEAD_NORMS), &Facts { neighbours: false, used: 2, ..LLAMA });
    agrees(&mixture("llama", &[]), &Facts { used: 2, ..LLAMA });
}

#[test]
fn qwen_2_moe_has_a_shared_expert() {
    let tensors: [(&str, &[usize]); 7] = [
        ("blk.N.attn_q.bias", &[64]),
        ("blk.N.attn_k.bias", &[32]),
        ("blk.N.attn_v.bias", &[32]),
        ("blk.N.ffn_gate_inp_shexp.weight", &[HIDDEN]),
        ("blk.N.ffn_gate_shexp.weight", &[WIDE, HIDDEN]),
        ("blk.N.ffn_up_shexp.weight", &[WIDE, HIDDEN]),
        ("blk.N.ffn_down_shexp.weight", &[HIDDEN, WIDE]),
    ];
    let facts = Facts { neighbours: false, used: 2, normalised: false, ..LLAMA };
    agrees(&mixture("qwen2moe", &tensors), &facts);
}
