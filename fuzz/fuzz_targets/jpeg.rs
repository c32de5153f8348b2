//! The walk over the segments of a JPEG file: it ends, what follows a whole file does not matter, and no part of the shortest whole
//! file is whole.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The module itself, which is no part of the public interface.
#[path = "../../crates/gmflow-data/src/jpeg.rs"]
mod jpeg;

fuzz_target!(|data: &[u8]| {
    if !jpeg::is_complete(data) {
        return;
    }
    assert!(jpeg::is_complete(&[data, &[0xff]].concat()), "more bytes made it incomplete");
    // Completeness never ends as a file grows, so the shortest whole beginning is found by halving.
    let (mut incomplete, mut complete) = (0, data.len());
    while complete - incomplete > 1 {
        let middle = incomplete + (complete - incomplete) / 2;
        if jpeg::is_complete(&data[..middle]) { complete = middle } else { incomplete = middle }
    }
    assert!(data.starts_with(&[0xff, 0xd8]));
    assert!(data[..complete].ends_with(&[0xd9]), "the shortest whole file does not end in the end marker");
});
