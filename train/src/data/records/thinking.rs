//! What models write around their thinking, in answers and in what templates open them with.

use dram_core::Message;
use dram_core::prompt::{MarkedText, Marks};

/// What stands around thinking.
const BLOCKS: &[(&str, &str)] = &[
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

/// All that stands before and behind thinking.
pub(super) fn ends() -> impl Iterator<Item = &'static str> {
    BLOCKS.iter().flat_map(|(open, close)| [*open, *close])
}

/// Variables by which templates are told to have the model think.
pub(super) const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// What an assistant thought, by the data, in a turn whose texts are marked.
pub(super) fn thought(marks: &Marks<'_>, message: &Message) -> Option<MarkedText> {
    if let Some(reasoning) = &message.reasoning {
        return Some(marks.read(reasoning));
    }
    let content = marks.read(&message.content);
    let text = content.as_str();
    let thought = BLOCKS.iter().find_map(|(open, close)| {
        let (thought, _) = text.split_once(close)?;
        let start = thought.len() - thought.trim_start().len();
        let opened = thought[start..].starts_with(open);
        let start = start + if opened { open.len() } else { 0 };
        Some(start..thought.len())
    })?;
    Some(content.slice(thought))
}

/// The block that `prompt` leaves open at its end.
pub(super) fn open_block(prompt: &str) -> Option<(&'static str, &'static str)> {
    let prompt = prompt.trim_end();
    BLOCKS
        .iter()
        .find(|(open, _)| prompt.ends_with(open))
        .copied()
}

/// Whether `prompt` ends with a block that is closed.
pub(super) fn is_closed(prompt: &str) -> bool {
    let prompt = prompt.trim_end();
    BLOCKS.iter().any(|(_, close)| prompt.ends_with(close))
}

/// Bytes of an empty block for thinking, or of the end of one, at the beginning of `rest`.
pub(super) fn empty_block(prompt: &str, rest: &str) -> usize {
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
