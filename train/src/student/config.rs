//! The shape of a llama-family decoder, and how `config.json` says it.

use anyhow::{Context, Result, bail, ensure};
use dram_core::model::folder::same_for_all_lengths;
use serde_json::{Value as Json, json};

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    pub feed_forward_length: usize,
    /// Longest sequence, in tokens.
    pub context_length: usize,
    pub rope_base: f32,
    /// Divisors of the rotary frequencies, [head_dim / 2]; empty when there is no scaling.
    pub rope_factors: Vec<f32>,
    /// Added to the mean square in the norms.
    pub norm_eps: f32,
    /// The output matrix is the embedding matrix.
    pub tied_embeddings: bool,
}

impl Default for Config {
    /// About a million parameters with a vocabulary of 2,048.
    fn default() -> Self {
        Config {
            vocabulary: 2048,
            embedding_length: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            head_dim: 32,
            feed_forward_length: 352,
            context_length: 256,
            rope_base: 10_000.0,
            rope_factors: Vec::new(),
            norm_eps: 1e-5,
            tied_embeddings: true,
        }
    }
}

/// Nothing a file or recipe says may make buffers larger than this many parameters.
const MAX_PARAMETERS: usize = 1 << 34;

impl Config {
    /// # Errors
    /// When the numbers contradict each other.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("embedding_length", self.embedding_length),
            ("layers", self.layers),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("feed_forward_length", self.feed_forward_length),
            ("context_length", self.context_length),
        ];
        for (name, value) in sizes {
            ensure!(
                (1..=1 << 28).contains(&value),
                "{name} = {value}: expected 1 to {}",
                1 << 28
            );
        }
        ensure!(
            self.heads.is_multiple_of(self.kv_heads),
            "heads = {} is not a multiple of kv_heads = {}; every key-value head serves the same number of query heads",
            self.heads,
            self.kv_heads
        );
        ensure!(
            self.head_dim.is_multiple_of(2),
            "head_dim = {} is odd; rotary embedding turns pairs of dimensions",
            self.head_dim
        );
        ensure!(
            self.rope_factors.is_empty() || self.rope_factors.len() == self.head_dim / 2,
            "{} rotary factors for a head of {} dimensions; expected {}",
            self.rope_factors.len(),
            self.head_dim,
            self.head_dim / 2
        );
        ensure!(
            self.rope_base.is_finite() && self.rope_base > 0.0,
            "rope_base = {}: expected a positive number",
            self.rope_base
        );
        ensure!(
            self.rope_factors.iter().all(|f| f.is_finite() && *f > 0.0),
            "a rotary factor is not a positive number"
        );
        ensure!(
            self.norm_eps.is_finite() && self.norm_eps >= 0.0,
            "norm_eps = {}: expected zero or a small positive number",
            self.norm_eps
        );
        match self.try_parameters() {
            Some(n) if n <= MAX_PARAMETERS => Ok(()),
            _ => bail!("more than {MAX_PARAMETERS} parameters"),
        }
    }

    /// Number of parameters; tied embeddings count once.
    pub fn parameters(&self) -> usize {
        self.try_parameters().unwrap_or(usize::MAX)
    }

    fn try_parameters(&self) -> Option<usize> {
        let d = self.embedding_length;
        let q = self.heads.checked_mul(self.head_dim)?;
        let kv = self.kv_heads.checked_mul(self.head_dim)?;
        let attention = q.checked_add(kv)?.checked_mul(2)?.checked_mul(d)?;
        let layer = attention
            .checked_add(self.feed_forward_length.checked_mul(3)?.checked_mul(d)?)?
            .checked_add(2 * d)?;
        let tables = self
            .vocabulary
            .checked_mul(d)?
            .checked_mul(if self.tied_embeddings { 1 } else { 2 })?;
        layer
            .checked_mul(self.layers)?
            .checked_add(tables)?
            .checked_add(d)
    }

    /// Angular frequencies of the rotary embedding, [head_dim / 2]: base^(−2i / head_dim) over the factors.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        (0..self.head_dim / 2)
            .map(|i| {
                let f = f64::from(self.rope_base).powf(-((2 * i) as f64) / self.head_dim as f64);
                f / self.rope_factors.get(i).map_or(1.0, |&x| f64::from(x))
            })
            .collect()
    }

    /// Reads `config.json` of a Hugging Face folder (`LlamaForCausalLM` and models with the same layers).
    ///
    /// # Errors
    /// When a field is missing or asks for something this decoder does not do.
    pub fn from_hugging_face(json: &Json) -> Result<Self> {
        let model_type = json["model_type"].as_str().unwrap_or("llama");
        ensure!(
            matches!(model_type, "llama" | "mistral"),
            "config.json: model_type {model_type:?} is not a plain llama decoder; expected \"llama\" or \"mistral\""
        );
        for (key, why) in [
            ("attention_bias", "biases in attention"),
            ("mlp_bias", "biases in the feed-forward part"),
        ] {
            ensure!(
                json[key] != true,
                "config.json: {key} = true asks for {why}, which the decoder does not have"
            );
        }
        let activation = json["hidden_act"].as_str().unwrap_or("silu");
        ensure!(
            matches!(activation, "silu" | "swish"),
            "config.json: hidden_act {activation:?}; expected \"silu\""
        );
        let size = |key: &str| -> Result<usize> {
            let value = json[key]
                .as_u64()
                .with_context(|| format!("config.json: {key} is missing or is no whole number"))?;
            Ok(usize::try_from(value)?)
        };
        let optional = |key: &str, default: usize| {
            if json[key].is_null() {
                Ok(default)
            } else {
                size(key)
            }
        };
        let heads = size("num_attention_heads")?;
        let embedding_length = size("hidden_size")?;
        ensure!(heads > 0, "config.json: num_attention_heads is 0");
        let rope = [&json["rope_parameters"], &json["rope_scaling"]]
            .into_iter()
            .find(|r| r.is_object())
            .unwrap_or(&Json::Null);
        let mut config = Config {
            vocabulary: size("vocab_size")?,
            embedding_length,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads: optional("num_key_value_heads", heads)?,
            head_dim: optional("head_dim", embedding_length / heads)?,
            feed_forward_length: size("intermediate_size")?,
            context_length: optional("max_position_embeddings", 2048)?,
            rope_base: rope["rope_theta"]
                .as_f64()
                .or(json["rope_theta"].as_f64())
                .unwrap_or(10_000.0) as f32,
            rope_factors: Vec::new(),
            norm_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            tied_embeddings: json["tie_word_embeddings"].as_bool().unwrap_or(false),
        };
        config.check().context("config.json")?;
        config.rope_factors = rope_factors(rope, &config)?;
        config.check().context("config.json")?;
        Ok(config)
    }

    /// The `config.json` that [`Config::from_hugging_face`] and transformers read.
    pub fn to_hugging_face(&self) -> Json {
        let mut json = json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.embedding_length,
            "intermediate_size": self.feed_forward_length,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context_length,
            "rope_theta": self.rope_base,
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tied_embeddings,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "torch_dtype": "float32",
            // Not transformers' defaults, which are Llama 2's.
            "bos_token_id": null,
            "eos_token_id": null,
            "pad_token_id": null,
        });
        match self.rope_factors[..] {
            [] => {}
            [factor, ref others @ ..] if others.iter().all(|f| *f == factor) => {
                json["rope_scaling"] = json!({ "rope_type": "linear", "factor": factor });
            }
            // Any factors at all, the same for short and long texts.
            _ => {
                json["rope_scaling"] = json!({
                    "rope_type": "longrope",
                    "short_factor": self.rope_factors,
                    "long_factor": self.rope_factors,
                    "factor": 1.0,
                    "attention_factor": 1.0,
                    "original_max_position_embeddings": self.context_length,
                });
            }
        }
        json
    }
}

/// The divisors that a `rope_scaling` entry stands for.
fn rope_factors(rope: &Json, config: &Config) -> Result<Vec<f32>> {
    let kind = rope["rope_type"]
        .as_str()
        .or(rope["type"].as_str())
        .unwrap_or("default");
    let number = |key: &str| {
        rope[key]
            .as_f64()
            .with_context(|| format!("config.json: rope scaling {kind:?} has no number {key:?}"))
    };
    match kind {
        "default" => Ok(Vec::new()),
        "linear" => Ok(vec![number("factor")? as f32; config.head_dim / 2]),
        "factors" => {
            serde_json::from_value(rope["factors"].clone()).context("config.json: rope factors")
        }
        "longrope" if same_for_all_lengths(rope) => {
            serde_json::from_value(rope["short_factor"].clone())
                .context("config.json: rope factors")
        }
        // Llama 3.1: short wavelengths stay, long ones are stretched by `factor`, those between are blended.
        "llama3" => {
            let (factor, low, high) = (
                number("factor")?,
                number("low_freq_factor")?,
                number("high_freq_factor")?,
            );
            let original = number("original_max_position_embeddings")?;
            Ok(config
                .rope_frequencies()
                .iter()
                .map(|f| {
                    let turns = original * f / (2.0 * std::f64::consts::PI);
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
                })
                .collect())
        }
        other => bail!(
            "config.json: rope scaling {other:?} is not known; known are default, linear, llama3"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_json_round_trip_and_refusals() {
        let config = Config {
            rope_factors: vec![1.5; 16],
            kv_heads: 2,
            ..Config::default()
        };
        let json = config.to_hugging_face();
        assert_eq!(json["rope_scaling"]["rope_type"], "linear");
        assert_eq!(Config::from_hugging_face(&json).unwrap(), config);
        let config = Config {
            rope_factors: (1..=16).map(|i| i as f32 / 3.0).collect(),
            ..config
        };
        let json = config.to_hugging_face();
        assert_eq!(json["rope_scaling"]["rope_type"], "longrope");
        assert_eq!(Config::from_hugging_face(&json).unwrap(), config);
        for (key, value, word) in [
            ("num_key_value_heads", json!(3), "kv_heads"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("vocab_size", json!(-1), "vocab_size"),
            ("model_type", json!("gpt2"), "gpt2"),
            ("num_hidden_layers", json!(1u64 << 40), "layers"),
            ("attention_bias", json!(true), "attention_bias"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "yarn"),
        ] {
            let mut bad = json.clone();
            bad[key] = value;
            let message = format!("{:#}", Config::from_hugging_face(&bad).unwrap_err());
            assert!(message.contains(word), "{message}");
        }
    }
}
