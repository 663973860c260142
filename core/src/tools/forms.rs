//! How models write a call. What a template contains tells its family; a model of no known family writes plain JSON.

use super::{Tool, ToolChoice, Tools};
use crate::tokenizer::Tokenizer;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt::Write as _;

/// One way to write a call.
pub(super) struct Form {
    /// A template is of this form if it contains all of `has` and none of `lacks`.
    has: &'static [&'static str],
    lacks: &'static [&'static str],
    /// Stands before the call, and in no other text; empty: a text that begins with `{` is a call.
    mark: &'static str,
    shape: Shape,
    /// Stands after the call.
    end: &'static str,
    /// Regular expression of what stands between calls where there are several; in a list, between its items.
    between: &'static str,
}

/// A call as it was written.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) arguments: String,
    pub(super) id: Option<String>,
}

enum Shape {
    /// `{"name": …, ARGUMENTS: {…}}`
    Object {
        arguments: &'static str,
        /// As the only item of a list.
        list: bool,
        /// With `"id"` at the end: nine letters and digits.
        id: bool,
    },
    /// The name, this, and the arguments.
    Named(&'static str),
}

const OBJECT: Shape = Shape::Object {
    arguments: "arguments",
    list: false,
    id: false,
};

/// The first that fits; the last always does.
#[rustfmt::skip]
const FORMS: &[Form] = &[
    // Mistral since 2025.
    Form { has: &["[TOOL_CALLS]", "[ARGS]"], lacks: &["[CALL_ID]"], mark: "[TOOL_CALLS]", shape: Shape::Named("[ARGS]"), end: "", between: "" },
    // Mistral before.
    Form { has: &["[TOOL_CALLS]"], lacks: &["[ARGS]"], mark: "[TOOL_CALLS]", shape: Shape::Object { arguments: "arguments", list: true, id: true }, end: "", between: ", ?" },
    // Hermes, Qwen 2.5 and 3, SmolLM 3. Qwen 3 Coder and GLM, which write tags inside, are not of it.
    Form { has: &["<tool_call>", "</tool_call>"], lacks: &["<function=", "<arg_key>"], mark: "<tool_call>", shape: OBJECT, end: "</tool_call>", between: r"\n?" },
    // Granite 3.
    Form { has: &["<|tool_call|>", "Granite"], lacks: &[], mark: "<|tool_call|>", shape: Shape::Object { arguments: "arguments", list: true, id: false }, end: "", between: ", ?" },
    // Llama 3.1 to 3.3.
    Form { has: &["<|start_header_id|>", "ipython"], lacks: &["<function="], mark: "", shape: Shape::Object { arguments: "parameters", list: false, id: false }, end: "", between: "; ?" },
    Form { has: &[], lacks: &[], mark: "", shape: OBJECT, end: "", between: r"\n" },
];

/// What a model whose template knows nothing of tools is told; nothing where it is not to call.
pub(crate) fn instructions(tools: &Tools, template: &str) -> Option<String> {
    let begin = match tools.choice() {
        ToolChoice::None => return None,
        ToolChoice::Auto => "You can call a function instead of answering with text",
        ToolChoice::Required | ToolChoice::Named(_) => "Call one of these functions",
    };
    let example = match Form::of(template).shape {
        Shape::Object { arguments, .. } => {
            format!(r#"{{"name": NAME, "{arguments}": {{…}}}}"#)
        }
        Shape::Named(separator) => format!("NAME{separator}{{…}}"),
    };
    let several = match tools.parallel {
        true => " To call several, write as many calls, one on each line.",
        false => "",
    };
    let mut text = format!("{begin}: then your whole answer is {example}.{several} The functions:");
    for tool in tools.json().as_array().into_iter().flatten() {
        let _ = write!(text, "\n{}", tool["function"]);
    }
    Some(text)
}

impl Form {
    pub(super) fn of(template: &str) -> &'static Form {
        let fits = |form: &&Form| {
            form.has.iter().all(|text| template.contains(text))
                && !form.lacks.iter().any(|text| template.contains(text))
        };
        FORMS.iter().find(fits).unwrap_or(&FORMS[FORMS.len() - 1])
    }

    /// A Lark grammar, without the arguments `args_0`, `args_1`, …, of one call of `tools`, or, if `parallel`, of several; with `or_text` also of any text that is no call.
    pub(super) fn grammar<'a>(
        &self,
        tools: impl Iterator<Item = &'a Tool>,
        or_text: bool,
        parallel: bool,
        tokenizer: &Tokenizer,
    ) -> String {
        let (mut calls, mut more) = (Vec::new(), Vec::new());
        let is_list = matches!(self.shape, Shape::Object { list: true, .. });
        for (i, tool) in tools.enumerate() {
            let name = pattern(&tool.name);
            let (before, after) = match self.shape {
                Shape::Object {
                    arguments,
                    list,
                    id,
                } => {
                    let open = if list { r"\[ ?" } else { "" };
                    // Of several, the last one's bracket is a part of its own.
                    let close = if list && !parallel { r" ?\]" } else { "" };
                    let id = if id { ID } else { "" };
                    let head =
                        format!(r#"/[ \n]?{open}\{{ ?"name" ?: ?"{name}" ?, ?"{arguments}" ?: ?/"#);
                    let next = head.replacen(r"[ \n]?\[", &format!(" ?{}", self.between), 1);
                    more.push(format!("{next} args_{i} / ?{id}\\}}/"));
                    // Without a mark the bracket itself tells the call from a text.
                    let head = if self.mark.is_empty() {
                        head.replacen(r"[ \n]?", "", 1)
                    } else {
                        head
                    };
                    (head, format!(r"/ ?{id}\}}{close}/"))
                }
                Shape::Named(separator) => (
                    format!("\"{}\" {}", tool.name, terminal(separator, tokenizer)),
                    String::new(),
                ),
            };
            calls.push(format!("{before} args_{i} {after}"));
        }
        let calls = calls.join(" | ");
        let (list, close) = match (is_list, parallel) {
            (true, true) => (format!("more: {}\n", more.join(" | ")), r"more* / ?\]/"),
            _ => (String::new(), ""),
        };
        let end = match self.end {
            "" => String::new(),
            end => format!("/[ \\n]?/ {}", terminal(end, tokenizer)),
        };
        let mark = terminal(self.mark, tokenizer);
        let again = match (parallel && !is_list, self.between) {
            (false, _) => String::new(),
            (true, "") => format!("({mark} call)*"),
            (true, between) => format!("(/{between}/ {mark} call)*"),
        };
        let start = match (or_text, self.mark, mark.starts_with('<')) {
            (false, "", _) => format!("start: call {again}"),
            (false, ..) => format!("start: {mark} call {again}"),
            (true, "", _) => format!("start: TEXT? | call {again}\nTEXT: /[^{{](.|\\n)*/"),
            // No text contains a control token.
            (true, _, true) => {
                format!("start: TEXT? | TEXT? {mark} call {again}\nTEXT: /(.|\\n)+/")
            }
            (true, _, false) => {
                let with = pattern(self.mark);
                format!(
                    "start: TEXT | BEFORE call {again}\nTEXT: /(.|\\n)*/ & ~/(.|\\n)*{with}(.|\\n)*/\nBEFORE: TEXT {mark}"
                )
            }
        };
        format!("{start}\ncall: ({calls}) {close} {end}\n{list}")
    }

    /// The calls that `text`, control tokens included, ends with.
    pub(super) fn parse(&self, text: &str) -> Vec<Written> {
        let (mut calls, mut rest) = (Vec::new(), text);
        loop {
            if !self.mark.is_empty() {
                let Some((_, after)) = rest.split_once(self.mark) else {
                    return calls;
                };
                rest = after;
            } else if !calls.is_empty() {
                rest = rest.trim_start_matches([';', ' ', '\n']);
            }
            let Some(after) = self.parse_next(rest.trim_start(), &mut calls) else {
                return calls;
            };
            rest = after;
        }
    }

    /// Adds the call, or the list of them, that `text` begins with; what follows it.
    fn parse_next<'a>(&self, text: &'a str, calls: &mut Vec<Written>) -> Option<&'a str> {
        let (key, list) = match self.shape {
            Shape::Named(separator) => {
                let (name, after) = text.split_once(separator)?;
                let (arguments, after) = first::<Box<RawValue>>(after)?;
                calls.push(Written {
                    name: name.to_owned(),
                    arguments: arguments.get().to_owned(),
                    id: None,
                });
                return Some(after);
            }
            Shape::Object {
                arguments, list, ..
            } => (arguments, list),
        };
        type Parts = HashMap<String, Box<RawValue>>;
        let (all, after) = if list {
            first::<Vec<Parts>>(text)?
        } else {
            first::<Parts>(text).map(|(parts, after)| (vec![parts], after))?
        };
        for parts in all {
            let text = |key: &str| serde_json::from_str::<String>(parts.get(key)?.get()).ok();
            calls.push(Written {
                name: text("name")?,
                arguments: parts.get(key)?.get().to_owned(),
                id: text("id"),
            });
        }
        Some(after)
    }
}

const ID: &str = r#", ?"id" ?: ?"[a-zA-Z0-9]{9}" ?"#;

/// The JSON value that `text` begins with, and what follows it.
fn first<T: serde::de::DeserializeOwned>(text: &str) -> Option<(T, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// `text` in a grammar: by its number where it is a control token, which text cannot spell.
fn terminal(text: &str, tokenizer: &Tokenizer) -> String {
    let is_control = |&id: &u32| {
        let mut bytes = Vec::new();
        tokenizer.decode_bytes(id, &mut bytes);
        bytes.is_empty()
    };
    match tokenizer.token_id(text).filter(is_control) {
        Some(id) => format!("<[{id}]>"),
        None => format!("\"{text}\""),
    }
}

/// A regular expression of exactly `text`.
fn pattern(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
        }
    }
    out
}
