use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gmflow_data::{
    Batch, Batches, Corrupt, Dataset, Density, Error, FilesError, Image, ImageDataset, Loader, LoaderOptions, Result,
};
use proptest::prelude::*;

/// Images whose pixels are [index, index + 0.5]; every `damaged`-th cannot be read.
#[derive(Debug)]
struct Numbered {
    len: usize,
    damaged: usize,
    delay: Duration,
    reads: AtomicUsize,
    panics: bool,
}

impl Numbered {
    fn new(len: usize) -> Self {
        Self { len, damaged: usize::MAX, delay: Duration::ZERO, reads: AtomicUsize::new(0), panics: false }
    }

    fn set(self, corrupt: Corrupt, horizontal_flip: bool) -> Dataset {
        Dataset::Images { images: Arc::new(self), corrupt, horizontal_flip }
    }
}

impl ImageDataset for Numbered {
    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> [usize; 3] {
        [1, 1, 2]
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn get(&self, index: usize) -> Result<Image> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.delay);
        assert!(!self.panics, "asked for");
        if index % self.damaged == self.damaged - 1 {
            return Err(Error::file("set", format!("image {index}"), "an image", "noise"));
        }
        Ok(Image { pixels: vec![index as f32, index as f32 + 0.5], label: index as u32 % 3 })
    }
}

fn options(batch_size: usize, first_step: u64, workers: usize) -> LoaderOptions {
    LoaderOptions { batch_size, seed: 5, first_step, workers, queue: 3 }
}

fn batches(dataset: Dataset, options: LoaderOptions, n: usize) -> Vec<Batch> {
    Loader::start(dataset, options).unwrap().take(n).map(Result::unwrap).collect()
}

#[test]
fn a_resumed_stream_continues_exactly() {
    let set = || Numbered::new(10).set(Corrupt::Refuse, true);
    let whole = batches(set(), options(4, 0, 1), 30);
    for workers in [1, 2, 5] {
        assert_eq!(batches(set(), options(4, 0, workers), 30), whole);
        assert_eq!(batches(set(), options(4, 13, workers), 17), whole[13..]);
    }
    let direct = Batches::new(set(), 4, 5).unwrap();
    assert_eq!(direct.batch(29).unwrap(), whole[29]);
    assert_eq!(direct.batch(2).unwrap(), whole[2]);
    let other = Batches::new(set(), 4, 6).unwrap();
    assert_ne!(other.batch(2).unwrap(), whole[2]);
    // Pixels and labels belong to the index beside them.
    for batch in &whole {
        for ((pixels, label), index) in batch.images.chunks(2).zip(&batch.labels).zip(&batch.indices) {
            assert_eq!((pixels[0].min(pixels[1]), *label), (*index as f32, *index as u32 % 3));
        }
    }
}

#[test]
fn points_resume_too() {
    let whole = batches(Dataset::Points(Density::CHECKERBOARD), options(16, 0, 3), 9);
    assert_eq!(batches(Dataset::Points(Density::CHECKERBOARD), options(16, 4, 2), 5), whole[4..]);
    assert_eq!((whole[0].shape, whole[0].images.len(), whole[0].labels.len()), ([2, 1, 1], 32, 16));
    assert_ne!(whole[0].images, whole[1].images);
    assert_eq!(whole[2].indices, (32..48).collect::<Vec<u64>>());
}

#[test]
fn a_batch_may_be_larger_than_the_set() {
    for batch in batches(Numbered::new(3).set(Corrupt::Refuse, false), options(10, 0, 2), 3) {
        let mut counts = [0; 3];
        batch.indices.iter().for_each(|&index| counts[index as usize] += 1);
        assert!(counts.iter().all(|count| (3..=4).contains(count)), "{counts:?}");
    }
}

#[test]
fn flips_depend_on_epoch_and_image_alone() {
    let flips = |batch_size: usize, steps: usize| -> Vec<bool> {
        let set = Numbered::new(500).set(Corrupt::Refuse, true);
        let found = batches(set, options(batch_size, 0, 2), steps);
        found.iter().flat_map(|batch| batch.images.chunks(2)).map(|pixels| pixels[0] > pixels[1]).collect()
    };
    let flipped = flips(50, 20);
    assert_eq!(flipped, flips(100, 10));
    let count = flipped.iter().filter(|flip| **flip).count();
    assert!((430..570).contains(&count), "{count}");
    let plain = batches(Numbered::new(500).set(Corrupt::Refuse, false), options(500, 0, 1), 1);
    assert!(plain[0].images.chunks(2).all(|pixels| pixels[0] < pixels[1]));
}

#[test]
fn damaged_images_are_refused_or_replaced_deterministically() {
    let set = |corrupt| Numbered { damaged: 4, ..Numbered::new(40) }.set(corrupt, false);
    let mut refusing = Loader::start(set(Corrupt::Refuse), options(40, 0, 2)).unwrap();
    assert!(refusing.next_batch().unwrap_err().to_string().contains("image"));
    let whole = batches(set(Corrupt::Skip), options(8, 0, 2), 20);
    assert_eq!(batches(set(Corrupt::Skip), options(8, 11, 1), 9), whole[11..]);
    assert!(whole.iter().all(|batch| batch.indices.len() == 8 && batch.indices.iter().all(|index| index % 4 != 3)));
    // Replacements are not always the same image.
    let epoch: Vec<u64> = whole[..5].iter().flat_map(|batch| batch.indices.clone()).collect();
    let distinct: std::collections::HashSet<&u64> = epoch.iter().collect();
    assert_eq!(distinct.len(), 30);
    let none = Numbered { damaged: 1, ..Numbered::new(40) }.set(Corrupt::Skip, false);
    let error = Loader::start(none, options(1, 0, 1)).unwrap().next_batch().unwrap_err();
    assert!(error.to_string().contains("damaged images in a row"), "{error}");
}

#[test]
fn a_failure_in_a_thread_reaches_the_consumer() {
    let set = Numbered { panics: true, ..Numbered::new(4) }.set(Corrupt::Skip, false);
    let mut loader = Loader::start(set, options(2, 0, 2)).unwrap();
    assert!(matches!(loader.next_batch(), Err(Error::Loader { .. })));
    assert!(matches!(loader.next_batch(), Err(Error::Loader { .. })));
}

#[test]
fn the_queue_is_bounded_and_runs_ahead() {
    let images = Arc::new(Numbered::new(100));
    let set = Dataset::Images { images: images.clone(), corrupt: Corrupt::Refuse, horizontal_flip: false };
    let mut loader = Loader::start(set, options(10, 0, 2)).unwrap();
    let settled = |expected: usize| {
        let start = Instant::now();
        while images.reads.load(Ordering::Relaxed) < expected && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(30));
        images.reads.load(Ordering::Relaxed)
    };
    assert_eq!(settled(30), 30);
    loader.next_batch().unwrap();
    assert_eq!(settled(40), 40);
}

#[test]
fn dropping_the_loader_stops_its_threads_at_once() {
    let images = Arc::new(Numbered { delay: Duration::from_millis(5), ..Numbered::new(100_000) });
    let set = Dataset::Images { images: images.clone(), corrupt: Corrupt::Refuse, horizontal_flip: false };
    // A batch takes minutes.
    let loader = Loader::start(set, options(50_000, 0, 3)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(Arc::strong_count(&images), 1);
}

#[test]
fn options_outside_their_domain_are_named() {
    let set = || Numbered::new(4).set(Corrupt::Refuse, false);
    let good = options(2, 0, 1);
    for (field, bad) in [
        ("batch_size", LoaderOptions { batch_size: 0, ..good }),
        ("workers", LoaderOptions { workers: 0, ..good }),
        ("queue", LoaderOptions { queue: 0, ..good }),
        ("first_step", LoaderOptions { first_step: u64::MAX, ..good }),
    ] {
        let error = Loader::start(set(), bad).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(Loader::start(Numbered::new(0).set(Corrupt::Refuse, false), good).is_err());
    assert!(matches!(
        Batches::new(set(), 2, 0).unwrap().batch(u64::MAX),
        Err(Error::Files(FilesError::Config { .. }))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_epoch_visits_every_image_once(len in 1usize..40, size in 1usize..50, seed: u64, first in 0u64..1000) {
        let indices = |size: usize, steps: std::ops::Range<u64>| -> Vec<u64> {
            let stream = Batches::new(Numbered::new(len).set(Corrupt::Refuse, false), size, seed).unwrap();
            steps.flat_map(|step| stream.batch(step).unwrap().indices).collect()
        };
        // One epoch per batch; then the same positions in batches of another size.
        let epochs = indices(len, first..first + 3);
        for epoch in epochs.chunks(len) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..len as u64).collect::<Vec<u64>>());
        }
        let start = first * len as u64;
        let end = start + 3 * len as u64;
        let (from, to) = (start / size as u64, end.div_ceil(size as u64));
        let within = (start - from * size as u64) as usize;
        prop_assert_eq!(&indices(size, from..to)[within..within + 3 * len], &epochs[..]);
    }
}

/// Images of 8 bits, every third deeper, that count how often they are decoded.
#[derive(Debug)]
struct Decoded(Numbered);

impl ImageDataset for Decoded {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.0.shape()
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn is_decoded(&self) -> bool {
        true
    }

    fn get(&self, index: usize) -> Result<Image> {
        let image = self.0.get(index)?;
        let byte = |value: f32| value / 127.5 - 1.0;
        let depth = if index.is_multiple_of(3) { 0.25 } else { 0.0 };
        Ok(Image { pixels: vec![byte(index as f32 + depth), byte(255.0)], label: image.label })
    }
}

#[test]
fn images_that_fit_in_memory_are_decoded_once_and_stay_as_they_are() {
    let set = || {
        let images = Arc::new(Decoded(Numbered { damaged: 7, ..Numbered::new(21) }));
        (images.clone(), Dataset::Images { images, corrupt: Corrupt::Skip, horizontal_flip: true })
    };
    let ((_, plain), (counted, kept)) = (set(), set());
    assert_eq!(kept.decoded_bytes(), Some(42));
    // Seven of the images are of more than 8 bits and take four times as much.
    let kept = kept.kept_in(42 + 7 * 6);
    let count = || counted.0.reads.load(Ordering::Relaxed);
    let (expected, got) = (batches(plain, options(4, 0, 2), 30), batches(kept.clone(), options(4, 0, 2), 30));
    assert_eq!(expected, got, "bit for bit");
    let after = count();
    for index in (0..21).filter(|index| index % 7 != 6) {
        let Dataset::Images { images, .. } = &kept else { panic!("images") };
        images.get(index).unwrap();
    }
    assert_eq!(count(), after, "all of them are kept");
    assert_eq!(kept.fingerprint(), None);

    let (counted, large) = set();
    let large = large.kept_in(41);
    let Dataset::Images { images, .. } = &large else { panic!("images") };
    (0..3).for_each(|_| drop(images.get(0).unwrap()));
    assert_eq!(counted.0.reads.load(Ordering::Relaxed), 3, "a set that does not fit is decoded again");
}
