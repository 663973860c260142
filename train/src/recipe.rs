//! What the user writes: one TOML file for `dram pretrain` (no teacher) and `dram distill` (with one).
//!
//! ```toml
//! name = "my student"
//!
//! [data]
//! kind = "jsonl"
//! path = "requests.jsonl"
//!
//! [teacher]
//! path = "teachers/llama-3.2-1b"
//!
//! [losses]
//! cross_entropy = { weight = 0.3 }
//! forward_kl = { weight = 1.0, temperature = 2.0 }
//!
//! [quant]
//! linear = "q4_0"
//! ```
//!
//! Every field has a default except `data.path` (where the kind reads files). A field that does not exist is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::loss::{LossConfig, Mapping};
use crate::optim::AdamW;
use crate::student::{Config, Products, Scheme};
use crate::trainer::{Settings, default_warmup};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What the model is called in its file and in reports. Default "student".
    #[serde(default = "default_name")]
    pub name: String,
    #[serde(default)]
    pub data: Data,
    #[serde(default)]
    pub student: Student,
    /// Whom to learn from: needed by `distill`, refused by `pretrain`.
    #[serde(default)]
    pub teacher: Option<Teacher>,
    /// What to minimise: a weighted sum. Names are those of [`crate::loss::LOSSES`]. Default: cross entropy alone, or with a teacher
    /// 0.3 · cross entropy + forward KL.
    #[serde(default)]
    pub losses: BTreeMap<String, LossConfig>,
    #[serde(default)]
    pub train: Train,
    /// Quantisation-aware training; absent: none.
    #[serde(default)]
    pub quant: Option<Quant>,
    #[serde(default)]
    pub export: Export,
    #[serde(default)]
    pub eval: Eval,
}

fn default_name() -> String {
    "student".into()
}

/// Where examples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The built-in task: a phone request in, a JSON function call out.
    Actions,
    /// Plain UTF-8 text: every token is predicted.
    Text,
    /// Records, as JSON Lines, a JSON array or Parquet: documents, prompts with completions, conversations in the shapes of public data sets
    /// (docs/data.md). Of conversations and completions only the answers are predicted.
    Jsonl,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// "actions", "text" or "jsonl". Default "actions".
    pub kind: Kind,
    /// File to read ("text", "jsonl"), relative to the recipe. For "text" also a folder: every file in it is a document.
    pub path: Option<PathBuf>,
    /// "text": what stands between the documents of a file, as `"\n\n\n"`; it is no part of them. Default: a file is one document. A document begins
    /// with BOS and ends with EOS where the tokenizer adds them; where it adds neither, EOS separates documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// File of held-out data of the same kind, relative to the recipe. Default: the last `held_out_share` of `path`.
    pub held_out: Option<PathBuf>,
    /// Share of `path` kept from training when there is no held-out file, 0 to 1. Default 0.1.
    pub held_out_share: f64,
    /// Longest training sequence in tokens; records are cut, text is cropped to it. Default: the student's context_length; with
    /// `student.init`, whose context may be far longer than memory allows, the longest record up to 1024 tokens, of text 512. Never more than the
    /// student or the teacher can take.
    pub sequence: Option<usize>,
    /// Tokenizer: a `tokenizer.json`, a folder that holds one (or a `tokenizer.model`), or a GGUF file, relative to the recipe. Default: the teacher's; without a
    /// teacher a byte-level BPE is trained on the data.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a tokenizer that is trained; 257 makes every byte a token. Default 2048.
    pub vocabulary: usize,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            kind: Kind::Actions,
            path: None,
            separator: None,
            held_out: None,
            held_out_share: 0.1,
            sequence: None,
            tokenizer: None,
            vocabulary: 2048,
        }
    }
}

/// `[student]`: the model that is trained. The default has about a million parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Student {
    /// Start from this Hugging Face folder or GGUF file, relative to the recipe, instead of at random; its shape replaces the fields below.
    pub init: Option<PathBuf>,
    /// Width of the residual stream. Default 128.
    pub embedding_length: usize,
    /// Default 4.
    pub layers: usize,
    /// Query heads. Default 4.
    pub heads: usize,
    /// Key-value heads. Default: as many as query heads.
    pub kv_heads: Option<usize>,
    /// Dimensions of a head. Default: embedding_length / heads.
    pub head_dim: Option<usize>,
    /// Width inside the feed-forward part. Default 352.
    pub feed_forward_length: usize,
    /// Longest sequence in tokens. Default 256.
    pub context_length: usize,
    /// Base of the rotary frequencies. Default 10000.
    pub rope_base: f32,
    /// Added to the mean square in norms. Default 1e-5.
    pub norm_eps: f32,
    /// Whether the output matrix is the embedding matrix. Default true.
    pub tied_embeddings: bool,
}

impl Default for Student {
    fn default() -> Self {
        let c = Config::default();
        Student {
            init: None,
            embedding_length: c.embedding_length,
            layers: c.layers,
            heads: c.heads,
            kv_heads: None,
            head_dim: None,
            feed_forward_length: c.feed_forward_length,
            context_length: c.context_length,
            rope_base: c.rope_base,
            norm_eps: c.norm_eps,
            tied_embeddings: c.tied_embeddings,
        }
    }
}

impl Student {
    /// The decoder's shape with this many tokens.
    ///
    /// # Errors
    /// When the numbers contradict each other.
    pub fn config(&self, vocabulary: usize) -> Result<Config> {
        ensure!(self.heads > 0, "[student] heads = 0");
        if self.head_dim.is_none() {
            ensure!(
                self.embedding_length.is_multiple_of(self.heads),
                "[student] embedding_length = {} is not a multiple of heads = {}; change one, or give head_dim",
                self.embedding_length,
                self.heads
            );
        }
        let config = Config {
            vocabulary,
            embedding_length: self.embedding_length,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.head_dim.unwrap_or(self.embedding_length / self.heads),
            feed_forward_length: self.feed_forward_length,
            context_length: self.context_length,
            rope_base: self.rope_base,
            rope_factors: Vec::new(),
            norm_eps: self.norm_eps,
            tied_embeddings: self.tied_embeddings,
        };
        config.check().context("[student]")?;
        Ok(config)
    }
}

/// `[teacher]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// A Hugging Face folder or a GGUF file, relative to the recipe.
    pub path: PathBuf,
}

/// What the products compute with; master weights, gradients and moments are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Operands of products rounded to bf16, sums in f32; forward passes that round as the runtime does stay f32.
    Bf16,
}

impl From<Precision> for Products {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Products::F32,
            Precision::Bf16 => Products::Bf16,
        }
    }
}

/// `[train]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Optimiser updates. Default 2000. A run may go on with more: the steps that follow have the learning rates that the larger number gives
    /// them, and rounding begins at its share of the larger number, unless it has begun.
    pub steps: u64,
    /// Sequences per batch. Default 32.
    pub batch: usize,
    /// Batches per update, whose gradients are added. Default 1.
    pub accumulate: u64,
    /// Peak learning rate. Default 0.002, for about a million parameters; five million want 0.001, larger models less.
    pub learning_rate: f64,
    /// Updates over which the learning rate rises from 0. Default: a twentieth of the steps.
    pub warmup: Option<u64>,
    /// Learning rate of the last update as a share of the peak; between lies half a cosine. Default 0.02.
    pub final_share: f64,
    /// Decay of the layers' matrices, per update and unit of learning rate. Default 0.05.
    pub weight_decay: f32,
    /// Memory of the gradient's mean, 0 to 1. Default 0.9.
    pub beta1: f32,
    /// Memory of the gradient's square, 0 to 1. Default 0.98.
    pub beta2: f32,
    /// Added to the root of the square. Default 1e-8.
    pub eps: f32,
    /// A gradient with a longer norm is shortened to this; 0: never. Default 1.
    pub clip: f64,
    /// Of the first weights and of the order of the data. Default 0.
    pub seed: u64,
    /// "f32" or "bf16": what products are computed with, a llama-family teacher's too. bf16 is about 1.5 times as fast where the processor
    /// has AVX512-BF16, and no faster elsewhere. Default "f32".
    pub precision: Precision,
    /// Parts that a batch is cut into, one thread each. Results depend on it in the last bits, and not on how many threads there are. Default: one
    /// for each core that the process may use, at least 2, at most one per sequence of the batch, and no more than whose gradients take 4 GiB; a
    /// run that goes on keeps its number. Give it for the same bits on machines with other numbers of cores.
    pub shards: Option<usize>,
    /// Threads. Default: the cores that the process may use; training uses at most one per shard, evaluation all.
    pub threads: Option<usize>,
    /// Seconds between checkpoints. Default 30.
    pub checkpoint_seconds: u64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            steps: 2000,
            batch: 32,
            accumulate: 1,
            learning_rate: 2e-3,
            warmup: None,
            final_share: 0.02,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            clip: 1.0,
            seed: 0,
            precision: Precision::F32,
            shards: None,
            threads: None,
            checkpoint_seconds: 30,
        }
    }
}

/// Gradients of all shards together take at most this much by default; in bytes.
const GRADIENTS: usize = 4 << 30;

impl Train {
    /// Threads that train.
    pub fn threads(&self) -> usize {
        self.all_threads().clamp(1, self.shards.unwrap_or(2).max(1))
    }

    /// Threads that evaluate: all that the recipe or the machine allows.
    pub fn all_threads(&self) -> usize {
        self.threads.unwrap_or_else(cores).max(1)
    }

    /// Shards of a student with this many parameters, where the recipe does not say.
    pub(crate) fn default_shards(&self, parameters: usize) -> usize {
        let room = GRADIENTS / 4 / parameters.max(1);
        cores().min(self.batch).min(room).max(2)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `[quant]`: the formats that the student is trained for and exported in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quant {
    /// Block format of the layers' matrices. Default "q4_0".
    pub linear: String,
    /// Block format of the embeddings, which are the output matrix too when tied. Default "q8_0".
    pub embedding: String,
    /// Block format of an output matrix of its own. Default "q8_0".
    pub head: String,
    /// Share of the steps after which training begins to round, 0 to 1; 1 means plain rounding after training. Default 0.5.
    pub start: f64,
}

impl Default for Quant {
    fn default() -> Self {
        Quant {
            linear: "q4_0".into(),
            embedding: "q8_0".into(),
            head: "q8_0".into(),
            start: 0.5,
        }
    }
}

/// `[export]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Export {
    /// Whether to write a GGUF file. Default true.
    pub gguf: bool,
    /// Block format of every matrix when there is no `[quant]`. Default "f16".
    pub format: String,
}

impl Default for Export {
    fn default() -> Self {
        Export {
            gguf: true,
            format: "f16".into(),
        }
    }
}

/// `[eval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Steps between evaluations on held-out data during training; 0: only at the end. Default 500.
    pub every: u64,
    /// Held-out examples ("actions", "jsonl") of each set, at most. Default 500.
    pub examples: usize,
    /// Held-out tokens ("text") at the end, at most; 0: all. Default 0.
    pub tokens: usize,
    /// "text": score held-out text as llama.cpp's `llama-perplexity` does, in chunks of this many tokens of which the second half counts, BOS first
    /// in each where the tokenizer adds it, and special tokens spelt in the text taken as text. Default: every token counts once, in blocks of
    /// `data.sequence` tokens.
    pub chunk: Option<usize>,
    /// Chunks, at most; 0: all. Default 0.
    pub chunks: usize,
    /// Before a distillation, train a control: the same student with the same data, steps and blocks, by cross entropy alone. It lands in
    /// `control/` and stands beside the student in the report; it takes a training's time. Default false.
    pub control: bool,
}

impl Default for Eval {
    fn default() -> Self {
        Eval {
            every: 500,
            examples: 500,
            tokens: 0,
            chunk: None,
            chunks: 0,
            control: false,
        }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            name: default_name(),
            data: Data::default(),
            student: Student::default(),
            teacher: None,
            losses: BTreeMap::new(),
            train: Train::default(),
            quant: None,
            export: Export::default(),
            eval: Eval::default(),
        }
    }
}

impl Recipe {
    /// Reads a recipe; paths in it are relative to its folder.
    ///
    /// # Errors
    /// With line and field of what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the recipe {}", path.display()))?;
        let mut recipe =
            Self::parse(&text).with_context(|| format!("recipe {}", path.display()))?;
        recipe.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(recipe)
    }

    /// Reads a recipe's text.
    ///
    /// # Errors
    /// With line and field of what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let recipe: Recipe = toml::from_str(text)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Makes relative paths relative to `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        let paths = [
            &mut self.data.path,
            &mut self.data.held_out,
            &mut self.data.tokenizer,
            &mut self.student.init,
        ];
        let teacher = self.teacher.as_mut().map(|t| &mut t.path);
        for path in paths.into_iter().flatten().chain(teacher) {
            *path = folder.join(&path);
        }
    }

    /// # Errors
    /// When a number is impossible or options contradict each other.
    pub fn check(&self) -> Result<()> {
        let t = &self.train;
        ensure!(t.steps > 0, "[train] steps = 0");
        ensure!(
            t.batch > 0 && t.accumulate > 0,
            "[train] batch and accumulate must be at least 1"
        );
        ensure!(
            t.shards.is_none_or(|shards| (1..=1024).contains(&shards)),
            "[train] shards = {}; expected 1 to 1024",
            t.shards.unwrap_or_default()
        );
        ensure!(
            t.threads != Some(0),
            "[train] threads = 0; leave it out to use all"
        );
        ensure!(
            t.learning_rate.is_finite() && t.learning_rate > 0.0,
            "[train] learning_rate = {}; expected more than 0",
            t.learning_rate
        );
        ensure!(
            (0.0..=1.0).contains(&t.final_share),
            "[train] final_share = {}; expected 0 to 1",
            t.final_share
        );
        ensure!(
            (0.0..1.0).contains(&t.beta1) && (0.0..1.0).contains(&t.beta2),
            "[train] beta1 and beta2 must be at least 0 and below 1"
        );
        ensure!(
            t.weight_decay >= 0.0 && t.weight_decay.is_finite(),
            "[train] weight_decay = {}; expected 0 or more",
            t.weight_decay
        );
        ensure!(
            t.eps > 0.0 && t.eps.is_finite(),
            "[train] eps = {}; expected more than 0",
            t.eps
        );
        ensure!(
            t.clip >= 0.0 && t.clip.is_finite(),
            "[train] clip = {}; expected 0 or more",
            t.clip
        );
        if let Some(warmup) = t.warmup {
            ensure!(
                warmup <= t.steps,
                "[train] warmup = {warmup} is more than steps = {}",
                t.steps
            );
        }
        let d = &self.data;
        match d.kind {
            Kind::Actions => ensure!(
                d.path.is_none() && d.held_out.is_none(),
                "[data] kind = \"actions\" is made up as it goes and reads no path; for a file say kind = \"text\" or \"jsonl\""
            ),
            Kind::Text | Kind::Jsonl => ensure!(
                d.path.is_some(),
                "[data] path is missing: the file to learn from"
            ),
        }
        ensure!(
            (0.0..1.0).contains(&d.held_out_share),
            "[data] held_out_share = {}; expected at least 0 and below 1",
            d.held_out_share
        );
        if let Some(sequence) = d.sequence {
            ensure!(sequence > 0, "[data] sequence = 0");
            ensure!(
                self.student.init.is_some() || sequence <= self.student.context_length,
                "[data] sequence = {sequence} is longer than [student] context_length = {}",
                self.student.context_length
            );
        }
        ensure!(
            d.vocabulary >= 256,
            "[data] vocabulary = {}; a byte-level tokenizer needs 256 tokens and its special ones",
            d.vocabulary
        );
        ensure!(self.eval.examples > 0, "[eval] examples = 0");
        if let Some(chunk) = self.eval.chunk {
            ensure!(
                chunk >= 4 && d.kind == Kind::Text,
                "[eval] chunk = {chunk}: expected at least 4 tokens, and [data] kind = \"text\""
            );
        }
        if let Some(quant) = &self.quant {
            ensure!(
                (0.0..=1.0).contains(&quant.start),
                "[quant] start = {}; expected 0 to 1",
                quant.start
            );
        }
        for name in self.losses.keys() {
            ensure!(
                crate::loss::LOSSES.iter().any(|l| l.name == name),
                "[losses] {name} is no loss; known are {}",
                crate::loss::LOSSES
                    .iter()
                    .map(|l| l.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        let scheme = self.scheme()?;
        if self.student.init.is_none() {
            let config = self.student.config(d.vocabulary)?;
            scheme
                .check(&crate::student::Layout::new(&config))
                .context(if self.quant.is_some() {
                    "[quant]"
                } else {
                    "[export]"
                })?;
        }
        Ok(())
    }

    /// The folder that the tokenizer comes from, where it does come from one.
    pub(crate) fn tokenizer_folder(&self) -> Option<&Path> {
        let teacher = self.teacher.as_ref().map(|teacher| &teacher.path);
        let named = [
            self.data.tokenizer.as_ref(),
            teacher,
            self.student.init.as_ref(),
        ];
        let first = named.into_iter().flatten().next()?;
        first.is_dir().then_some(first)
    }

    /// The formats of the exported file.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn scheme(&self) -> Result<Scheme> {
        match &self.quant {
            Some(q) => Scheme::by_name(&q.linear, &q.embedding, &q.head).context("[quant]"),
            None => {
                let format = &self.export.format;
                Scheme::by_name(format, format, format).context("[export]")
            }
        }
    }

    /// The losses, with the defaults filled in.
    pub fn asked(&self) -> BTreeMap<String, LossConfig> {
        if !self.losses.is_empty() {
            return self.losses.clone();
        }
        let asked = |weight| LossConfig {
            weight,
            temperature: 1.0,
            layers: Mapping::Uniform,
        };
        match &self.teacher {
            None => BTreeMap::from([("cross_entropy".into(), asked(1.0))]),
            Some(_) => BTreeMap::from([
                ("cross_entropy".into(), asked(0.3)),
                ("forward_kl".into(), asked(1.0)),
            ]),
        }
    }

    /// The numbers of the loop.
    pub fn settings(&self) -> Settings {
        let t = &self.train;
        Settings {
            steps: t.steps,
            learning_rate: t.learning_rate,
            warmup: t.warmup.unwrap_or(default_warmup(t.steps)),
            final_share: t.final_share,
            optimiser: AdamW {
                beta1: t.beta1,
                beta2: t.beta2,
                eps: t.eps,
                weight_decay: t.weight_decay,
            },
            clip: t.clip,
            accumulate: t.accumulate,
            shards: t.shards.unwrap_or(2),
            threads: t.threads(),
            quantise_from: self
                .quant
                .as_ref()
                .map(|q| (q.start * t.steps as f64).round() as u64),
            seed: t.seed,
        }
    }

    /// The recipe of the control: what is left without a teacher.
    pub(crate) fn of_control(&self) -> Recipe {
        Recipe {
            name: format!("{}, control", self.name),
            teacher: None,
            losses: BTreeMap::new(),
            eval: Eval {
                control: false,
                ..self.eval.clone()
            },
            ..self.clone()
        }
    }

    /// # Errors
    /// When there is a teacher.
    pub(crate) fn expect_no_teacher(&self) -> Result<()> {
        if self.teacher.is_some() {
            bail!(
                "the recipe names a [teacher]; `pretrain` learns from data alone: use `distill`, or take the section out"
            );
        }
        ensure!(
            !self.eval.control,
            "[eval] control = true; a control stands beside a distilled student, and the recipe names no [teacher]"
        );
        Ok(())
    }

    /// # Errors
    /// When there is none.
    pub(crate) fn expect_teacher(&self) -> Result<&Teacher> {
        self.teacher.as_ref().context("the recipe names no [teacher]; add one (path = a Hugging Face folder or a GGUF file), or use `pretrain`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_recipe_is_the_default() {
        assert_eq!(Recipe::parse("").unwrap(), Recipe::default());
        let text = toml::to_string(&Recipe {
            quant: Some(Quant::default()),
            ..Recipe::default()
        })
        .unwrap();
        assert_eq!(Recipe::parse(&text).unwrap().quant, Some(Quant::default()));
    }

    #[test]
    fn paths_are_relative_to_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(
            &path,
            "data = { kind = 'text', path = 'a.txt' }\nteacher = { path = '/t' }",
        )
        .unwrap();
        let recipe = Recipe::read(&path).unwrap();
        assert_eq!(recipe.data.path.unwrap(), folder.path().join("a.txt"));
        assert_eq!(recipe.teacher.unwrap().path, Path::new("/t"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[train]\nlearningrate = 1", "learningrate"),
            ("[data]\nkind = 'csv'", "actions"),
            ("[data]\nkind = 'text'", "path is missing"),
            ("[data]\npath = 'x'", "reads no path"),
            ("[student]\nheads = 3", "multiple of heads"),
            ("[student]\nkv_heads = 3", "kv_heads"),
            (
                "[student]\nembedding_length = 120\n[quant]",
                "multiples of 32",
            ),
            ("[quant]\nlinear = 'q3_x'", "q4_0"),
            ("[quant]\nstart = 2", "0 to 1"),
            ("[losses]\nkl = {}", "forward_kl"),
            ("[losses]\nforward_kl = { weight = 1, temp = 2 }", "temp"),
            ("[losses]\nhidden_mse = { layers = 'last' }", "uniform"),
            ("[train]\nsteps = 0", "steps"),
            ("[train]\nsteps = 10\nwarmup = 20", "warmup"),
            ("[train]\nprecision = 'f8'", "bf16"),
            ("[data]\nsequence = 512", "context_length"),
            ("[train", "line 1"),
        ] {
            let message = format!("{:#}", Recipe::parse(text).expect_err(text));
            assert!(message.contains(word), "{text}: {message}");
        }
        assert!(Recipe::default().expect_teacher().is_err());
    }
}
