//! Chat templates: the file's own Jinja template makes a prompt of a conversation.

mod python;

use crate::tools::{ToolCall, Tools, instructions};
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde_json::{Value as Json, json};

/// One turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant` or `tool`, or what else the template knows.
    pub role: String,
    /// What was said; of a tool, what it returned.
    pub content: String,
    /// Of an assistant: what it thought before it spoke. Templates decide in which turns it is shown.
    pub reasoning: Option<String>,
    /// Of an assistant: the calls that it asked for.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool: the [`ToolCall::id`] that it answers.
    pub tool_call_id: Option<String>,
    /// Of a tool: its name. Some templates ask for it.
    pub name: Option<String>,
}

impl Message {
    /// A turn that is text and nothing else.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Message {
            role: role.to_owned(),
            content: content.into(),
            ..Message::default()
        }
    }

    /// An assistant's turn that asks for one call.
    #[must_use]
    pub fn calling(call: ToolCall) -> Self {
        Message {
            tool_calls: vec![call],
            ..Message::new("assistant", "")
        }
    }

    /// An assistant's turn that asks for several calls.
    #[must_use]
    pub fn calling_all(calls: Vec<ToolCall>) -> Self {
        Message {
            tool_calls: calls,
            ..Message::new("assistant", "")
        }
    }

    /// What `call` returned.
    #[must_use]
    pub fn result(call: &ToolCall, content: impl Into<String>) -> Self {
        Message {
            tool_call_id: Some(call.id.clone()),
            name: Some(call.name.clone()),
            ..Message::new("tool", content)
        }
    }

    /// The turn as `template` knows it. What it does not have is not there: templates ask with `is defined`.
    fn json(&self, template: &str) -> Json {
        let mut json = json!({ "role": self.role, "content": self.content });
        if let Some(reasoning) = &self.reasoning {
            // One name alone: a template that looks for two could print the text twice.
            let has = |key: String| template.contains(&key);
            let name = REASONING.into_iter().find(|name| {
                has(format!(".{name}")) || has(format!("'{name}'")) || has(format!("\"{name}\""))
            });
            json[name.unwrap_or(REASONING[0])] = Json::from(reasoning.as_str());
        }
        if !self.tool_calls.is_empty() {
            json["tool_calls"] = self.tool_calls.iter().map(ToolCall::json).collect();
        }
        for (key, value) in [("tool_call_id", &self.tool_call_id), ("name", &self.name)] {
            if let Some(value) = value {
                json[key] = Json::from(value.as_str());
            }
        }
        json
    }
}

/// What templates call [`Message::reasoning`]: a template is given the first that it mentions.
const REASONING: [&str; 4] = ["reasoning_content", "thinking", "reasoning", "thought"];

/// A conversation to be rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chat<'a> {
    /// The turns, oldest first.
    pub messages: &'a [Message],
    /// Functions that the model may ask to have called. To a template that knows nothing of tools they are told as a system message.
    pub tools: Option<&'a Tools>,
    /// The text of the token that begins a sequence.
    pub bos: &'a str,
    /// The text of the token that ends one.
    pub eos: &'a str,
    /// Whether the prompt ends where the assistant speaks next.
    pub add_generation_prompt: bool,
}

/// Steps a template may take. Long conversations need some ten thousand; a template that loops is stopped within milliseconds.
const FUEL: u64 = 1_000_000;

impl Chat<'_> {
    /// The prompt, as `template` writes it.
    ///
    /// Templates are code from a file: they run with a limit, and see nothing but this conversation and the clock.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] when the template does not parse, fails, refuses the conversation or takes too many steps.
    pub fn render(&self, template: &str) -> Result<String> {
        let wrong = |error| Error::ChatTemplate {
            what: describe(&error),
        };
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(wrong)?,
        );
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", python::to_json);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        let source = without_generation_blocks(template);
        environment.add_template("chat", &source).map_err(wrong)?;

        let mut messages: Vec<Json> = self.messages.iter().map(|m| m.json(template)).collect();
        let knows_tools = template.contains("tools");
        if let Some(text) = self
            .tools
            .filter(|_| !knows_tools)
            .and_then(|tools| instructions(tools, template))
        {
            match messages.first_mut().filter(|m| m["role"] == "system") {
                Some(system) => {
                    let said = system["content"].as_str().unwrap_or_default();
                    system["content"] = Json::from(format!("{said}\n\n{text}"));
                }
                None => messages.insert(0, json!({ "role": "system", "content": text })),
            }
        }
        let tools = self
            .tools
            .map_or(Value::from(()), |tools| python::value(tools.json()));
        environment
            .get_template("chat")
            .and_then(|template| {
                template.render(context! {
                    messages => messages.iter().map(python::value).collect::<Vec<_>>(),
                    tools,
                    bos_token => self.bos,
                    eos_token => self.eos,
                    add_generation_prompt => self.add_generation_prompt,
                })
            })
            .map_err(wrong)
    }
}

/// `{% generation %}` marks what to train on, for the library that the templates are written for. Here the block is one that is always taken.
fn without_generation_blocks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at);
        out.push_str(before);
        let end = block.find("%}").map_or(block.len(), |end| end + 2);
        let (tag, after) = block.split_at(end);
        let name = tag.trim_matches(['{', '%', '}', '-', '+']).trim();
        match name {
            "generation" => out.push_str(&tag.replace(name, "if true")),
            "endgeneration" => out.push_str(&tag.replace(name, "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn describe(error: &minijinja::Error) -> String {
    let place = error
        .line()
        .map_or_else(String::new, |line| format!("line {line}: "));
    format!("{place}{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String> {
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", " Hello "),
        ];
        Chat {
            messages: &messages,
            bos: "<s>",
            eos: "</s>",
            add_generation_prompt: true,
            ..Chat::default()
        }
        .render(template)
    }

    #[test]
    fn renders_a_template_with_python_methods() {
        let template = "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>{{ m.content.strip() }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
        assert_eq!(
            render(template).unwrap(),
            "<s><|system|>Be brief.</s><|user|>Hello</s><|assistant|>"
        );
    }

    #[test]
    fn reasoning_has_the_name_that_the_template_asks_for() {
        let messages = [Message {
            reasoning: Some("because".into()),
            ..Message::new("assistant", "so")
        }];
        for name in REASONING {
            let template = format!(
                "{{% for m in messages %}}{{% if m.{name} is defined %}}<{{{{ m.{name} }}}}>{{% endif %}}{{{{ m.content }}}}{{% endfor %}}"
            );
            let chat = Chat {
                messages: &messages,
                ..Chat::default()
            };
            assert_eq!(chat.render(&template).unwrap(), "<because>so");
        }
    }

    #[test]
    fn a_bad_template_is_an_error_that_says_why() {
        let message = |template: &str| render(template).unwrap_err().to_string();
        assert!(
            message("{% for m in %}").contains("chat template"),
            "{}",
            message("{% for m in %}")
        );
        assert!(message("{{ raise_exception('only user turns') }}").contains("only user turns"));
        assert!(
            message(
                "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}"
            )
            .contains("fuel")
        );
    }
}
