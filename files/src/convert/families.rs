//! The families of models that the runtime reads, as Hugging Face folders hold them: one row each, with what GGUF calls their weights.

use super::config::{Fields, Shape};
use super::keys::{self, Keys};
use super::layers::{self, Layer};
use super::parts::{
    Dim, Group, Kind, Part, bias, every, experts, kernels, matrix, only, rows, vector,
};
use anyhow::Result;

/// A family: how `config.json` calls it, and what becomes of its fields and weights.
pub(super) struct Family {
    /// `architectures` in `config.json`.
    pub(super) classes: &'static [&'static str],
    /// `model_type`, for folders without `architectures`.
    pub(super) model_type: &'static str,
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// What the runtime computes in the feed-forward part, in transformers' names.
    pub(super) activations: &'static [&'static str],
    /// Values of fields that a folder may leave out, as transformers has them.
    pub(super) defaults: &'static [(&'static str, f64)],
    /// Whether a folder that does not say has one matrix for the embeddings and the output.
    pub(super) tied: bool,
    pub(super) keys: fn(&Fields, &Shape, &mut Keys) -> Result<()>,
    /// Weights outside the layers; their names begin after `model.` or `bert.`.
    pub(super) top: &'static [Part],
    /// What layers' names begin with.
    pub(super) layer: &'static str,
    /// What each layer is made of.
    pub(super) layers: fn(&Fields, usize) -> Result<Vec<Layer>>,
    /// The inner length of a dense feed-forward part.
    pub(super) feed_forward: fn(&Fields) -> Result<usize>,
    /// Weights of a layer.
    pub(super) parts: &'static [Group],
    /// Beginnings of names of tensors that are left out: nothing reads them.
    pub(super) unused: &'static [&'static str],
    /// Rows of queries and keys are written so that the pairs to rotate are adjacent.
    pub(super) interleaved: bool,
    /// Norms add 1 to their weights, which the file holds with it.
    pub(super) shifted_norms: bool,
    /// The name for a pre-tokenizer that has several.
    pub(super) pre: &'static str,
}

impl Family {
    /// The one that a tokenizer without a model is read as.
    pub(super) fn usual() -> &'static Family {
        &FAMILIES[0]
    }
}

const TOP: &[Part] = &[
    matrix("embed_tokens", "token_embd", Dim::Vocabulary, Dim::Width),
    vector("norm", "output_norm", Dim::Width),
];
const ATTENTION: Group = only(
    Kind::Attention,
    &[
        matrix("self_attn.q_proj", "attn_q", Dim::Queries, Dim::Width),
        matrix("self_attn.k_proj", "attn_k", Dim::Keys, Dim::Width),
        matrix("self_attn.v_proj", "attn_v", Dim::Keys, Dim::Width),
        matrix("self_attn.o_proj", "attn_output", Dim::Width, Dim::Queries),
    ],
);
const FEED_FORWARD: Group = only(
    Kind::Dense,
    &[
        matrix("mlp.gate_proj", "ffn_gate", Dim::FeedForward, Dim::Width),
        matrix("mlp.up_proj", "ffn_up", Dim::FeedForward, Dim::Width),
        matrix("mlp.down_proj", "ffn_down", Dim::Width, Dim::FeedForward),
    ],
);
/// Norms before both branches.
const NORMS: Group = every(&[
    vector("input_layernorm", "attn_norm", Dim::Width),
    vector("post_attention_layernorm", "ffn_norm", Dim::Width),
]);
/// Norms after both branches.
const POST_NORMS: Group = every(&[
    vector(
        "post_attention_layernorm",
        "post_attention_norm",
        Dim::Width,
    ),
    vector("post_feedforward_layernorm", "post_ffw_norm", Dim::Width),
]);
/// Beside [`POST_NORMS`].
const GEMMA_NORMS: Group = every(&[
    vector("input_layernorm", "attn_norm", Dim::Width),
    vector("pre_feedforward_layernorm", "ffn_norm", Dim::Width),
]);
const HEAD_NORMS: Group = only(
    Kind::Attention,
    &[
        vector("self_attn.q_norm", "attn_q_norm", Dim::Head),
        vector("self_attn.k_norm", "attn_k_norm", Dim::Head),
    ],
);
const STABLELM_NORMS: Group = every(&[
    vector("input_layernorm", "attn_norm", Dim::Width),
    vector("post_attention_layernorm", "ffn_norm", Dim::Width).when("use_parallel_residual", false),
    // The folder has a vector for each head.
    rows(
        "self_attn.q_layernorm.norms.*",
        "attn_q_norm",
        Dim::Heads,
        Dim::Head,
    )
    .when("qk_layernorm", true),
    rows(
        "self_attn.k_layernorm.norms.*",
        "attn_k_norm",
        Dim::KvHeads,
        Dim::Head,
    )
    .when("qk_layernorm", true),
]);
const EXPERTS: Group = only(
    Kind::Experts,
    &[
        matrix("mlp.gate", "ffn_gate_inp", Dim::Experts, Dim::Width),
        experts(
            "mlp.experts.*.gate_proj",
            "ffn_gate_exps",
            [Dim::Expert, Dim::Width],
            ("mlp.experts.gate_up_proj", 0, 2),
        ),
        experts(
            "mlp.experts.*.up_proj",
            "ffn_up_exps",
            [Dim::Expert, Dim::Width],
            ("mlp.experts.gate_up_proj", 1, 2),
        ),
        experts(
            "mlp.experts.*.down_proj",
            "ffn_down_exps",
            [Dim::Width, Dim::Expert],
            ("mlp.experts.down_proj", 0, 1),
        ),
    ],
);
const LFM2_PARTS: &[Group] = &[
    every(&[
        vector("operator_norm", "attn_norm", Dim::Width),
        vector("ffn_norm", "ffn_norm", Dim::Width),
    ]),
    only(
        Kind::Attention,
        &[
            matrix("self_attn.q_proj", "attn_q", Dim::Queries, Dim::Width),
            matrix("self_attn.k_proj", "attn_k", Dim::Keys, Dim::Width),
            matrix("self_attn.v_proj", "attn_v", Dim::Keys, Dim::Width),
            matrix(
                "self_attn.out_proj",
                "attn_output",
                Dim::Width,
                Dim::Queries,
            ),
            vector("self_attn.q_layernorm", "attn_q_norm", Dim::Head),
            vector("self_attn.k_layernorm", "attn_k_norm", Dim::Head),
        ],
    ),
    only(
        Kind::ShortConv,
        &[
            matrix(
                "conv.in_proj",
                "shortconv.in_proj",
                Dim::ConvInput,
                Dim::Width,
            ),
            kernels("conv.conv", "shortconv.conv", Dim::Width, Dim::Kernel),
            matrix(
                "conv.out_proj",
                "shortconv.out_proj",
                Dim::Width,
                Dim::Width,
            ),
        ],
    ),
    only(
        Kind::Dense,
        &[
            matrix("feed_forward.w1", "ffn_gate", Dim::FeedForward, Dim::Width),
            matrix("feed_forward.w3", "ffn_up", Dim::FeedForward, Dim::Width),
            matrix("feed_forward.w2", "ffn_down", Dim::Width, Dim::FeedForward),
        ],
    ),
    only(
        Kind::Experts,
        &[
            matrix(
                "feed_forward.gate",
                "ffn_gate_inp",
                Dim::Experts,
                Dim::Width,
            ),
            bias("feed_forward.expert_bias", "exp_probs_b", Dim::Experts).unless("use_expert_bias"),
            experts(
                "feed_forward.experts.*.w1",
                "ffn_gate_exps",
                [Dim::Expert, Dim::Width],
                ("feed_forward.experts.gate_up_proj", 0, 2),
            ),
            experts(
                "feed_forward.experts.*.w3",
                "ffn_up_exps",
                [Dim::Expert, Dim::Width],
                ("feed_forward.experts.gate_up_proj", 1, 2),
            ),
            experts(
                "feed_forward.experts.*.w2",
                "ffn_down_exps",
                [Dim::Width, Dim::Expert],
                ("feed_forward.experts.down_proj", 0, 1),
            ),
        ],
    ),
];

const LLAMA: Family = Family {
    classes: &[
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "MistralForCausalLM",
        "LlamaModel",
    ],
    model_type: "llama",
    name: "llama",
    activations: &["silu", "swish"],
    defaults: &[("rope_theta", 10_000.0)],
    tied: false,
    keys: keys::llama,
    top: TOP,
    layer: "layers",
    layers: layers::alike,
    feed_forward: layers::stated,
    parts: &[ATTENTION, FEED_FORWARD, NORMS],
    unused: &[],
    interleaved: true,
    shifted_norms: false,
    pre: "llama-bpe",
};

const LFM2: Family = Family {
    classes: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
    model_type: "lfm2",
    name: "lfm2",
    defaults: &[
        ("norm_eps", 1e-5),
        ("rope_theta", 1_000_000.0),
        ("conv_L_cache", 3.0),
        ("block_multiple_of", 256.0),
        ("block_ffn_dim_multiplier", 1.0),
    ],
    tied: true,
    keys: keys::lfm2,
    top: &[
        matrix("embed_tokens", "token_embd", Dim::Vocabulary, Dim::Width),
        vector("embedding_norm", "token_embd_norm", Dim::Width), // the norm at the end
    ],
    layers: layers::lfm2,
    feed_forward: layers::adjusted,
    parts: LFM2_PARTS,
    interleaved: false,
    pre: "lfm2",
    ..LLAMA
};

/// Every family.
pub(super) static FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        model_type: "qwen2",
        name: "qwen2",
        keys: keys::qwen2,
        interleaved: false,
        pre: "qwen2",
        ..LLAMA
    },
    Family {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        model_type: "qwen3",
        name: "qwen3",
        defaults: &[("head_dim", 128.0)],
        keys: keys::qwen2,
        parts: &[ATTENTION, FEED_FORWARD, NORMS, HEAD_NORMS],
        interleaved: false,
        pre: "qwen2",
        ..LLAMA
    },
    Family {
        classes: &["Qwen3MoeForCausalLM"],
        model_type: "qwen3_moe",
        name: "qwen3moe",
        defaults: &[],
        keys: keys::qwen3moe,
        layers: layers::qwen3moe,
        parts: &[ATTENTION, EXPERTS, NORMS, HEAD_NORMS],
        interleaved: false,
        pre: "qwen2",
        ..LLAMA
    },
    Family {
        classes: &["StableLmForCausalLM", "StableLMEpochForCausalLM"],
        model_type: "stablelm",
        name: "stablelm",
        defaults: &[
            ("rope_theta", 10_000.0),
            ("partial_rotary_factor", 0.25),
            ("layer_norm_eps", 1e-5),
        ],
        keys: keys::stablelm,
        parts: &[ATTENTION, FEED_FORWARD, STABLELM_NORMS],
        interleaved: false,
        pre: "stablelm2",
        ..LLAMA
    },
    Family {
        classes: &["Gemma2ForCausalLM"],
        model_type: "gemma2",
        name: "gemma2",
        activations: &["gelu_pytorch_tanh", "gelu"],
        defaults: &[
            ("head_dim", 256.0),
            ("rope_theta", 10_000.0),
            ("query_pre_attn_scalar", 256.0),
            ("attn_logit_softcapping", 50.0),
            ("final_logit_softcapping", 30.0),
            ("sliding_window", 4096.0),
        ],
        tied: true,
        keys: keys::gemma2,
        parts: &[ATTENTION, FEED_FORWARD, GEMMA_NORMS, POST_NORMS],
        interleaved: false,
        shifted_norms: true,
        ..LLAMA
    },
    Family {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        model_type: "gemma3_text",
        name: "gemma3",
        activations: &["gelu_pytorch_tanh", "gelu"],
        // Folders with vision leave out most of them.
        defaults: &[
            ("vocab_size", 262_208.0),
            ("num_attention_heads", 8.0),
            ("num_key_value_heads", 4.0),
            ("head_dim", 256.0),
            ("query_pre_attn_scalar", 256.0),
            ("max_position_embeddings", 131_072.0),
            ("rms_norm_eps", 1e-6),
            ("rope_theta", 1_000_000.0),
            ("rope_local_base_freq", 10_000.0),
            ("sliding_window", 4096.0),
        ],
        tied: true,
        keys: keys::gemma3,
        parts: &[ATTENTION, FEED_FORWARD, GEMMA_NORMS, POST_NORMS, HEAD_NORMS],
        unused: &["vision_tower.", "multi_modal_projector."],
        interleaved: false,
        shifted_norms: true,
        ..LLAMA
    },
    Family {
        classes: &["Phi3ForCausalLM"],
        model_type: "phi3",
        name: "phi3",
        defaults: &[
            ("rope_theta", 10_000.0),
            ("original_max_position_embeddings", 4096.0),
        ],
        keys: keys::phi3,
        parts: &[
            every(&[
                matrix("self_attn.qkv_proj", "attn_qkv", Dim::Joined, Dim::Width),
                matrix("self_attn.o_proj", "attn_output", Dim::Width, Dim::Queries),
                matrix("mlp.gate_up_proj", "ffn_up", Dim::Gated, Dim::Width),
                matrix("mlp.down_proj", "ffn_down", Dim::Width, Dim::FeedForward),
            ]),
            NORMS,
        ],
        interleaved: false,
        ..LLAMA
    },
    Family {
        classes: &["SmolLM3ForCausalLM"],
        model_type: "smollm3",
        name: "smollm3",
        defaults: &[],
        keys: keys::smollm3,
        ..LLAMA
    },
    Family {
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        model_type: "olmo2",
        name: "olmo2",
        defaults: &[],
        keys: keys::olmo2,
        parts: &[
            ATTENTION,
            FEED_FORWARD,
            POST_NORMS,
            // All heads are one vector.
            every(&[
                vector("self_attn.q_norm", "attn_q_norm", Dim::Queries),
                vector("self_attn.k_norm", "attn_k_norm", Dim::Keys),
            ]),
        ],
        interleaved: false,
        pre: "dbrx",
        ..LLAMA
    },
    Family {
        classes: &["GraniteForCausalLM"],
        model_type: "granite",
        name: "granite",
        keys: keys::granite,
        pre: "refact",
        ..LLAMA
    },
    LFM2,
    Family {
        classes: &["Lfm2MoeForCausalLM"],
        model_type: "lfm2_moe",
        name: "lfm2moe",
        defaults: &[
            ("norm_eps", 1e-5),
            ("rope_theta", 1_000_000.0),
            ("conv_L_cache", 3.0),
            ("num_dense_layers", 2.0),
        ],
        keys: keys::lfm2moe,
        layers: layers::lfm2moe,
        feed_forward: layers::stated,
        ..LFM2
    },
    Family {
        classes: &["BertModel", "BertForMaskedLM"],
        model_type: "bert",
        name: "bert",
        activations: &["gelu"],
        defaults: &[
            ("layer_norm_eps", 1e-12),
            ("type_vocab_size", 2.0),
            ("max_position_embeddings", 512.0),
        ],
        tied: true,
        keys: keys::bert,
        top: &[
            matrix(
                "embeddings.word_embeddings",
                "token_embd",
                Dim::Vocabulary,
                Dim::Width,
            ),
            matrix(
                "embeddings.position_embeddings",
                "position_embd",
                Dim::Context,
                Dim::Width,
            ),
            matrix(
                "embeddings.token_type_embeddings",
                "token_types",
                Dim::TokenTypes,
                Dim::Width,
            ),
            vector("embeddings.LayerNorm", "token_embd_norm", Dim::Width),
        ],
        layer: "encoder.layer",
        parts: &[every(&[
            matrix("attention.self.query", "attn_q", Dim::Queries, Dim::Width),
            matrix("attention.self.key", "attn_k", Dim::Keys, Dim::Width),
            matrix("attention.self.value", "attn_v", Dim::Keys, Dim::Width),
            matrix(
                "attention.output.dense",
                "attn_output",
                Dim::Width,
                Dim::Queries,
            ),
            vector("attention.output.LayerNorm", "attn_output_norm", Dim::Width),
            matrix("intermediate.dense", "ffn_up", Dim::FeedForward, Dim::Width),
            matrix("output.dense", "ffn_down", Dim::Width, Dim::FeedForward),
            vector("output.LayerNorm", "layer_output_norm", Dim::Width),
        ])],
        // Heads for training; a sentence's vector is pooled otherwise.
        unused: &[
            "pooler.",
            "cls.predictions",
            "cls.seq_relationship",
            "embeddings.position_ids",
        ],
        interleaved: false,
        ..LLAMA
    },
];
