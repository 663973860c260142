//! LFM2 and 2.5 (arXiv:2511.23404): gated short convolutions, and attention with normalised heads in some layers.

use super::super::config::{Config, HeadNorm, Mixer};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, rms_and_rope, shape_of};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "lfm2",
    config,
    names: &NAMES,
};

pub(super) const NAMES: Names = Names {
    output_norm: Some("token_embd_norm"), // the converter's name for the norm at the end
    ..Names::LLAMA
};

/// A layer with no heads of keys and values has a convolution.
pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    // Encoders and audio models under the same name.
    let causal = keys.name("attention.causal");
    if keys.file.metadata().opt_bool(&causal)? == Some(false) {
        return Err(keys.bad(&causal, "true or absent".into(), false));
    }
    if let Some(window) = keys.nonzero_length("attention.sliding_window")? {
        let key = keys.name("attention.sliding_window");
        return Err(keys.bad(&key, "0 or absent".into(), window));
    }
    let heads = keys.lengths("attention.head_count_kv")?; // [layers]
    let kv_heads = heads.iter().copied().max().filter(|heads| *heads > 0);
    if let Some(other) = heads.iter().find(|n| **n != 0 && Some(**n) != kv_heads) {
        let key = keys.name("attention.head_count_kv");
        let expected = format!("0 or {} in each layer", kv_heads.unwrap_or_default());
        return Err(keys.bad(&key, expected, other));
    }
    let shape = shape_of(keys, kv_heads)?;
    let mut config = rms_and_rope(keys, Pairs::Halves, shape)?;
    config.head_norm = Some(HeadNorm::Shared);
    let kernel = keys.kernel("shortconv.l_cache")?;
    for (layer, heads) in config.layers.iter_mut().zip(heads) {
        if heads == 0 {
            layer.mixer = Mixer::ShortConv { kernel };
        }
    }
    Ok(config)
}
