//! Options of `run` and `chat` about what becomes of a conversation, and what is said of its answer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use dram_core::{Finish, Message, Model, OpenOptions, Prompt, Request};

/// Options of `run` and `chat` about the chat template and special tokens.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Chat template")]
pub(crate) struct TemplateArgs {
    /// Use the Jinja template in this file instead of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Give the template a variable; VALUE is JSON, or else text. May be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = template_arg)]
    pub template_arg: Vec<(String, String)>,
    /// Let what is said name special tokens, such as <|im_start|>. Only for text that you trust
    #[arg(long)]
    pub parse_special: bool,
    /// Print the control tokens that the model makes, too
    #[arg(long)]
    pub special: bool,
}

impl TemplateArgs {
    /// The model, with this template.
    pub(crate) fn open(&self, path: &Path) -> Result<Model> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file)
                .with_context(|| format!("--chat-template {}: cannot read it", file.display()))
        };
        let options = OpenOptions {
            chat_template: self.chat_template.as_ref().map(read).transpose()?,
            ..OpenOptions::default()
        };
        Ok(Model::open_with(path, &options)?)
    }
}

fn template_arg(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or("expected NAME=VALUE, such as enable_thinking=false")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a person is told of an answer that ended before it was done; nothing where it was.
pub(crate) fn cut_short(finish: &Finish, max_tokens: usize) -> Option<String> {
    match finish {
        Finish::MaxTokens if max_tokens > 0 => Some(format!(
            "the answer was cut after {max_tokens} tokens; -n allows more"
        )),
        Finish::ContextFull => Some(
            "the answer was cut: the context is full; --context makes it larger, --slide goes on without the oldest part".into(),
        ),
        _ => None,
    }
}

/// Refuses a system prompt that the template passes over.
pub(crate) fn check_system(model: &Model, request: &Request) -> Result<()> {
    let Prompt::Chat(messages) = &request.prompt else {
        return Ok(());
    };
    let said = |m: &&Message| m.role == "system" && !m.content.trim().is_empty();
    if !messages.iter().any(|m| said(&m)) {
        return Ok(());
    }
    let others = messages.iter().filter(|m| m.role != "system").cloned();
    let without = Request {
        prompt: Prompt::Chat(others.collect()),
        ..request.clone()
    };
    let (with, without) = (model.prompt_tokens(request)?, model.prompt_tokens(&without));
    ensure!(
        without.ok().as_ref() != Some(&with),
        "the chat template of {} passes over what --system says: write it into the prompt, or give another template with --chat-template FILE",
        model.gguf().name()
    );
    Ok(())
}
