//! Output that follows a schema, an expression or a grammar; function calling.

mod calls;
mod grammars;
mod refusals;
mod schemas;
mod texts;

use dram_core::{
    Completion, Constraint, Message, Model, OpenOptions, Prompt, Request, Sampling, Session,
    SessionOptions, gguf,
};
use dram_tests::gguf::Value as Meta;
use dram_tests::toy::Shape;
use std::ops::ControlFlow;

/// A random model, with a chat template if one is given.
pub(crate) fn random(template: Option<&str>) -> Model {
    let mut file = Shape::default().gguf();
    file.set("llama.context_length", Meta::U32(1024));
    if let Some(template) = template {
        file.set("tokenizer.chat_template", Meta::Str(template.into()));
    }
    let file = gguf::File::from_bytes("random.gguf", file.bytes()).unwrap();
    Model::from_gguf(file, &OpenOptions::default()).unwrap()
}

pub(crate) fn student_path() -> &'static str {
    concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../train/assets/actions-student.gguf"
    )
}

pub(crate) fn student() -> Model {
    Model::open(student_path()).unwrap()
}

pub(crate) fn session(model: &Model) -> Session {
    let options = SessionOptions {
        threads: Some(1),
        ..SessionOptions::default()
    };
    model.session(options).unwrap()
}

pub(crate) fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..Sampling::default()
    }
}

pub(crate) fn ask(session: &mut Session, request: &Request) -> dram_core::Result<Completion> {
    session.generate(request, &mut |_| ControlFlow::Continue(()))
}

pub(crate) fn constrained(prompt: &str, constraint: Constraint) -> Request {
    Request {
        constraint: Some(constraint),
        max_tokens: 900,
        ..Request::new(Prompt::Text(prompt.into()))
    }
}

pub(crate) const REQUESTS: [&str; 4] = [
    "set a timer for ten minutes",
    "how is the weather in Oslo",
    "play some jazz",
    "turn the brightness up",
];

pub(crate) fn chat(text: &str) -> Request {
    Request::new(Prompt::Chat(vec![Message::new("user", text)]))
}
