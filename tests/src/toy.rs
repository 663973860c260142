//! Small random llama models whose weights come from a seed. `tests/golden/make_llama.py` makes the same ones for
//! Hugging Face transformers, bit for bit.

use crate::gguf::{Gguf, Tensor, Value};
use dram_core::hash::fnv1a;
use dram_core::quant;
use serde_json::{Value as Json, json};
use std::path::Path;

/// How many tokens: 256 bytes, 27 merged pairs, 5 control tokens.
pub const VOCABULARY: usize = 288;
/// Ids of the control tokens.
pub const BEGIN: u32 = 283;
pub const END: u32 = 284;

const MERGES: &[&str] = &[
    "Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "Ġ o", "e n",
    "Ġ c", "i t", "i s", "a n", "o r", "e s", "Ġ b", "e d", "Ġ f", "in g", "Ġ p", "o u", "Ġa n",
    "Ġan d",
];
const CONTROL: &[&str] = &[
    "<|begin|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|pad|>",
];

/// How positions are stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    None,
    /// Positions divided by the factor.
    Linear {
        factor: f32,
    },
    /// Llama 3.1's: long wavelengths slowed by the factor, short ones kept, between them a mixture.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

/// The shape of a model, and the seed of its weights.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: String,
    pub seed: u64,
    pub width: usize,
    pub ffn: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub tied: bool,
    pub rope_base: f32,
    pub eps: f32,
    pub scaling: Scaling,
    /// The matrices' format, by core's name. Norms are F32.
    pub format: String,
}

impl Default for Shape {
    /// Grouped-query attention, untied, F32; sizes that every format can hold.
    fn default() -> Shape {
        Shape {
            name: "default".into(),
            seed: 42,
            width: 64,
            ffn: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            tied: false,
            rope_base: 10000.0,
            eps: 1e-5,
            scaling: Scaling::None,
            format: "f32".into(),
        }
    }
}

impl Shape {
    /// From an entry of golden/llama.json.
    pub fn from_json(json: &Json) -> Shape {
        let text = |key: &str| {
            json[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key} in {json}"))
                .to_string()
        };
        let real = |json: &Json, key: &str| {
            json[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{key} in {json}"))
        };
        let size = |key: &str| real(json, key) as usize;
        let scaling = &json["scaling"];
        let scaling = match scaling["type"].as_str() {
            None => Scaling::None,
            Some("linear") => Scaling::Linear {
                factor: real(scaling, "factor") as f32,
            },
            Some("llama3") => Scaling::Llama3 {
                factor: real(scaling, "factor"),
                low: real(scaling, "low"),
                high: real(scaling, "high"),
                original: real(scaling, "original"),
            },
            Some(other) => panic!("unknown scaling {other}"),
        };
        Shape {
            name: text("name"),
            seed: size("seed") as u64,
            width: size("width"),
            ffn: size("ffn"),
            layers: size("layers"),
            heads: size("heads"),
            kv_heads: size("kv_heads"),
            head_dim: size("head_dim"),
            tied: json["tied"] == true,
            rope_base: real(json, "rope_base") as f32,
            eps: real(json, "eps") as f32,
            scaling,
            format: text("format"),
        }
    }

    /// The model as a GGUF, with a byte-level BPE tokenizer.
    pub fn gguf(&self) -> Gguf {
        let mut file = Gguf::default();
        let size = |n: usize| Value::U32(n as u32);
        file.set("general.architecture", Value::Str("llama".into()));
        file.set("general.name", Value::Str(self.name.clone()));
        file.set("llama.context_length", Value::U32(256));
        file.set("llama.embedding_length", size(self.width));
        file.set("llama.block_count", size(self.layers));
        file.set("llama.feed_forward_length", size(self.ffn));
        file.set("llama.attention.head_count", size(self.heads));
        file.set("llama.attention.head_count_kv", size(self.kv_heads));
        file.set("llama.attention.key_length", size(self.head_dim));
        file.set("llama.attention.value_length", size(self.head_dim));
        file.set(
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(self.eps),
        );
        file.set("llama.rope.dimension_count", size(self.head_dim));
        file.set("llama.rope.freq_base", Value::F32(self.rope_base));
        if let Scaling::Linear { factor } = self.scaling {
            file.set("llama.rope.scaling.type", Value::Str("linear".into()));
            file.set("llama.rope.scaling.factor", Value::F32(factor));
        }
        file.set("llama.vocab_size", size(VOCABULARY));
        tokenizer(&mut file);
        file.tensors = self.tensors();
        file
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.gguf().bytes()
    }

    /// Every parameter, rows in Hugging Face's order.
    fn parts(&self) -> Vec<Part> {
        let d = self.width;
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut parts = vec![self.matrix(
            "token_embd",
            "embed_tokens",
            VOCABULARY,
            d,
            (d as f32).sqrt(),
        )];
        for layer in 0..self.layers {
            let names = |ours: &str, theirs: &str| {
                (
                    format!("blk.{layer}.{ours}"),
                    format!("layers.{layer}.{theirs}"),
                )
            };
            let mut norm = |(ours, theirs): (String, String)| parts.push(self.norm(&ours, &theirs));
            norm(names("attn_norm", "input_layernorm"));
            norm(names("ffn_norm", "post_attention_layernorm"));
            let mut matrix = |(ours, theirs): (String, String), rows, cols, heads| {
                parts.push(Part {
                    heads,
                    ..self.matrix(&ours, &theirs, rows, cols, 2.0)
                });
            };
            matrix(names("attn_q", "self_attn.q_proj"), q, d, Some(self.heads));
            matrix(
                names("attn_k", "self_attn.k_proj"),
                kv,
                d,
                Some(self.kv_heads),
            );
            matrix(names("attn_v", "self_attn.v_proj"), kv, d, None);
            matrix(names("attn_output", "self_attn.o_proj"), d, q, None);
            matrix(names("ffn_gate", "mlp.gate_proj"), self.ffn, d, None);
            matrix(names("ffn_up", "mlp.up_proj"), self.ffn, d, None);
            matrix(names("ffn_down", "mlp.down_proj"), d, self.ffn, None);
        }
        parts.push(self.norm("output_norm", "norm"));
        if !self.tied {
            let head = self.matrix("output", "", VOCABULARY, d, 2.0);
            parts.push(Part {
                hugging_face: "lm_head.weight".into(),
                ..head
            });
        }
        parts
    }

    fn norm(&self, ours: &str, theirs: &str) -> Part {
        let (gguf, hugging_face) = (format!("{ours}.weight"), format!("model.{theirs}.weight"));
        let values = weights(&gguf, self.width, 0.25, self.seed)
            .iter()
            .map(|w| 1.0 + w)
            .collect();
        Part {
            gguf,
            hugging_face,
            rows: None,
            heads: None,
            values,
        }
    }

    fn matrix(&self, ours: &str, theirs: &str, rows: usize, cols: usize, gain: f32) -> Part {
        let (gguf, hugging_face) = (format!("{ours}.weight"), format!("model.{theirs}.weight"));
        let values = weights(&gguf, rows * cols, gain / (cols as f32).sqrt(), self.seed); // [rows, cols]
        Part {
            gguf,
            hugging_face,
            rows: Some(rows),
            heads: None,
            values,
        }
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut out: Vec<Tensor> = self
            .parts()
            .iter()
            .map(|part| part.tensor(&self.format))
            .collect();
        if let Scaling::Llama3 {
            factor,
            low,
            high,
            original,
        } = self.scaling
        {
            let half = self.head_dim / 2;
            let factors = (0..half).map(|i| {
                let frequency = f64::from(self.rope_base).powf(-(i as f64) / half as f64);
                let turns = original * frequency / std::f64::consts::TAU; // within the original context
                let mix = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 / (mix + (1.0 - mix) / factor)) as f32
            });
            out.push(f32_tensor(
                "rope_freqs.weight",
                &factors.collect::<Vec<_>>(),
            ));
        }
        out
    }

    /// Writes the model as a Hugging Face folder: config.json and model.safetensors, no tokenizer.
    pub fn write_hugging_face(&self, folder: &Path) -> std::io::Result<()> {
        let rope = match self.scaling {
            Scaling::None => Json::Null,
            Scaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }),
        };
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": VOCABULARY,
            "hidden_size": self.width, "intermediate_size": self.ffn, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": 256, "rms_norm_eps": self.eps, "rope_theta": self.rope_base,
            "rope_scaling": rope, "tie_word_embeddings": self.tied,
        });
        std::fs::write(folder.join("config.json"), config.to_string())?;
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for part in self.parts() {
            let (format, dtype) = match (&*self.format, part.rows) {
                ("f16", Some(_)) => ("f16", "F16"),
                ("bf16", Some(_)) => ("bf16", "BF16"),
                _ => ("f32", "F32"),
            };
            let bytes = quantised(named(format), &part.values);
            let cols = part.values.len() / part.rows.unwrap_or(1);
            let shape: Vec<usize> = part.rows.into_iter().chain([cols]).collect();
            let range = [data.len(), data.len() + bytes.len()];
            header.insert(
                part.hugging_face,
                json!({ "dtype": dtype, "shape": shape, "data_offsets": range }),
            );
            data.extend(bytes);
        }
        let mut header = Json::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
        std::fs::write(folder.join("model.safetensors"), file)
    }
}

/// One parameter.
struct Part {
    gguf: String,
    hugging_face: String,
    /// None: a vector.
    rows: Option<usize>,
    /// Of how many heads the rows are, where a GGUF holds each head's in interleaved pairs.
    heads: Option<usize>,
    values: Vec<f32>, // [rows, cols], Hugging Face's order
}

impl Part {
    /// As a GGUF holds it; vectors stay F32.
    fn tensor(&self, format: &str) -> Tensor {
        let Some(rows) = self.rows else {
            return f32_tensor(&self.gguf, &self.values);
        };
        let format = named(format);
        let cols = self.values.len() / rows;
        let head_dim = self.heads.map_or(1, |heads| rows / heads);
        let mut bytes = Vec::new();
        for row in 0..rows {
            let (head, within) = (row / head_dim, row % head_dim);
            // Written row 2i + j is row i + j·head_dim/2 of Hugging Face's order.
            let source = head * head_dim + within / 2 + within % 2 * (head_dim / 2);
            bytes.extend(quantised(format, &self.values[source * cols..][..cols]));
        }
        let dims = vec![cols as u64, rows as u64];
        Tensor {
            name: self.gguf.clone(),
            dims,
            ggml_type: format.ggml_id,
            offset: None,
            bytes,
        }
    }
}

fn named(format: &str) -> &'static quant::Format {
    quant::format_by_name(format).unwrap_or_else(|| panic!("no format {format}"))
}

/// The bytes of one row in a format.
pub fn quantised(format: &quant::Format, row: &[f32]) -> Vec<u8> {
    let length = format.bytes(row.len()).unwrap_or_else(|| {
        panic!(
            "{} values are no whole blocks of {}",
            row.len(),
            format.name
        )
    });
    let mut bytes = vec![0; length];
    format.quantize(row, &mut bytes);
    bytes
}

/// A vector in F32.
pub fn f32_tensor(name: &str, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor {
        name: name.into(),
        dims: vec![values.len() as u64],
        ggml_type: 0,
        offset: None,
        bytes,
    }
}

/// Uniform in [−scale, scale): splitmix64 used as a counter, 24 bits a value, so that f32 is exact before scaling.
pub fn weights(name: &str, count: usize, scale: f32, seed: u64) -> Vec<f32> {
    let hash = fnv1a(name.bytes());
    let unit = |bits: u64| (bits >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0;
    (1..=count as u64)
        .map(|i| unit(splitmix(hash ^ seed, i)) * scale)
        .collect()
}

/// The i-th value (from 1) of splitmix64 started from `seed`.
pub fn splitmix(seed: u64, i: u64) -> u64 {
    let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Keys of a byte-level BPE tokenizer in GPT-2's spelling of bytes.
fn tokenizer(file: &mut Gguf) {
    let mut extra = 256u32..;
    let mut tokens: Vec<String> = (0u32..256)
        .map(|byte| {
            let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if printable {
                byte
            } else {
                extra.next().unwrap_or_default()
            };
            char::from_u32(code)
                .expect("a character below U+0200")
                .to_string()
        })
        .collect();
    tokens.extend(MERGES.iter().map(|m| m.replace(' ', "")));
    tokens.extend(CONTROL.iter().map(|t| t.to_string()));
    assert_eq!(tokens.len(), VOCABULARY);
    let kinds = (0..VOCABULARY)
        .map(|i| if i < VOCABULARY - CONTROL.len() { 1 } else { 3 })
        .collect();
    file.set("tokenizer.ggml.model", Value::Str("gpt2".into()));
    file.set("tokenizer.ggml.pre", Value::Str("gpt-2".into()));
    file.set("tokenizer.ggml.tokens", Value::Strs(tokens));
    file.set("tokenizer.ggml.token_type", Value::I32s(kinds));
    file.set(
        "tokenizer.ggml.merges",
        Value::Strs(MERGES.iter().map(|m| m.to_string()).collect()),
    );
    file.set("tokenizer.ggml.bos_token_id", Value::U32(BEGIN));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(END));
    file.set(
        "tokenizer.ggml.padding_token_id",
        Value::U32(VOCABULARY as u32 - 1),
    );
    file.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
}
