//! Image references: what is taken is written as it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else { return };
    let written = reference.to_string();
    let again = Reference::parse(&written).expect("what was written is read");
    assert_eq!(again, reference, "{written}");
    let familiar = reference.familiar();
    assert_eq!(Reference::parse(&familiar).expect("the short form too"), reference, "{familiar}");
    assert!(!written.contains("..") || !written.starts_with(['.', '/']), "{written}");
});
