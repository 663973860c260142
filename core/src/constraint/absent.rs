//! What stands in for the engine in a build without the feature: nothing can be made of it.

use super::Constraint;
use crate::cancel::Cancellation;
use crate::model::Model;
use crate::sampling::Allowed;
use crate::{Error, Result};

pub(crate) enum Guide {}

impl Guide {
    pub(crate) fn new(_: &Model, constraint: &Constraint, _: &Cancellation) -> Result<Guide> {
        Err(Error::Constraint {
            kind: constraint.kind.name(),
            what: "it needs a build of dram-core with the cargo feature `constraint`".into(),
        })
    }

    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>> {
        match *self {}
    }

    pub(crate) fn accept(&mut self, _: u32) -> Result<()> {
        match *self {}
    }

    pub(crate) fn next_forced(&mut self) -> Option<u32> {
        match *self {}
    }

    pub(crate) fn has_forced(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_satisfied(&mut self) -> Result<bool> {
        match *self {}
    }

    pub(crate) fn is_over(&self) -> bool {
        match *self {}
    }

    pub(crate) fn violation(&self, _: &str) -> Result<Option<String>> {
        match *self {}
    }

    pub(crate) fn violation_of_call(&self, _: &str, _: &str) -> Result<Option<String>> {
        match *self {}
    }
}
