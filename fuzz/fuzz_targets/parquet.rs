//! Parquet files with a column of images.
#![no_main]

mod common;

use gmflow_data::{Columns, ImageSettings, ParquetDataset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: common::let_panics_be_caught(), |bytes: &[u8]| {
    let (_folder, path) = common::file("part.parquet", bytes);
    let settings = ImageSettings { size: Some(4), ..ImageSettings::default() };
    if let Ok(dataset) = ParquetDataset::open(&path, Columns::default(), &settings) {
        common::read(&dataset);
    }
});
