//! Tasks that lie in the program: their data, their metric, and what shows them.

pub mod actions;
