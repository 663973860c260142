//! What decides the weights of a recipe's run.

use anyhow::Result;
use serde_json::json;

use super::job::Job;
use crate::identity::{Identity, hash_of, hash_of_values};
use crate::student::{Decoder, Options};

/// Fields that do not decide anything, or whose effect is seen elsewhere: paths in contents, lengths in [`super::Sources`], the number of steps in
/// [`crate::checkpoint::Schedule`].
const FREE: [(&str, &[&str]); 2] = [
    (
        "data",
        &[
            "path",
            "held_out",
            "held_out_share",
            "sequence",
            "tokenizer",
            "vocabulary",
        ],
    ),
    (
        "train",
        &["steps", "warmup", "threads", "checkpoint_seconds"],
    ),
];

/// Contents of teacher, tokenizer, data and first weights, and the recipe's settings; `first` has not been trained yet.
pub(super) fn identity(job: &Job<'_>, first: &Decoder) -> Result<Identity> {
    let (recipe, sources) = (job.recipe, job.sources);
    let mut identity = Identity::default();
    for (section, free) in FREE {
        let mut fields = serde_json::to_value(recipe)?[section].take();
        for field in free {
            fields[field].take();
        }
        identity.set_all(section, &fields);
    }
    for (name, config) in recipe.loss_configs() {
        identity.set_all(&format!("losses.{name}"), &config.identity(&name)?);
    }
    // Rounding that begins after the last step is rounding of the finished weights.
    if let Some(quant) = recipe.quant.as_ref().filter(|quant| quant.start < 1.0) {
        identity.set_all("quant", &serde_json::to_value(quant)?);
    }
    if let Some(open) = &job.teacher {
        identity.set("teacher's contents", open.contents);
        let place = match open.teacher.decoder() {
            Some(_) => "the training decoder, in f32",
            None => "its own runtime",
        };
        identity.set("teacher's computation", place);
    }
    identity.set("tokenizer's contents", &*sources.tokens_print);
    let batch = sources.training.batch(0);
    let batch = hash_of(format!("{:?} {:?}", batch.ids, batch.targets).as_bytes());
    identity.set(
        "data's contents",
        format!("{} {}", sources.data_print, &batch[..8]),
    );
    identity.set("data.sequence", sources.sequence.to_string());
    let c = first.config();
    identity.set_all(
        "student",
        &json!({
            "vocabulary": c.vocabulary, "embedding_length": c.embedding_length, "layers": c.layers, "heads": c.heads, "kv_heads": c.kv_heads,
            "head_dim": c.head_dim, "feed_forward_length": c.feed_forward_length, "rope_base": c.rope_base, "norm_eps": c.norm_eps,
            "tied_embeddings": c.tied_embeddings,
        }),
    );
    if c.family.name != "llama" || c.options != Options::default() {
        let forward = format!("{} {:?}", c.family.name, c.options);
        identity.set("student.family", forward);
    }
    if recipe.student.init.is_some() {
        let parts = [first.parameters(), &c.rope_factors].map(hash_of_values);
        identity.set("student.init's contents", parts.join(" "));
    }
    Ok(identity)
}
