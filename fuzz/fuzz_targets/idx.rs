//! Pairs of IDX files, plain or compressed: whatever opens can be read to its end, and what is strict about damage accepts no more
//! than what passes over it.
//!
//! An input is one byte of flags, two bytes with the length of the images file, that file, and the labels file.

#![no_main]

mod scratch;

use gmflow_data::{Corrupt, Error, FilesError, IdxDataset, ImageDataset, ImageSettings, Result};
use libfuzzer_sys::{Corpus, fuzz_target};
use std::path::Path;

/// Larger images are opened, but converting each of them would take the fuzzer's time.
const LARGEST_CONVERTED: usize = 1 << 16;

fn open(images: &Path, labels: Option<&Path>, corrupt: Corrupt) -> Result<IdxDataset> {
    let settings = ImageSettings { corrupt, ..ImageSettings::default() };
    let opened = IdxDataset::open(images, labels, &settings);
    if let Err(error) = &opened {
        assert!(matches!(error, Error::Files(FilesError::File { .. })), "not the file's fault: {error}");
    }
    opened
}

fn check(set: &IdxDataset) {
    let [c, h, w] = set.shape();
    assert!(set.len() > 0 && c == 1 && h > 0 && w > 0);
    assert!(set.get(set.len()).is_err());
    if h * w > LARGEST_CONVERTED {
        return;
    }
    for index in [0, set.len() - 1] {
        let image = set.get(index).expect("an image below the length");
        assert_eq!(image.pixels.len(), c * h * w);
        assert!(image.pixels.iter().all(|value| (-1.0..=1.0).contains(value)));
        assert!(set.class_names().is_empty() || (image.label as usize) < set.class_names().len());
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let [flags, high, low, rest @ ..] = data else { return Corpus::Reject };
    let Some((images, labels)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else {
        return Corpus::Reject;
    };
    let (images, labels) = (scratch::write("images", images), scratch::write("labels", labels));
    let labels = (flags & 1 == 1).then_some(labels.as_path());
    let strict = open(&images, labels, Corrupt::Refuse);
    let lenient = open(&images, labels, Corrupt::Skip);
    if let Ok(strict) = &strict {
        check(strict);
        assert_eq!(strict.len(), lenient.as_ref().expect("accepted when strict").len());
    }
    if let Ok(lenient) = &lenient {
        check(lenient);
    }
    Corpus::Keep
});
