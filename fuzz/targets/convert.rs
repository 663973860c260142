//! A Hugging Face folder: config.json, tokenizer.json, tokenizer_config.json and the weights.
#![no_main]

use dram_files::convert::Convert;
use dram_fuzz::{parts, scratch};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
];

fuzz_target!(|data: &[u8]| {
    let folder = scratch("folder");
    std::fs::create_dir_all(&folder).expect("the scratch folder takes a folder");
    for (name, bytes) in FILES.iter().zip(parts::<4>(data)) {
        std::fs::write(folder.join(name), bytes).expect("the scratch folder takes a file");
    }
    let _ = Convert::default().run(&folder, &scratch("converted.gguf"), &mut |_| {});
});
