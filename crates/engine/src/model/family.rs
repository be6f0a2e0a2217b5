//! What distinguishes one architecture of GGUF from another beyond what its metadata says.
//!
//! The names of architectures, keys and tensors are those of llama.cpp, which defines them.

use inferno_kernels::cpu::{Activation, RopeLayout};

/// Architectures (`general.architecture`) with a row in this file.
pub(super) const SUPPORTED: &str = "llama (Llama 2 and 3, Mistral, Mixtral, SmolLM 2, TinyLlama, DeepSeek distills of \
     Llama), qwen2 (also Qwen 2.5), qwen2moe, qwen3, qwen3moe, gemma2, gemma3, phi3 (also Phi 4), granite, olmo2, smollm3";

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before it.
    Pre,
    /// Before it, and over its output.
    PreAndPost,
    /// Over its output alone.
    Post,
}

/// The norm of queries and keys before their rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// There is none.
    None,
    /// Over each head.
    PerHead,
    /// Over all heads of a row.
    FullWidth,
}

/// Which layers see only a window of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// None do; a window in the metadata is refused.
    None,
    /// All, where the metadata has one.
    All,
    /// All but every `period`-th, where the metadata has one or `default` says so.
    Periodic { period: usize, default: Option<usize> },
}

/// How the weights of the chosen experts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpertRule {
    /// Whether the weights of the chosen are made to sum to 1.
    pub(super) normalised: bool,
    /// Whether there is an expert that every token goes through, behind a gate of its own.
    pub(super) shared: bool,
    /// Whether a file without experts is one of this architecture, too.
    pub(super) optional: bool,
}

/// What holds for every model of an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) rope_layout: RopeLayout,
    /// Whether queries, keys and values have a bias. Elsewhere they have one if the file has.
    pub(super) qkv_bias: bool,
    pub(super) qk_norm: QkNorm,
    pub(super) norms: NormPlacement,
    pub(super) activation: Activation,
    pub(super) windows: Windows,
    /// Radians per token of the first pair in layers with a window, where it differs.
    pub(super) window_theta: Option<f32>,
    /// Every so many layers, one does not rotate.
    pub(super) no_rope_period: Option<usize>,
    pub(super) experts: Option<ExpertRule>,
    /// Keys of [`super::config`]'s switches that this architecture reads.
    pub(super) reads: &'static [&'static str],
}

/// Llama, of which the others are variations.
const LLAMA: Family = Family {
    name: "llama",
    rope_layout: RopeLayout::Interleaved,
    qkv_bias: false,
    qk_norm: QkNorm::None,
    norms: NormPlacement::Pre,
    activation: Activation::Silu,
    windows: Windows::None,
    window_theta: None,
    no_rope_period: None,
    experts: Some(ExpertRule { normalised: true, shared: false, optional: true }),
    reads: &[],
};

const QWEN2: Family = Family {
    name: "qwen2",
    rope_layout: RopeLayout::Halves,
    qkv_bias: true,
    experts: None,
    ..LLAMA
};

const GEMMA2: Family = Family {
    name: "gemma2",
    rope_layout: RopeLayout::Halves,
    norms: NormPlacement::PreAndPost,
    activation: Activation::GeluTanh,
    windows: Windows::Periodic { period: 2, default: Some(4096) },
    experts: None,
    reads: &["attn_logit_softcapping", "final_logit_softcapping"],
    ..LLAMA
};

const FAMILIES: [Family; 11] = [
    LLAMA,
    QWEN2,
    Family {
        name: "qwen2moe",
        experts: Some(ExpertRule { normalised: false, shared: true, optional: false }),
        ..QWEN2
    },
    Family { name: "qwen3", qkv_bias: false, qk_norm: QkNorm::PerHead, ..QWEN2 },
    Family {
        name: "qwen3moe",
        qkv_bias: false,
        qk_norm: QkNorm::PerHead,
        experts: Some(ExpertRule { normalised: true, shared: false, optional: false }),
        ..QWEN2
    },
    GEMMA2,
    Family {
        name: "gemma3",
        qk_norm: QkNorm::PerHead,
        windows: Windows::Periodic { period: 6, default: None },
        window_theta: Some(10_000.0),
        reads: &["final_logit_softcapping"],
        ..GEMMA2
    },
    Family {
        name: "phi3",
        rope_layout: RopeLayout::Halves,
        windows: Windows::All,
        experts: None,
        ..LLAMA
    },
    Family {
        name: "granite",
        experts: None,
        reads: &["attention.scale", "embedding_scale", "residual_scale", "logit_scale"],
        ..LLAMA
    },
    Family {
        name: "olmo2",
        rope_layout: RopeLayout::Halves,
        qk_norm: QkNorm::FullWidth,
        norms: NormPlacement::Post,
        windows: Windows::Periodic { period: 4, default: None },
        experts: None,
        ..LLAMA
    },
    Family { name: "smollm3", no_rope_period: Some(4), experts: None, ..LLAMA },
];

impl Family {
    pub(super) fn of(architecture: &str) -> Option<Self> {
        FAMILIES.into_iter().find(|family| family.name == architecture)
    }

    /// Whether it is Gemma, which scales embeddings by their width, and its queries in the largest model by that
    /// of a head as it would be if heads were not wider than their share.
    pub(super) fn is_gemma(&self) -> bool {
        self.activation == Activation::GeluTanh
    }
}
