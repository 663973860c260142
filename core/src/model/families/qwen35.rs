//! Qwen 3.5, text: gated delta nets (arXiv:2412.06464), and gated attention in every fourth layer.

use super::super::config::{Config, DeltaNet, HeadNorm, Mixer};
use super::super::keys::Keys;
use super::super::weights::Names;
use super::{Architecture, decoder};
use crate::Result;
use crate::kernels::{MAX_DELTA_COLS, Pairs};

pub(super) const FAMILY: Architecture = Architecture {
    name: "qwen35",
    config,
    names: &NAMES,
};

pub(super) const NAMES: Names = Names {
    feed_forward_norm: Some("post_attention_norm"),
    ..Names::LLAMA
};

pub(super) fn config(keys: &Keys<'_>) -> Result<Config> {
    let mut config = Config {
        head_norm: Some(HeadNorm::Shared),
        gated_attention: true,
        ..decoder(keys, Pairs::Halves)?
    };
    let net = delta_net(keys)?;
    let recurrent = keys.flags("attention.recurrent_layers")?;
    let every = keys.opt_length("full_attention_interval")?.unwrap_or(4);
    for (number, layer) in config.layers.iter_mut().enumerate() {
        let is_recurrent = match &recurrent {
            Some(layers) => layers[number],
            None => (number + 1) % every != 0,
        };
        if is_recurrent {
            layer.mixer = Mixer::DeltaNet(net);
        }
    }
    Ok(config)
}

fn delta_net(keys: &Keys<'_>) -> Result<DeltaNet> {
    let key_length = keys.length("ssm.state_size")?;
    let key_heads = keys.length("ssm.group_count")?;
    let value_heads = keys.length("ssm.time_step_rank")?;
    let inner = keys.length("ssm.inner_size")?;
    if key_length > MAX_DELTA_COLS {
        let key = keys.name("ssm.state_size");
        return Err(keys.bad(&key, format!("at most {MAX_DELTA_COLS}"), key_length));
    }
    if !value_heads.is_multiple_of(key_heads) {
        let key = keys.name("ssm.time_step_rank");
        let expected = format!("a multiple of the {key_heads} key heads");
        return Err(keys.bad(&key, expected, value_heads));
    }
    if inner != value_heads * key_length {
        let key = keys.name("ssm.inner_size");
        let expected = format!("{value_heads} heads of {key_length}");
        return Err(keys.bad(&key, expected, inner));
    }
    Ok(DeltaNet {
        kernel: keys.kernel("ssm.conv_kernel")?,
        key_heads,
        value_heads,
        key_length,
        value_length: key_length,
    })
}
