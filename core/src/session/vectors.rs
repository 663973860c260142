//! The vectors of an encoder's text.

use super::Session;
use crate::Result;
use crate::decoder::{Decoder, Outputs};

impl Session {
    /// Evaluates `ids` from an empty cache and hands `each` every position, or only the last one, with its vector `[embedding]`, in order.
    pub(crate) fn vectors(
        &mut self,
        ids: &[u32],
        only_last: bool,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.request(|session| {
            session.reset();
            session.check(ids)?;
            session.check_room(ids.len())?;
            let length = session.model.config().embedding_length;
            // What sees the whole text is one part.
            for part in ids.chunks(session.cpu.max_tokens()) {
                let (start, end) = (session.position, session.position + part.len());
                let (outputs, first) = match only_last {
                    false => (Outputs::All, start),
                    true if end == ids.len() => (Outputs::Last, end - 1),
                    true => (Outputs::None, end),
                };
                let mut decoder = Decoder::new(&session.model, &mut session.cpu);
                decoder.run(part, start, outputs, &session.cancellation)?;
                if first < end {
                    let vectors = decoder.vectors(end - first)?;
                    for (position, vector) in (first..).zip(vectors.chunks_exact(length)) {
                        each(position, vector);
                    }
                }
                session.ids.extend_from_slice(part);
                session.position = end;
            }
            Ok(())
        })
    }
}
