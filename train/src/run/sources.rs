//! The recipe's data: tokenizer, training batches, held-out sets.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dram_files::tokenizer::{Vocabulary, real};

use super::events::Event;
use super::records::{Lengths, RecordFiles};
use crate::data::{
    Batches, Crops, Documents, Examples as _, Grouped, TextTokenizer, evaluation_batches,
    perplexity_chunks, sequential_blocks,
};
use crate::eval::HeldOut;
use crate::identity::hash_of;
use crate::recipe::{Kind, Recipe};
use crate::tasks::actions::{self, ActionExamples, Set};
use crate::teacher::Teacher;

/// Everything a run reads.
pub(crate) struct Sources {
    pub(crate) vocabulary: Vocabulary,
    /// Rows of the output matrix of a student that begins at random.
    pub(crate) logits_length: usize,
    /// Ids, from 0 on, that are the same tokens for the teacher.
    pub(super) shared: usize,
    pub(super) training: Box<dyn Batches>,
    pub(crate) held_out: Vec<HeldOut>,
    /// Differs where tokens or merges differ.
    pub(super) tokens_print: String,
    /// Differs where what is learnt from differs.
    pub(super) data_print: String,
    /// Longest sequence in tokens.
    pub(super) sequence: usize,
}

/// End of text, when a tokenizer is trained for text or records.
const END: &str = "<|end|>";
/// Sequences in a held-out batch, at most.
const EVALUATION_BATCH: usize = 16;
/// Bytes of logits that a batch of held-out text may take.
const EVALUATION_BYTES: usize = 1 << 29;
/// Steps whose examples are sorted by length together, which keeps padding low.
const WINDOW: usize = 16;

impl Sources {
    pub(crate) fn new(
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
        let mut files = Files::read(recipe, held_out_only, listener).context("[data]")?;
        let tokenizer = tokenizer(recipe, teacher, &files).context("[data] tokenizer")?;
        let mut vocabulary = tokenizer.vocabulary().clone();
        let logits_length = teacher.map_or(vocabulary.tokens.len(), Teacher::logits_length);
        let mut shared = logits_length;
        if let Some(teacher) = teacher {
            shared = teacher
                .check_tokens(&vocabulary.tokens)
                .context("[teacher]")?;
            let (own, theirs) = (real(&vocabulary.tokens), real(&teacher.vocabulary().tokens));
            if shared < own.max(theirs) {
                listener(Event::Note(&format!(
                    "teacher and student share tokens 0 to {}, on which they are compared; the teacher has {theirs}, the student {own}",
                    shared - 1
                )));
            } else {
                // Where nothing differs, rows of padding are compared like others.
                shared = logits_length;
            }
        }
        vocabulary.fit(logits_length.max(real(&vocabulary.tokens)))?;
        let logits_length = vocabulary.tokens.len();
        let mut tokens_print =
            hash_of(format!("{:?} {:?}", vocabulary.tokens, vocabulary.merges).as_bytes());
        if vocabulary.merges.is_empty() {
            tokens_print += &tokenizer.fingerprint();
        }
        let mut data_print = String::new();
        let lengths = Lengths::new(recipe, teacher.map(Teacher::context_length), listener)?;
        let mut sequence = lengths.text;
        let tokenizer = Arc::new(tokenizer);
        let (batch, seed) = (recipe.train.batch, recipe.train.seed);
        let (training, held_out): (Box<dyn Batches>, _) = match recipe.data.kind {
            Kind::Actions => {
                let examples = ActionExamples::new(tokenizer.clone(), Set::Train, seed)?;
                // Made up as training goes: a few thousand show how long they are, and a rarer one is cut.
                let longest = (0..2_000).map(|i| examples.get(i).ids.len() - 1).max();
                let longest = longest.unwrap_or(0);
                ensure!(
                    longest <= sequence,
                    "[student] context_length or [data] sequence: the task's examples take up to {longest} tokens, and sequences are at most {sequence}"
                );
                let examples = examples.within(sequence);
                let sets =
                    actions::held_out_sets(&tokenizer, recipe.eval.examples, EVALUATION_BATCH)?;
                (
                    Box::new(Grouped::new(Arc::new(examples), batch, WINDOW, seed)?),
                    sets,
                )
            }
            Kind::Text => {
                let [training, held_out] = std::mem::take(&mut files.text);
                data_print = training.fingerprint();
                // What is scored as llama.cpp does holds no special tokens, whatever it says.
                let chunk = recipe.eval.chunk;
                let mut rest = held_out.encode(&tokenizer, chunk.is_none())?;
                drop(held_out);
                // Who only evaluates names one file twice.
                let ids = if recipe.data.held_out == recipe.data.path {
                    rest.clone()
                } else {
                    training.encode(&tokenizer, true)?
                };
                drop(training);
                let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
                listener(Event::Note(&format!(
                    "{} training tokens, {} held-out tokens",
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
                let length = chunk.unwrap_or(sequence);
                let rows = EVALUATION_BYTES / (4 * length * logits_length).max(1);
                let rows = rows.clamp(1, EVALUATION_BATCH);
                let batches = match chunk {
                    Some(length) => {
                        ensure!(
                            rest.len() >= length,
                            "[eval] chunk = {length}: the held-out text has only {} tokens",
                            rest.len()
                        );
                        perplexity_chunks(&rest, length, recipe.eval.chunks, rows, bos)
                    }
                    None => sequential_blocks(&rest, length, rows, bos),
                };
                let crop = if recipe.data.held_out == recipe.data.path {
                    sequence.min(ids.len() - 1)
                } else {
                    sequence
                };
                let crops = Crops::new(Arc::new(ids), batch, crop, seed)?;
                (
                    Box::new(crops.beginning_with(bos)),
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
                data_print = hash_of(format!("{:?}", examples.training).as_bytes());
                sequence = examples.sequence;
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
            shared,
            training,
            held_out,
            tokens_print,
            data_print,
            sequence,
        })
    }
}

impl Sources {
    /// Checks that a student of `context` positions takes every held-out sequence, before it is trained for them.
    ///
    /// # Errors
    /// With the length of the longest.
    pub(super) fn fit(&self, context: usize) -> Result<()> {
        let batches = self.held_out.iter().flat_map(|set| &set.batches);
        let longest = batches.map(|batch| batch.length).max().unwrap_or(0);
        ensure!(
            longest <= context,
            "[data] held-out sequences take {longest} tokens, the student {context}; give it a larger context_length, or shorter sequences ([data] \
             sequence, [eval] chunk)"
        );
        Ok(())
    }
}

/// What the recipe's files hold.
struct Files {
    /// Training and held out.
    text: [Documents; 2],
    records: RecordFiles,
}

impl Files {
    fn read(recipe: &Recipe, held_out_only: bool, listener: &mut dyn FnMut(Event)) -> Result<Self> {
        let mut files = Files {
            text: Default::default(),
            records: RecordFiles::default(),
        };
        let (path, held_out) = (recipe.data.path.as_deref(), recipe.data.held_out.as_deref());
        match (recipe.data.kind, path) {
            (Kind::Text, Some(path)) => {
                let separator = recipe.data.separator.as_deref();
                let whole = Documents::read(path, separator)?;
                files.text = match held_out {
                    Some(held_out) => [whole, Documents::read(held_out, separator)?],
                    None => whole.split(recipe.data.held_out_share)?.into(),
                };
            }
            (Kind::Jsonl, Some(path)) => {
                files.records = RecordFiles::read(path, recipe, held_out_only, listener)?;
            }
            _ => {}
        }
        Ok(files)
    }

    /// Everything readable, to train a tokenizer on.
    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        let records = &self.records.training.records;
        texts.extend(records.iter().flat_map(|r| r.texts()).map(str::to_string));
        texts
    }
}

fn tokenizer(
    recipe: &Recipe,
    teacher: Option<&dyn Teacher>,
    files: &Files,
) -> Result<TextTokenizer> {
    if let Some(path) = &recipe.data.tokenizer {
        return TextTokenizer::open(path);
    }
    if let (Some(_), Some(section)) = (teacher, &recipe.teacher) {
        return TextTokenizer::open(&section.path);
    }
    if let Some(path) = &recipe.student.init {
        return TextTokenizer::open(path);
    }
    match recipe.data.kind {
        Kind::Actions => actions::tokenizer(recipe.data.vocabulary),
        // Line by line, so that it counts words in small pieces.
        Kind::Text => {
            let lines = files.text[0]
                .iter()
                .flat_map(|text| text.split_inclusive('\n'));
            TextTokenizer::train(lines, recipe.data.vocabulary, &[END], None)
        }
        Kind::Jsonl => TextTokenizer::train(
            files.texts().into_iter(),
            recipe.data.vocabulary,
            &[END],
            None,
        ),
    }
}
