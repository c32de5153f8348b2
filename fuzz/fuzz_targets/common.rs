//! What the targets share.

use gmflow_data::ImageDataset;
use std::io::Write;
use std::path::PathBuf;

/// A folder in memory where the system has one, with a file of these bytes.
pub fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let path = folder.path().join(name);
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
    (folder, path)
}

/// Reads the first images, whether or not they are valid.
pub fn read(dataset: &impl ImageDataset) {
    for index in 0..dataset.len().min(3) {
        if let Ok(image) = dataset.get(index) {
            assert_eq!(image.pixels.len(), dataset.shape().iter().product::<usize>());
            assert!(image.pixels.iter().all(|value| (-1.0..=1.0).contains(value)));
        }
    }
    assert!(dataset.get(dataset.len()).is_err());
}

/// The library answers a decoder's panic with an error, which the fuzzer's own hook would not let it do. What the library does
/// not catch still ends the run.
pub fn let_panics_be_caught() {
    std::panic::set_hook(Box::new(|info| eprintln!("caught: {info}")));
}
