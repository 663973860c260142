//! From records to token ids: what of them the model is asked to predict.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use dram_core::chat::Chat;
use dram_core::prompt::{MarkedText, Marks, ReservedTokens};
use dram_files::tokenizer::token_type;
use rayon::prelude::*;

use super::thinking::{self, empty_block, is_closed, open_block, thought};
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
    reserved: Arc<ReservedTokens<'a>>,
}

/// An example that may still grow, and the text that it holds.
#[derive(Default)]
struct Open {
    text: MarkedText,
    example: Example,
    /// Whether its last answer has no token that ends the turn.
    unended: bool,
}

/// What is appended to a prompt: pieces that are encoded apart, and whether they are targets.
type Pieces = Vec<(MarkedText, bool)>;

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a TextTokenizer) -> Self {
        let template = tokenizer.vocabulary().chat_template.as_deref();
        // What stands around thinking is a model's own to say.
        let own: Vec<&str> = thinking::ends().collect();
        let reserved = ReservedTokens::new(tokenizer.runtime(), template.unwrap_or(""), &own);
        Encoder {
            tokenizer,
            reserved: Arc::new(reserved),
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
        let (marks, marked) = self.marked(chat)?;
        let render = |chat: &Conversation, messages: usize, open: bool| {
            let text = render(chat, messages, open)?;
            anyhow::Ok(marks.read(&text))
        };
        let mut open = Open::default();
        for (i, message) in chat.messages.iter().enumerate() {
            // A greeting answers nothing: inference never opens a conversation so.
            if i == 0 || !chat.answers.get(i).is_some_and(|answer| *answer) {
                continue;
            }
            let place = || format!("turn {i}");
            let mut chat = Cow::Borrowed(&marked);
            let thought = thought(&marks, &marked.messages[i]);
            let mut prompt = render(&chat, i, true).with_context(place)?;
            if thought.is_some() && is_closed(prompt.as_str()) {
                // By its defaults the template has the model not think, and here it did.
                for switch in thinking::SWITCHES {
                    let arguments = &mut chat.to_mut().arguments;
                    arguments.entry(switch).or_insert(true.into());
                }
                prompt = render(&chat, i, true).with_context(place)?;
            }
            let whole = render(&chat, i + 1, false).with_context(place)?;
            let pieces = self
                .answer(thought.as_ref(), &prompt, &whole, &|| {
                    render(&chat, i, false)
                })
                .with_context(place)?;
            let shown = |text: &str| {
                pieces
                    .iter()
                    .any(|(piece, _)| piece.as_str().contains(text))
            };
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
            if !self.go_on(&marks, &mut open, &prompt) {
                out.examples.push(std::mem::take(&mut open).example);
                out.rewritten = 1;
                self.go_on(&marks, &mut open, &prompt);
            }
            for (piece, target) in pieces {
                let ids = marks.encode(&piece, open.example.ids.last().copied());
                open.example.push(&ids, target);
                open.text.push(&piece);
            }
            open.unended = !self.ends(&open.text);
        }
        out.examples.push(open.example);
        Ok(out)
    }

    /// The conversation with its texts marked.
    fn marked(&self, chat: &Conversation) -> Result<(Marks<'a>, Conversation)> {
        let variables = chat.arguments.iter();
        let variables: Vec<(String, String)> = variables
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect();
        let marks = self.reserved.marks(&Chat {
            messages: &chat.messages,
            tools: chat.tools.as_ref(),
            variables: &variables,
            ..Chat::default()
        })?;
        let arguments = variables.iter().map(|(name, value)| {
            let (name, value) = marks.variable(name, value);
            Ok((name, serde_json::from_str(&value)?))
        });
        let marked = Conversation {
            messages: chat.messages.iter().map(|m| marks.message(m)).collect(),
            answers: chat.answers.clone(),
            tools: chat.tools.as_ref().map(|tools| marks.tools(tools)),
            arguments: arguments.collect::<Result<_>>()?,
        };
        Ok((marks, marked))
    }

    /// Appends what `prompt` has beyond an open example's text, if its tokens are those of the whole prompt. Whether they are.
    fn go_on(&self, marks: &Marks<'_>, open: &mut Open, prompt: &MarkedText) -> bool {
        let Some(more) = prompt.strip_prefix(&open.text) else {
            return false;
        };
        let last = open.example.ids.last().copied();
        let ids = marks.encode(&more, last);
        let begins = ids.first().is_some_and(|&id| self.is_control(id));
        // Text cannot run across a control token.
        if !(begins || last.is_none_or(|id| self.is_control(id))) {
            let whole = marks.encode(prompt, None);
            let (before, after) = whole.split_at(whole.len().min(open.example.ids.len()));
            if before != open.example.ids || after != ids {
                return false;
            }
        }
        // Then the turn is ended by the token that begins the next.
        let ends = open.unended && begins;
        let (end, more_ids) = ids.split_at(usize::from(ends));
        open.example.push(end, true);
        open.example.push(more_ids, false);
        open.text.push(&more);
        true
    }

    /// Whether a token that ends a turn stands at the end, white space aside.
    fn ends(&self, text: &MarkedText) -> bool {
        let end = text.as_str().trim_end().len();
        let last = self.reserved.ending_at(text, end);
        last.is_some_and(|id| self.is_control(id))
    }

    fn is_control(&self, id: u32) -> bool {
        let vocabulary = self.tokenizer.vocabulary();
        vocabulary.types.get(id as usize) == Some(&token_type::CONTROL)
            || vocabulary.eos == Some(id)
            || self.tokenizer.runtime().is_end(id)
    }

    /// What follows on `prompt` in `whole`, which has one message more. `before` renders the messages before it without the opening of a turn.
    fn answer(
        &self,
        thought: Option<&MarkedText>,
        prompt: &MarkedText,
        whole: &MarkedText,
        before: &dyn Fn() -> Result<MarkedText>,
    ) -> Result<Pieces> {
        let mut pieces = Pieces::new();
        let (given, text) = (prompt.as_str(), whole.as_str());
        let rest = match text.strip_prefix(given) {
            Some(rest) => rest,
            None => {
                let before = before()?;
                let before = before.as_str();
                let Some(said) = behind_opening(before, prompt, whole) else {
                    bail!(
                        "the chat template opens an answer with {:?} and does not show one so; the answer's tokens cannot be told",
                        given.strip_prefix(before).unwrap_or(given)
                    );
                };
                match (open_block(given), thought) {
                    // The prompt has closed it.
                    (None, None) => &said[empty_block("", said)..],
                    (None, Some(_)) => said,
                    (Some((open, close)), thought) => match (said.strip_prefix(open), thought) {
                        (Some(rest), _) => rest,
                        (None, None) if said.starts_with(close) => said,
                        (None, Some(thought)) if said.starts_with(thought.as_str().trim()) => said,
                        (None, Some(thought)) if said.starts_with(close) => {
                            pieces.push((trimmed(thought), true));
                            said
                        }
                        (None, thought) => {
                            // Lines of their own where the opening is one.
                            let (before, behind) = match given.ends_with(open) {
                                true => ("", ""),
                                false => ("\n", "\n\n"),
                            };
                            let mut block = thought.map(trimmed).unwrap_or_default();
                            block.push(&format!("{before}{close}{behind}").into());
                            pieces.push((block, thought.is_some()));
                            said
                        }
                    },
                }
            }
        };
        let empty = match thought {
            None if pieces.is_empty() => empty_block(given, rest),
            _ => 0,
        };
        let start = text.len() - rest.len();
        let said = start + empty;
        // What stands behind the token that ends the turn is never generated.
        let end = match text.trim_end().len() {
            end if end > said && self.ends(whole) => end,
            _ => text.len(),
        };
        let parts = [
            (start..said, false),
            (said..end, true),
            (end..text.len(), false),
        ];
        pieces.extend(parts.map(|(part, target)| (whole.slice(part), target)));
        pieces.retain(|(piece, _)| !piece.as_str().is_empty());
        Ok(pieces)
    }
}

/// What `whole` says behind the opening of its last turn, which `prompt` has beyond `before`. The opening may end in a block for thinking that `whole`
/// does not show.
fn behind_opening<'a>(before: &str, prompt: &MarkedText, whole: &'a MarkedText) -> Option<&'a str> {
    let (given, text) = (prompt.as_str(), whole.as_str());
    let mut opening = given.strip_prefix(before)?.trim_end();
    while let Some(end) = thinking::ends().find(|end| opening.ends_with(end)) {
        opening = opening[..opening.len() - end.len()].trim_end();
    }
    if opening.is_empty() {
        return Some(text.strip_prefix(before)?.trim_start());
    }
    let length = opening.len();
    let own = prompt.slice(before.len()..before.len() + length);
    // An answer may spell one, which is text.
    let mut found = text.rmatch_indices(opening);
    let (at, _) = found.find(|&(at, _)| whole.slice(at..at + length) == own)?;
    let end = at + length;
    // One that an earlier turn has: the template goes on in that turn.
    let said = match end > shared(before, text) {
        true => &text[end..],
        false => &text[shared(given, text)..],
    };
    Some(said.trim_start())
}

fn trimmed(text: &MarkedText) -> MarkedText {
    let start = text.as_str().len() - text.as_str().trim_start().len();
    text.slice(start..text.as_str().trim_end().len().max(start))
}

/// Bytes of what two texts begin with.
fn shared(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    let same = pairs.take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}
