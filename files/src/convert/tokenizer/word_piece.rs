//! WordPiece, from `tokenizer.json` or `vocab.txt`.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::{Files, check_count};
use crate::tokenizer::{Vocabulary, token_type};

/// The tokens of `tokenizer.json`, or the lines of `vocab.txt`.
pub(super) fn read(files: &Files<'_>, rows: usize) -> Result<Vocabulary> {
    let mut by_id: HashMap<usize, String> = HashMap::new();
    if let Some(json) = &files.json {
        let vocab = json["model"]["vocab"].as_object();
        let vocab = vocab.filter(|_| json["model"]["type"] == "WordPiece");
        let vocab = vocab.with_context(|| {
            format!(
                "{}/tokenizer.json: expected WordPiece for a BERT",
                files.folder.display()
            )
        })?;
        for (token, id) in vocab {
            let id = id
                .as_u64()
                .with_context(|| format!("the id of token {token:?} is not a number"))?;
            by_id.insert(usize::try_from(id)?, token.clone());
        }
    } else {
        let path = files.folder.join("vocab.txt");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: expected tokenizer.json or vocab.txt", path.display()))?;
        by_id.extend(text.lines().map(str::to_owned).enumerate());
    }
    let most = by_id.keys().max().map_or(0, |id| id.saturating_add(1));
    check_count(most, rows)?;
    let mut vocabulary = Vocabulary {
        model: "bert".into(),
        pre: Some("bert-bge".into()),
        ..Vocabulary::default()
    };
    for id in 0..most {
        let token = by_id.remove(&id);
        vocabulary.types.push(if token.is_some() {
            token_type::NORMAL
        } else {
            token_type::UNUSED
        });
        vocabulary
            .tokens
            .push(token.unwrap_or_else(|| format!("[PAD{id}]")));
    }
    if files.json.is_none() {
        let named =
            |text: &String| ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].contains(&text.as_str());
        let pairs = vocabulary.tokens.iter().zip(&mut vocabulary.types);
        pairs
            .filter(|(token, _)| named(token))
            .for_each(|(_, kind)| *kind = token_type::CONTROL);
    }
    for token in files.added(rows)? {
        vocabulary.pad_to(token.id + 1);
        vocabulary.set_added(&token);
    }
    Ok(vocabulary)
}

/// Words begin with U+2581, and what goes on has no mark, where BERT's files mark what goes on.
pub(super) fn phantom_spaces(vocabulary: &mut Vocabulary) {
    for (token, kind) in vocabulary.tokens.iter_mut().zip(&vocabulary.types) {
        if *kind != token_type::CONTROL {
            *token = match token.strip_prefix("##") {
                Some(rest) => rest.to_owned(),
                None => format!("\u{2581}{token}"),
            };
        }
    }
}
