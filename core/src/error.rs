//! Everything that can go wrong, in one enum. Each variant says where (file, key or tensor), what was expected and what was found.

use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the runtime refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system would not open, read or map a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// What is no file, or does not begin with GGUF's magic.
    #[error("{file}: not a GGUF file: expected one that begins with \"GGUF\", got {got}")]
    NotGguf {
        /// The file.
        file: String,
        /// What it is instead, and what to do with it where that is known; or its first bytes.
        got: String,
    },

    /// One of several files of a model, without the others or with wrong ones.
    #[error("{file}: part {part} of {count} of a split model: expected {expected}, got {got}")]
    SplitFile {
        /// The file.
        file: String,
        /// Which of the parts it is, from 1.
        part: u64,
        /// How many parts there are.
        count: u32,
        /// What would have been accepted.
        expected: String,
        /// What was found, and what to do.
        got: String,
    },

    /// The file was changed or replaced while it was open, or cannot be read. What was opened is of no more use.
    #[error("{file}: expected the file that was opened, got {got}: open it again")]
    FileChanged {
        /// The file.
        file: String,
        /// What became of it.
        got: String,
    },

    /// The file was written for big-endian machines.
    #[error(
        "{file}: a big-endian GGUF file; expected little-endian: convert it again without --bigendian"
    )]
    BigEndian {
        /// The file.
        file: String,
    },

    /// A GGUF version other than 2 and 3.
    #[error(
        "{file}: expected GGUF version 2 or 3, got {got}: convert the model again with a current converter"
    )]
    Version {
        /// The file.
        file: String,
        /// The version in its header.
        got: u32,
    },

    /// A count, offset, length, type or alignment in the file cannot be right.
    #[error("{file}: {what}: expected {expected}, got {got}")]
    Corrupt {
        /// The file.
        file: String,
        /// The part of the file: a header field, a key or a tensor.
        what: String,
        /// What would have been accepted.
        expected: String,
        /// What was found.
        got: String,
    },

    /// The metadata lacks a key that is needed.
    #[error("{file}: expected the metadata key `{key}`, got none")]
    MissingKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
    },

    /// A metadata key holds another type than is needed, or a value out of range.
    #[error("{file}: metadata key `{key}`: expected {expected}, got {got}")]
    BadKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// What was found.
        got: String,
    },

    /// The file lacks a tensor that is needed.
    #[error("{file}: expected a tensor `{tensor}`, got none")]
    MissingTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },

    /// A tensor has another shape than the model's configuration asks for.
    #[error("{file}: tensor `{tensor}`: expected shape {expected:?}, got {got:?}")]
    BadShape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// In GGML's order: the row length comes first.
        expected: Vec<usize>,
        /// In GGML's order: the row length comes first.
        got: Vec<usize>,
    },

    /// A tensor is stored in a format that this runtime does not read.
    #[error(
        "{file}: tensor `{tensor}`: expected one of the formats {expected}, got {got}: quantise the model to one of these"
    )]
    UnsupportedFormat {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// The names of the formats in [`crate::quant::FORMATS`].
        expected: String,
        /// The name of the format, or its number.
        got: String,
    },

    /// A model that generates was asked for vectors of texts, or the other way round.
    #[error("{file}: expected a model that {expected}")]
    WrongUse {
        /// The file.
        file: String,
        /// What would have been accepted, and what to do with this model.
        expected: &'static str,
    },

    /// An instruction set was asked for that this machine or build does not have.
    #[error("DRAM_ISA: expected one of {available}, got `{wanted}`")]
    InstructionSet {
        /// What the environment variable said.
        wanted: String,
        /// What this machine has.
        available: String,
    },

    /// The system would not start a worker thread.
    #[error("could not start worker thread {index}: {source}")]
    Thread {
        /// Which of the workers.
        index: usize,
        /// What the system said.
        source: std::io::Error,
    },

    /// The file holds a tensor that this runtime would pass over, though it changes the model's answers.
    #[error(
        "{file}: tensor `{tensor}`: expected only tensors that this runtime reads for the architecture: the model needs a newer runtime"
    )]
    UnexpectedTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },

    /// An adapter changes a tensor that its base model does not have, or does not multiply with.
    #[error(
        "{file}: tensor `{tensor}`: expected the name of a matrix of {base} that every token is multiplied with, got another: the adapter was made for another model, or changes its experts, which is not supported"
    )]
    NotAdapted {
        /// The adapter's file.
        file: String,
        /// The adapter's tensor.
        tensor: String,
        /// The base model's file.
        base: String,
    },

    /// An adapter holds a tensor that is no half of a low-rank pair: to pass it over would change the answers.
    #[error(
        "{file}: tensor `{tensor}`: expected only pairs NAME.lora_a and NAME.lora_b: merge the adapter into its base model"
    )]
    NotLowRank {
        /// The adapter's file.
        file: String,
        /// The tensor.
        tensor: String,
    },

    /// An adapter was given to a session of another model than the one it was checked against.
    #[error(
        "{adapter}: expected a session of {base}, got one of {got}: open the adapter with the session's model"
    )]
    WrongBase {
        /// The adapter's file.
        adapter: String,
        /// The file of the model it was checked against.
        base: String,
        /// The file of the session's model.
        got: String,
    },

    /// A draft model was given to a session of a model with other tokens.
    #[error(
        "{draft}: expected the same tokens as {model}, got {difference}: a draft model needs the vocabulary of the model that it drafts for"
    )]
    DraftVocabulary {
        /// The draft model's file.
        draft: String,
        /// The file of the session's model.
        model: String,
        /// The first difference: the draft model's, then the session's model's.
        difference: String,
    },

    /// The model and a session of the context asked for need more memory than the caller allowed.
    #[error(
        "a context of {context} needs {} bytes ({} mapped, {} cache, {} scratch, {} for constraints), expected at most {limit}: {}",
        mapped.saturating_add(*kv_cache).saturating_add(*scratch).saturating_add(*constraint), mapped, kv_cache, scratch, constraint,
        if *fits > 0 { format!("a context of {fits} fits") } else { "no context fits, take a smaller model".to_owned() }
    )]
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
        /// The context asked for.
        context: usize,
        /// Bytes of the mapped file.
        mapped: u64,
        /// Bytes that the cache of that context needs.
        kv_cache: u64,
        /// Bytes that the scratch buffers need.
        scratch: u64,
        /// Bytes that constraints share, where there are any.
        constraint: u64,
        /// The longest context up to the one asked for that the limit allows; 0 when none does.
        fits: usize,
    },

    /// The system would not give the memory that a session needs.
    #[error(
        "expected {bytes} bytes of memory for a context of {context}, and the system has none: make a session with a shorter context"
    )]
    OutOfMemory {
        /// What was asked of the system.
        bytes: u64,
        /// The context asked for.
        context: usize,
    },

    /// An option has a value that means nothing.
    #[error("{option}: expected {expected}, got {got}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was given.
        got: String,
    },

    /// There is nothing to evaluate.
    #[error("expected a prompt of at least one token, got none")]
    EmptyPrompt,

    /// A token that the model does not have.
    #[error("expected tokens below {vocabulary}, got {id}")]
    BadToken {
        /// The token.
        id: u32,
        /// The model's number of tokens.
        vocabulary: usize,
    },

    /// More tokens than the session has room for.
    #[error(
        "expected at most {context} tokens, the session's context, got {tokens}: shorten the prompt or make a session with a longer context"
    )]
    ContextFull {
        /// Tokens in the cache and those to be added.
        tokens: usize,
        /// The session's context.
        context: usize,
    },

    /// The last turn of a chat, with what the system says, does not fit the session's context: there is nothing to leave out.
    #[error(
        "expected the last turn and what the system says to have at most {context} tokens, the session's context, got {tokens}: shorten the message or make a session with a longer context"
    )]
    TurnTooLong {
        /// Tokens of these turns.
        tokens: usize,
        /// The session's context.
        context: usize,
    },

    /// A chat was asked of a model that does not say how to render one.
    #[error(
        "{file}: expected the metadata key `tokenizer.chat_template` to render a chat with, got none: give the prompt as text"
    )]
    NoChatTemplate {
        /// The file.
        file: String,
    },

    /// The model's chat template failed, or refuses the conversation.
    #[error("the chat template failed: {what}")]
    ChatTemplate {
        /// Where and why.
        what: String,
    },

    /// A constraint that cannot be followed: it does not parse, cannot be met, or is too large or too slow.
    #[error("the {kind} cannot be followed: {what}")]
    Constraint {
        /// What it is: a JSON schema, a regular expression, a Lark or GBNF grammar, or a list of tools.
        kind: &'static str,
        /// Where and why: the tool's name, the place in the schema.
        what: String,
    },

    /// Tools that mean nothing, or that the model cannot be given.
    #[error("tools: expected {expected}, got {got}")]
    Tools {
        /// What would have been accepted.
        expected: &'static str,
        /// What was given.
        got: String,
    },

    /// A saved session that this session cannot take up.
    #[error("{}: saved session: expected {expected}, got {got}: {advice}", path.display())]
    SavedSession {
        /// The file.
        path: PathBuf,
        /// What would have been accepted.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        advice: &'static str,
    },

    /// No logit was a number: the weights are broken.
    #[error("expected logits, got only NaN: the model's weights are broken")]
    NoLogits,

    /// The call was cancelled by its [`crate::CancelToken`].
    #[error("cancelled")]
    Cancelled,
}
