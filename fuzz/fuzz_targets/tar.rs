//! Tar shards: whatever opens can be read to its end, what is strict about damage accepts no more than what passes over it, and damage is
//! the file's fault.

#![no_main]

mod scratch;

use gmflow_data::{Corrupt, Error, FilesError, ImageDataset, ImageSettings, Storage, TarData, TarDataset};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fn open(path: &Path, corrupt: Corrupt) -> Option<TarDataset> {
    let image = ImageSettings { size: Some(2), corrupt, max_pixels: Some(1 << 16), ..ImageSettings::default() };
    // No folder can be made there, so nothing is kept from one input to the next.
    let storage = Storage { cache: Some("/dev/null/none".into()), ..Storage::default() };
    match TarDataset::open(&TarData { image, storage, ..TarData::at(path) }, Path::new("")) {
        Ok(set) => Some(set),
        Err(Error::Files(FilesError::File { .. })) => None,
        Err(error) => panic!("not the file's fault: {error}"),
    }
}

fuzz_target!(|data: &[u8]| {
    let path = scratch::write("shard.tar", data);
    let (strict, lenient) = (open(&path, Corrupt::Refuse), open(&path, Corrupt::Skip));
    if let Some(set) = &strict {
        let same = lenient.as_ref().is_some_and(|lenient| lenient.len() == set.len());
        assert!(same, "accepted when strict, and not otherwise");
    }
    let Some(set) = lenient else { return };
    assert!(set.get(set.len()).is_err());
    for index in 0..set.len() {
        match set.get(index) {
            Ok(image) => assert_eq!(image.pixels.len(), 12),
            Err(error) => assert!(error.is_corrupt(), "not the file's fault: {error}"),
        }
    }
});
