//! JPEG, PNG and WebP files in a folder: the check for completeness, the orientation tag, the decoders.
#![no_main]

mod common;

use gmflow_data::{FolderDataset, ImageSettings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: common::let_panics_be_caught(), |bytes: &[u8]| {
    let (folder, _path) = common::file("image.jpg", bytes);
    let settings = ImageSettings { size: Some(4), ..ImageSettings::default() };
    if let Ok(dataset) = FolderDataset::open(folder.path(), &settings) {
        common::read(&dataset);
    }
});
