//! A conversation through a template.

use super::jinja::{self, Fault, Value, from_json};
use super::limits::{Budget, STACK};
use super::{Chat, clock};
use crate::stack::on_a_deep_stack;
use crate::tools::instructions;
use crate::{Error, Result};
use serde_json::{Value as Json, json};

impl Chat<'_> {
    /// The prompt, as `template` writes it.
    ///
    /// Templates are code from a file: they run on a stack of their own with limits to their size, depth, steps and memory, and see nothing but this
    /// conversation and the clock.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] when the template does not parse, fails, refuses the conversation or passes a limit.
    pub fn render(&self, template: &str) -> Result<String> {
        self.render_until(template, &|| false)
    }

    /// As [`Chat::render`], and given up with [`Error::Cancelled`] soon after `stop` says so.
    pub(crate) fn render_until(
        &self,
        template: &str,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<String> {
        let rendered = on_a_deep_stack("dram-template", STACK, || self.write(template, stop))?;
        rendered.map_err(|fault| match fault {
            Fault::Cancelled => Error::Cancelled,
            Fault::Wrong { line: 0, what } => Error::ChatTemplate { what },
            Fault::Wrong { line, what } => Error::ChatTemplate {
                what: format!("line {line}: {what}"),
            },
        })
    }

    fn write(&self, template: &str, stop: &(dyn Fn() -> bool + Sync)) -> Result<String, Fault> {
        let messages: Vec<Json> = self.messages.iter().map(|m| m.json(template)).collect();
        let knows_tools = template.contains("tools");
        let told = self.tools.filter(|_| !knows_tools);
        let Some(told) = told.and_then(|tools| instructions(tools, template)) else {
            return self.write_messages(template, &messages, stop);
        };
        // A template may refuse a turn of the system, or pass over it.
        let by_system = self.write_messages(template, &with_system(&messages, &told), stop);
        match by_system {
            Ok(text) if text.contains(told.trim()) => return Ok(text),
            Err(Fault::Cancelled) => return Err(Fault::Cancelled),
            _ => {}
        }
        match self.write_messages(template, &with_user(&messages, &told), stop) {
            Ok(text) if text.contains(told.trim()) || by_system.is_err() => Ok(text),
            Err(Fault::Cancelled) => Err(Fault::Cancelled),
            _ => by_system,
        }
    }

    fn write_messages(
        &self,
        template: &str,
        messages: &[Json],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, Fault> {
        let tools = self.tools.map_or(&Json::Null, |tools| tools.json());
        let input = messages.iter().map(length).sum::<usize>() + length(tools);
        let budget = Budget::new(input, stop);
        let messages = messages.iter().map(|message| from_json(&budget, message));
        let messages = messages.collect::<Result<_, _>>()?;
        let variables = vec![
            ("messages", budget.list(messages)?),
            ("tools", from_json(&budget, tools)?),
            ("documents", Value::None),
            ("bos_token", budget.text(self.bos)?),
            ("eos_token", budget.text(self.eos)?),
            (
                "add_generation_prompt",
                Value::Bool(self.add_generation_prompt),
            ),
        ];
        jinja::render(template, variables, &budget, &clock::strftime_now)
    }
}

/// About how many bytes `json` has.
fn length(json: &Json) -> usize {
    match json {
        Json::String(text) => 16 + text.len(),
        Json::Array(items) => 16 + items.iter().map(length).sum::<usize>(),
        Json::Object(map) => {
            let entries = map.iter().map(|(key, value)| key.len() + length(value));
            16 + entries.sum::<usize>()
        }
        _ => 16,
    }
}

/// `messages` with `text` behind what the system says.
fn with_system(messages: &[Json], text: &str) -> Vec<Json> {
    let mut messages = messages.to_vec();
    match messages.first_mut().filter(|m| m["role"] == "system") {
        Some(system) => {
            let said = system["content"].as_str().unwrap_or_default();
            system["content"] = Json::from(format!("{said}\n\n{text}"));
        }
        None => messages.insert(0, json!({ "role": "system", "content": text })),
    }
    messages
}

/// `messages` with `text` before what the user says first.
fn with_user(messages: &[Json], text: &str) -> Vec<Json> {
    let mut messages = messages.to_vec();
    match messages.iter_mut().find(|m| m["role"] == "user") {
        Some(user) => {
            let said = user["content"].as_str().unwrap_or_default();
            user["content"] = Json::from(format!("{text}\n\n{said}"));
        }
        None => messages.insert(0, json!({ "role": "user", "content": text })),
    }
    messages
}
