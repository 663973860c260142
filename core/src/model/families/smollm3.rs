//! SmolLM 3: Llama whose every fourth layer does not rotate (arXiv:2501.18795).

use super::super::config::{Config, Rotation};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::kernels::Pairs;

pub(super) const FAMILY: Architecture = Architecture {
    name: "smollm3",
    config,
    names: &Names::LLAMA,
};

fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = decoder(keys, Pairs::Interleaved)?;
    for scope in config.scopes_mut().skip(3).step_by(4) {
        scope.rotation = Rotation::None;
    }
    Ok(config)
}
