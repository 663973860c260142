//! A request's prompt as tokens.

mod marked;
mod marks;
#[cfg(test)]
mod tests;
mod turns;

pub use marked::MarkedText;
pub use marks::{Marks, ReservedTokens};
pub(crate) use turns::Turns;

use crate::chat::{Chat, Message};
use crate::model::Model;
use crate::request::{Prompt, Request};
use crate::tokenizer::Tokenizer;
use crate::tools::Tools;
use crate::{Error, Result};
use std::sync::Arc;

impl Model {
    /// A request's prompt as tokens.
    ///
    /// What is said in a chat is text and nothing else, whatever it spells, unless [`Request::parse_special`] says otherwise.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] for a chat with a model that has none; what the template said when it failed.
    pub fn prompt_tokens(&self, request: &Request) -> Result<Vec<u32>> {
        self.prompt_tokens_until(request, &|| false)
    }

    /// As [`Model::prompt_tokens`], and given up with [`Error::Cancelled`] while the chat's template is rendered, soon after `stop` says so.
    pub(crate) fn prompt_tokens_until(
        &self,
        request: &Request,
        stop: Stop<'_>,
    ) -> Result<Vec<u32>> {
        match &request.prompt {
            Prompt::Text(text) => {
                let ids = self.tokenizer().encode(text, request.parse_special);
                Ok(begin(self.tokenizer(), ids))
            }
            Prompt::Tokens(ids) => Ok(ids.clone()),
            Prompt::Chat(messages) => {
                Renderer::new(self, request, messages)?.tokens(messages, stop)
            }
        }
    }
}

/// With the token that begins a sequence. A template usually writes it itself: one is enough.
fn begin(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if let Some(bos) = bos.filter(|bos| ids.first() != Some(bos)) {
        ids.insert(0, bos);
    }
    ids
}

/// Whether to give up.
pub(crate) type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Renders the conversation of one request, or a part of it.
struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a str,
    /// Without them what is said may name special tokens.
    marks: Option<Marks<'a>>,
    tools: Option<Tools>,
    variables: Vec<(String, String)>,
    bos: String,
    eos: String,
}

impl<'a> Renderer<'a> {
    fn new(model: &'a Model, request: &Request, messages: &[Message]) -> Result<Renderer<'a>> {
        let template = model.chat_template().ok_or_else(|| Error::NoChatTemplate {
            file: model.gguf().name().to_owned(),
        })?;
        Renderer::with(model.tokenizer(), template, request, messages)
    }

    fn with(
        tokenizer: &'a Tokenizer,
        template: &'a str,
        request: &Request,
        messages: &[Message],
    ) -> Result<Renderer<'a>> {
        let text_of = |id: Option<u32>| id.map_or_else(String::new, |id| tokenizer.decode(&[id]));
        let mut renderer = Renderer {
            tokenizer,
            template,
            marks: None,
            tools: request.tools.clone(),
            variables: request.template_args.clone(),
            bos: text_of(tokenizer.bos()),
            eos: text_of(tokenizer.eos()),
        };
        if request.parse_special {
            return Ok(renderer);
        }
        let marks = Arc::new(ReservedTokens::new(tokenizer, template, &[])).marks(&Chat {
            messages,
            tools: request.tools.as_ref(),
            variables: &request.template_args,
            ..Chat::default()
        })?;
        renderer.tools = request.tools.as_ref().map(|tools| marks.tools(tools));
        let variables = request.template_args.iter();
        renderer.variables = variables
            .map(|(name, value)| marks.variable(name, value))
            .collect();
        renderer.marks = Some(marks);
        Ok(renderer)
    }

    /// Up to where the assistant speaks next.
    fn tokens(&self, messages: &[Message], stop: Stop<'_>) -> Result<Vec<u32>> {
        let chat = Chat {
            messages,
            tools: self.tools.as_ref(),
            variables: &self.variables,
            bos: &self.bos,
            eos: &self.eos,
            add_generation_prompt: true,
        };
        let tokenizer = self.tokenizer;
        let ids = match &self.marks {
            None => tokenizer.encode(&chat.render_until(self.template, stop)?, true),
            Some(marks) => {
                let messages: Vec<Message> = messages.iter().map(|m| marks.message(m)).collect();
                let chat = Chat {
                    messages: &messages,
                    ..chat
                };
                let text = marks.read(&chat.render_until(self.template, stop)?);
                marks.encode(&text, None)
            }
        };
        Ok(begin(tokenizer, ids))
    }
}
