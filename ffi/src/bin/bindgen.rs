//! Writes the Kotlin or Swift bindings of a built library: `dram-bindgen kotlin|swift LIBRARY OUT_DIR`.

use anyhow::{Context, Result, bail};
use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [language, library, out_dir] = arguments.as_slice() else {
        bail!("expected three arguments, kotlin|swift LIBRARY OUT_DIR, got {arguments:?}");
    };
    let language = match language.as_str() {
        "kotlin" => TargetLanguage::Kotlin,
        "swift" => TargetLanguage::Swift,
        other => bail!("expected the language kotlin or swift, got {other:?}"),
    };
    generate(GenerateOptions {
        languages: vec![language],
        source: library.into(),
        out_dir: out_dir.into(),
        crate_filter: Some("dram_ffi".into()),
        ..GenerateOptions::default()
    })
    .with_context(|| format!("no bindings could be generated from {library}"))
}
