//! IDX files, plain and compressed. The same bytes serve as images and as labels.
#![no_main]

mod common;

use gmflow_data::{Corrupt, IdxDataset, ImageSettings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (_folder, path) = common::file("file", bytes);
    for corrupt in [Corrupt::Refuse, Corrupt::Skip] {
        // Resizing is not what is tested, and large images would take all the time.
        let settings = ImageSettings { size: Some(2), corrupt, ..ImageSettings::default() };
        if let Ok(dataset) = IdxDataset::open(&path, None, &settings) {
            common::read(&dataset);
        }
        drop(IdxDataset::open(&path, Some(&path), &settings));
    }
});
