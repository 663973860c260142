//! Phi 3, 3.5 and 4 (arXiv:2404.14219): q, k and v in one tensor, gate and up in another, and factors for the frequencies of short and of long contexts
//! (LongRoPE, arXiv:2402.13753).

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::gguf::names::key;
use crate::kernels::RopeLayout;

pub(super) const FAMILY: Architecture = Architecture {
    name: "phi3",
    layout: RopeLayout::Halves,
    config,
    names: &Names {
        gate: None,
        ..Names::LLAMA
    },
    #[cfg(feature = "folders")]
    folder: folder::FOLDER,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys)?;
    if let Some(window) = keys.nonzero_length(key::SLIDING_WINDOW)? {
        let all = vec![true; config.layers.len()];
        windowed(&mut config, &all, window, Rotation::Global);
    }
    Ok(config)
}

#[cfg(feature = "folders")]
mod folder {
    use super::super::LLAMA;
    use crate::gguf::names::{key, tensor};
    use crate::model::folder::*;

    pub(super) const FOLDER: Folder = Folder {
        classes: &["Phi3ForCausalLM"],
        model_type: "phi3",
        defaults: &[
            ("rope_theta", 10_000.0),
            ("original_max_position_embeddings", 4096.0),
        ],
        keys,
        parts: &[
            every(&[
                matrix(
                    "self_attn.qkv_proj",
                    tensor::ATTN_QKV,
                    Dim::Joined,
                    Dim::Width,
                ),
                matrix(
                    "self_attn.o_proj",
                    tensor::ATTN_OUTPUT,
                    Dim::Width,
                    Dim::Queries,
                ),
                matrix("mlp.gate_up_proj", tensor::FFN_UP, Dim::Gated, Dim::Width),
                matrix(
                    "mlp.down_proj",
                    tensor::FFN_DOWN,
                    Dim::Width,
                    Dim::FeedForward,
                ),
            ]),
            NORMS,
        ],
        ..LLAMA.folder
    };

    fn keys(fields: &Fields, shape: &Shape, entries: &mut Entries) -> Result<()> {
        lengths(fields, shape, entries)?;
        let rope = fields.rope().full;
        let original = rope.number("original_max_position_embeddings")?;
        entries.own(key::ROPE_ORIGINAL_CONTEXT, original);
        entries.float(key::RMS_NORM_EPSILON, fields.float("rms_norm_eps")?);
        entries.number(key::ROPE_DIMENSION_COUNT, rotated(fields, shape)?)?;
        entries.float(key::ROPE_FREQ_BASE, rope.float("rope_theta")?);
        // The runtimes tell Phi 4 by a window of 0.
        entries.own(
            key::SLIDING_WINDOW,
            fields.opt_number("sliding_window")?.unwrap_or(0),
        );
        match rope_type(&rope) {
            "default" => {}
            "longrope" | "su" => {
                // LongRoPE (arXiv:2402.13753), section 4.2
                let scale = shape.context as f64 / f64::from(original.max(2));
                let factor = if scale > 1.0 {
                    (1.0 + scale.ln() / f64::from(original.max(2)).ln()).sqrt()
                } else {
                    1.0
                };
                entries.float(key::ROPE_ATTENTION_FACTOR, factor);
            }
            other => {
                return refuse(format!(
                    "RoPE scaling {other:?}; the runtime's phi3 has longrope"
                ));
            }
        }
        Ok(())
    }
}
