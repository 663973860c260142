//! Function calling: tools go to the model through its chat template, and the answer is held to a call of one of them, in the form that the
//! template's models were trained on.

mod forms;

use crate::constraint::Constraint;
use crate::hash::Hash;
use crate::model::Model;
use crate::{Error, Result};
use forms::Form;
use serde_json::{Value as Json, json};

pub(crate) use forms::instructions;

/// Functions that a model may ask to have called.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    /// As it was given: a list.
    json: Json,
    list: Vec<Tool>,
    choice: ToolChoice,
    parallel: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Tool {
    name: String,
    /// A schema of an object.
    parameters: Json,
}

/// Whether the model calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// It answers with text or with a call.
    #[default]
    Auto,
    /// It calls one of the tools.
    Required,
    /// It is told of the tools, and its answer is a text that nothing is made of.
    None,
    /// It calls this one.
    Named(String),
}

/// A call that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Nine letters and digits, by which a result names the call that it answers.
    pub id: String,
    /// The function.
    pub name: String,
    /// A JSON object that the function's schema accepts.
    pub arguments: String,
}

const MAX_TOOLS: usize = 256;

impl Tools {
    /// Reads a list as OpenAI's interface has it: `[{"type": "function", "function": {"name": …, "description": …, "parameters": SCHEMA}}, …]`. Of
    /// `parameters` are as for [`Constraint::json_schema`]: where they list properties, no others are allowed unless they say so, and what cannot be
    /// followed token by token is checked on the finished call.
    ///
    /// # Errors
    /// [`Error::Tools`]. The schemas are checked when a request begins; an error names the tool.
    pub fn from_json(text: &str, choice: ToolChoice) -> Result<Tools> {
        let wrong = |expected, got: String| Err(Error::Tools { expected, got });
        let expected =
            "a JSON list of objects {\"type\": \"function\", \"function\": {\"name\": …}}";
        let json: Json = match serde_json::from_str(text) {
            Ok(json) => json,
            Err(error) => return wrong(expected, error.to_string()),
        };
        let Some(items) = json.as_array() else {
            return wrong(expected, "JSON of another form".into());
        };
        if !(1..=MAX_TOOLS).contains(&items.len()) {
            return wrong("from 1 to 256 tools", items.len().to_string());
        }
        let mut list: Vec<Tool> = Vec::with_capacity(items.len());
        for item in items {
            let Some(name) = item["function"]["name"].as_str() else {
                return wrong(expected, item.to_string().chars().take(200).collect());
            };
            let known = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
            if !(1..=64).contains(&name.len()) || !name.bytes().all(known) {
                let expected = "names of 1 to 64 letters, digits, `_`, `.` and `-`";
                return wrong(expected, format!("`{name}`"));
            }
            if list.iter().any(|tool| tool.name == name) {
                return wrong("names that differ", format!("`{name}` twice"));
            }
            let parameters = match &item["function"]["parameters"] {
                Json::Null => json!({ "type": "object", "properties": {} }),
                object @ Json::Object(_) => object.clone(),
                other => return wrong("a schema of an object as `parameters`", other.to_string()),
            };
            list.push(Tool {
                name: name.to_owned(),
                parameters: typed(parameters),
            });
        }
        if let ToolChoice::Named(name) = &choice
            && list.iter().all(|tool| tool.name != *name)
        {
            return wrong("a choice that is one of the tools", format!("`{name}`"));
        }
        Ok(Tools {
            json,
            list,
            choice,
            parallel: false,
        })
    }

    /// Lets an answer hold any number of calls, one after the other, instead of one. Whether a model makes use of it, and whether its template takes
    /// a turn with several calls, depends on what it was trained on.
    #[must_use]
    pub fn in_parallel(self) -> Self {
        Tools {
            parallel: true,
            ..self
        }
    }

    /// Whether the model calls.
    #[must_use]
    pub fn choice(&self) -> &ToolChoice {
        &self.choice
    }

    /// The list as it was given.
    pub(crate) fn json(&self) -> &Json {
        &self.json
    }

    /// The same tools, of which the model is told `json`.
    pub(crate) fn told_as(&self, json: Json) -> Tools {
        Tools {
            json,
            ..self.clone()
        }
    }

    /// Those that may be called.
    fn callable(&self) -> impl Iterator<Item = &Tool> {
        self.list.iter().filter(|tool| match &self.choice {
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::None => false,
            ToolChoice::Named(name) => tool.name == *name,
        })
    }

    /// What holds the answer to the choice.
    pub(crate) fn constraint(&self, model: &Model) -> Option<Constraint> {
        if self.choice == ToolChoice::None {
            return None;
        }
        let grammar = Form::of(model.chat_template().unwrap_or_default()).grammar(
            self.callable(),
            self.choice == ToolChoice::Auto,
            self.parallel,
            model.tokenizer(),
        );
        let schemas = self
            .callable()
            .map(|tool| (tool.name.clone(), tool.parameters.clone()));
        Some(Constraint::tools(grammar, schemas.collect()))
    }
}

/// A schema of arguments, which are an object.
fn typed(mut schema: Json) -> Json {
    if let Json::Object(map) = &mut schema {
        map.entry("type").or_insert_with(|| json!("object"));
    }
    schema
}

impl ToolCall {
    /// The calls in a finished answer of these tokens to a prompt of `prompt_tokens`, if it is of calls.
    pub(crate) fn parse(
        tools: &Tools,
        model: &Model,
        answer: &[u32],
        prompt_tokens: usize,
    ) -> Vec<ToolCall> {
        let text = model.tokenizer().decode(answer);
        let mut hash = Hash::default();
        hash.update(&(prompt_tokens as u64).to_le_bytes());
        hash.update(text.as_bytes());
        let mut calls = Vec::new();
        for written in Form::of(model.chat_template().unwrap_or_default()).parse(&text) {
            if !tools.callable().any(|tool| tool.name == written.name) {
                return Vec::new();
            }
            calls.push(ToolCall {
                id: written.id.unwrap_or_else(|| id(&hash)),
                name: written.name,
                arguments: written.arguments,
            });
            // The next one's is another.
            hash.update(b",");
        }
        calls
    }

    /// The call as templates know it, its arguments as an object.
    pub(crate) fn json(&self) -> Json {
        let arguments = serde_json::from_str(&self.arguments)
            .unwrap_or_else(|_| Json::from(self.arguments.as_str()));
        json!({
            "id": self.id,
            "type": "function",
            "function": { "name": self.name, "arguments": arguments },
        })
    }
}

/// Nine letters and digits.
fn id(hash: &Hash) -> String {
    let mut left = hash.clone().finish();
    let mut digit = || {
        let digit = char::from_digit((left % 36) as u32, 36);
        left /= 36;
        digit.unwrap_or('0')
    };
    (0..9).map(|_| digit()).collect()
}
