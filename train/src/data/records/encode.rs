//! From records to token ids: what of them the model is asked to predict.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use dram_core::Message;
use rayon::prelude::*;

use super::marks::Controls;
use super::{Conversation, Record, Records};
use crate::data::{Example, TextTokenizer};

/// A chat template: renders the first so many messages of a conversation, with the opening of an assistant's turn at the end where the flag says so.
pub type Render<'a> = dyn Fn(&Conversation, usize, bool) -> Result<String> + Sync + 'a;

/// What became of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// Uncut. A record has several where its template rewrites earlier turns.
    pub examples: Vec<Example>,
    /// Conversations whose template rewrites earlier turns: each answer has an example of its own.
    pub rewritten: usize,
    /// Answers whose reasoning or calls the template does not show. What is left of an answer of calls is not learnt.
    pub unshown: usize,
}

/// Encodes a record.
///
/// - Of a document every token is a target, and the tokenizer's end of text behind it.
/// - A completion is a target, with the end of text behind it. It is encoded apart from its prompt, as inference does.
/// - Of a conversation the answers are targets, with the token that ends the turn. Each is preceded by what inference would give the model: the
///   template's rendering of the turns before it, with the opening of the assistant's turn. Where that goes on from the turns before, one
///   example holds them all; where the template rewrites them, as those do which drop earlier thinking, a new example begins. A block for
///   thinking that the template leaves empty is no target unless the data have it so.
///
/// # Errors
/// When the template fails, or does not show the answer behind the opening of its turn.
pub fn encode_record(
    record: &Record,
    tokenizer: &TextTokenizer,
    render: &Render<'_>,
) -> Result<Encoded> {
    Encoder::new(tokenizer).record(record, render)
}

/// Encodes every record, on all threads, in order.
///
/// # Errors
/// As [`encode_record`], with the record's place.
pub fn encode_records(
    records: &Records,
    tokenizer: &TextTokenizer,
    render: &Render<'_>,
) -> Result<Encoded> {
    let encoder = Encoder::new(tokenizer);
    let encoded: Vec<Encoded> = records
        .records
        .par_iter()
        .enumerate()
        .map(|(i, record)| {
            encoder
                .record(record, render)
                .with_context(|| records.place(i))
        })
        .collect::<Result<_>>()?;
    let mut out = Encoded::default();
    for one in encoded {
        out.examples.extend(one.examples);
        out.rewritten += one.rewritten;
        out.unshown += one.unshown;
    }
    Ok(out)
}

struct Encoder<'a> {
    tokenizer: &'a TextTokenizer,
    /// Text cannot run across them.
    controls: Controls<'a>,
}

/// An example that may still grow, and the text that it holds.
#[derive(Default)]
struct Open {
    text: String,
    example: Example,
    /// Stands in control tokens that are text.
    mark: Option<char>,
    /// Whether its last answer has no token that ends the turn.
    unended: bool,
}

/// What is appended to a prompt: pieces that are encoded apart, and whether they are targets.
type Pieces = Vec<(String, bool)>;

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a TextTokenizer) -> Self {
        Encoder {
            tokenizer,
            controls: Controls::new(tokenizer),
        }
    }

    fn record(&self, record: &Record, render: &Render<'_>) -> Result<Encoded> {
        let encode = |text: &str, special| self.tokenizer.encode(text, special);
        let mut example = Example::default();
        match record {
            Record::Document(text) => example.push(&encode(text, false)?, true),
            Record::Completion { prompt, completion } => {
                example.push(&encode(prompt, true)?, false);
                example.push(&encode(completion, false)?, true);
            }
            Record::Chat(chat) => return self.chat(chat, render),
        }
        example.push(self.tokenizer.vocabulary().eos.as_slice(), true);
        Ok(Encoded {
            examples: vec![example],
            ..Encoded::default()
        })
    }

    fn chat(&self, chat: &Conversation, render: &Render<'_>) -> Result<Encoded> {
        let mut out = Encoded::default();
        let marked = self.controls.marked(chat)?;
        let (chat, mark) = match &marked {
            Some((chat, mark)) => (chat, Some(*mark)),
            None => (chat, None),
        };
        let mut open = Open {
            mark,
            ..Open::default()
        };
        for (i, message) in chat.messages.iter().enumerate() {
            // A greeting answers nothing: inference never opens a conversation so.
            if i == 0 || !chat.answers.get(i).is_some_and(|answer| *answer) {
                continue;
            }
            let place = || format!("turn {i}");
            let mut chat = Cow::Borrowed(chat);
            let mut prompt = render(&chat, i, true).with_context(place)?;
            if thought(message).is_some() && is_closed(&prompt) {
                // By its defaults the template has the model not think, and here it did.
                for switch in THINKING {
                    let arguments = &mut chat.to_mut().arguments;
                    arguments.entry(switch).or_insert(true.into());
                }
                prompt = render(&chat, i, true).with_context(place)?;
            }
            let whole = render(&chat, i + 1, false).with_context(place)?;
            let pieces = self
                .answer(message, &prompt, &whole, &|| render(&chat, i, false))
                .with_context(place)?;
            let shown = |text: &str| pieces.iter().any(|(piece, _)| piece.contains(text));
            let calls = &message.tool_calls;
            if !calls.is_empty() && !calls.iter().any(|call| shown(&call.name)) {
                // What is left would teach to say nothing.
                out.unshown += 1;
                continue;
            }
            if message
                .reasoning
                .as_deref()
                .is_some_and(|r| !shown(r.trim()))
            {
                out.unshown += 1;
            }
            if !self.go_on(&mut open, &prompt)? {
                let next = Open {
                    mark,
                    ..Open::default()
                };
                out.examples
                    .push(std::mem::replace(&mut open, next).example);
                out.rewritten = 1;
                self.go_on(&mut open, &prompt)?;
            }
            for (piece, target) in pieces {
                open.example
                    .push(&self.controls.encode(&piece, mark)?, target);
                open.text.push_str(&piece);
            }
            open.unended = !self.ends(&open.text);
        }
        out.examples.push(open.example);
        Ok(out)
    }

    /// Appends what `prompt` has beyond an open example's text, if its tokens are those of the whole prompt.
    fn go_on(&self, open: &mut Open, prompt: &str) -> Result<bool> {
        let Some(more) = prompt.strip_prefix(open.text.as_str()) else {
            return Ok(false);
        };
        let ids = self.controls.encode(more, open.mark)?;
        let apart =
            open.text.is_empty() || self.controls.begins(more) || self.controls.ends(&open.text);
        if !apart {
            let whole = self.controls.encode(prompt, open.mark)?;
            let (before, after) = whole.split_at(whole.len().min(open.example.ids.len()));
            if before != open.example.ids || after != ids {
                return Ok(false);
            }
        }
        // Then the turn is ended by the token that begins the next.
        let ends = open.unended && self.controls.begins(more);
        let (end, more_ids) = ids.split_at(usize::from(ends).min(ids.len()));
        open.example.push(end, true);
        open.example.push(more_ids, false);
        open.text.push_str(more);
        Ok(true)
    }

    /// Whether a token that ends a turn stands at the end, white space aside.
    fn ends(&self, text: &str) -> bool {
        self.controls.ends(text.trim_end())
    }

    /// What follows on `prompt` in `whole`, which has one message more. `before` renders the messages before it without the opening of a turn.
    fn answer(
        &self,
        message: &Message,
        prompt: &str,
        whole: &str,
        before: &dyn Fn() -> Result<String>,
    ) -> Result<Pieces> {
        let thought = thought(message);
        let mut pieces = Pieces::new();
        let rest = match whole.strip_prefix(prompt) {
            Some(rest) => rest,
            None => {
                let before = before()?;
                let Some(said) = behind_opening(&before, prompt, whole) else {
                    bail!(
                        "the chat template opens an answer with {:?} and does not show one so; the answer's tokens cannot be told",
                        prompt.strip_prefix(before.as_str()).unwrap_or(prompt)
                    );
                };
                match (open_block(prompt), thought) {
                    // The prompt has closed it.
                    (None, None) => &said[empty_block("", said)..],
                    (None, Some(_)) => said,
                    (Some((open, close)), thought) => match (said.strip_prefix(open), thought) {
                        (Some(rest), _) => rest,
                        (None, None) if said.starts_with(close) => said,
                        (None, Some(thought)) if said.starts_with(thought.trim()) => said,
                        (None, Some(thought)) if said.starts_with(close) => {
                            pieces.push((thought.trim().to_owned(), true));
                            said
                        }
                        (None, thought) => {
                            // Lines of their own where the opening is one.
                            let (before, behind) = match prompt.ends_with(open) {
                                true => ("", ""),
                                false => ("\n", "\n\n"),
                            };
                            let block = thought.unwrap_or_default().trim();
                            let block = format!("{block}{before}{close}{behind}");
                            pieces.push((block, thought.is_some()));
                            said
                        }
                    },
                }
            }
        };
        let empty = match thought {
            None if pieces.is_empty() => empty_block(prompt, rest),
            _ => 0,
        };
        let (block, said) = rest.split_at(empty);
        pieces.push((block.to_owned(), false));
        // What stands behind the token that ends the turn is never generated.
        let end = match self.ends(said) {
            true => said.trim_end().len(),
            false => said.len(),
        };
        pieces.push((said[..end].to_owned(), true));
        pieces.push((said[end..].to_owned(), false));
        pieces.retain(|(piece, _)| !piece.is_empty());
        Ok(pieces)
    }
}

/// What models write around their thinking.
pub(super) const BLOCKS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<think:opensource>", "</think:opensource>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
];

/// Variables by which templates are told to have the model think.
const THINKING: [&str; 2] = ["enable_thinking", "thinking"];

/// What an assistant thought, by the data.
fn thought(message: &Message) -> Option<&str> {
    if let Some(reasoning) = &message.reasoning {
        return Some(reasoning);
    }
    BLOCKS.iter().find_map(|(open, close)| {
        let (thought, _) = message.content.split_once(close)?;
        let text = thought.trim_start();
        Some(text.strip_prefix(open).unwrap_or(text))
    })
}

/// The block that `prompt` leaves open at its end.
fn open_block(prompt: &str) -> Option<(&'static str, &'static str)> {
    let prompt = prompt.trim_end();
    BLOCKS
        .iter()
        .find(|(open, _)| prompt.ends_with(open))
        .copied()
}

/// Whether `prompt` ends with a block that is closed.
fn is_closed(prompt: &str) -> bool {
    let prompt = prompt.trim_end();
    BLOCKS.iter().any(|(_, close)| prompt.ends_with(close))
}

/// Bytes of an empty block for thinking, or of the end of one, at the beginning of `rest`.
fn empty_block(prompt: &str, rest: &str) -> usize {
    let left = match open_block(prompt) {
        Some((_, close)) => behind(rest, close),
        None => BLOCKS
            .iter()
            .find_map(|(open, close)| behind(behind(rest, open).unwrap_or(rest), close)),
    };
    left.map_or(0, |left| rest.len() - left.len())
}

/// What stands behind `mark` where `text` begins with it, white space aside.
fn behind<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    Some(text.trim_start().strip_prefix(mark)?.trim_start())
}

/// What `whole` says behind the opening of its last turn, which `prompt` has beyond `before`. The opening may end in a block for thinking that `whole`
/// does not show.
fn behind_opening<'a>(before: &str, prompt: &str, whole: &'a str) -> Option<&'a str> {
    let mut opening = prompt.strip_prefix(before)?.trim_end();
    let marks = BLOCKS.iter().flat_map(|(open, close)| [*open, *close]);
    let marks: Vec<&str> = marks.collect();
    while let Some(mark) = marks.iter().find(|mark| opening.ends_with(**mark)) {
        opening = opening[..opening.len() - mark.len()].trim_end();
    }
    if opening.is_empty() {
        return Some(whole.strip_prefix(before)?.trim_start());
    }
    let at = whole.rfind(opening)? + opening.len();
    // One that an earlier turn has: the template goes on in that turn.
    let said = match at > shared(before, whole) {
        true => &whole[at..],
        false => &whole[shared(prompt, whole)..],
    };
    Some(said.trim_start())
}

/// Bytes of what two texts begin with.
fn shared(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    let same = pairs.take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}
