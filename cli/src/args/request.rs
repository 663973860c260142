//! What `run` and `chat` have in common.

use std::path::Path;

use anyhow::{Result, ensure};
use dram_core::{Message, Model, Prompt, Request, Session};

use super::DraftArgs;
use super::form::FormArgs;
use super::sampling::SamplingArgs;
use super::session::SessionArgs;
use super::template::TemplateArgs;

/// How the model is opened and asked.
#[derive(clap::Args)]
pub(crate) struct RequestArgs {
    /// System prompt
    #[arg(long)]
    pub system: Option<String>,
    #[command(flatten)]
    pub template: TemplateArgs,
    #[command(flatten)]
    pub form: FormArgs,
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub draft: DraftArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

impl RequestArgs {
    /// The model, with the chat template that is asked for.
    pub(crate) fn model(&self, path: &Path) -> Result<Model> {
        self.template.open(path)
    }

    /// A session with its adapters and drafts.
    pub(crate) fn session(&self, model: &Model) -> Result<Session> {
        let mut session = self.session.open(model)?;
        session.set_speculation(&self.draft.speculation()?)?;
        Ok(session)
    }

    pub(crate) fn system_message(&self) -> Option<Message> {
        let text = self.system.as_ref()?;
        Some(Message::new("system", text))
    }

    /// A request without its prompt.
    pub(crate) fn request(&self, model: &Model, max_tokens: usize) -> Result<Request> {
        Ok(Request {
            max_tokens,
            sampling: self.sampling.sampling(model)?,
            context_policy: self.session.policy(),
            constraint: self.form.constraint()?,
            tools: self.form.tools()?,
            parse_special: self.template.parse_special,
            show_special: self.template.special,
            template_args: self.template.template_arg.clone(),
            ..Request::default()
        })
    }
}

/// Refuses a system prompt that the template ignores.
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
        "the chat template of {} ignores the system prompt (--system): put it into the prompt, or give another template with --chat-template FILE",
        model.gguf().name()
    );
    Ok(())
}
