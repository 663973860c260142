//! `dram chat`: a conversation in the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dram_core::{Event, Finish, Message, Model, Prompt, Request, Session, ToolCall};

use serde_json::json;

use crate::common::{
    DraftArgs, Interrupt, Lora, SamplingArgs, SessionArgs, acceptance, open_adapters, write_json,
};
use crate::form::{FormArgs, broken_form, tool_call};

/// Talk with a GGUF model
///
/// Uses the file's own chat template. Ctrl-C stops the answer that is being made, Ctrl-D ends the conversation.
/// Commands: /reset forgets the conversation, /system TEXT says what the model is told before it, /save FILE writes it as JSON,
/// /lora FILE[:SCALE] ... changes to other adapters (none: the model alone), /result TEXT says what a call returned that the model asked for,
/// /quit ends it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram chat student.gguf
  dram chat model.gguf --system 'You answer in one sentence.' --temperature 0.7
  dram chat large.gguf --draft small.gguf
  dram chat model.gguf --tools tools.json")]
pub(crate) struct Args {
    /// The model: a GGUF file with a chat template
    model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long)]
    system: Option<String>,
    /// At most this many tokens in an answer
    #[arg(short = 'n', long, default_value_t = 512)]
    max_tokens: usize,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    draft: DraftArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let model = Model::open(&args.model)?;
    if model.chat_template().is_none() {
        bail!(
            "{} has no chat template (tokenizer.chat_template); use `dram run --raw` for plain continuation",
            args.model.display()
        );
    }
    let mut session = args.session.open(&model)?;
    session.set_speculation(&args.draft.speculation()?)?;
    let interrupt = Interrupt::listen()?;
    let (constraint, tools) = (args.form.constraint()?, args.form.tools()?);
    let mut system: Vec<Message> = args
        .system
        .into_iter()
        .map(|text| Message::new("system", text))
        .collect();
    let mut history = system.clone();
    let ask = io::stdin().is_terminal();
    let mut lines = io::stdin().lock().lines();
    loop {
        if ask {
            eprint!("> ");
            io::stderr().flush()?;
        }
        let Some(line) = lines.next().transpose()? else {
            return Ok(());
        };
        let line = line.trim();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => continue,
            ("/quit", _) => return Ok(()),
            ("/reset", _) => {
                history.clone_from(&system);
                continue;
            }
            ("/system", text) if !text.is_empty() => {
                system = vec![Message::new("system", text)];
                history.clone_from(&system);
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
                    eprintln!("error: {error}");
                }
                continue;
            }
            ("/result", text) => {
                let result = unanswered(&history)
                    .next()
                    .map(|call| Message::result(call, text));
                let Some(result) = result else {
                    eprintln!("/result: the model did not ask for a call just now");
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
                    "{line}: there are /reset, /system TEXT, /result TEXT, /save FILE, /lora FILE[:SCALE] and /quit"
                );
                continue;
            }
            _ => history.push(Message::new("user", line)),
        }
        let request = Request {
            prompt: Prompt::Chat(history.clone()),
            max_tokens: args.max_tokens,
            sampling: args.sampling.sampling(),
            context_policy: args.session.policy(),
            constraint: constraint.clone(),
            tools: tools.clone(),
            ..Request::default()
        };
        let mut out = io::stdout().lock();
        let mut written = Ok(());
        let answer = interrupt.during(session.cancel_token(), || {
            session.generate(&request, &mut |event| {
                if let Event::Piece { text, .. } = &event {
                    written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                }
                if written.is_err() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
        });
        written?;
        match answer {
            Ok(completion) => {
                writeln!(out)?;
                if args.draft.note().is_some() {
                    let (accepted, drafted) =
                        (completion.accepted_tokens, completion.drafted_tokens);
                    eprintln!("{}", acceptance(accepted, drafted));
                }
                if completion.finish == Finish::ContextFull {
                    eprintln!(
                        "the context is full; /reset starts anew, --context makes it larger, --slide 0 forgets the oldest"
                    );
                }
                if let Some(why) = broken_form(&completion.finish) {
                    eprintln!("error: {why}");
                }
                for call in &completion.tool_calls {
                    eprintln!(
                        "a call of {} with {}; answer it with /result TEXT",
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
                eprintln!("error: {error}; the last message was taken back");
            }
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
