//! The vectors of an encoder's text.

use super::Session;
use crate::Result;
use crate::decoder::{Decoder, Outputs};
use crate::model::weights::Linear;

impl Session {
    /// Evaluates `ids` from an empty cache and hands `each` every position, or only the last one, with its vector `[embedding]`, in order. Tokens at
    /// `second` and after are of a pair's second text.
    pub(crate) fn vectors(
        &mut self,
        ids: &[u32],
        second: usize,
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
                let decoder = Decoder::new(&session.model, &mut session.cpu);
                let mut decoder = decoder.with_second(second);
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

    /// The product of one vector, with its bias.
    ///
    /// # Errors
    /// [`crate::Error::FileChanged`].
    pub(crate) fn project_vector(&self, linear: &Linear, vector: &[f32]) -> Result<Vec<f32>> {
        let product = self.cpu.project_vector(linear, vector);
        self.model.gguf().check_read()?;
        Ok(product)
    }
}
