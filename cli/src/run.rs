//! `dram run`: one prompt in, a streamed answer out.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use dram_core::{Event, Finish, Limit, Message, Model, Prompt, Request};
use serde_json::json;

use crate::common::{DraftArgs, Interrupt, SessionArgs, acceptance};
use crate::form::{FormArgs, broken_form, tool_call};
use crate::sampling::SamplingArgs;
use crate::template::{TemplateArgs, check_system, cut_short};

/// Answer one prompt with a GGUF model
///
/// The prompt is put through the file's own chat template when it has one (--raw: not). Text streams to standard output as it is
/// made; timings go to standard error. Ctrl-C stops the answer. An answer that was cut before it had the form that was asked for, or that
/// breaks its schema, ends with an error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dram run student.gguf \"text mum that I am late\"
  echo 'Once upon a time' | dram run model.gguf --raw --temperature 0.8 -n 200
  dram run student.gguf --json \"how is the weather in Oslo\"
  dram run model.gguf --json-schema '{\"type\": \"object\", \"properties\": {\"age\": {\"type\": \"integer\"}}, \"required\": [\"age\"]}' \"Anna is 30\"
  dram run teacher.gguf --draft student.gguf \"wake me at half past six\"
  dram run model.gguf --regex '(yes|no)' \"Is water wet?\"
  dram run model.gguf --tools tools.json --tool-choice required --json \"how is the weather in Oslo\"")]
pub(crate) struct Args {
    /// The model: a GGUF file
    model: PathBuf,
    /// The prompt (default: read standard input)
    prompt: Option<String>,
    /// At most this many tokens
    #[arg(short = 'n', long, default_value_t = 256)]
    max_tokens: usize,
    /// Give the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// What the model is told before the prompt
    #[arg(long, conflicts_with = "raw")]
    system: Option<String>,
    /// End the answer before this text; may be given several times
    #[arg(long)]
    stop: Vec<String>,
    /// With --json: each token's log-probability and the N most likely tokens
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    draft: DraftArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

pub(crate) fn run(mut args: Args) -> Result<()> {
    let prompt = match args.prompt.take() {
        Some(prompt) => prompt,
        None => {
            if io::stdin().is_terminal() {
                eprintln!("reading the prompt from the terminal; end it with Ctrl-D");
            }
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .context("standard input is not UTF-8 text")?;
            text
        }
    };
    let model = args.template.open(&args.model)?;
    let chats = !args.raw && model.chat_template().is_some();
    if !chats {
        refuse_what_only_chats_have(&args, &model)?;
    }
    let mut session = args.session.open(&model)?;
    session.set_speculation(&args.draft.speculation()?)?;
    let prompt = if !chats {
        Prompt::Text(prompt)
    } else {
        let system = args.system.map(|text| Message::new("system", text));
        let user = Message::new("user", prompt);
        Prompt::Chat(system.into_iter().chain([user]).collect())
    };
    let request = Request {
        prompt,
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling(&model)?,
        context_policy: args.session.policy(),
        stop: args.stop,
        logprobs: args.logprobs,
        constraint: args.form.constraint()?,
        tools: args.form.tools()?,
        parse_special: args.template.parse_special,
        show_special: args.template.special,
        template_args: args.template.template_arg,
    };
    check_system(&model, &request)?;
    eprintln!("sampling: {}", args.sampling.note(&model)?);

    let interrupt = Interrupt::listen()?;
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let completion = interrupt.during(session.cancel_token(), || {
        session.generate(&request, &mut |event| {
            if let (Event::Piece { text, .. }, false) = (&event, args.json) {
                written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
            if written.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    })?;
    written?;

    let t = &completion.timings;
    let rate =
        |tokens: usize, time: std::time::Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let decoded = completion.tokens.len().saturating_sub(1);
    if args.json {
        let (finish, stop_string) = finish_name(&completion.finish);
        let violation = match &completion.finish {
            Finish::Invalid(what) => Some(what),
            _ => None,
        };
        let logprobs = completion.logprobs.as_ref().map(|all| {
            let top = |i| -> Vec<_> {
                let top = all.top(i).iter();
                top.map(|t| json!({ "id": t.id, "logprob": t.logprob }))
                    .collect()
            };
            (0..all.len())
                .map(|i| json!({ "logprob": all.chosen(i), "top": top(i) }))
                .collect::<Vec<_>>()
        });
        let value = json!({
            "text": completion.text,
            "tokens": completion.tokens,
            "logprobs": logprobs,
            "prompt_tokens": completion.prompt_tokens,
            "tool_call": completion.tool_call.as_ref().map(tool_call),
            "tool_calls": completion.tool_calls.iter().map(tool_call).collect::<Vec<_>>(),
            "forced_tokens": completion.forced_tokens,
            "dropped_turns": completion.dropped_turns,
            "decode_steps": completion.decode_steps,
            "drafted_tokens": completion.drafted_tokens,
            "accepted_tokens": completion.accepted_tokens,
            "finish": finish,
            "stop_string": stop_string,
            "violation": violation,
            "prefill_seconds": t.prefill.as_secs_f64(),
            "first_token_seconds": t.first_token.as_secs_f64(),
            "decode_seconds": t.decode.as_secs_f64(),
            "decode_tokens_per_second": rate(decoded, t.decode),
        });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out)?;
        if let Some(note) = cut_short(&completion.finish, args.max_tokens) {
            eprintln!("{note}");
        }
        eprintln!(
            "{} prompt tokens, first token after {:.1} ms; {} tokens made, {:.0} tokens/s; {} on {} threads",
            completion.prompt_tokens,
            t.first_token.as_secs_f64() * 1e3,
            completion.tokens.len(),
            rate(decoded, t.decode),
            dram_core::kernels::selected().name(),
            session.threads(),
        );
        if args.draft.note().is_some() {
            let drafts = acceptance(completion.accepted_tokens, completion.drafted_tokens);
            eprintln!("{drafts}, {} steps", completion.decode_steps);
        }
    }
    broken_form(&completion.finish).map_or(Ok(()), |why| bail!(why))
}

/// A model without a template, or `--raw`: options that the template alone could follow are not dropped in silence.
fn refuse_what_only_chats_have(args: &Args, model: &Model) -> Result<()> {
    let given = [
        ("--system", args.system.is_some()),
        ("--tools", args.form.has_tools()),
        ("--template-arg", !args.template.template_arg.is_empty()),
    ];
    let Some((flag, _)) = given.iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    let why = match args.raw {
        true => "--raw gives the prompt as it is, without the chat template".to_owned(),
        false => format!(
            "{} has no chat template (tokenizer.chat_template)",
            args.model.display()
        ),
    };
    let instead = match (args.raw && model.chat_template().is_some(), *flag) {
        (true, _) => "leave out --raw",
        (false, "--system") => {
            "write it into the prompt, or give a template with --chat-template FILE"
        }
        (false, _) => "give a template with --chat-template FILE",
    };
    bail!("{flag} needs a chat template, and {why}: {instead}")
}

/// The machine-readable name of why an answer ended, and the stop string if that was why.
fn finish_name(finish: &Finish) -> (&'static str, Option<&str>) {
    match finish {
        Finish::EndOfText => ("end_of_text", None),
        Finish::StopString(s) => ("stop_string", Some(s)),
        Finish::MaxTokens => ("max_tokens", None),
        Finish::ContextFull => ("context_full", None),
        Finish::Unfinished(Limit::MaxTokens) => ("unfinished_max_tokens", None),
        Finish::Unfinished(Limit::Context) => ("unfinished_context_full", None),
        Finish::Invalid(_) => ("invalid", None),
        Finish::Cancelled => ("cancelled", None),
    }
}
