//! OLMo 2 (arXiv:2501.00656) and 3: norms after each branch and none before, and all heads of a token's queries or keys normalised together. OLMo 3 has
//! a window in three of four layers, and scales only the others' rotation.

use super::super::config::{Config, HeadNorm, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "olmo2",
    config,
    names: &Names {
        mixer_norm: None,
        mixer_post_norm: Some("post_attention_norm"),
        feed_forward_norm: None,
        feed_forward_post_norm: Some("post_ffw_norm"),
        ..Names::LLAMA
    },
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Halves)?;
    config.head_norm = Some(HeadNorm::Whole);
    if let Some(window) = keys.nonzero_length("attention.sliding_window")? {
        let local = keys.local_layers(config.layers.len(), 4)?;
        windowed(&mut config, &local, window, Rotation::Local);
        config.local_rope = Some(config.rope.local(keys, config.rope.base)?);
    }
    Ok(config)
}
