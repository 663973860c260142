//! Options that several subcommands take, a file for each kind.

mod adapters;
mod drafts;
mod form;
mod request;
mod sampling;
mod session;
mod template;
mod threads;

pub(crate) use adapters::{Lora, LoraArgs, open_adapters};
pub(crate) use drafts::DraftArgs;
pub(crate) use request::{RequestArgs, check_system};
pub(crate) use threads::AllThreads;
