//! The library's errors in the words of someone who types commands.

use dram_core::Error;

/// The library's names of options, and the flags that set them.
const FLAGS: &[(&str, &str)] = &[
    ("temperature", "--temperature"),
    ("typical_p", "--typical-p"),
    ("top_p", "--top-p"),
    ("min_p", "--min-p"),
    ("xtc.probability", "--xtc-probability"),
    ("xtc.threshold", "--xtc-threshold"),
    ("dry.multiplier", "--dry-multiplier"),
    ("dry.base", "--dry-base"),
    ("dry.allowed_length", "--dry-allowed-length"),
    ("penalties.repetition", "--repeat-penalty"),
    ("penalties.presence", "--presence-penalty"),
    ("penalties.frequency", "--frequency-penalty"),
    ("logit_bias", "--logit-bias"),
    ("context", "--context"),
    ("threads", "--threads"),
    ("cache_format", "--cache-format"),
    ("dimension", "--dimension"),
    ("keep_first", "--slide"),
    ("stop", "--stop"),
    ("logprobs", "--logprobs"),
    ("tools", "--tools"),
    ("template_args", "--template-arg"),
    ("adapter scale", "--lora FILE:SCALE"),
];

/// What an error says: flags instead of options, commands instead of the library's methods.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidOption {
            option,
            expected,
            got,
        } => {
            let flag = FLAGS.iter().find(|(name, _)| name == option);
            let flag = flag.map_or(*option, |(_, flag)| *flag);
            let expected = expected.replace("the session's context", "the context");
            format!("{flag}: expected {expected}, got {got}")
        }
        Error::ContextFull { tokens, context } => format!(
            "{tokens} tokens exceed the context length {context}: shorten the prompt, raise --context, or drop the oldest tokens with --slide 0"
        ),
        Error::TurnTooLong { tokens, context } => format!(
            "the last message and the system prompt have {tokens} tokens, which exceed the context length {context}: shorten the message or raise --context"
        ),
        Error::NoChatTemplate { file } => format!(
            "{file} has no chat template: give one with --chat-template FILE, or use `dram run --raw` for plain continuation"
        ),
        Error::WrongUse { file, expected } if expected.starts_with("generates") => {
            format!("{file} is an embedding model or a reranker: use `dram embed` or `dram rerank`")
        }
        Error::WrongUse { file, expected } if expected.contains("Encoder::rank") => {
            format!("{file} is a reranker: use `dram rerank`")
        }
        Error::WrongUse { file, expected } if expected.starts_with("ranks") => {
            format!("{file} is an embedding model, not a reranker: use `dram embed`")
        }
        Error::WrongUse { file, .. } => {
            format!("{file} is no embedding model and no reranker: use `dram run` or `dram chat`")
        }
        Error::OutOfMemory { bytes, context } => format!(
            "a context of {context} tokens needs {bytes} bytes, more memory than the system has: lower --context"
        ),
        Error::EmptyPrompt => "the prompt is empty".into(),
        Error::Tools { expected, got } => format!("--tools: expected {expected}, got {got}"),
        Error::DraftVocabulary { .. } => format!("--draft {error}"),
        other => other.to_string(),
    }
}

/// The error and its causes on one line; a cause that the message before it already tells is left out.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = match cause.downcast_ref::<Error>() {
            Some(error) => describe(error),
            None => cause.to_string(),
        };
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
