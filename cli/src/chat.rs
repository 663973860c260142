//! `dram chat`: a conversation in the terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Result, bail};
use dram_core::{Event, Finish, Message, Model, Prompt, Request, SessionOptions};

use crate::common::{Interrupt, SamplingArgs};

/// Talk with a GGUF model
///
/// Uses the file's own chat template. Ctrl-C stops the answer that is being made, Ctrl-D ends the conversation.
/// Commands: /reset forgets the conversation, /quit ends it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram chat student.gguf
  dram chat model.gguf --system 'You answer in one sentence.' --temperature 0.7")]
pub(crate) struct Args {
    /// The model: a GGUF file with a chat template
    model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long)]
    system: Option<String>,
    /// At most this many tokens in an answer
    #[arg(short = 'n', long, default_value_t = 512)]
    max_tokens: usize,
    /// Tokens the KV cache holds (default: what the model was made for, at most 4096)
    #[arg(short, long)]
    context: Option<usize>,
    /// Threads (default: the processor's fast cores)
    #[arg(short, long)]
    threads: Option<usize>,
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
    let mut session = model.session(SessionOptions {
        context: args.context,
        threads: args.threads,
        ..SessionOptions::default()
    })?;
    let interrupt = Interrupt::listen()?;
    let system: Vec<Message> = args
        .system
        .into_iter()
        .map(|content| Message {
            role: "system".into(),
            content,
        })
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
        match line.trim() {
            "" => continue,
            "/quit" => return Ok(()),
            "/reset" => {
                history.clone_from(&system);
                continue;
            }
            command if command.starts_with('/') => {
                eprintln!("unknown command {command}; there are /reset and /quit");
                continue;
            }
            text => history.push(Message {
                role: "user".into(),
                content: text.into(),
            }),
        }
        let request = Request {
            prompt: Prompt::Chat(history.clone()),
            max_tokens: args.max_tokens,
            sampling: args.sampling.sampling(),
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
                if completion.finish == Finish::ContextFull {
                    eprintln!("the context is full; /reset starts anew, --context makes it larger");
                }
                history.push(Message {
                    role: "assistant".into(),
                    content: completion.text,
                });
            }
            Err(error) => {
                history.pop();
                eprintln!("error: {error}; the last message was taken back");
            }
        }
    }
}
