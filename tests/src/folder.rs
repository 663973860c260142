//! The tiny Hugging Face folders of `tests/golden/make_convert.py`, built again from facts.json: weights are a function of their name and place.

use dram_core::hash::fnv1a;
use half::{bf16, f16};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What facts.json holds.
pub struct Facts {
    /// Of the packages that made it.
    pub versions: String,
    pub cases: Vec<Case>,
}

/// One folder, and what llama.cpp's converter makes of it.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// The type of the weights, and of the file's matrices.
    pub stored: String,
    pub float: String,
    pub config: Json,
    /// Names beside config.json and the weights.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Names and shapes.
    pub weights: Vec<(String, Vec<usize>)>,
    /// The GGUF file: values by key, and type, shape and hash by tensor.
    pub keys: BTreeMap<String, Json>,
    pub tensors: BTreeMap<String, String>,
}

impl Facts {
    pub fn read() -> Facts {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/convert");
        let text = std::fs::read_to_string(golden.join("facts.json")).unwrap();
        let mut json: Json = serde_json::from_str(&text).unwrap();
        let cases = json["cases"].take();
        let cases = cases.as_array().unwrap();
        Facts {
            versions: json.to_string(),
            cases: cases.iter().map(|case| Case::read(case, &golden)).collect(),
        }
    }

    /// The case called `name`.
    pub fn case(&self, name: &str) -> Case {
        let found = self.cases.iter().find(|case| case.name == name);
        found.unwrap_or_else(|| panic!("no case {name}")).clone()
    }
}

impl Case {
    fn read(json: &Json, golden: &Path) -> Case {
        let text = |key: &str| json[key].as_str().unwrap().to_owned();
        let object = |key: &str| json[key].as_object().unwrap().clone();
        let mut files: BTreeMap<String, Vec<u8>> = object("files")
            .into_iter()
            .map(|(name, json)| (name, json.to_string().into()))
            .collect();
        for entry in std::fs::read_dir(golden.join(text("tokenizer"))).unwrap() {
            let path = entry.unwrap().path();
            files.insert(
                path.file_name().unwrap().to_str().unwrap().into(),
                std::fs::read(&path).unwrap(),
            );
        }
        let config = &json["config"];
        let inner = if config["text_config"].is_object() {
            &config["text_config"]
        } else {
            config
        };
        let layers = inner["num_hidden_layers"].as_u64().unwrap();
        let mut weights = Vec::new();
        let lines = json["weights"].as_array().unwrap();
        // Where layers differ, all are listed.
        let is_listed = |line: &Json| line.as_str().unwrap().contains("layers.1.");
        let alike = !lines.iter().any(is_listed);
        for line in lines {
            let (name, shape) = line.as_str().unwrap().split_once(' ').unwrap();
            let shape: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
            match ["layers.0.", "layer.0."]
                .into_iter()
                .find(|part| alike && name.contains(part))
            {
                None => weights.push((name.to_owned(), shape)),
                // The other layers have the shapes of the first.
                Some(part) => weights.extend((0..layers).map(|n| {
                    (
                        name.replacen(part, &part.replace('0', &n.to_string()), 1),
                        shape.clone(),
                    )
                })),
            }
        }
        Case {
            name: text("name"),
            stored: text("dtype"),
            float: text("type"),
            config: config.clone(),
            files,
            weights,
            keys: object("keys").into_iter().collect(),
            tensors: object("tensors")
                .into_iter()
                .map(|(name, text)| (name, text.as_str().unwrap().into()))
                .collect(),
        }
    }

    /// Writes the folder inside `parent`, under the name that facts.json tells of; with `shards`, the weights as two files and their index.
    pub fn build(&self, parent: &Path, shards: bool) -> PathBuf {
        let folder = parent.join(format!("Tiny-{}-v0.3-Instruct", self.name));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        // Weights of a module are listed behind its folder's name.
        let (modules, weights): (Vec<_>, Vec<_>) = self
            .weights
            .iter()
            .cloned()
            .partition(|(name, _)| name.contains('/'));
        for module in modules {
            let path = folder.join(module.0.split_once('/').unwrap().0);
            std::fs::write(path.join("model.safetensors"), self.safetensors(&[module])).unwrap();
        }
        if !shards {
            let bytes = self.safetensors(&weights);
            std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
            return folder;
        }
        let mut map = serde_json::Map::new();
        for (part, weights) in self
            .weights
            .chunks(self.weights.len().div_ceil(2))
            .enumerate()
        {
            let file = format!("model-0000{}-of-00002.safetensors", part + 1);
            std::fs::write(folder.join(&file), self.safetensors(weights)).unwrap();
            map.extend(weights.iter().map(|(name, _)| (name.clone(), json!(file))));
        }
        std::fs::write(
            folder.join("model.safetensors.index.json"),
            json!({ "weight_map": map }).to_string(),
        )
        .unwrap();
        folder
    }

    /// A header of JSON behind its length, and the values.
    fn safetensors(&self, weights: &[(String, Vec<usize>)]) -> Vec<u8> {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, shape) in weights {
            let start = data.len();
            for value in values(name, shape.iter().product(), self.stored == "f32") {
                match &*self.stored {
                    "f32" => data.extend(value.to_le_bytes()),
                    "f16" => data.extend(f16::from_f32(value).to_le_bytes()),
                    _ => data.extend(bf16::from_f32(value).to_le_bytes()),
                }
            }
            let name = name.split_once('/').map_or(&**name, |(_, name)| name);
            let entry = json!({ "dtype": self.stored.to_uppercase(), "shape": shape, "data_offsets": [start, data.len()] });
            header.insert(name.to_owned(), entry);
        }
        let header = Json::Object(header).to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
    }

    /// Replaces text in a file; panics where it is not there: a test that damages nothing proves nothing.
    pub fn edit(&mut self, file: &str, from: &str, to: &str) {
        let bytes = self
            .files
            .get_mut(file)
            .unwrap_or_else(|| panic!("no file {file}"));
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        assert!(text.contains(from), "{file} does not hold {from}");
        *bytes = text.replacen(from, to, 1).into();
    }
}

/// As `values` in make_convert.py: splitmix64, 24 bits for f32 and 8 for shorter types, from -1 to 1.
fn values(name: &str, count: usize, long: bool) -> impl Iterator<Item = f32> {
    let seed = fnv1a(name.bytes());
    let bits = if long { 24 } else { 8 };
    (1..=count as u64).map(move |i| {
        let mut x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let half = (1i64 << (bits - 1)) as f32;
        ((x >> (64 - bits)) as f32 - half) / half
    })
}
