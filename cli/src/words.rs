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
    ("keep_first", "--slide"),
    ("stop", "--stop"),
    ("logprobs", "--logprobs"),
    ("tools", "--tools"),
    ("template_args", "--template-arg"),
    ("adapter scale", "--lora FILE:SCALE"),
];

/// What an error says. Flags stand for options, and commands for what the library calls its parts.
pub(crate) fn say(error: &Error) -> String {
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
            "{tokens} tokens do not fit the context of {context}: shorten the prompt, make room with --context, or go on without the oldest part with --slide 0"
        ),
        Error::TurnTooLong { tokens, context } => format!(
            "the last message and what the system says have {tokens} tokens, which do not fit the context of {context}: shorten the message or make room with --context"
        ),
        Error::NoChatTemplate { file } => format!(
            "{file} has no chat template: give one with --chat-template FILE, or use `dram run --raw` for plain continuation"
        ),
        Error::WrongUse { file, expected } if expected.starts_with("generates") => {
            format!("{file} turns texts into vectors and generates nothing: use `dram embed`")
        }
        Error::WrongUse { file, .. } => format!(
            "{file} generates text and turns none into vectors: use `dram run` or `dram chat`"
        ),
        Error::OutOfMemory { bytes, context } => format!(
            "a context of {context} takes {bytes} bytes of memory, which the system does not have: take a shorter one with --context"
        ),
        Error::EmptyPrompt => "the prompt is empty".into(),
        Error::Tools { expected, got } => format!("--tools: expected {expected}, got {got}"),
        Error::DraftVocabulary { .. } => format!("--draft {error}"),
        other => other.to_string(),
    }
}
