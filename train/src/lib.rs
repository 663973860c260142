//! Distils a language model into a small quantised one: data, teachers, the differentiable student, losses, training, evaluation, export;
//! and the built-in task.
//!
//! The way through: [`recipe`] says what is wanted, [`run`] does it with a [`trainer`], the [`export`] room writes the file and checks it against the runtime.

pub mod checkpoint;
pub mod data;
pub mod eval;
pub mod export;
pub mod identity;
pub mod lock;
pub mod loss;
pub mod optim;
pub mod recipe;
pub mod report;
pub mod run;
pub mod stop;
pub mod student;
pub mod tasks;
pub mod teacher;
pub mod trainer;
