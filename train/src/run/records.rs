//! A recipe's records as examples: rendered by the tokenizer's chat template, and cut to the longest sequence.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::events::Event;
use super::render::render;
use crate::data::{
    Conversation, Example, Records, TextTokenizer, encode_records, pack, read_records,
};
use crate::recipe::Recipe;
use crate::student::Config;

/// Records of the recipe's files.
#[derive(Default)]
pub(super) struct RecordFiles {
    pub(super) training: Records,
    held_out: Records,
    held_out_only: bool,
}

/// Encoded records of both sets, and the sequence that they are cut to.
pub(super) struct RecordExamples {
    pub(super) training: Vec<Example>,
    pub(super) held_out: Vec<Example>,
    pub(super) sequence: usize,
}

/// How long sequences may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// What the recipe asks for.
    asked: Option<usize>,
    /// Of records, where it does not ask: the longest one's, at most this.
    records: usize,
    /// Of text, where it does not ask.
    pub(super) text: usize,
}

impl RecordFiles {
    /// With `held_out_only` there is no other training data than what is held out.
    ///
    /// # Errors
    /// When a file cannot be read, or nothing is held out.
    pub(super) fn read(
        path: &Path,
        recipe: &Recipe,
        held_out_only: bool,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let mut read = |path: &Path| -> Result<Records> {
            let records = read_records(path)?;
            for note in records.notes() {
                listener(Event::Note(&note));
            }
            Ok(records)
        };
        let mut training = Records::default();
        let mut held_out = match recipe.data.held_out.as_deref() {
            Some(held_out) => read(held_out)?,
            None => {
                training = read(path)?;
                let share = 1.0 - recipe.data.held_out_share;
                training.split_off((training.len() as f64 * share).floor() as usize)
            }
        };
        ensure!(
            !held_out.is_empty(),
            "no record is held out; raise held_out_share or name a held_out file"
        );
        if recipe.data.held_out.is_some() && !held_out_only {
            training = read(path)?;
        }
        let (all, most) = (held_out.len(), recipe.eval.examples);
        if all > most {
            listener(Event::Note(&format!(
                "held out: the first {most} of {all} records are evaluated (eval.examples)"
            )));
        }
        held_out.truncate(most);
        if held_out_only {
            training = held_out.clone();
        }
        Ok(RecordFiles {
            training,
            held_out,
            held_out_only,
        })
    }

    /// # Errors
    /// As [`encode_records`]; when no record of a set has an answer within the sequence.
    pub(super) fn encode(
        &self,
        tokenizer: &TextTokenizer,
        lengths: Lengths,
        listener: &mut dyn FnMut(Event),
    ) -> Result<RecordExamples> {
        let mut held_out = encoded("held out", &self.held_out, tokenizer, listener)?;
        let mut training = match self.held_out_only {
            true => held_out.clone(),
            false => encoded("training", &self.training, tokenizer, listener)?,
        };
        let longest = training.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let sequence = lengths
            .asked
            .unwrap_or_else(|| lengths.records.min(longest.saturating_sub(1)).max(1));
        cut("held out", &mut held_out, sequence, listener)?;
        match self.held_out_only {
            true => training.clone_from(&held_out),
            false => cut("training", &mut training, sequence, listener)?,
        }
        Ok(RecordExamples {
            training,
            held_out,
            sequence,
        })
    }
}

/// Uncut.
fn encoded(
    set: &str,
    records: &Records,
    tokenizer: &TextTokenizer,
    listener: &mut dyn FnMut(Event),
) -> Result<Vec<Example>> {
    let vocabulary = tokenizer.vocabulary();
    let render =
        |chat: &Conversation, messages: usize, open: bool| render(tokenizer, chat, messages, open);
    let encoded = encode_records(records, tokenizer, &render).with_context(|| set.to_owned())?;
    let mut examples = encoded.examples;
    if encoded.rewritten > 0 {
        listener(Event::Note(&format!(
            "{set}: the chat template rewrites earlier turns; {} of {} conversations are trained answer by answer, as inference renders each ({} examples in all)",
            encoded.rewritten,
            records.len(),
            examples.len()
        )));
    }
    if encoded.unshown > 0 {
        listener(Event::Note(&format!(
            "{set}: {} answers have reasoning or calls that the chat template does not show; those are not trained on",
            encoded.unshown
        )));
    }
    if let Some(bos) = vocabulary.bos.filter(|_| vocabulary.add_bos) {
        // As the runtime begins every prompt; a template may have done it.
        for example in examples.iter_mut().filter(|e| e.ids.first() != Some(&bos)) {
            example.ids.insert(0, bos);
            example.counts.insert(0, false);
        }
    }
    Ok(examples)
}

/// Cuts examples to `sequence` inputs, and says what is lost. Documents, of which every token counts, go on in further examples.
fn cut(
    set: &str,
    examples: &mut Vec<Example>,
    sequence: usize,
    listener: &mut dyn FnMut(Event),
) -> Result<()> {
    let all = examples.len();
    let (mut split, mut long, mut lost, mut longest, mut silent) = (0, 0, 0, 0, 0);
    let mut kept = Vec::with_capacity(all);
    for mut example in std::mem::take(examples) {
        let length = example.ids.len();
        if example.targets() == 0 {
            silent += 1;
            continue;
        }
        if length <= sequence + 1 {
            kept.push(example);
        } else if example.counts.iter().skip(1).all(|&counts| counts) {
            split += 1;
            kept.extend(pack([example], sequence));
            continue;
        } else {
            long += 1;
            longest = longest.max(length);
            example.truncate(sequence + 1);
            kept.push(example);
        }
        if kept.last().is_some_and(|example| example.targets() == 0) {
            kept.pop();
            lost += 1;
        }
    }
    *examples = kept;
    let mut note = |text: String| listener(Event::Note(&format!("{set}: {text}")));
    if split > 0 {
        note(format!(
            "{split} documents are longer than {sequence} tokens and are split into several examples"
        ));
    }
    if silent > 0 {
        note(format!(
            "{silent} of {all} records have no answer to train on and are left out"
        ));
    }
    if long > 0 {
        let lost = match lost {
            0 => String::new(),
            n => format!(", {n} of them before their answer, which are left out"),
        };
        note(format!(
            "{long} of {all} records are longer than {sequence} tokens and were cut{lost} (longest {}); raise data.sequence",
            grouped(longest)
        ));
    }
    ensure!(
        !examples.is_empty(),
        "{set}: none of the {all} records has an answer within {sequence} tokens"
    );
    Ok(())
}

/// A number with commas between its thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl Lengths {
    /// By the recipe, and the contexts of the student and of the teacher.
    ///
    /// # Errors
    /// When the model to start from cannot be read.
    pub(super) fn new(
        recipe: &Recipe,
        teacher: Option<usize>,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let context = match &recipe.student.init {
            Some(path) => Config::context_length_of(path).context("[student] init")?,
            None => recipe.student.context_length,
        };
        let context = teacher.map_or(context, |teacher| teacher.min(context));
        if let Some(asked) = recipe.data.sequence.filter(|&asked| asked > context) {
            listener(Event::Note(&format!(
                "data.sequence = {asked} is longer than the models' context of {context} tokens, which is used instead"
            )));
        }
        let asked = recipe.data.sequence.map(|asked| asked.min(context));
        // A model to start from may take far more than there is memory to train with.
        let at_most = |most: usize| match recipe.student.init {
            Some(_) => context.min(most),
            None => context,
        };
        Ok(Lengths {
            asked,
            records: at_most(1024),
            text: asked.unwrap_or(at_most(512)),
        })
    }
}

#[cfg(test)]
mod tests;
