//! The built-in task: a spoken-style phone request in, a JSON function call out.
//!
//! ```text
//! <|request|>could you set a timer for twenty five minutes<|call|>{"name":"set_timer","arguments":{"duration":"25 minutes"}}<|end|>
//! ```
//!
//! Every example is a pure function of a seed and an index. The held-out sets use phrasings and argument values that training
//! never shows (tests prove it): their templates, pools, made-up words, numbers and times are disjoint from training's.
//!
//! What a call writes: names, places, titles and free text are copied as the request has them; times become `HH:MM` (an hour
//! without "pm" or "in the evening" means itself), calendar dates `MM-DD`, days `friday` or `next friday`, durations
//! `25 minutes`, levels a JSON number; a closing full stop or question mark is never part of a value. Keys stand in the order
//! of [`Function::arguments`], and arguments that the request does not mention are absent.

pub mod demo;
mod examples;
mod functions;
mod grammar;
mod held_out;
mod out_of_scope;
mod pools;
mod render;
mod score;
mod spelling;
mod texts;
mod values;

use std::collections::HashSet;
use std::sync::LazyLock;

pub use examples::{ActionExamples, tokenizer};
pub use functions::{FUNCTIONS, Function};
pub(crate) use held_out::held_out_sets;
pub use score::{Score, exact_match};
pub use values::Argument;

use dram_files::Rng;
use dram_files::write::Entry;

use self::grammar::Template;

/// Ends a call; also padding and end of text. Id 0.
pub const END: &str = "<|end|>";
/// Starts a request. Id 1.
pub const REQUEST: &str = "<|request|>";
/// Ends a request, starts the call. Id 2.
pub const CALL: &str = "<|call|>";
/// The special tokens in the order of their ids.
pub const SPECIAL_TOKENS: [&str; 3] = [END, REQUEST, CALL];
/// How a chat application renders a conversation for a model of this task: the last message is the request.
pub const CHAT_TEMPLATE: &str =
    "<|request|>{{ messages[-1].content }}<|call|>{# tools: those it was trained for #}";
/// The name in the call for a request that no function fits.
pub const NONE: &str = "none";

/// What a model's file says of how to sample it: a call is right or wrong, so it is the likeliest token, always.
pub(crate) fn greedy() -> Entry {
    ("general.sampling.temp".into(), 0.0f32.into())
}

/// Which side of the fence templates and values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Split {
    Train,
    HeldOut,
}

/// The data sets of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Set {
    /// What models are trained on: every function, and about one request in six that none fits.
    Train,
    /// Functions only, with phrasings and values never seen in training.
    HeldOut,
    /// Requests that no function fits, on topics never seen in training.
    NoFunction,
}

/// One request and the call that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub request: String,
    /// Compact JSON.
    pub call: String,
    /// The name in the call.
    pub function: &'static str,
    /// The request with its values replaced by their slots, in lower case: which phrasing it is.
    pub phrasing: String,
    /// The arguments in the order of the call.
    pub arguments: Vec<(&'static str, Argument)>,
}

impl Sample {
    /// What the model reads.
    pub fn prompt(&self) -> String {
        prompt(&self.request)
    }

    /// What the model is to write, with the closing token.
    pub fn completion(&self) -> String {
        format!("{}{END}", self.call)
    }
}

/// `request` as the model reads it.
pub fn prompt(request: &str) -> String {
    format!("{REQUEST}{request}{CALL}")
}

/// Example `index` of the endless training stream.
pub fn train(seed: u64, index: u64) -> Sample {
    sample(Set::Train, seed, index)
}

/// Example `index` of the held-out stream: functions only.
pub fn held_out(seed: u64, index: u64) -> Sample {
    sample(Set::HeldOut, seed, index)
}

/// Example `index` of the held-out stream of requests that no function fits.
pub fn no_function(seed: u64, index: u64) -> Sample {
    sample(Set::NoFunction, seed, index)
}

/// The first `count` examples of a set that differ in their requests.
pub fn distinct(set: Set, seed: u64, count: usize) -> Vec<Sample> {
    let mut seen = HashSet::new();
    (0..)
        .map(|i| sample(set, seed, i))
        .filter(|s| seen.insert(s.request.to_lowercase()))
        .take(count)
        .collect()
}

/// Example `index` of `set`.
pub fn sample(set: Set, seed: u64, index: u64) -> Sample {
    let mut rng = Rng::new(&[seed, set as u64, index]);
    let split = if set == Set::Train {
        Split::Train
    } else {
        Split::HeldOut
    };
    if set == Set::NoFunction || (set == Set::Train && rng.chance(16)) {
        let templates = &PARSED.out_of_scope[split as usize];
        let template = rng.pick(templates);
        return render::render(NONE, &[], template, split, &mut rng);
    }
    let at = rng.below(FUNCTIONS.len() + EXTRA.len());
    let at = if at < FUNCTIONS.len() {
        at
    } else {
        PARSED.extra[at - FUNCTIONS.len()]
    };
    let function = &FUNCTIONS[at];
    loop {
        let template = rng.pick(&PARSED.functions[at][split as usize]);
        let sample = render::render(function.name, function.arguments, template, split, &mut rng);
        if split == Split::HeldOut || !PARSED.kept.contains(&sample.phrasing) {
            return sample;
        }
    }
}

/// Drawn twice as often: the functions with the longest copied values.
const EXTRA: [&str; 4] = ["send_message", "create_event", "take_note", "play_music"];

struct Parsed {
    /// [function][split][template]
    functions: Vec<[Vec<Template>; 2]>,
    /// [split][template]
    out_of_scope: [Vec<Template>; 2],
    /// Every phrasing of the held-out sets: training leaves out those that its own templates would make, too.
    kept: HashSet<String>,
    /// Places of `EXTRA` in `FUNCTIONS`.
    extra: Vec<usize>,
}

static PARSED: LazyLock<Parsed> = LazyLock::new(|| {
    let parse = |list: &'static [&'static str]| -> Vec<Template> {
        list.iter().map(|t| Template::parse(t)).collect()
    };
    let functions: Vec<_> = FUNCTIONS
        .iter()
        .map(|f| [parse(f.train), parse(f.held_out)])
        .collect();
    let out_of_scope = [parse(out_of_scope::TRAIN), parse(out_of_scope::HELD_OUT)];
    let held_out = functions
        .iter()
        .chain([&out_of_scope])
        .flat_map(|of| &of[Split::HeldOut as usize]);
    Parsed {
        kept: held_out.flat_map(Template::expansions).collect(),
        functions,
        out_of_scope,
        extra: EXTRA
            .iter()
            .filter_map(|name| FUNCTIONS.iter().position(|f| f.name == *name))
            .collect(),
    }
});

#[cfg(test)]
mod tests;
