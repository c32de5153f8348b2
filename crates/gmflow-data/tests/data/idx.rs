use std::fs::write;
use std::path::PathBuf;

use gmflow_data::{Error, FilesError, IdxDataset, ImageDataset, ImageSettings, Result};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{gzip, idx, skip};

/// Writes both files and opens them.
fn open(images: &[u8], labels: Option<&[u8]>, settings: &ImageSettings) -> Result<IdxDataset> {
    let folder = TempDir::new().unwrap();
    let path = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        write(&path, bytes).unwrap();
        path
    };
    let labels = labels.map(|labels| path("labels", labels));
    IdxDataset::open(&path("images", images), labels.as_deref(), settings)
}

fn refused(images: &[u8], labels: Option<&[u8]>, says: &str) {
    let error = open(images, labels, &ImageSettings::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Files(FilesError::File { .. })) && text.contains(says), "{text}");
}

fn three() -> Vec<u8> {
    idx(&[3, 2, 2], &[0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8])
}

#[test]
fn plain_and_compressed_files_read_the_same() {
    let labels = idx(&[3], &[2, 0, 1]);
    for (images, labels) in [(three(), labels.clone()), (gzip(&three()), gzip(&labels))] {
        let set = open(&images, Some(&labels), &ImageSettings::default()).unwrap();
        assert_eq!((set.len(), set.shape(), set.class_names().len()), (3, [1, 2, 2], 3));
        assert_eq!((set.class_images(), set.fingerprint().unwrap().images), (Some(vec![1, 1, 1]), 3));
        let image = set.get(0).unwrap();
        assert_eq!(image.label, 2);
        let expected = [-1.0, -0.6, -0.2, 1.0];
        assert!(image.pixels.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6), "{image:?}");
        assert!(matches!(set.get(3), Err(Error::Files(FilesError::Config { .. }))));
    }
}

#[test]
fn hostile_files_are_refused_by_name() {
    let labels = idx(&[3], &[2, 0, 1]);
    refused(&[], None, "magic number");
    refused(&three()[..3], None, "magic number");
    refused(&three()[..14], None, "dimension 2");
    refused(b"PK\x03\x04 this is another format", None, "magic number");
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", None, "Git LFS");
    refused(&labels, None, "magic number");
    refused(&three(), Some(&three()), "magic number");
    refused(&three()[..20], None, "truncated");
    refused(&[three(), vec![0]].concat(), None, "more");
    refused(&three(), Some(&idx(&[2], &[2, 0])), "number of labels");
    refused(&idx(&[0, 2, 2], &[]), Some(&idx(&[0], &[])), "number of images");
    refused(&idx(&[3, 0, 2], &[]), None, "image size");
    // A claim of 2^96 bytes must not be believed.
    refused(&idx(&[u32::MAX; 3], &[]), None, "dimensions");
    refused(&idx(&[1 << 20, 64, 64], &[]), None, "truncated");
    assert!(matches!(IdxDataset::open("nowhere".as_ref(), None, &skip()), Err(Error::Files(FilesError::Io { .. }))));
}

#[test]
fn damaged_compression_is_refused() {
    let packed = gzip(&three());
    for cut in 2..packed.len() {
        assert!(open(&packed[..cut], None, &ImageSettings::default()).is_err(), "{cut} bytes");
    }
    let mut checksum = packed.clone();
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    refused(&checksum, None, "compression");
    // The order of pixels is unknown then, so it is refused even where damage is passed over.
    assert!(open(&checksum, None, &skip()).is_err());
}

#[test]
fn complete_images_of_a_truncated_file_are_kept_on_request() {
    let set = open(&three()[..16 + 11], Some(&idx(&[3], &[0, 1, 2])), &skip()).unwrap();
    assert_eq!(set.len(), 2);
    assert_eq!(set.get(1).unwrap().label, 1);
    assert!(set.get(2).is_err());
    assert!(open(&three()[..16 + 3], None, &skip()).is_err());
    let long = idx(&[2000, 2, 2], &(0..8000u32).map(|v| (v * v % 251) as u8).collect::<Vec<u8>>());
    let packed = gzip(&long);
    let set = open(&packed[..packed.len() / 2], None, &skip()).unwrap();
    assert!((1..2000).contains(&set.len()), "{}", set.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), zip: bool) {
        let bytes = if zip { gzip(&bytes) } else { bytes };
        let _ = open(&bytes, None, &skip());
    }

    #[test]
    fn any_header_is_read_or_refused(dims in prop::collection::vec(any::<u32>(), 0..5), body in 0usize..32) {
        let _ = open(&idx(&dims, &vec![7; body]), None, &skip());
    }

    #[test]
    fn pixels_come_back(n in 1u32..5, h in 1u32..5, w in 1u32..5, seed: u8, zip: bool) {
        let content: Vec<u8> = (0..n * h * w).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let file = idx(&[n, h, w], &content);
        let set = open(&if zip { gzip(&file) } else { file }, None, &ImageSettings::default()).unwrap();
        prop_assert_eq!(set.len(), n as usize);
        let read: Vec<u8> = (0..set.len())
            .flat_map(|index| set.get(index).unwrap().pixels)
            .map(|value| ((value + 1.0) * 127.5).round() as u8)
            .collect();
        prop_assert_eq!(read, content);
    }
}
