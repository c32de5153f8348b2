//! The readers on real files: handwritten digits (IDX) and photographs (Parquet). The files are no part of the
//! repository: the folder is `GMFLOW_DATA`, or `shared/data` beside the checkout. Where they are absent the tests say so, and fail when
//! `CI=true`.

use std::io::Write as _;
use std::path::PathBuf;

use gmflow_data::{
    Columns, DatasetConfig, IdxDataset, ImageDataset, ImageSettings, KnownSet, Loader, LoaderOptions, NamedData,
    ParquetDataset, Split,
};

/// The folder of real data, or `None`, said visibly.
fn real(file: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("GMFLOW_DATA").map_or_else(beside, PathBuf::from).join(file);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{file}: real data is absent");
    // Past the harness, which hides what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {file}: real data is absent");
    None
}

#[test]
fn digits() {
    let (Some(images), Some(labels)) =
        (real("mnist/t10k-images-idx3-ubyte.gz"), real("mnist/t10k-labels-idx1-ubyte.gz"))
    else {
        return;
    };
    let digits = IdxDataset::open(&images, Some(&labels), &ImageSettings::default()).unwrap();
    assert_eq!((digits.len(), digits.shape()), (10_000, [1, 28, 28]));
    assert_eq!(digits.class_names(), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    // The known start of this set, and its known mean brightness (0.1325 of 1).
    let first: Vec<u32> = (0..10).map(|index| digits.get(index).unwrap().label).collect();
    assert_eq!(first, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let mean = |index: usize| digits.get(index).unwrap().pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / 784.0;
    let brightness = ((0..10_000).map(mean).sum::<f64>() / 10_000.0 + 1.0) / 2.0;
    assert!((brightness - 0.1325).abs() < 5e-4, "{brightness}");
}

#[test]
fn digits_resized_in_colour() {
    let Some(images) = real("mnist/t10k-images-idx3-ubyte.gz") else { return };
    let settings = ImageSettings { size: Some(32), channels: Some(3), ..Default::default() };
    let digits = IdxDataset::open(&images, None, &settings).unwrap();
    assert_eq!(digits.shape(), [3, 32, 32]);
    assert!(digits.class_names().is_empty());
    let image = digits.get(0).unwrap();
    let (r, rest) = image.pixels.split_at(32 * 32);
    assert_eq!(r, &rest[..32 * 32]);
    assert!(image.pixels.iter().all(|value| (-1.0..=1.0).contains(value)));
}

#[test]
fn photographs() {
    let Some(path) = real("cifar10/test.parquet") else { return };
    let photographs = ParquetDataset::open(&path, Columns::default(), &ImageSettings::default()).unwrap();
    assert_eq!((photographs.len(), photographs.shape()), (10_000, [3, 32, 32]));
    assert_eq!(
        photographs.class_names(),
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    );
    let mut counts = [0usize; 10];
    let mut sums = [0.0f64; 3];
    for index in 0..photographs.len() {
        let image = photographs.get(index).unwrap();
        counts[image.label as usize] += 1;
        for (sum, plane) in sums.iter_mut().zip(image.pixels.chunks(1024)) {
            *sum += plane.iter().map(|&v| f64::from(v)).sum::<f64>() / 1024.0;
        }
    }
    assert_eq!(counts, [1000; 10]);
    // The known channel means of this set, 0.494, 0.485 and 0.450 of 1.
    for (sum, known) in sums.into_iter().zip([0.494, 0.485, 0.450]) {
        let mean = (sum / 10_000.0 + 1.0) / 2.0;
        assert!((mean - known).abs() < 2e-3, "{mean} {known}");
    }
}

#[test]
fn an_epoch_through_the_loader() {
    let Some(images) = real("mnist/t10k-images-idx3-ubyte.gz") else { return };
    let folder = images.parent().unwrap();
    let config: DatasetConfig = serde_json::from_value(serde_json::json!({
        "kind": "idx", "images": "t10k-images-idx3-ubyte.gz", "labels": "t10k-labels-idx1-ubyte.gz"
    }))
    .unwrap();
    let options = LoaderOptions { batch_size: 100, seed: 3, first_step: 0, workers: 2, queue: 4 };
    let loader = Loader::start(config.open(folder).unwrap(), options).unwrap();
    let mut seen: Vec<u64> = loader.take(100).flat_map(|batch| batch.unwrap().indices).collect();
    assert_ne!(seen[..100], (0..100).collect::<Vec<u64>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..10_000).collect::<Vec<u64>>());
}

#[test]
fn the_same_by_their_names() {
    let (Some(digits), Some(photographs)) = (real("mnist"), real("cifar10")) else { return };
    let open = |name: KnownSet, folder: PathBuf| {
        let named = NamedData { name, split: Split::Test, folder: Some(folder), image: ImageSettings::default() };
        named.open(std::path::Path::new("")).unwrap()
    };
    let above = digits.parent().unwrap().to_owned();
    for (set, folder, shape) in
        [(KnownSet::Mnist, digits, [1, 28, 28]), (KnownSet::Cifar10, photographs, [3, 32, 32])]
    {
        let (own, from_above) = (open(set, folder), open(set, above.clone()));
        assert_eq!((own.len(), own.shape()), (set.pictures(Split::Test) as usize, shape));
        assert_eq!(own.class_names(), set.class_names());
        assert_eq!(own.get(9_999).unwrap(), from_above.get(9_999).unwrap());
    }
}
