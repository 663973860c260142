//! The recipe's data: tokenizer, training batches, held-out sets.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::Event;
use crate::checkpoint::fingerprint;
use crate::data::actions::{self, ActionExamples, Set};
use crate::data::{
    Batch, Batches, Crops, Documents, Example, Examples as _, Grouped, TextTokenizer, Turn,
    Vocabulary, encode_records, evaluation_batches, perplexity_chunks, read_records,
    sequential_blocks,
};
use crate::eval::Case;
use crate::export::real;
use crate::recipe::{Kind, Recipe};
use crate::teacher::Teacher;

/// Everything a run reads.
pub(super) struct Sources {
    pub(super) vocabulary: Vocabulary,
    /// Rows of the output matrix of a student that begins at random.
    pub(super) logits_length: usize,
    /// Ids, from 0 on, that are the same tokens for the teacher.
    pub(super) shared: usize,
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
/// Sequences in a held-out batch, at most.
const EVALUATION_BATCH: usize = 16;
/// Bytes of logits that a batch of held-out text may take.
const EVALUATION_BYTES: usize = 1 << 29;
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
        let mut print = fingerprint(&format!("{:?} {:?}", vocabulary.tokens, vocabulary.merges));
        if vocabulary.merges.is_empty() {
            print += &tokenizer.fingerprint();
        }
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
                // Made up as training goes: a few thousand show how long they are, and a rarer one is cut.
                let longest = (0..2_000).map(|i| examples.get(i).ids.len() - 1).max();
                let longest = longest.unwrap_or(0);
                ensure!(
                    longest <= sequence,
                    "[student] context_length or [data] sequence: the task's examples take up to {longest} tokens, and sequences are at most {sequence}"
                );
                let examples = examples.within(sequence);
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
                let [training, held_out] = std::mem::take(&mut files.text);
                print += &training.fingerprint();
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
                let (training, held_out) = files.records(&tokenizer, sequence, recipe, listener)?;
                print += &fingerprint(&format!("{training:?}"));
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
            shared,
            training,
            held_out,
            fingerprint: print,
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
    records: Vec<crate::data::Record>,
    held_out: Option<Vec<crate::data::Record>>,
}

impl Files {
    fn read(recipe: &Recipe) -> Result<Self> {
        let mut files = Files {
            text: Default::default(),
            records: Vec::new(),
            held_out: None,
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
    fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
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
