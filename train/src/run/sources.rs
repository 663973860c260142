//! The recipe's data: tokenizer, training batches, held-out sets.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::Event;
use crate::data::actions::{self, ActionExamples, Set};
use crate::data::{
    Batch, Batches, Crops, Example, Grouped, TextTokenizer, Turn, Vocabulary, encode_records,
    evaluation_batches, read_records, read_text, sequential_blocks, split_text,
};
use crate::eval::Case;
use crate::export::vocabulary_of_gguf;
use crate::identity::hash_of;
use crate::recipe::{Kind, Recipe};
use crate::teacher::Teacher;

/// Everything a run reads.
pub(super) struct Sources {
    pub(super) vocabulary: Vocabulary,
    /// Rows of the student's output matrix.
    pub(super) logits_length: usize,
    pub(super) training: Box<dyn Batches>,
    pub(super) held_out: Vec<HeldOut>,
    /// Differs where tokens or merges differ.
    pub(super) tokens_print: String,
    /// Differs where what is learnt from differs.
    pub(super) data_print: String,
    /// Longest sequence in tokens.
    pub(super) sequence: usize,
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
        let mut files = Files::read(recipe).context("[data]")?;
        let tokenizer = tokenizer(recipe, teacher, &files).context("[data] tokenizer")?;
        let mut vocabulary = tokenizer.vocabulary().clone();
        let logits_length = teacher.map_or(vocabulary.tokens.len(), Teacher::logits_length);
        vocabulary.pad_to(logits_length);
        if let Some(teacher) = teacher {
            teacher
                .check_tokens(&vocabulary.tokens)
                .context("[teacher]")?;
        }
        let tokens_print =
            hash_of(format!("{:?} {:?}", vocabulary.tokens, vocabulary.merges).as_bytes());
        let mut data_print = String::new();
        let sequence = match (recipe.data.sequence, &recipe.student.init) {
            (Some(sequence), _) => sequence,
            (None, None) => recipe.student.context_length,
            (None, Some(_)) => 256,
        };
        let sequence = teacher.map_or(sequence, |t| sequence.min(t.context_length()));
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
                let (training, held_out) = files.text.split(recipe)?;
                data_print = hash_of(training.as_bytes());
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
                let (training, held_out) = files.records(&tokenizer, sequence, recipe, listener)?;
                data_print = hash_of(format!("{training:?}").as_bytes());
                let batches = evaluation_batches(&held_out, EVALUATION_BATCH);
                (
                    Box::new(Grouped::new(Arc::new(training), batch, WINDOW, seed)?),
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
            tokens_print,
            data_print,
            sequence,
        })
    }
}

/// What the recipe's files hold.
struct Files {
    text: Text,
    records: Vec<crate::data::Record>,
    held_out: Option<Vec<crate::data::Record>>,
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
    fn read(recipe: &Recipe) -> Result<Self> {
        let mut files = Files {
            text: Text::default(),
            records: Vec::new(),
            held_out: None,
        };
        let (path, held_out) = (recipe.data.path.as_deref(), recipe.data.held_out.as_deref());
        match (recipe.data.kind, path) {
            (Kind::Text, Some(path)) => {
                files.text.whole = read_text(&[path])?;
                files.text.held_out = held_out.map(|p| read_text(&[p])).transpose()?;
            }
            (Kind::Jsonl, Some(path)) => {
                files.records = read_records(path)?;
                files.held_out = held_out.map(read_records).transpose()?;
            }
            _ => {}
        }
        Ok(files)
    }

    /// Encoded (training, held out).
    fn records(
        &mut self,
        tokenizer: &TextTokenizer,
        sequence: usize,
        recipe: &Recipe,
        listener: &mut dyn FnMut(Event),
    ) -> Result<(Vec<Example>, Vec<Example>)> {
        let mut records = std::mem::take(&mut self.records);
        let mut held_out = match self.held_out.take() {
            Some(held_out) => held_out,
            None => {
                let keep =
                    (records.len() as f64 * (1.0 - recipe.data.held_out_share)).floor() as usize;
                records.split_off(keep)
            }
        };
        ensure!(
            !held_out.is_empty(),
            "[data] no record is held out; raise held_out_share or name a held_out file"
        );
        held_out.truncate(recipe.eval.examples);
        let vocabulary = tokenizer.vocabulary();
        let token = |id: Option<u32>| {
            id.and_then(|id| vocabulary.tokens.get(id as usize))
                .map_or("", String::as_str)
        };
        let render = |turns: &[Turn], open: bool| -> Result<String> {
            let template = vocabulary.chat_template.as_deref();
            let template = template.context("the data holds chats, and the tokenizer has no chat template; give prompt and completion instead")?;
            let messages: Vec<_> = turns
                .iter()
                .map(|t| dram_core::Message::new(&t.role, t.content.as_str()))
                .collect();
            let chat = dram_core::chat::Chat {
                messages: &messages,
                tools: None,
                bos: token(vocabulary.bos),
                eos: token(vocabulary.eos),
                add_generation_prompt: open,
            };
            Ok(chat.render(template)?)
        };
        let mut encode = |what: &str, records: &[crate::data::Record]| -> Result<Vec<Example>> {
            let (mut examples, left_out) = encode_records(records, tokenizer, &render, sequence)
                .with_context(|| format!("[data] {what}"))?;
            if left_out > 0 {
                listener(Event::Note(&format!(
                    "{what}: {left_out} records have no answer within {sequence} tokens and are left out"
                )));
            }
            if let Some(bos) = vocabulary.bos.filter(|_| vocabulary.add_bos) {
                // As the runtime begins every prompt; a template may have done it.
                for example in examples.iter_mut().filter(|e| e.ids.first() != Some(&bos)) {
                    example.ids.insert(0, bos);
                    example.counts.insert(0, false);
                    example.truncate(sequence + 1);
                }
            }
            Ok(examples)
        };
        Ok((
            encode("training", &records)?,
            encode("held out", &held_out)?,
        ))
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
        for record in &self.records {
            match record {
                crate::data::Record::Completion { prompt, completion } => {
                    texts.extend([prompt.clone(), completion.clone()])
                }
                crate::data::Record::Chat(turns) => {
                    texts.extend(turns.iter().map(|t| t.content.clone()))
                }
            }
        }
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
