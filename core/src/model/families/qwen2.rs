//! Qwen 2 and 2.5 (arXiv:2407.10671): biases beside q, k and v, which every family's file may have.

use super::super::config::Config;
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen2",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    decoder(keys, Pairs::Halves)
}
