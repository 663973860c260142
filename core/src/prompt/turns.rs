//! A conversation that outgrows its context: the oldest turns are left out, and the rest is rendered anew.

use super::{Renderer, Stop};
use crate::Result;
use crate::chat::Message;
use crate::model::Model;
use crate::request::Request;
use std::ops::Range;

/// A conversation whose oldest turns may be left out.
pub(crate) struct Turns<'a> {
    renderer: Renderer<'a>,
    messages: &'a [Message],
    /// What is left out as a whole, oldest first: a user's turn with all that answers it; after the last user's turn, a turn of the model with the
    /// results of its calls. The last user's turn and the last of all are in none of them.
    units: Vec<Range<usize>>,
    /// How many of them are left out.
    out: usize,
    /// Tokens of the whole conversation.
    whole: usize,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(
        model: &'a Model,
        request: &Request,
        messages: &'a [Message],
    ) -> Result<Turns<'a>> {
        Ok(Turns {
            renderer: Renderer::new(model, request, messages)?,
            messages,
            units: units(messages),
            out: 0,
            whole: 0,
        })
    }

    /// Tokens of the whole conversation, once [`Turns::fit`] was called.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    /// Messages that are left out.
    pub(crate) fn dropped(&self) -> usize {
        let out = self.units[..self.out].iter().cloned();
        out.flatten()
            .filter(|&at| !stays(&self.messages[at]))
            .count()
    }

    /// The conversation as tokens, with so much left out that `made` tokens of the answer and as many `more`, at most a quarter of `context`, fit. Where that
    /// cannot be, less room does. Half of the context is freed at a time, so that the next turns find the same beginning in the cache.
    ///
    /// # Errors
    /// What the template said when it failed. In `Err` of the inner result: the least number of tokens, where not even that fits.
    pub(crate) fn fit(
        &mut self,
        made: usize,
        more: usize,
        context: usize,
        stop: Stop<'_>,
    ) -> Result<Result<Vec<u32>, usize>> {
        let most = context.saturating_sub(made);
        let wanted = most.saturating_sub(more.min(context / 4));
        let all = self.tokens(0, stop)?;
        self.whole = all.len();
        if self.out == 0 && all.len() <= wanted {
            return Ok(Ok(all));
        }
        let over = all.len().saturating_sub(wanted);
        let step = (context / 2).max(1);
        let goal = all.len().saturating_sub(over.next_multiple_of(step));
        let least = self.tokens(self.units.len(), stop)?;
        for limit in [goal, wanted, most] {
            if least.len() <= limit {
                return Ok(Ok(self.leave_out(limit, least, stop)?));
            }
        }
        Ok(Err(least.len()))
    }

    /// Leaves out as little as is needed to have at most `limit` tokens, as `least`, all but what cannot be left out, has.
    fn leave_out(&mut self, limit: usize, mut least: Vec<u32>, stop: Stop<'_>) -> Result<Vec<u32>> {
        let mut high = self.units.len();
        while self.out < high {
            let middle = self.out.midpoint(high);
            let tokens = self.tokens(middle, stop)?;
            if tokens.len() <= limit {
                (high, least) = (middle, tokens);
            } else {
                self.out = middle + 1;
            }
        }
        Ok(least)
    }

    /// Without the first `out` units.
    fn tokens(&self, out: usize, stop: Stop<'_>) -> Result<Vec<u32>> {
        let left_out = |at| self.units[..out].iter().any(|unit| unit.contains(&at));
        let messages = self.messages.iter().enumerate();
        let left = messages.filter(|(at, message)| stays(message) || !left_out(*at));
        let left: Vec<Message> = left.map(|(_, message)| message.clone()).collect();
        self.renderer.tokens(&left, stop)
    }
}

/// Whether the app said it, for the whole conversation.
fn stays(message: &Message) -> bool {
    ["system", "developer"].contains(&message.role.as_str())
}

fn units(messages: &[Message]) -> Vec<Range<usize>> {
    let last_user = messages.iter().rposition(|m| m.role == "user");
    let begins = |at: usize| match messages[at].role.as_str() {
        "user" => true,
        // Results belong to the calls that they answer.
        "assistant" | "model" => last_user.is_none_or(|user| at > user),
        _ => false,
    };
    let mut starts: Vec<usize> = (0..messages.len()).filter(|&at| begins(at)).collect();
    if let Some(first) = starts.first_mut() {
        // What stands before the first user's turn, such as a greeting, goes with it.
        *first = 0;
    }
    let ends = starts.iter().skip(1).copied();
    let units = starts.iter().zip(ends).map(|(&start, end)| start..end);
    // The last of all has no end here.
    let keeps = |unit: &Range<usize>| last_user.is_some_and(|user| unit.contains(&user));
    units.filter(|unit| !keeps(unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(roles: &str) -> Vec<Range<usize>> {
        let role = |c| match c {
            's' => "system",
            'u' => "user",
            'a' => "assistant",
            _ => "tool",
        };
        let messages: Vec<Message> = roles.chars().map(|c| Message::new(role(c), "")).collect();
        units(&messages)
    }

    #[test]
    fn calls_stay_with_their_results_and_the_last_turn_stays() {
        assert_eq!(of("suauau"), [0..3, 3..5]);
        assert_eq!(of("suattauau"), [0..6, 6..8]);
        // A greeting goes with the first user's turn.
        assert_eq!(of("auau"), vec![0..3]);
        // A long chain of calls: the last user's turn and the last results stay.
        assert_eq!(of("suauatattat"), [0..3, 4..6, 6..9]);
        assert!(of("su").is_empty());
        assert!(of("s").is_empty());
        assert!(of("").is_empty());
        assert_eq!(of("uu"), vec![0..1]);
    }
}
