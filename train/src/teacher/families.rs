//! The model families of candle-transformers that can teach: one row each.

use candle_core::{DType, Result as CandleResult, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models as m;

use anyhow::{Context, Result, bail, ensure};
use dram_core::model::folder::{self, Fields, Form};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::network::{Network, Prefixes, Stepped, Whole};

/// One family: how `config.json` calls it and how it is loaded.
pub(super) struct Family {
    /// `model_type` in `config.json`.
    pub(super) model_type: &'static str,
    /// candle-transformers follows `rope_scaling`; elsewhere a folder that asks for it is refused.
    scales_rope: bool,
    /// The sliding window is treated as in the original at any length; elsewhere longer batches are refused.
    exact_window: bool,
    /// The output matrix may be missing (tied embeddings), though the model always asks for it.
    borrows_head: bool,
    load: fn(&Json, VarBuilder) -> Result<Box<dyn Network>>,
}

const PLAIN: Family = Family {
    model_type: "",
    scales_rope: false,
    exact_window: false,
    borrows_head: false,
    load: |_, _| bail!("no family"),
};

/// Every family, by `model_type`.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        model_type: "llama",
        scales_rope: true,
        load: llama,
        ..PLAIN
    },
    Family {
        model_type: "mistral",
        borrows_head: true,
        load: |c, vb| {
            stepped(m::mistral::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "mixtral",
        borrows_head: true,
        load: |c, vb| {
            // Not in config.json, though candle's struct wants it.
            let c = with(c, "use_flash_attn", json!(false));
            stepped(m::mixtral::Model::new(&config(&c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "qwen2",
        load: |c, vb| {
            // Null or too small where the window is off, though candle always applies it.
            let off = c["use_sliding_window"] != true;
            let c = if off {
                with(c, "sliding_window", c["max_position_embeddings"].clone())
            } else {
                c.clone()
            };
            let c = default(
                &default(&c, "use_sliding_window", json!(false)),
                "max_window_layers",
                c["num_hidden_layers"].clone(),
            );
            let model = m::qwen2::Model::new(&config(&c)?, vb.clone())?;
            whole(&c, vb, model, |m, ids| m.forward(ids, 0, None))
        },
        ..PLAIN
    },
    Family {
        model_type: "qwen3",
        load: |c, vb| {
            whole(
                c,
                vb.clone(),
                m::qwen3::Model::new(&config(c)?, vb)?,
                |m, ids| m.forward(ids, 0),
            )
        },
        ..PLAIN
    },
    Family {
        model_type: "qwen3_moe",
        load: |c, vb| {
            stepped(
                m::qwen3_moe::ModelForCausalLM::new(&config(c)?, vb)?,
                |m, ids, at| m.forward(ids, at),
            )
        },
        ..PLAIN
    },
    Family {
        model_type: "smollm3",
        load: |c, vb| {
            whole(
                c,
                vb.clone(),
                m::smol::smollm3::Model::new(&config(c)?, vb)?,
                |m, ids| m.forward(ids, 0),
            )
        },
        ..PLAIN
    },
    Family {
        model_type: "phi",
        load: |c, vb| {
            stepped(m::phi::Model::new(&config(c)?, vb)?, |m, ids, _| {
                m.forward(ids)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "phi3",
        scales_rope: true,
        load: |c, vb| {
            stepped(m::phi3::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "gemma",
        load: |c, vb| {
            // Folders set both names of the activation; the newer one counts.
            let c = if c["hidden_activation"].is_null() {
                c.clone()
            } else {
                with(c, "hidden_act", Json::Null)
            };
            stepped(
                m::gemma::Model::new(false, &config(&c)?, vb)?,
                |m, ids, at| m.forward(ids, at),
            )
        },
        ..PLAIN
    },
    Family {
        model_type: "gemma2",
        load: |c, vb| {
            stepped(
                m::gemma2::Model::new(false, &config(c)?, vb)?,
                |m, ids, at| m.forward(ids, at),
            )
        },
        ..PLAIN
    },
    Family {
        model_type: "gemma3_text",
        exact_window: true,
        load: |c, vb| {
            // Its cache refuses the values of several columns (they are not contiguous) where there are several key-value heads.
            let model = m::gemma3::Model::new(false, &config(c)?, vb)?;
            Ok(Box::new(Stepped {
                model,
                takes_prompt: false,
                step: |m, ids, at| m.forward(ids, at),
            }))
        },
        ..PLAIN
    },
    Family {
        model_type: "stablelm",
        borrows_head: true,
        load: stablelm,
        ..PLAIN
    },
    Family {
        model_type: "starcoder2",
        load: |c, vb| {
            stepped(m::starcoder2::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "olmo",
        load: |c, vb| {
            stepped(m::olmo::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "olmo2",
        load: |c, vb| {
            stepped(m::olmo2::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
    Family {
        model_type: "helium",
        load: |c, vb| {
            stepped(m::helium::Model::new(&config(c)?, vb)?, |m, ids, at| {
                m.forward(ids, at)
            })
        },
        ..PLAIN
    },
];

/// Finds the row of `config`'s `model_type`.
///
/// # Errors
/// With the list of known families.
pub(super) fn family(config: &Json) -> Result<&'static Family> {
    let name = config["model_type"]
        .as_str()
        .context("config.json has no \"model_type\"")?;
    FAMILIES
        .iter()
        .find(|f| f.model_type == name)
        .with_context(|| {
            let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
            format!(
                "model_type {name:?} is not known; known are {}",
                known.join(", ")
            )
        })
}

impl Family {
    /// Loads the weights behind `vb`.
    ///
    /// # Errors
    /// When `config` lacks a field, asks for something that candle-transformers would silently leave out, or a tensor is missing.
    pub(super) fn load(&self, config: &Json, vb: VarBuilder) -> Result<Box<dyn Network>> {
        let config = normal_form(config);
        let scaling = &config["rope_scaling"];
        let kind = scaling["rope_type"]
            .as_str()
            .or(scaling["type"].as_str())
            .unwrap_or("default");
        ensure!(
            self.scales_rope || scaling.is_null() || kind == "default",
            "config.json asks for rope_scaling {kind:?}, which candle-transformers' {} leaves out: its logits would be wrong",
            self.model_type
        );
        let vb = if self.borrows_head && !vb.contains_tensor("lm_head.weight") {
            vb.rename_f(|name| {
                if name == "lm_head.weight" {
                    "model.embed_tokens.weight".into()
                } else {
                    name.into()
                }
            })
        } else {
            vb
        };
        (self.load)(&config, vb).with_context(|| {
            format!(
                "loading a {} model through candle-transformers",
                self.model_type
            )
        })
    }

    /// The longest batch that is computed as the original would, if there is a limit below the model's own.
    pub(super) fn window(&self, config: &Json) -> Option<usize> {
        if self.exact_window || config["use_sliding_window"] == false {
            return None;
        }
        config["sliding_window"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
    }
}

/// Newer folders keep RoPE's base in `rope_parameters`; candle's structs look for `rope_theta`.
fn normal_form(config: &Json) -> Json {
    let parameters = &config["rope_parameters"];
    if parameters.is_null() {
        return config.clone();
    }
    let moved = default(config, "rope_theta", parameters["rope_theta"].clone());
    let kind = parameters["rope_type"].as_str().unwrap_or("default");
    if kind == "default" {
        moved
    } else {
        default(&moved, "rope_scaling", parameters.clone())
    }
}

fn config<C: DeserializeOwned>(json: &Json) -> Result<C> {
    serde_json::from_value(json.clone()).context("config.json")
}

fn with(config: &Json, key: &str, value: Json) -> Json {
    let mut config = config.clone();
    if let Some(map) = config.as_object_mut() {
        map.insert(key.into(), value);
    }
    config
}

/// Sets `key` where it is missing or null.
fn default(config: &Json, key: &str, value: Json) -> Json {
    if config[key].is_null() {
        with(config, key, value)
    } else {
        config.clone()
    }
}

fn stepped<M: Clone + Send + Sync + 'static>(
    model: M,
    step: fn(&mut M, &Tensor, usize) -> CandleResult<Tensor>,
) -> Result<Box<dyn Network>> {
    Ok(Box::new(Stepped {
        model,
        takes_prompt: true,
        step,
    }))
}

fn whole<M: Clone + Send + Sync + 'static>(
    config: &Json,
    vb: VarBuilder,
    model: M,
    hidden: fn(&mut M, &Tensor) -> CandleResult<Tensor>,
) -> Result<Box<dyn Network>> {
    let size = |key: &str| {
        config[key]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .with_context(|| format!("config.json: {key}"))
    };
    let tied = config["tie_word_embeddings"] == true || !vb.contains_tensor("lm_head.weight");
    let name = if tied {
        "model.embed_tokens.weight"
    } else {
        "lm_head.weight"
    };
    let head = vb.get((size("vocab_size")?, size("hidden_size")?), name)?;
    Ok(Box::new(Whole {
        model,
        hidden,
        head,
    }))
}

/// candle's loader unwraps inside, so shapes are checked before it runs.
fn llama(json: &Json, vb: VarBuilder) -> Result<Box<dyn Network>> {
    let parsed: m::llama::LlamaConfig = config(json)?;
    let c = parsed.into_config(false);
    ensure!(
        c.num_attention_heads > 0 && c.hidden_size.is_multiple_of(c.num_attention_heads),
        "config.json: hidden_size does not divide into heads"
    );
    if let Some(dim) = json["head_dim"].as_u64() {
        ensure!(
            dim as usize == c.hidden_size / c.num_attention_heads,
            "config.json: head_dim is {dim}, but candle-transformers' llama takes hidden_size / heads = {}",
            c.hidden_size / c.num_attention_heads
        );
    }
    let family = folder::Family::llama();
    let shape = Fields::plain(json.clone()).shape(family)?;
    for (number, layer) in shape.layers.iter().enumerate() {
        let at = vb.pp(format!("model.{}.{number}", family.layer));
        for part in family.groups(*layer).flat_map(|group| group.parts) {
            let (rows, name) = (part.rows.of(&shape), format!("{}.weight", part.from));
            match part.form {
                Form::Matrix(cols) => at.get((rows, cols.of(&shape)), &name)?,
                _ => at.get(rows, &name)?,
            };
        }
    }
    let cache = m::llama::Cache::new(true, DType::F32, &c, vb.device())?;
    let model = m::llama::Llama::load(vb, &c)?;
    stepped((model, cache), |(model, cache), ids, at| {
        model.forward(ids, at, cache)
    })
}

/// candle's stablelm can neither be cloned nor forget its cache, so it runs without one.
fn stablelm(json: &Json, vb: VarBuilder) -> Result<Box<dyn Network>> {
    let model = m::stable_lm::Model::new(&config(&with(json, "use_cache", json!(false)))?, vb)?;
    let model = std::sync::Mutex::new(model);
    Ok(Box::new(Prefixes(move |ids: &Tensor| {
        model
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .forward(ids, 0)
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::VarMap;

    /// A tiny model of the family: common fields, plus what only it asks for.
    fn tiny(family: &str) -> Json {
        let mut config = json!({
            "model_type": family, "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        });
        let more = match family {
            "mistral" => json!({ "sliding_window": 32 }),
            "mixtral" => {
                json!({ "sliding_window": 32, "num_experts_per_tok": 2, "num_local_experts": 4 })
            }
            "qwen2" => json!({ "sliding_window": null, "use_sliding_window": false }),
            "qwen3" => {
                json!({ "head_dim": 16, "attention_bias": false, "max_window_layers": 2, "use_sliding_window": false })
            }
            "qwen3_moe" => json!({
                "head_dim": 16, "attention_bias": false, "max_window_layers": 2, "use_sliding_window": false, "decoder_sparse_step": 1,
                "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": true
            }),
            "phi" => {
                json!({ "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "qk_layernorm": false, "num_key_value_heads": 4 })
            }
            "gemma" => {
                json!({ "head_dim": 8, "attention_bias": false, "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh" })
            }
            "gemma2" => json!({
                "head_dim": 8, "attention_bias": false, "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 30.0,
                "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 8, "sliding_window": 32
            }),
            "gemma3_text" => json!({
                "head_dim": 8, "attention_bias": false, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 8,
                "sliding_window": 32, "sliding_window_pattern": 2, "rope_local_base_freq": 10000.0
            }),
            "stablelm" => {
                json!({ "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5, "use_cache": true })
            }
            "starcoder2" => {
                json!({ "norm_epsilon": 1e-5, "use_bias": true, "hidden_act": "gelu_pytorch_tanh" })
            }
            "olmo" | "olmo2" => json!({ "attention_bias": false }),
            "helium" => {
                json!({ "head_dim": 8, "attention_bias": false, "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2, "attention_dropout": 0.0 })
            }
            _ => json!({}),
        };
        if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
            config.extend(more.clone());
        }
        config
    }

    /// Every family answers at scattered positions of a padded batch as it does when each prefix is fed alone.
    #[test]
    fn every_family_agrees_with_its_own_prefixes() {
        let device = Device::Cpu;
        let ids = Tensor::new(
            &[[5u32, 17, 3, 90, 41, 8, 2], [7, 7, 1, 60, 0, 0, 0]],
            &device,
        )
        .unwrap();
        let positions = [1usize, 3, 6, 8, 10];
        for family in FAMILIES {
            let name = family.model_type;
            let vars = VarMap::new();
            let config = tiny(name);
            let network = family
                .load(&config, VarBuilder::from_varmap(&vars, DType::F32, &device))
                .unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let all = network
                .logits(&ids, &positions)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(all.dims(), [5, 96], "{name}");
            for (i, position) in positions.into_iter().enumerate() {
                let (row, column) = (position / 7, position % 7);
                let prefix = ids
                    .narrow(0, row, 1)
                    .unwrap()
                    .narrow(1, 0, column + 1)
                    .unwrap()
                    .contiguous()
                    .unwrap();
                let alone = network.logits(&prefix, &[column]).unwrap();
                let difference = (alone - all.narrow(0, i, 1).unwrap())
                    .unwrap()
                    .abs()
                    .unwrap()
                    .max_all()
                    .unwrap();
                let difference = difference.to_scalar::<f32>().unwrap();
                assert!(
                    difference < 2e-5,
                    "{name} position {position}: {difference}"
                );
            }
            // Not all the same: a network that ignored its input would pass the above.
            let spread = (all.narrow(0, 0, 1).unwrap() - all.narrow(0, 4, 1).unwrap())
                .unwrap()
                .abs()
                .unwrap()
                .max_all()
                .unwrap();
            assert!(spread.to_scalar::<f32>().unwrap() > 1e-3, "{name}");
        }
    }

    #[test]
    fn what_candle_would_leave_out_is_refused() {
        let vars = VarMap::new();
        let vb = || VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let mut config = tiny("mistral");
        config["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 4.0 });
        let error = format!(
            "{:#}",
            family(&config).unwrap().load(&config, vb()).err().unwrap()
        );
        assert!(
            error.contains("yarn") && error.contains("mistral"),
            "{error}"
        );
        let error = format!(
            "{:#}",
            family(&json!({ "model_type": "rwkv" })).err().unwrap()
        );
        assert!(error.contains("rwkv") && error.contains("qwen3"), "{error}");
        let mut config = tiny("qwen3");
        config.as_object_mut().unwrap().remove("head_dim");
        let error = format!(
            "{:#}",
            family(&config).unwrap().load(&config, vb()).err().unwrap()
        );
        assert!(
            error.contains("config.json") && error.contains("head_dim"),
            "{error}"
        );
    }
}
