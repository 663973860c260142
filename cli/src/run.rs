//! `dram run`: one prompt in, a streamed answer out.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use dram_core::{Completion, Finish, Message, Model, Prompt, Request};
use serde_json::{Value, json};

use crate::answer::{acceptance, finish_name, stream, tool_call, truncation, violation};
use crate::args::{RequestArgs, check_system};
use crate::interrupt::Interrupt;

/// Answer one prompt with a GGUF model
///
/// The prompt is formatted with the file's own chat template, if it has one (--raw: not). Text streams to standard output as it is
/// generated; timings go to standard error. Ctrl-C stops generation. Output that was truncated before it satisfied its constraint, or that
/// violates its schema, ends with an error.
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
    /// Maximum number of tokens to generate
    #[arg(short = 'n', long, default_value_t = 256)]
    max_tokens: usize,
    /// Take the prompt verbatim, without the chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,
    /// Stop string: generation ends before it; may be repeated
    #[arg(long)]
    stop: Vec<String>,
    /// With --json: each token's log-probability and the N most likely tokens
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<usize>,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestArgs,
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
    let model = args.request.model(&args.model)?;
    let chats = !args.raw && model.chat_template().is_some();
    if !chats {
        refuse_what_only_chats_have(&args, &model)?;
    }
    let mut session = args.request.session(&model)?;
    let prompt = if !chats {
        Prompt::Text(prompt)
    } else {
        let system = args.request.system_message().into_iter();
        Prompt::Chat(system.chain([Message::new("user", prompt)]).collect())
    };
    let request = Request {
        prompt,
        stop: args.stop,
        logprobs: args.logprobs,
        ..args.request.request(&model, args.max_tokens)?
    };
    check_system(&model, &request)?;
    eprintln!("sampling: {}", args.request.sampling.note(&model)?);

    let interrupt = Interrupt::listen()?;
    let mut out = io::stdout().lock();
    if args.json {
        let completion = stream(&mut session, &request, &interrupt, &mut io::sink())??;
        writeln!(out, "{}", as_json(&completion))?;
        return check_constraint(&completion);
    }
    let completion = stream(&mut session, &request, &interrupt, &mut out)??;
    writeln!(out)?;
    if let Some(note) = truncation(&completion.finish, args.max_tokens) {
        eprintln!("{note}");
    }
    eprintln!(
        "{} prompt tokens, first token after {:.1} ms; {} tokens generated, {:.0} tokens/s; {} on {} threads",
        completion.prompt_tokens,
        completion.timings.first_token.as_secs_f64() * 1e3,
        completion.tokens.len(),
        decode_rate(&completion),
        dram_core::kernels::selected().name(),
        session.threads(),
    );
    if args.request.draft.note().is_some() {
        eprintln!(
            "{}, {} steps",
            acceptance(&completion),
            completion.decode_steps
        );
    }
    check_constraint(&completion)
}

/// Output that does not satisfy its constraint is an error.
fn check_constraint(completion: &Completion) -> Result<()> {
    violation(&completion.finish).map_or(Ok(()), |why| bail!(why))
}

/// Tokens per second after the first.
fn decode_rate(completion: &Completion) -> f64 {
    let tokens = completion.tokens.len().saturating_sub(1);
    tokens as f64 / completion.timings.decode.as_secs_f64().max(1e-9)
}

fn as_json(completion: &Completion) -> Value {
    let (finish, stop_string) = finish_name(&completion.finish);
    let invalid = match &completion.finish {
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
    let t = &completion.timings;
    json!({
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
        "violation": invalid,
        "prefill_seconds": t.prefill.as_secs_f64(),
        "first_token_seconds": t.first_token.as_secs_f64(),
        "decode_seconds": t.decode.as_secs_f64(),
        "decode_tokens_per_second": decode_rate(completion),
    })
}

/// A model without a template, or `--raw`: options that the template alone could follow are not dropped in silence.
fn refuse_what_only_chats_have(args: &Args, model: &Model) -> Result<()> {
    let given = [
        ("--system", args.request.system.is_some()),
        ("--tools", args.request.form.has_tools()),
        (
            "--template-arg",
            !args.request.template.template_arg.is_empty(),
        ),
    ];
    let Some((flag, _)) = given.iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    let why = match args.raw {
        true => "--raw takes the prompt verbatim, without the chat template".to_owned(),
        false => format!(
            "{} has no chat template (tokenizer.chat_template)",
            args.model.display()
        ),
    };
    let instead = match (args.raw && model.chat_template().is_some(), *flag) {
        (true, _) => "leave out --raw",
        (false, "--system") => {
            "put it into the prompt, or give a template with --chat-template FILE"
        }
        (false, _) => "give a template with --chat-template FILE",
    };
    bail!("{flag} needs a chat template, and {why}: {instead}")
}
