//! Constrained output and function calling.

use anyhow::{Context as _, Result};
use dram_core::{Constraint, ToolChoice, Tools};

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Constrained output and tools")]
pub(crate) struct FormArgs {
    /// Constrain the output to a JSON schema: the schema itself, or a file. Objects have the listed properties only, unless
    /// `additionalProperties` says otherwise; strings, arrays and numbers without bounds get some
    #[arg(long, value_name = "FILE_OR_TEXT", group = "form")]
    json_schema: Option<String>,
    /// Constrain the output to a regular expression, which matches it as a whole
    #[arg(long, value_name = "EXPRESSION", group = "form")]
    regex: Option<String>,
    /// Constrain the output to a grammar: GBNF as llama.cpp has it, from the rule `root` on (rules with `::=`), or llguidance's dialect
    /// of Lark, from the rule `start` on
    #[arg(long, value_name = "FILE", group = "form")]
    grammar: Option<String>,
    /// Functions that the model may call: a JSON list of {"type": "function", "function": {"name", "description", "parameters"}}
    #[arg(long, value_name = "FILE", conflicts_with = "form")]
    tools: Option<String>,
    /// Tool choice: auto, required, none, or the name of the function to call
    #[arg(
        long,
        value_name = "CHOICE",
        default_value = "auto",
        requires = "tools"
    )]
    tool_choice: String,
    /// Allow several calls in one answer
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

    pub(crate) fn has_tools(&self) -> bool {
        self.tools.is_some()
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
