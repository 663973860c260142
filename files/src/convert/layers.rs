//! What each layer of a folder is made of, and how long its feed-forward part is.

use anyhow::{Result, bail, ensure};

use super::config::{Fields, LONGEST};
use super::parts::Kind;

/// How a layer mixes positions, and what it does to each by itself.
pub(super) type Layer = [Kind; 2];

/// Attention and a dense feed-forward part in every layer.
pub(super) fn alike(_: &Fields, layers: usize) -> Result<Vec<Layer>> {
    Ok(vec![[Kind::Attention, Kind::Dense]; layers])
}

/// Experts in every layer.
pub(super) fn qwen3moe(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
    let step = fields.opt_number("decoder_sparse_step")?.unwrap_or(1);
    ensure!(
        step == 1,
        "config.json: decoder_sparse_step is {step}; the runtime's qwen3moe has experts in every layer"
    );
    let dense = &fields.0["mlp_only_layers"];
    ensure!(
        dense.as_array().is_none_or(Vec::is_empty),
        "config.json: mlp_only_layers is {dense}; the runtime's qwen3moe has experts in every layer"
    );
    Ok(vec![[Kind::Attention, Kind::Experts]; layers])
}

/// Short convolutions and attention in the order that the folder says.
pub(super) fn lfm2(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
    if let Some(types) = fields.0["layer_types"].as_array() {
        ensure!(
            types.len() == layers,
            "config.json: layer_types has {} entries for {layers} layers",
            types.len()
        );
        let kind = |name: &serde_json::Value| match name.as_str() {
            Some("conv") => Ok([Kind::ShortConv, Kind::Dense]),
            Some("full_attention") => Ok([Kind::Attention, Kind::Dense]),
            _ => bail!(
                "config.json: layer_types has {name}; expected \"conv\" or \"full_attention\""
            ),
        };
        return types.iter().map(kind).collect();
    }
    let Some(numbers) = fields.0["full_attn_idxs"].as_array() else {
        bail!("config.json: layer_types is missing");
    };
    let kind = |layer| match numbers.iter().any(|n| n.as_u64() == Some(layer)) {
        true => [Kind::Attention, Kind::Dense],
        false => [Kind::ShortConv, Kind::Dense],
    };
    Ok((0..layers as u64).map(kind).collect())
}

/// The same, with experts after the first layers.
pub(super) fn lfm2moe(fields: &Fields, layers: usize) -> Result<Vec<Layer>> {
    let dense = fields.number("num_dense_layers")? as usize;
    let mut all = lfm2(fields, layers)?;
    for [_, feed_forward] in all.iter_mut().skip(dense) {
        *feed_forward = Kind::Experts;
    }
    Ok(all)
}

/// The inner length of a dense feed-forward part, as most folders say it.
pub(super) fn stated(fields: &Fields) -> Result<usize> {
    fields.length("intermediate_size")
}

/// Two thirds of what the folder says, rounded up to a multiple, unless it says otherwise.
pub(super) fn adjusted(fields: &Fields) -> Result<usize> {
    let length = match fields.opt_number("block_ff_dim")? {
        Some(_) => fields.length("block_ff_dim")?,
        None => stated(fields)?,
    };
    if fields.0["block_auto_adjust_ff_dim"] == false {
        return Ok(length);
    }
    let factor = fields.float("block_ffn_dim_multiplier")?;
    let adjusted = factor * (2 * length / 3) as f64;
    ensure!(
        (1.0..=LONGEST as f64).contains(&adjusted),
        "config.json: block_ffn_dim_multiplier {factor} makes the feed-forward part {adjusted} long; expected 1 to {LONGEST}"
    );
    Ok((adjusted as usize).next_multiple_of(fields.length("block_multiple_of")?))
}
