//! Distils a language model into a small quantised one: data, teachers, the differentiable student, losses, training, evaluation, export.
//!
//! The way through: [`recipe`] says what is wanted, [`trainer`] does it, the export room writes the file and checks it against the runtime.

pub mod checkpoint;
pub mod data;
pub mod demo;
pub mod eval;
pub mod export;
pub mod loss;
pub mod optim;
pub mod parallel;
pub mod report;
pub mod student;
pub mod teacher;
pub mod trainer;
