//! Qwen 3 (arXiv:2505.09388): each head of queries and keys is normalised.

use super::super::config::{Config, HeadNorm};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen3",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    Ok(Config {
        head_norm: Some(HeadNorm::Shared),
        ..decoder(keys, Pairs::Halves)?
    })
}
