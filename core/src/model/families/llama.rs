//! Llama 1 to 3, Mistral, SmolLM, TinyLlama and the students that Dram makes. The converter writes the rows of q and k permuted, so that pairs to
//! rotate are adjacent.

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder, windowed};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "llama",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Interleaved)?;
    // Mistral's first models (arXiv:2310.06825): a window in every layer.
    if let Some(window) = keys.nonzero_length("attention.sliding_window")? {
        let all = vec![true; config.layers.len()];
        windowed(&mut config, &all, window, Rotation::Global);
    }
    Ok(config)
}
