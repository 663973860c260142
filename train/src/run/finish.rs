//! What follows training: the folder of weights, held-out figures, the exported file and its gate, the report.

use anyhow::Result;

use super::events::{Event, Summary};
use super::job::Job;
use super::{FOLDER, GGUF};
use crate::data::Batch;
use crate::eval::{Figures, evaluate_with};
use crate::export::{Export, Gate, Limits, Parity};
use crate::recipe::Kind;
use crate::stop::{self, Watch};
use crate::student::{Decoder, QuantMode};
use crate::tasks::actions;
use crate::teacher::Trained;
use dram_files::tokenizer::add_tokenizer;

/// Held-out batches of each set that the gate looks at.
const GATE_BATCHES: usize = 8;

impl Job<'_> {
    /// Saves, evaluates, exports and reports the trained model.
    pub(super) fn finish(
        &self,
        decoder: &Decoder,
        summary: &mut Summary,
        listener: &mut dyn FnMut(Event),
    ) -> Result<()> {
        stop::check(self.stop)?;
        self.save_weights(decoder, listener)?;
        summary.figures = self.held_out(decoder, QuantMode::On, listener)?;
        if !self.recipe.export.gguf {
            return Ok(());
        }
        listener(Event::Note(
            "exporting, and comparing the runtime with the training model",
        ));
        summary.parity = Some(self.export(decoder, listener)?);
        summary.gguf = Some(self.out.join(GGUF));
        self.report(summary, listener)
    }

    /// Writes the f32 weights as a Hugging Face folder, with the tokenizer.
    pub(crate) fn save_weights(
        &self,
        decoder: &Decoder,
        listener: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let folder = self.out.join(FOLDER);
        decoder.save_hugging_face(&folder)?;
        let vocabulary = &self.sources.vocabulary;
        let tokenizer = self.recipe.tokenizer_folder();
        if let Err(error) = add_tokenizer(&folder, vocabulary, tokenizer) {
            // The weights are as good without, and the GGUF file has a tokenizer of its own.
            listener(Event::Note(&format!(
                "{} has no tokenizer: {error:#}",
                folder.display()
            )));
        }
        Ok(())
    }

    /// Writes the GGUF file, which must pass the gate.
    fn export(&self, decoder: &Decoder, listener: &mut dyn FnMut(Event)) -> Result<Parity> {
        let workers = self.recipe.train.all_threads();
        let scheme = self.recipe.scheme()?;
        let mut vocabulary = self.sources.vocabulary.clone();
        vocabulary.fit(decoder.config().vocabulary)?;
        let export = Export {
            name: &self.recipe.name,
            config: decoder.config(),
            weights: decoder.parameters(),
            scheme: &scheme,
            vocabulary: &vocabulary,
            metadata: match self.recipe.data.kind {
                Kind::Actions => vec![actions::greedy()],
                Kind::Text | Kind::Jsonl => Vec::new(),
            },
        };
        let reference = Trained::new("training model", decoder, QuantMode::On, workers)?;
        let sets = self.sources.held_out.iter();
        let batches: Vec<Batch> = sets
            .flat_map(|set| set.batches.iter().take(GATE_BATCHES).cloned())
            .collect();
        let gate = Gate {
            reference: &reference,
            batches: &batches,
            limits: Limits::default(),
            workers,
        };
        let mut tell = |done, of| {
            listener(Event::Working {
                what: "comparing",
                done,
                of,
            });
        };
        let mut watch = Watch::new(self.stop, &mut tell);
        export.verified_with(&self.out.join(GGUF), &gate, &mut watch)
    }

    /// Figures of a decoder on every held-out set.
    pub(super) fn held_out(
        &self,
        decoder: &Decoder,
        mode: QuantMode,
        listener: &mut dyn FnMut(Event),
    ) -> Result<Vec<(String, Figures)>> {
        let student = Trained::new("student", decoder, mode, self.recipe.train.all_threads())?;
        let reference = self.teacher.map(|t| t.reference);
        let sets = self.sources.held_out.iter();
        sets.map(|set| {
            let what = format!("evaluating {}", set.name);
            let mut tell = |done, of| {
                listener(Event::Working {
                    what: &what,
                    done,
                    of,
                });
            };
            let mut watch = Watch::new(self.stop, &mut tell);
            let figures = evaluate_with(&[&student], reference, &set.batches, &mut watch)?;
            Ok((set.name.clone(), figures[0]))
        })
        .collect()
    }
}
