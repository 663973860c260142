//! A recipe: refused, or one whose derived values can be asked for.
#![no_main]

use dram_train::recipe::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(recipe) = Recipe::parse(text) {
        recipe
            .scheme()
            .expect("a recipe that passed its check has a scheme");
        let _ = recipe.student.config(1000);
    }
});
