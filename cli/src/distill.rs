//! `dram pretrain` and `dram distill`: from a recipe to a model.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result, bail};
use dram_train::recipe::Recipe;
use dram_train::run::{Event, Summary};

use crate::output::{bytes, table, write_json};
use crate::progress::Training;

const OUTPUT: &str = "\
The output folder:
  model.gguf               what an app opens; it passed the parity gate
  model/                   the f32 weights as a Hugging Face folder, with tokenizer: transformers and `dram convert` open it
  report.md                teacher, control and student side by side, and the loss curve
  summary.json             the same for machines
  train.jsonl              every step: losses, learning rate, gradient norm
  checkpoint.safetensors   where the next start resumes
  .lock                    held by the run that writes here: there is one at a time

Ctrl-C stops after the running step, and within a second outside training; the same command resumes from there, with the same bits as without the
stop. Recipe and files may move, as long as their contents stay the same; train.steps may grow.";

/// Train a model from data alone
///
/// The recipe is a TOML file; every field has a default. Such a model can be a teacher, or the control that a distilled student is compared with.
#[derive(clap::Args)]
#[command(after_help = OUTPUT, after_long_help = format!("{OUTPUT}\n\n{PRETRAIN_EXAMPLES}"))]
pub(crate) struct PretrainArgs {
    #[command(flatten)]
    common: Common,
}

const PRETRAIN_EXAMPLES: &str = "\
Examples:
  dram pretrain recipes/actions-teacher.toml --out out/teacher
  dram pretrain my.toml --out out/seed1 --set train.seed=1 --set train.steps=500";

/// Train a student from a teacher
///
/// The recipe names the teacher (a Hugging Face folder or a GGUF file), the data, the student's shape, the losses and the block formats that the
/// student is trained for. The default is a million-parameter student of the built-in actions task. A student may be of any family with dense layers
/// that the runtime reads, fresh (architecture) or from a folder (init).
#[derive(clap::Args)]
#[command(after_help = OUTPUT, after_long_help = format!("{OUTPUT}\n\n{DISTILL_EXAMPLES}"))]
pub(crate) struct DistillArgs {
    #[command(flatten)]
    common: Common,
}

const DISTILL_EXAMPLES: &str = "\
A recipe:
  name = \"my student\"
  data = { kind = \"jsonl\", path = \"requests.jsonl\" }     # also Parquet; the shapes of records stand below
  teacher = { path = \"teachers/llama-3.2-1b\" }
  student = { embedding_length = 256, layers = 6, heads = 8, feed_forward_length = 704 }
  losses = { cross_entropy = { weight = 0.3 }, forward_kl = { weight = 1.0, temperature = 2.0 } }
  train = { steps = 20000, batch = 64, learning_rate = 2e-3 }
  eval = { control = true }                                # also train the student without the teacher, and compare
  quant = { linear = \"q4_0\" }

A student of another family: student = { architecture = \"qwen3\", … }; of the families gemma2, gemma3, granite, llama, olmo2, phi3, qwen2, qwen3,
smollm3 and stablelm. To round a folder by training, it is its own teacher:
  teacher = { path = \"Qwen3-0.6B\" }
  student = { init = \"Qwen3-0.6B\" }
  quant = { linear = \"q4_0\", start = 0 }

Records, one a line (or in a JSON array, or the rows of a Parquet file; files may be packed with gzip or Zstandard):
  {\"messages\": [{\"role\": …, \"content\": …}, …]}          a conversation; also \"conversations\" of \"from\" and \"value\". Every answer is a target
  {\"prompt\": …, \"completion\": …}                      texts, or lists of turns. The completion is the target
  {\"prompt\": …, \"chosen\": …, \"rejected\": …}         a preference. The chosen answer is the target
  {\"instruction\": …, \"input\": …, \"output\": …}       Alpaca; also question + answer and the like. The output is the target
  {\"text\": …}                                         a document. All of it is the target
Beside them may stand \"tools\", \"system\" and \"chat_template_kwargs\"; docs/data.md has the whole table.

Examples:
  dram distill recipes/actions.toml --out out/actions
  dram distill my.toml --out out/mine --set train.learning_rate=1e-3 --json -";

#[derive(clap::Args)]
struct Common {
    /// What to train: a TOML file
    recipe: PathBuf,
    /// Folder for the results
    #[arg(short, long)]
    out: PathBuf,
    /// Override a field of the recipe, such as train.steps=500; may be repeated
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Write the summary as JSON to this file (-: standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn pretrain(args: PretrainArgs) -> Result<()> {
    train(&args.common, dram_train::run::pretrain)
}

pub(crate) fn distill(args: DistillArgs) -> Result<()> {
    train(&args.common, dram_train::run::distill)
}

type Train = fn(&Recipe, &Path, &AtomicBool, &mut dyn FnMut(Event<'_>)) -> Result<Summary>;

fn train(args: &Common, train: Train) -> Result<()> {
    let recipe = read_recipe(&args.recipe, &args.set)?;
    let mut training = Training::new(recipe.train.steps)?;
    let stop = training.stop();
    let summary = train(&recipe, &args.out, &stop, &mut |event| match event {
        Event::Note(note) => training.say(note),
        Event::Begun { step } => training.begun(step),
        Event::Working { what, done, of } => training.working(what, done, of),
        Event::Step(p) => training.step(p.step, p.of, p.tokens_per_second, p.eta),
        Event::Evaluated { step, figures } => {
            for (set, f) in figures {
                let teacher = match (f.kl, f.top1) {
                    (Some(kl), Some(top1)) => format!(
                        ", KL to teacher {kl:.4}, top-1 agreement {:.2} %",
                        100.0 * top1
                    ),
                    _ => String::new(),
                };
                training.say(&format!(
                    "step {step}, {set}: NLL {:.4}, perplexity {:.3}{teacher}",
                    f.nll,
                    f.perplexity()
                ));
            }
        }
    })?;
    training.finish();
    if let Some(path) = &args.json {
        write_json(path, &serde_json::to_value(&summary)?)?;
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        print_summary(&summary);
    }
    Ok(())
}

/// Reads a recipe; each of `set` is `section.field=value`, the value as TOML or else as text.
fn read_recipe(path: &Path, set: &[String]) -> Result<Recipe> {
    if set.is_empty() {
        return Recipe::read(path);
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the recipe {}", path.display()))?;
    let mut table: toml::Table = text
        .parse()
        .with_context(|| format!("recipe {}", path.display()))?;
    for assignment in set {
        let Some((field, value)) = assignment.split_once('=') else {
            bail!("--set {assignment}: expected FIELD=VALUE, such as train.steps=500");
        };
        let value = format!("v = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut t| t.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.into()));
        let (sections, name) = field
            .rsplit_once('.')
            .map_or((None, field), |(s, n)| (Some(s), n));
        let mut at = &mut table;
        for section in sections.iter().flat_map(|s| s.split('.')) {
            let inner = at
                .entry(section)
                .or_insert_with(|| toml::Table::new().into());
            at = inner.as_table_mut().with_context(|| {
                format!("--set {assignment}: {section} is no section of the recipe")
            })?;
        }
        at.insert(name.into(), value);
    }
    let mut recipe = Recipe::parse(&table.to_string())
        .with_context(|| format!("recipe {} with {}", path.display(), set.join(", ")))?;
    recipe.resolve(path.parent().unwrap_or(Path::new("")));
    Ok(recipe)
}

fn print_summary(summary: &Summary) {
    if !summary.finished {
        println!(
            "stopped after {} steps; the same command resumes from there",
            summary.steps
        );
        return;
    }
    println!(
        "{}: {} parameters, {} steps, {:.0} s",
        summary.name, summary.parameters, summary.steps, summary.seconds
    );
    let percent =
        |share: Option<f64>| share.map_or("–".into(), |s| format!("{:.2} %", 100.0 * s));
    let rows: Vec<Vec<String>> = summary
        .figures
        .iter()
        .map(|(set, f)| {
            let exact = summary
                .exact
                .iter()
                .find(|(name, _)| name == set)
                .map(|e| e.1);
            vec![
                set.clone(),
                format!("{:.4}", f.nll),
                format!("{:.3}", f.perplexity()),
                f.kl.map_or("–".into(), |kl| format!("{kl:.4}")),
                percent(f.top1),
                percent(exact),
            ]
        })
        .collect();
    print!(
        "{}",
        table(
            &[
                "held-out set",
                "NLL",
                "perplexity",
                "KL to teacher",
                "top-1 agreement",
                "exact match"
            ],
            &rows
        )
    );
    if let Some(table) = summary.table.as_ref().filter(|t| t.rows.len() > 1) {
        print!("\n{}\n", table.text());
    }
    if let Some(parity) = &summary.parity {
        println!("parity: {parity}");
    }
    if let Some(path) = &summary.gguf {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        println!("{} ({})", path.display(), bytes(size));
    }
}
