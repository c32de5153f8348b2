//! Feature files are read into little more memory than their numbers take.

use gmflow_eval::SampleSet;
use gmflow_eval::arrays::read_features;
use safetensors::tensor::{Dtype, TensorView};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Bytes that are allocated now, and the most there were at once.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: the system's allocator does the work; this counts. `realloc` by its default counts the old and the new place at once.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

const ROWS: usize = 64_000;
const COLUMNS: usize = 32;
/// Of the vectors, in f32.
const BYTES: usize = ROWS * COLUMNS * 4;

fn values() -> impl Iterator<Item = f32> {
    (0..(ROWS * COLUMNS) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32)
}

fn npy(kind: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({ROWS}, {COLUMNS})}}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn npz(array: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("features.npy", SimpleFileOptions::default().compression_method(method)).unwrap();
    archive.write_all(array).unwrap();
    archive.finish().unwrap().into_inner()
}

/// The same vectors in every kind of file.
fn files(folder: &Path) -> [PathBuf; 5] {
    let bytes: Vec<u8> = values().flat_map(f32::to_le_bytes).collect();
    let array = npy("<f4", &bytes);
    let wide = npy("<f8", &values().flat_map(|x| f64::from(x).to_le_bytes()).collect::<Vec<u8>>());
    let view = TensorView::new(Dtype::F32, vec![ROWS, COLUMNS], &bytes).unwrap();
    [
        ("stored.npz", npz(&array, CompressionMethod::Stored)),
        ("deflated.npz", npz(&array, CompressionMethod::Deflated)),
        ("f4.safetensors", safetensors::serialize([("x", view)], None).unwrap()),
        ("f8.npy", wide),
        ("f4.npy", array),
    ]
    .map(|(name, bytes)| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    })
}

/// What comes out, and the most bytes that were allocated meanwhile beside what was there.
fn watched<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let out = work();
    (out, MOST.load(Ordering::Relaxed) - before)
}

#[test]
fn reading_features_takes_little_more_memory_than_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for file in files(folder.path()) {
        let (matrix, most) = watched(|| read_features(&file).unwrap());
        assert_eq!((matrix.rows(), matrix.columns()), (ROWS, COLUMNS));
        assert!(matrix.values().iter().copied().eq(values()), "{}: other numbers", file.display());
        assert!((BYTES..BYTES + BYTES / 10).contains(&most), "{}: {most} bytes for {BYTES}", file.display());
    }
    let file = folder.path().join("stats.safetensors");
    let features = read_features(&folder.path().join("f4.npy")).unwrap();
    SampleSet::of_vectors(features, "f4".into()).unwrap().save(&file).unwrap();
    let (set, most) = watched(|| SampleSet::load(&file).unwrap());
    assert_eq!(set.vectors.map(|vectors| vectors.rows()), Some(ROWS));
    assert!((BYTES..BYTES + BYTES / 10).contains(&most), "statistics: {most} bytes for {BYTES}");
}
