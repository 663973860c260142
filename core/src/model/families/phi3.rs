//! Phi 3, 3.5 and 4 (arXiv:2404.14219): q, k and v in one tensor, gate and up in another, and factors for the frequencies of short and of long contexts
//! (LongRoPE, arXiv:2402.13753).

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "phi3",
    config,
    names: &Names {
        gate: None,
        ..Names::LLAMA
    },
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Halves)?;
    if let Some(window) = keys.nonzero_length("attention.sliding_window")? {
        let all = vec![true; config.layers.len()];
        windowed(&mut config, &all, window, Rotation::Global);
    }
    Ok(config)
}
