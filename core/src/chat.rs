//! Chat templates: the file's own Jinja template makes a prompt of a conversation.

use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// Steps a template may take. Long conversations need some ten thousand; a template that loops is stopped within milliseconds.
const FUEL: u64 = 1_000_000;

/// Renders `messages` with `template`, up to where the assistant speaks next when `add_generation_prompt`.
///
/// Templates are code from a file: they run with a limit, and see nothing but what is passed here.
///
/// # Errors
/// [`Error::ChatTemplate`] when the template does not parse, fails, refuses the conversation or takes too many steps.
pub fn render(
    template: &str,
    messages: &[Message],
    bos: &str,
    eos: &str,
    add_generation_prompt: bool,
) -> Result<String> {
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
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_template("chat", template).map_err(wrong)?;
    let messages: Vec<Value> = messages
        .iter()
        .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
        .collect();
    environment
        .get_template("chat")
        .and_then(|template| {
            template.render(context! {
                messages,
                bos_token => bos,
                eos_token => eos,
                add_generation_prompt,
            })
        })
        .map_err(wrong)
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

    fn talk() -> Vec<Message> {
        [("system", "Be brief."), ("user", " Hello ")]
            .map(|(role, content)| Message {
                role: role.into(),
                content: content.into(),
            })
            .into()
    }

    #[test]
    fn renders_a_template_with_python_methods() {
        let template = "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>{{ m.content.strip() }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
        let text = render(template, &talk(), "<s>", "</s>", true).unwrap();
        assert_eq!(
            text,
            "<s><|system|>Be brief.</s><|user|>Hello</s><|assistant|>"
        );
    }

    #[test]
    fn a_bad_template_is_an_error_that_says_why() {
        let message = |template: &str| {
            render(template, &talk(), "", "", true)
                .unwrap_err()
                .to_string()
        };
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
