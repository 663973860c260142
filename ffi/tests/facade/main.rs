//! What Kotlin and Swift rely on, asked of the façade itself.

mod ears;
mod form;
mod generation;
mod hostile;
mod model;
mod session;
mod toy;
