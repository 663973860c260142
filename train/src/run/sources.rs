//! The recipe's data: tokenizer, training batches, held-out sets.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::Event;
use super::records::{Lengths, RecordFiles};
use crate::checkpoint::fingerprint;
use crate::data::actions::{self, ActionExamples, Set};
use crate::data::{
    Batch, Batches, Crops, Example, Grouped, TextTokenizer, Vocabulary, evaluation_batches,
    read_text, sequential_blocks, split_text,
};
use crate::eval::Case;
use crate::export::vocabulary_of_gguf;
use crate::recipe::{Kind, Recipe};
use crate::teacher::Teacher;

/// Everything a run reads.
pub(super) struct Sources {
    pub(super) vocabulary: Vocabulary,
    /// Rows of the student's output matrix.
    pub(super) logits_length: usize,
    pub(super) training: Box<dyn Batches>,
    pub(super) held_out: Vec<HeldOut>,
    /// Differs where tokenizer or files differ.
    pub(super) fingerprint: String,
}

/// One held-out set.
pub struct HeldOut {
    pub name: String,
    pub batches: Vec<Batch>,
    /// Requests with one right answer, for tasks that have it.
    pub cases: Vec<Case>,
}

/// End of text, when a tokenizer is trained for text or records.
const END: &str = "<|end|>";
/// Sequences in a held-out batch.
const EVALUATION_BATCH: usize = 16;
/// Steps whose examples are sorted by length together, which keeps padding low.
const WINDOW: usize = 16;

impl Sources {
    pub(super) fn new(
        recipe: &Recipe,
        teacher: Option<&dyn Teacher>,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        Self::of(recipe, teacher, false, listener)
    }

    /// What a model is evaluated on. Training data there is where it is the same file.
    pub(super) fn held_out(recipe: &Recipe, listener: &mut dyn FnMut(Event)) -> Result<Self> {
        Self::of(recipe, None, true, listener)
    }

    fn of(
        recipe: &Recipe,
        teacher: Option<&dyn Teacher>,
        held_out_only: bool,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let files = Files::read(recipe, held_out_only, listener).context("[data]")?;
        let tokenizer = tokenizer(recipe, teacher, &files).context("[data] tokenizer")?;
        let mut vocabulary = tokenizer.vocabulary().clone();
        let logits_length = teacher.map_or(vocabulary.tokens.len(), Teacher::logits_length);
        vocabulary.pad_to(logits_length);
        if let Some(teacher) = teacher {
            teacher
                .check_tokens(&vocabulary.tokens)
                .context("[teacher]")?;
        }
        let mut print = fingerprint(&format!("{:?} {:?}", vocabulary.tokens, vocabulary.merges));
        let lengths = Lengths::new(recipe, teacher.map(Teacher::context_length), listener)?;
        let tokenizer = Arc::new(tokenizer);
        let (batch, seed) = (recipe.train.batch, recipe.train.seed);
        let (training, held_out): (Box<dyn Batches>, _) = match recipe.data.kind {
            Kind::Actions => {
                let examples = ActionExamples::new(tokenizer.clone(), Set::Train, seed)?;
                let sets = [("held-out", Set::HeldOut), ("no function", Set::NoFunction)];
                let sets = sets.map(|(name, set)| {
                    actions_held_out(name, set, &tokenizer, recipe.eval.examples)
                });
                (
                    Box::new(Grouped::new(Arc::new(examples), batch, WINDOW, seed)?),
                    sets.into_iter().collect::<Result<_>>()?,
                )
            }
            Kind::Text => {
                let sequence = lengths.text;
                let (training, held_out) = files.text.split(recipe)?;
                print += &fingerprint(training);
                let ids = tokenizer.encode(training, true)?;
                let mut rest = tokenizer.encode(held_out, true)?;
                listener(Event::Note(&format!(
                    "{} tokens to learn from, {} held out",
                    ids.len(),
                    rest.len()
                )));
                if recipe.eval.tokens > 0 {
                    rest.truncate(recipe.eval.tokens + 1);
                }
                ensure!(
                    rest.len() > 1,
                    "[data] no text is held out; raise held_out_share or name a held_out file"
                );
                let batches = sequential_blocks(&rest, sequence, EVALUATION_BATCH);
                (
                    Box::new(Crops::new(Arc::new(ids), batch, sequence, seed)?),
                    vec![HeldOut {
                        name: "held-out".into(),
                        batches,
                        cases: Vec::new(),
                    }],
                )
            }
            Kind::Jsonl => {
                let examples = files.records.encode(&tokenizer, lengths, listener);
                let examples = examples.context("[data]")?;
                if recipe.data.sequence.is_none() {
                    listener(Event::Note(&format!(
                        "sequences of up to {} tokens (data.sequence)",
                        examples.sequence
                    )));
                }
                print += &fingerprint(&format!("{:?}", examples.training));
                let batches = evaluation_batches(&examples.held_out, EVALUATION_BATCH);
                let training = Arc::new(examples.training);
                (
                    Box::new(Grouped::new(training, batch, WINDOW, seed)?),
                    vec![HeldOut {
                        name: "held-out".into(),
                        batches,
                        cases: Vec::new(),
                    }],
                )
            }
        };
        Ok(Sources {
            vocabulary,
            logits_length,
            training,
            held_out,
            fingerprint: print,
        })
    }
}

/// What the recipe's files hold.
struct Files {
    text: Text,
    records: RecordFiles,
}

#[derive(Default)]
struct Text {
    whole: String,
    held_out: Option<String>,
}

impl Text {
    /// (training, held out)
    fn split(&self, recipe: &Recipe) -> Result<(&str, &str)> {
        match &self.held_out {
            Some(held_out) => Ok((&self.whole, held_out)),
            None => split_text(&self.whole, recipe.data.held_out_share),
        }
    }
}

impl Files {
    fn read(recipe: &Recipe, held_out_only: bool, listener: &mut dyn FnMut(Event)) -> Result<Self> {
        let mut files = Files {
            text: Text::default(),
            records: RecordFiles::default(),
        };
        let (path, held_out) = (recipe.data.path.as_deref(), recipe.data.held_out.as_deref());
        match (recipe.data.kind, path) {
            (Kind::Text, Some(path)) => {
                files.text.whole = read_text(&[path])?;
                files.text.held_out = held_out.map(|p| read_text(&[p])).transpose()?;
            }
            (Kind::Jsonl, Some(path)) => {
                files.records = RecordFiles::read(path, recipe, held_out_only, listener)?;
            }
            _ => {}
        }
        Ok(files)
    }

    /// Everything readable, to train a tokenizer on.
    fn texts(&self, recipe: &Recipe) -> Result<Vec<String>> {
        let mut texts: Vec<String> = Vec::new();
        if recipe.data.kind == Kind::Text {
            // Line by line, so that it counts words in small pieces.
            texts.extend(
                self.text
                    .split(recipe)?
                    .0
                    .split_inclusive('\n')
                    .map(str::to_string),
            );
        }
        let records = &self.records.training.records;
        texts.extend(records.iter().flat_map(|r| r.texts()).map(str::to_string));
        Ok(texts)
    }
}

fn tokenizer(
    recipe: &Recipe,
    teacher: Option<&dyn Teacher>,
    files: &Files,
) -> Result<TextTokenizer> {
    if let Some(path) = &recipe.data.tokenizer {
        return read_tokenizer(path);
    }
    if let (Some(_), Some(section)) = (teacher, &recipe.teacher) {
        return read_tokenizer(&section.path);
    }
    if let Some(path) = &recipe.student.init {
        return read_tokenizer(path);
    }
    match recipe.data.kind {
        Kind::Actions => actions::tokenizer(recipe.data.vocabulary),
        Kind::Text | Kind::Jsonl => TextTokenizer::train(
            files.texts(recipe)?.into_iter(),
            recipe.data.vocabulary,
            &[END],
            None,
        ),
    }
}

/// From a folder, a `tokenizer.json`, or a GGUF file.
fn read_tokenizer(path: &Path) -> Result<TextTokenizer> {
    if path.is_dir() {
        TextTokenizer::from_folder(path)
    } else if path.extension().is_some_and(|e| e == "json") {
        TextTokenizer::from_file(path)
    } else {
        TextTokenizer::from_vocabulary(vocabulary_of_gguf(&dram_core::gguf::File::open(path)?)?)
    }
}

fn actions_held_out(
    name: &str,
    set: Set,
    tokenizer: &Arc<TextTokenizer>,
    count: usize,
) -> Result<HeldOut> {
    // The same questions whatever the seed of the run.
    const SEED: u64 = 0;
    let samples = actions::distinct(set, SEED, count);
    let encoder = ActionExamples::new(tokenizer.clone(), set, SEED)?;
    let examples = samples
        .iter()
        .map(|s| encoder.encode(s))
        .collect::<Result<Vec<Example>>>()?;
    let cases = samples.iter().zip(&examples).map(|(sample, example)| {
        let prompt = example
            .counts
            .iter()
            .position(|&c| c)
            .unwrap_or(example.ids.len());
        Case {
            prompt: example.ids[..prompt].to_vec(),
            answer: sample.call.clone(),
            max_tokens: example.ids.len() - prompt + 16,
        }
    });
    Ok(HeldOut {
        name: name.into(),
        cases: cases.collect(),
        batches: evaluation_batches(&examples, EVALUATION_BATCH),
    })
}
