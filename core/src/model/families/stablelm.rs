//! StableLM 3B, 2 1.6B (arXiv:2402.17834), Zephyr, and 2 12B: layer norms, and part of a head rotated. The 12B model normalises each head with its own
//! weights, and its branches both read one norm; which of this a file has, its tensors say, as its keys do not.

use super::super::config::{Config, HeadNorm, NormKind, Rope};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, shape};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "stablelm",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let shape = shape(keys)?;
    let has = |name| keys.file.get_tensor(name).is_some();
    Ok(Config {
        norm: NormKind::Layer,
        norm_epsilon: keys.positive("attention.layer_norm_epsilon", None)?,
        head_norm: has("blk.0.attn_q_norm.weight").then_some(HeadNorm::Own),
        parallel: !has("blk.0.ffn_norm.weight"),
        rope: Rope::read(keys, shape.key_length, shape.context_length, Pairs::Halves)?,
        ..shape
    })
}
