//! The choice of the next token.

use anyhow::Result;
use dram_core::{Model, Sampling, SamplingSource};

/// In the order in which they act.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Add BIAS to the logit of token ID (-inf bans it); may be repeated
    #[arg(long, value_name = "ID=BIAS", value_parser = logit_bias, allow_hyphen_values = true)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Repetition penalty: divides the logits of recent tokens (1: off)
    #[arg(long)]
    pub repeat_penalty: Option<f32>,
    /// Presence penalty: subtracted from the logits of recent tokens (0: off)
    #[arg(long, allow_hyphen_values = true)]
    pub presence_penalty: Option<f32>,
    /// Frequency penalty: subtracted for each occurrence among recent tokens (0: off)
    #[arg(long, allow_hyphen_values = true)]
    pub frequency_penalty: Option<f32>,
    /// Number of recent tokens that the penalties consider
    #[arg(long)]
    pub repeat_last_n: Option<usize>,
    /// DRY: penalty on continuing a repetition (0: off, 0.8 is usual)
    #[arg(long)]
    pub dry_multiplier: Option<f32>,
    /// DRY: how fast the penalty grows with the length of the repetition
    #[arg(long, default_value_t = 1.75)]
    pub dry_base: f32,
    /// DRY: longest repetition without a penalty
    #[arg(long, default_value_t = 2)]
    pub dry_allowed_length: usize,
    /// Top-k: keep the K most likely tokens (0: all)
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Locally typical sampling: keep the tokens nearest to the expected surprise that together reach this probability (1: all)
    #[arg(long)]
    pub typical_p: Option<f32>,
    /// Top-p (nucleus): keep the most likely tokens that together reach this probability (1: all)
    #[arg(long)]
    pub top_p: Option<f32>,
    /// Min-p: drop tokens less likely than this share of the most likely one (0: none)
    #[arg(long)]
    pub min_p: Option<f32>,
    /// XTC: probability of dropping all but the least likely token above the threshold (0: never)
    #[arg(long)]
    pub xtc_probability: Option<f32>,
    /// XTC: the threshold
    #[arg(long)]
    pub xtc_threshold: Option<f32>,
    /// Temperature; 0 is greedy, 0.7 to 1.0 is usual for free text
    #[arg(long)]
    pub temperature: Option<f32>,
    /// Random seed
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl SamplingArgs {
    /// As the options say; where they say nothing, as the model's file or its family does.
    pub(crate) fn sampling(&self, model: &Model) -> Result<Sampling> {
        let (mut sampling, _) = model.default_sampling()?;
        fn set<T: Copy>(field: &mut T, option: Option<T>) {
            *field = option.unwrap_or(*field);
        }
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_k, self.top_k);
        set(&mut sampling.typical_p, self.typical_p);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.xtc.probability, self.xtc_probability);
        set(&mut sampling.xtc.threshold, self.xtc_threshold);
        set(&mut sampling.dry.multiplier, self.dry_multiplier);
        sampling.dry.base = self.dry_base;
        sampling.dry.allowed_length = self.dry_allowed_length;
        set(&mut sampling.penalties.repetition, self.repeat_penalty);
        set(&mut sampling.penalties.presence, self.presence_penalty);
        set(&mut sampling.penalties.frequency, self.frequency_penalty);
        set(&mut sampling.penalties.window, self.repeat_last_n);
        sampling.logit_bias = self.logit_bias.clone();
        sampling.seed = self.seed;
        Ok(sampling)
    }

    /// What is said of it: `temperature 0.7, top-k 20, top-p 0.8 (from the file)`.
    pub(crate) fn note(&self, model: &Model) -> Result<String> {
        let sampling = self.sampling(model)?;
        let (_, source) = model.default_sampling()?;
        let source = match source {
            SamplingSource::File => "from the file".to_owned(),
            SamplingSource::Family(name) => format!("usual for {name}"),
            SamplingSource::Usual => "Dram's default; the file has none".to_owned(),
        };
        if sampling.temperature == 0.0 {
            let source = match self.temperature {
                Some(_) => "by option".to_owned(),
                None => source,
            };
            return Ok(format!("greedy, temperature 0 ({source})"));
        }
        let mut parts = vec![format!("temperature {}", sampling.temperature)];
        let mut part = |name: &str, value: f64, off: f64| {
            if value != off {
                // As it was written: 0.95, not 0.949999988.
                parts.push(format!("{name} {}", value as f32));
            }
        };
        part("top-k", sampling.top_k as f64, 0.0);
        part("typical-p", sampling.typical_p.into(), 1.0);
        part("top-p", sampling.top_p.into(), 1.0);
        part("min-p", sampling.min_p.into(), 0.0);
        part("XTC", sampling.xtc.probability.into(), 0.0);
        part("DRY", sampling.dry.multiplier.into(), 0.0);
        part("repeat penalty", sampling.penalties.repetition.into(), 1.0);
        part("presence penalty", sampling.penalties.presence.into(), 0.0);
        part(
            "frequency penalty",
            sampling.penalties.frequency.into(),
            0.0,
        );
        let rest = if self.is_default() {
            ""
        } else {
            "; others by option"
        };
        Ok(format!(
            "{} ({source}{rest}), seed {}",
            parts.join(", "),
            sampling.seed
        ))
    }

    /// Whether no option changes what the model's default is.
    fn is_default(&self) -> bool {
        let numbers = [
            self.temperature,
            self.typical_p,
            self.top_p,
            self.min_p,
            self.xtc_probability,
            self.dry_multiplier,
            self.repeat_penalty,
            self.presence_penalty,
            self.frequency_penalty,
        ];
        numbers.iter().all(Option::is_none) && self.top_k.is_none() && self.repeat_last_n.is_none()
    }
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parse = || {
        let (id, bias) = text.split_once('=')?;
        Some((id.trim().parse().ok()?, bias.trim().parse().ok()?))
    };
    parse().ok_or_else(|| "expected ID=BIAS, such as 13=-inf".into())
}
