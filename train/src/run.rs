//! From a recipe to a trained, evaluated and exported model: `dram pretrain` and `dram distill`.

mod events;
mod finish;
mod identity;
mod job;
mod log;
mod pace;
mod records;
mod render;
mod report;
mod sources;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

pub use self::events::{Event, Progress, Summary};
pub(crate) use self::job::{Job, OpenTeacher};
pub(crate) use self::log::loss_of_steps;
pub(crate) use self::sources::Sources;
use crate::eval::{HeldOut, Reference};
use crate::identity::hash_of_model;
use crate::lock::FolderLock;
use crate::recipe::Recipe;
use crate::teacher::{self, Scored};

/// Names of what lies in the output folder.
const CHECKPOINT: &str = "checkpoint.safetensors";
const LOG: &str = "train.jsonl";
const FOLDER: &str = "model";
const GGUF: &str = "model.gguf";
const CONTROL: &str = "control";

/// Trains on data alone.
///
/// # Errors
/// When the recipe names a teacher; when another run has the folder; when data, training, export or the gate fail.
pub fn pretrain(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    recipe.expect_no_teacher()?;
    let _lock = FolderLock::take(out)?;
    let sources = Sources::new(recipe, None, listener)?;
    let job = Job {
        recipe,
        teacher: None,
        sources: &sources,
        out,
        control: None,
        stop,
    };
    job.run(listener)
}

/// Trains with a teacher.
///
/// # Errors
/// When the recipe names none; when another run has the folder; when teacher, data, training, export or the gate fail.
pub fn distill(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    recipe.check()?;
    let _lock = FolderLock::take(out)?;
    let path = &recipe.expect_teacher()?.path;
    let threads = recipe.train.all_threads();
    let teacher = teacher::open(path, threads).context("[teacher]")?;
    let contents = hash_of_model(path, stop).context("[teacher]")?;
    let sources = Sources::new(recipe, Some(&*teacher), listener)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let teacher = teacher::sharing(&*teacher, sources.shared);
    let scored = Scored {
        teacher: &teacher,
        threads,
    };
    let reference = Reference::new(&scored, Some(out));
    let job = Job {
        recipe,
        teacher: Some(OpenTeacher {
            teacher: &teacher,
            contents: &contents,
            reference: &reference,
        }),
        sources: &sources,
        out,
        control: None,
        stop,
    };
    if !recipe.eval.control {
        return job.run(listener);
    }
    let folder = out.join(CONTROL);
    let lock = FolderLock::take(&folder)?;
    listener(Event::Note("the control: the student without a teacher"));
    let control = Job {
        recipe: &recipe.of_control(),
        teacher: None,
        out: &folder,
        ..job
    }
    .run(listener)?;
    drop(lock);
    if !control.finished {
        return Ok(control);
    }
    listener(Event::Note("the student"));
    Job {
        control: control.gguf.as_deref(),
        ..job
    }
    .run(listener)
}

/// `pretrain` or `distill`, as the recipe says.
///
/// # Errors
/// As there.
pub fn run(
    recipe: &Recipe,
    out: &Path,
    stop: &AtomicBool,
    listener: &mut dyn FnMut(Event),
) -> Result<Summary> {
    if recipe.teacher.is_some() {
        distill(recipe, out, stop, listener)
    } else {
        pretrain(recipe, out, stop, listener)
    }
}

/// The sets that a model of `recipe` is evaluated on; without a teacher, so `data.tokenizer` should name the model. `listener` hears what of the data is
/// left out.
///
/// # Errors
/// When the data cannot be read, or holds nothing to evaluate.
pub fn held_out_sets(recipe: &Recipe, listener: &mut dyn FnMut(Event)) -> Result<Vec<HeldOut>> {
    Ok(Sources::held_out(recipe, listener)?.held_out)
}

#[cfg(test)]
mod tests;
