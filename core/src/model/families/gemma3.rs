//! Gemma 3 (arXiv:2503.19786): Gemma 2 with normalised heads instead of attention's cap, and five layers with a window, which rotate from a base of
//! their own, for each that sees everything.

use super::super::config::{Config, HeadNorm, Rotation};
use super::super::keys::Keys;
use super::{Architecture, gemma2, windowed};
use crate::Result;

pub(super) const FAMILY: Architecture = Architecture {
    name: "gemma3",
    config,
    names: &gemma2::NAMES,
};

/// See [`gemma2`].
const LAYERS_27B: usize = 62;

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = gemma2::gemma(keys, LAYERS_27B)?;
    config.head_norm = Some(HeadNorm::Shared);
    config.logit_cap = keys.nonzero("final_logit_softcapping")?;
    if let Some(window) = keys.nonzero_length("attention.sliding_window")? {
        let local = keys.local_layers(config.layers.len(), 6)?;
        windowed(&mut config, &local, window, Rotation::Local);
        config.local_rope = Some(config.rope.local(keys, 10_000.0)?);
    }
    Ok(config)
}
