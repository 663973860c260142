//! What is printed: text, tables, JSON.

mod json;
mod table;

use std::io;

pub(crate) use dram_train::report::bytes;
pub(crate) use json::write_json;
pub(crate) use table::table;

/// What `println!` and `print!` do in this crate.
pub(crate) fn print(text: std::fmt::Arguments<'_>) {
    match io::Write::write_fmt(&mut io::stdout().lock(), text) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(1)
        }
    }
}

/// `dram … | head` closes the pipe; that is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
