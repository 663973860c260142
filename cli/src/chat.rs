//! `dram chat`: a conversation in the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dram_core::{ContextPolicy, Message, Prompt, Request, Session, ToolCall};
use serde_json::json;

use crate::answer::{acceptance, stream, tool_call, truncation, violation};
use crate::args::{Lora, RequestArgs, check_system, open_adapters};
use crate::errors;
use crate::interrupt::Interrupt;
use crate::output::write_json;

/// Talk with a GGUF model
///
/// Uses the file's own chat template (--chat-template: another). Ctrl-C stops generation, Ctrl-D ends the conversation. When the context is full, the
/// oldest turns are left out; the system prompt stays.
///
/// A line that ends in a backslash goes on with the next one. A message of several lines stands between two """.
///
/// Commands: /reset clears the conversation, /system TEXT sets the system prompt and clears it, /save FILE writes it as JSON, /lora FILE[:SCALE] ...
/// changes the adapters (none: the model alone), /result TEXT gives the result of a tool call, /quit ends it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram chat student.gguf
  dram chat model.gguf --system 'You answer in one sentence.' --temperature 0.7
  dram chat model.gguf --template-arg enable_thinking=false
  dram chat large.gguf --draft small.gguf
  dram chat model.gguf --tools tools.json")]
pub(crate) struct Args {
    /// The model: a GGUF file with a chat template
    model: PathBuf,
    /// Maximum number of tokens to generate in an answer
    #[arg(short = 'n', long, default_value_t = 512)]
    max_tokens: usize,
    #[command(flatten)]
    request: RequestArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let model = args.request.model(&args.model)?;
    if model.chat_template().is_none() {
        bail!(
            "{} has no chat template (tokenizer.chat_template): give one with --chat-template FILE, or use `dram run --raw` for plain continuation",
            args.model.display()
        );
    }
    let mut session = args.request.session(&model)?;
    let interrupt = Interrupt::listen()?;
    let mut system: Vec<Message> = args.request.system_message().into_iter().collect();
    let mut request = args.request.request(&model, args.max_tokens)?;
    // Of a conversation it is the oldest turns that are forgotten, asked for or not.
    if request.context_policy == ContextPolicy::Error {
        request.context_policy = ContextPolicy::Slide { keep_first: 0 };
    }
    let begin = |system: &[Message]| {
        let question = Message::new("user", "hello");
        let request = Request {
            prompt: Prompt::Chat(system.iter().cloned().chain([question]).collect()),
            ..request.clone()
        };
        check_system(&model, &request)
    };
    begin(&system)?;
    eprintln!("sampling: {}", args.request.sampling.note(&model)?);
    let mut history = system.clone();
    let mut left_out = 0;
    let ask = io::stdin().is_terminal();
    let mut lines = io::stdin().lock().lines();
    loop {
        let Some(message) = read_message(&mut lines, ask)? else {
            return Ok(());
        };
        let line = message.trim();
        // A command is one line.
        let command = if line.contains('\n') { "" } else { line };
        match command.split_once(' ').unwrap_or((command, "")) {
            _ if line.is_empty() => continue,
            ("/quit", _) => return Ok(()),
            ("/reset", _) => {
                history.clone_from(&system);
                left_out = 0;
                continue;
            }
            ("/system", text) if !text.is_empty() => {
                let new = vec![Message::new("system", text)];
                match begin(&new) {
                    Ok(()) => system = new,
                    Err(error) => {
                        eprintln!("error: {}", errors::message(&error));
                        continue;
                    }
                }
                history.clone_from(&system);
                left_out = 0;
                continue;
            }
            ("/save", file) if !file.is_empty() => {
                match save(&history, Path::new(file)) {
                    Ok(()) => eprintln!("{} messages in {file}", history.len()),
                    Err(error) => eprintln!("error: {error:#}"),
                }
                continue;
            }
            ("/lora", files) => {
                if let Err(error) = change_adapters(&mut session, files) {
                    eprintln!("error: {}", errors::message(&error));
                }
                continue;
            }
            ("/result", text) => {
                let result = unanswered(&history)
                    .next()
                    .map(|call| Message::result(call, text));
                let Some(result) = result else {
                    eprintln!("/result: no tool call is pending");
                    continue;
                };
                history.push(result);
                // The model goes on when all its calls are answered.
                if unanswered(&history).next().is_some() {
                    continue;
                }
            }
            (command, _) if command.starts_with('/') => {
                eprintln!(
                    "{line}: unknown command; expected /reset, /system TEXT, /result TEXT, /save FILE, /lora FILE[:SCALE] or /quit"
                );
                continue;
            }
            _ => history.push(Message::new("user", line)),
        }
        let request = Request {
            prompt: Prompt::Chat(history.clone()),
            ..request.clone()
        };
        let mut out = io::stdout().lock();
        match stream(&mut session, &request, &interrupt, &mut out)? {
            Ok(completion) => {
                writeln!(out)?;
                if args.request.draft.note().is_some() {
                    eprintln!("{}", acceptance(&completion));
                }
                if completion.dropped_turns > left_out {
                    left_out = completion.dropped_turns;
                    eprintln!(
                        "the context is full: the {left_out} oldest messages are left out; raise --context to keep more"
                    );
                }
                if let Some(note) = truncation(&completion.finish, args.max_tokens) {
                    eprintln!("{note}");
                }
                if let Some(why) = violation(&completion.finish) {
                    eprintln!("error: {why}");
                }
                for call in &completion.tool_calls {
                    eprintln!(
                        "tool call: {} with {}; give its result with /result TEXT",
                        call.name, call.arguments
                    );
                }
                history.push(match completion.tool_calls {
                    calls if calls.is_empty() => Message::new("assistant", completion.text),
                    calls => Message::calling_all(calls),
                });
            }
            Err(error) => {
                history.pop();
                eprintln!(
                    "error: {}; the last message was removed",
                    errors::describe(&error)
                );
            }
        }
    }
}

/// What is said next: one line, several where a line ends in a backslash, or all that stands between lines of three quotation marks.
fn read_message(
    lines: &mut dyn Iterator<Item = io::Result<String>>,
    ask: bool,
) -> io::Result<Option<String>> {
    const QUOTES: &str = "\"\"\"";
    let mut message: Option<String> = None;
    let mut quoted = false;
    loop {
        if ask {
            eprint!("{}", if message.is_none() { "> " } else { ". " });
            io::stderr().flush()?;
        }
        // What was begun when the input ends is said all the same.
        let Some(line) = lines.next().transpose()? else {
            return Ok(message);
        };
        let mut line = line.strip_suffix('\r').unwrap_or(&line);
        if message.is_none()
            && let Some(first) = line.trim_start().strip_prefix(QUOTES)
        {
            (quoted, line) = (true, first);
        }
        let end = quoted
            .then(|| line.trim_end().strip_suffix(QUOTES))
            .flatten();
        let more = match end {
            Some(last) => {
                line = last;
                false
            }
            None if quoted => true,
            None => match line.strip_suffix('\\') {
                Some(begin) => {
                    line = begin;
                    true
                }
                None => false,
            },
        };
        match &mut message {
            // The line of the quotation marks is none of the message where nothing else stands on it.
            Some(text) if !(end == Some("") || quoted && text.is_empty()) => {
                text.push('\n');
                text.push_str(line);
            }
            Some(text) => text.push_str(line),
            None => message = Some(line.to_owned()),
        }
        if !more {
            return Ok(message);
        }
    }
}

/// The calls of the model's last turn that no result has come for.
fn unanswered(history: &[Message]) -> impl Iterator<Item = &ToolCall> {
    let turn = history.iter().rposition(|m| m.role != "tool");
    let (calls, results) = match turn {
        Some(turn) => (&history[turn].tool_calls[..], history.len() - turn - 1),
        None => (&[][..], 0),
    };
    calls.iter().skip(results)
}

fn change_adapters(session: &mut Session, files: &str) -> Result<()> {
    let files = files.split_whitespace().map(str::parse);
    let adapters = open_adapters(&files.collect::<Result<Vec<Lora>, _>>()?, session.model())?;
    Ok(session.set_adapters(&adapters)?)
}

/// The conversation as JSON: a list of roles and contents.
fn save(history: &[Message], path: &Path) -> Result<()> {
    let messages: Vec<_> = history
        .iter()
        .map(|m| {
            let mut message = json!({ "role": m.role, "content": m.content });
            if !m.tool_calls.is_empty() {
                message["tool_calls"] = m.tool_calls.iter().map(tool_call).collect();
            }
            if let Some(id) = &m.tool_call_id {
                message["tool_call_id"] = json!(id);
            }
            message
        })
        .collect();
    write_json(path, &json!({ "messages": messages }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines() {
        let read = |text: &str| {
            let mut lines = text
                .split_inclusive('\n')
                .map(|line| Ok::<_, io::Error>(line.strip_suffix('\n').unwrap_or(line).to_owned()));
            let mut all = Vec::new();
            while let Some(message) = read_message(&mut lines, false).unwrap() {
                all.push(message);
            }
            all
        };
        assert_eq!(read("one\ntwo\n"), ["one", "two"]);
        assert_eq!(read("one\\\n  two\r\nthree"), ["one\n  two", "three"]);
        assert_eq!(read("\"\"\"\na\n\n  b\n\"\"\"\nc\n"), ["a\n\n  b", "c"]);
        assert_eq!(read("\"\"\"a\nb\\\n/reset\"\"\"\n"), ["a\nb\\\n/reset"]);
        assert_eq!(read("\"\"\"one line\"\"\"\n"), ["one line"]);
        assert_eq!(read("\"\"\"\nnever closed\n"), ["never closed"]);
        assert_eq!(read("open\\\n"), ["open"]);
        assert_eq!(read(""), Vec::<String>::new());
    }
}
