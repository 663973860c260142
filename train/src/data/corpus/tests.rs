use super::*;
use dram_files::Rng;
use dram_files::tokenizer::pre::probes;

fn golden(name: &str) -> TextTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/convert");
    TextTokenizer::open(&folder.join(name)).unwrap()
}

fn documents(texts: &[&str]) -> Documents {
    let mut out = Documents::default();
    texts.iter().for_each(|text| out.push(text));
    out
}

/// Lines of all kinds, many of them empty or indented.
fn mixed(lines: usize) -> String {
    let (probes, mut rng) = (probes(), Rng::new(&[4]));
    let ends = ["\n", "\n", "\n", "\n\n", "\r\n", "\n ", " \n", "\n<s>", "."];
    let mut text = String::new();
    for _ in 0..lines {
        text.push_str(rng.pick::<String>(&probes));
        text.push_str(rng.pick::<&str>(&ends));
    }
    text
}

/// Where a pre-tokenizer is said to cut at line breaks, pieces have the words of the whole.
#[test]
fn no_word_lies_across_pieces() {
    let text = mixed(4_000);
    let pieces = pieces(&text, 100);
    assert!(pieces.len() > 300, "{}", pieces.len());
    assert_eq!(pieces.concat(), text);
    let mut cutting = 0;
    for pre in Pretokenizer::all().filter(cuts_lines) {
        let mut whole = Vec::new();
        pre.split(&text, &mut |word| whole.push(word.to_owned()));
        let mut parts = Vec::new();
        for piece in &pieces {
            pre.split(piece, &mut |word| parts.push(word.to_owned()));
        }
        let same = whole.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        assert!(
            whole == parts,
            "{:?}: {:?}, {:?}",
            pre.names(),
            whole.get(same),
            parts.get(same)
        );
        cutting += 1;
    }
    let all = Pretokenizer::all().count();
    assert!(cutting + 2 >= all && cutting < all, "{cutting} of {all}");
}

/// In pieces a text has the ids of one call with all of it, for every kind of tokenizer that can be cut.
#[test]
fn pieces_have_the_ids_of_the_whole() {
    let text = mixed(2_000);
    let trained = TextTokenizer::train(text.lines(), 900, &["<s>"], None).unwrap();
    for tokenizer in [trained, golden("spm"), golden("wordpiece")] {
        assert!(cuts(&tokenizer), "{tokenizer:?}");
        for specials in [false, true] {
            let mut ids = Vec::new();
            encode_document(&tokenizer, &text, specials, 200, &mut ids).unwrap();
            let whole = tokenizer.encode(&text, specials).unwrap();
            let same = ids.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            assert!(ids == whole, "{tokenizer:?}, {specials}: token {same}");
        }
    }
    // A token that joins two lines forbids it.
    let mut vocabulary = golden("spm").vocabulary().clone();
    *vocabulary.tokens.last_mut().unwrap() = "a\nb".into();
    assert!(!cuts(&TextTokenizer::from_vocabulary(vocabulary).unwrap()));
}

#[test]
fn documents_stand_between_what_the_tokenizer_adds() {
    let spm = golden("spm");
    let texts = documents(&["one two", "", "three"]);
    let (one, three) = (
        spm.encode("one two", true).unwrap(),
        spm.encode("three", true).unwrap(),
    );
    let with = |bos: bool, eos: bool| {
        let mut vocabulary = spm.vocabulary().clone();
        (vocabulary.bos, vocabulary.eos) = (Some(1), Some(2));
        (vocabulary.add_bos, vocabulary.add_eos) = (bos, eos);
        let tokenizer = TextTokenizer::from_vocabulary(vocabulary).unwrap();
        texts.encode(&tokenizer, true).unwrap()
    };
    let (b, e) = (&[1][..], &[2][..]);
    assert_eq!(with(true, false), [b, &one, b, &three].concat());
    assert_eq!(with(true, true), [b, &one, e, b, &three, e].concat());
    assert_eq!(with(false, true), [&one, e, &three, e].concat());
    assert_eq!(with(false, false), [&one, e, &three].concat());
    // A single text of a tokenizer without a rule is its tokens.
    let mut vocabulary = spm.vocabulary().clone();
    vocabulary.add_bos = false;
    let plain = TextTokenizer::from_vocabulary(vocabulary).unwrap();
    assert_eq!(documents(&["three"]).encode(&plain, true).unwrap(), three);
}

#[test]
fn folders_and_separators_make_documents() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("b.txt"), "three").unwrap();
    std::fs::write(at("a.txt"), "one<end>two<end>").unwrap();
    std::fs::write(at(".hidden"), "no").unwrap();
    let read = |path: &Path, separator| Documents::read(path, separator).unwrap();
    let whole = read(folder.path(), Some("<end>"));
    assert_eq!(whole.iter().collect::<Vec<_>>(), ["one", "two", "three"]);
    let files = read(folder.path(), None);
    assert_eq!(
        files.iter().collect::<Vec<_>>(),
        ["one<end>two<end>", "three"]
    );
    // Of eleven characters six are learnt from: the second document's end is the cut.
    for (share, first, second) in [
        (0.4, vec!["one", "two"], vec!["three"]),
        (0.6, vec!["one", "t"], vec!["wo", "three"]),
        (0.0, vec!["one", "two", "three"], vec![]),
        (0.95, vec![], vec!["one", "two", "three"]),
    ] {
        let (training, held_out) = whole.clone().split(share).unwrap();
        assert_eq!(training.iter().collect::<Vec<_>>(), first, "{share}");
        assert_eq!(held_out.iter().collect::<Vec<_>>(), second, "{share}");
    }
    assert_ne!(
        whole.fingerprint(),
        documents(&["onetwo", "three"]).fingerprint()
    );
    assert!(Documents::read(&at("none"), None).is_err());
}

/// What was stored comes back; anything else is encoded anew.
#[test]
fn ids_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("ids"));
    let (spm, texts) = (golden("spm"), documents(&["one two", "three"]));
    let ids = texts.encode_with(&spm, true, Some(&cache)).unwrap();
    let entries = || {
        let entries = std::fs::read_dir(folder.path().join("ids")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    let found = entries();
    let [entry] = &found[..] else {
        panic!("{found:?}")
    };
    // A mark in the stored ids shows that they are read.
    cache_rewrite(&cache, &texts, &spm, &[5, 6]);
    assert_eq!(texts.encode_with(&spm, true, Some(&cache)).unwrap(), [5, 6]);
    for (other, specials) in [(golden("wordpiece"), true), (golden("spm"), false)] {
        assert_ne!(
            texts.encode_with(&other, specials, Some(&cache)).unwrap(),
            [5, 6]
        );
    }
    assert_eq!(entries().len(), 3);
    // Damage anywhere.
    let whole = std::fs::read(entry).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(entry, damaged).unwrap();
        assert_eq!(
            texts.encode_with(&spm, true, Some(&cache)).unwrap(),
            ids,
            "byte {at}"
        );
    }
    std::fs::write(entry, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(texts.encode_with(&spm, true, Some(&cache)).unwrap(), ids);
    // Ids that the tokenizer does not have.
    cache_rewrite(&cache, &texts, &spm, &[1 << 30]);
    assert_eq!(texts.encode_with(&spm, true, Some(&cache)).unwrap(), ids);
}

fn cache_rewrite(cache: &Cache, texts: &Documents, tokenizer: &TextTokenizer, ids: &[u32]) {
    cache.store(&texts.key(tokenizer, true), ids).unwrap();
}

/// Ten thousand marks of a special token cost what other text does.
#[test]
fn special_tokens_take_linear_time() {
    let tokenizer =
        TextTokenizer::train(["word"].iter(), 258, &["<|end|>", "<|more|>"], None).unwrap();
    let text = "a word or two more<|end|>".repeat(10_000);
    let started = std::time::Instant::now();
    let ids = documents(&[&text]).encode(&tokenizer, true).unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == 0).count(), 10_000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
