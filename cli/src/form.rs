//! Options of `run` and `chat` that say what an answer must look like.

use anyhow::{Context as _, Result};
use dram_core::{Constraint, Finish, ToolCall, ToolChoice, Tools};
use serde_json::json;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Form of the answer")]
pub(crate) struct FormArgs {
    /// Answer with JSON that this schema accepts: the schema itself, or a file. Objects have the listed properties only, unless
    /// `additionalProperties` says otherwise; strings, arrays and numbers without bounds get some
    #[arg(long, value_name = "FILE_OR_TEXT", group = "form")]
    json_schema: Option<String>,
    /// Answer with a text that this regular expression matches as a whole
    #[arg(long, value_name = "EXPRESSION", group = "form")]
    regex: Option<String>,
    /// Answer with a text of this grammar: GBNF as llama.cpp has it, from the rule `root` on (rules with `::=`), or llguidance's dialect
    /// of Lark, from the rule `start` on
    #[arg(long, value_name = "FILE", group = "form")]
    grammar: Option<String>,
    /// Functions that the model may call: a JSON list of {"type": "function", "function": {"name", "description", "parameters"}}
    #[arg(long, value_name = "FILE", conflicts_with = "form")]
    tools: Option<String>,
    /// Whether it calls: auto, required, none, or the name of the one to call
    #[arg(
        long,
        value_name = "CHOICE",
        default_value = "auto",
        requires = "tools"
    )]
    tool_choice: String,
    /// An answer may hold several calls
    #[arg(long, requires = "tools")]
    parallel_tools: bool,
}

impl FormArgs {
    pub(crate) fn constraint(&self) -> Result<Option<Constraint>> {
        if let Some(schema) = &self.json_schema {
            let inline = ['{', '[']
                .iter()
                .any(|&c| schema.trim_start().starts_with(c));
            let schema = if inline {
                schema.clone()
            } else {
                read(schema)?
            };
            return Ok(Some(Constraint::json_schema(&schema)));
        }
        if let Some(expression) = &self.regex {
            return Ok(Some(Constraint::regex(expression)));
        }
        let grammar = self.grammar.as_deref().map(read).transpose()?;
        Ok(grammar.map(|grammar| Constraint::grammar(&grammar)))
    }

    pub(crate) fn tools(&self) -> Result<Option<Tools>> {
        let Some(file) = &self.tools else {
            return Ok(None);
        };
        let choice = match self.tool_choice.as_str() {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            "none" => ToolChoice::None,
            name => ToolChoice::Named(name.to_owned()),
        };
        let tools = Tools::from_json(&read(file)?, choice)?;
        Ok(Some(match self.parallel_tools {
            true => tools.in_parallel(),
            false => tools,
        }))
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))
}

/// Why an answer is not what its form asks for, if it is not.
pub(crate) fn broken_form(finish: &Finish) -> Option<String> {
    match finish {
        Finish::Unfinished(_) => Some(
            "the answer is cut short, before it had the form that was asked for; -n and --context make room for more".into(),
        ),
        Finish::Invalid(what) => Some(format!("the answer breaks its schema: {what}")),
        _ => None,
    }
}

/// A call in OpenAI's form, its arguments as JSON text.
pub(crate) fn tool_call(call: &ToolCall) -> serde_json::Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}
