//! The chat template, and special tokens.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dram_core::{Model, OpenOptions};

/// Options of `run` and `chat` about the chat template and special tokens.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Chat template")]
pub(crate) struct TemplateArgs {
    /// Use the Jinja template in this file instead of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Pass a variable to the template; VALUE is JSON, or else text. May be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = template_arg)]
    pub template_arg: Vec<(String, String)>,
    /// Parse special tokens such as <|im_start|> in messages. Only for trusted text
    #[arg(long)]
    pub parse_special: bool,
    /// Print control tokens of the output, too
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
