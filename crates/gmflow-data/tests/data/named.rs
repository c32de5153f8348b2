use std::path::Path;
use std::sync::Arc;

use gmflow_data::{Dataset, DatasetConfig, ImageDataset, KnownSet, NamedData, SetFiles, Split};
use image::{GrayImage, ImageFormat, Luma};
use tempfile::TempDir;

use crate::common::{encode, gzip, idx};
use crate::parquet::{labels, store, structs};

/// Two grey digits, of the classes 1 and 0, as IDX files.
fn write_idx(folder: &Path, prefix: &str, zipped: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let [images, names] = [idx(&[2, 2, 2], &[0, 50, 100, 255, 9, 9, 9, 9]), idx(&[2], &[1, 0])];
    let write = |name: &str, bytes: &[u8]| {
        let (bytes, end) = if zipped { (gzip(bytes), ".gz") } else { (bytes.to_vec(), "") };
        std::fs::write(folder.join(format!("{prefix}-{name}-ubyte{end}")), bytes).unwrap();
    };
    write("images-idx3", &images);
    write("labels-idx1", &names);
}

/// The same digits as a Parquet file, with the names of the classes where they are given.
fn write_parquet(path: &Path, classes: Option<&[&str]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = |values: [u8; 4]| {
        encode(GrayImage::from_fn(2, 2, |x, y| Luma([values[(2 * y + x) as usize]])), ImageFormat::Png)
    };
    let pictures = [picture([0, 50, 100, 255]), picture([9; 4])];
    let rows: Vec<Option<&[u8]>> = pictures.iter().map(|bytes| Some(bytes.as_slice())).collect();
    let metadata = classes.map(|names| {
        serde_json::json!({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}).to_string()
    });
    store(path, vec![structs(&rows), labels(vec![Some(1), Some(0)])], metadata.as_deref());
}

fn open(set: KnownSet, split: Split, folder: &Path) -> gmflow_data::Result<Arc<dyn ImageDataset>> {
    NamedData { name: set, split, folder: Some(folder.to_owned()), image: Default::default() }.open(Path::new(""))
}

#[test]
fn idx_and_parquet_files_are_the_same_set_wherever_they_lie() {
    let mnist = KnownSet::Mnist;
    let digits: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    for place in ["", "mnist"] {
        let root = TempDir::new().unwrap();
        let folder = root.path().join(place);
        write_idx(&folder, "t10k", true);
        write_idx(&folder, "train", false);
        let hub = TempDir::new().unwrap();
        write_parquet(&hub.path().join(place).join("mnist/test-00000-of-00001.parquet"), None);
        let [from_idx, from_parquet] = [root.path(), hub.path()].map(|folder| {
            let set = open(mnist, Split::Test, folder).unwrap();
            assert_eq!((set.len(), set.shape(), set.class_names()), (2, [1, 2, 2], &digits[..]));
            [set.get(0).unwrap(), set.get(1).unwrap()]
        });
        assert_eq!(from_idx, from_parquet);
        assert_eq!((from_idx[0].label, from_idx[1].label), (1, 0));
        assert_eq!(open(mnist, Split::Train, root.path()).unwrap().len(), 2);
        assert!(mnist.find(hub.path(), Split::Train).is_none());
    }
}

#[test]
fn classes_have_the_names_of_the_set() {
    let folder = TempDir::new().unwrap();
    write_idx(folder.path(), "train", true);
    let clothing = open(KnownSet::FashionMnist, Split::Train, folder.path()).unwrap();
    assert_eq!((clothing.class_names().len(), clothing.class_names()[9].as_str()), (10, "Ankle boot"));
    // As the hub writes them.
    let names = ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"];
    let names = [&names[..], &["Ankle boot"]].concat();
    write_parquet(&folder.path().join("fashion-mnist/test.parquet"), Some(&names));
    let clothing = open(KnownSet::FashionMnist, Split::Test, folder.path()).unwrap();
    assert_eq!(clothing.class_names()[0], "T-shirt/top");
}

#[test]
fn files_of_another_set_are_refused_by_their_classes() {
    let folder = TempDir::new().unwrap();
    write_parquet(&folder.path().join("train.parquet"), Some(&["cat", "dog"]));
    let error = open(KnownSet::Cifar10, Split::Train, folder.path()).unwrap_err().to_string();
    assert!(error.contains("those of cifar10: airplane") && error.contains("cat, dog"), "{error}");
    // Photographs are never IDX files.
    write_idx(folder.path(), "t10k", true);
    assert_eq!(KnownSet::Cifar10.find(folder.path(), Split::Test), None);
}

#[test]
fn shards_are_read_in_order_and_only_those_of_the_part() {
    let folder = TempDir::new().unwrap();
    let set = folder.path().join("odd [name]/cifar10/plain_text");
    for name in ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "test-00000-of-00001.parquet"] {
        write_parquet(&set.join(name), None);
    }
    write_parquet(&set.join("training.parquet"), None);
    let found = KnownSet::Cifar10.find(&folder.path().join("odd [name]"), Split::Train).unwrap();
    let expected = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"].map(|name| set.join(name));
    assert_eq!((found.folder(), &found), (set.as_path(), &SetFiles::Parquet(expected.to_vec())));
    let photographs = open(KnownSet::Cifar10, Split::Train, &folder.path().join("odd [name]")).unwrap();
    assert_eq!((photographs.len(), photographs.shape()), (4, [3, 2, 2]));
}

#[test]
fn what_is_missing_names_the_command_that_fetches_it() {
    let folder = TempDir::new().unwrap();
    let config = |value: serde_json::Value| serde_json::from_value::<DatasetConfig>(value).unwrap();
    let nowhere = config(serde_json::json!({"kind": "named", "name": "cifar10"}));
    let error = nowhere.open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("folder: ") && error.contains("`gmflow data get cifar10`"), "{error}");
    let empty = config(serde_json::json!({"kind": "named", "name": "mnist", "folder": "."}));
    let error = empty.open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("train files of mnist") && error.contains("gmflow data get mnist"), "{error}");
    // A relative folder is taken from the base.
    write_idx(&folder.path().join("digits"), "train", true);
    let there = config(serde_json::json!({"kind": "named", "name": "mnist", "folder": "digits",
        "image": {"size": 4, "channels": 3, "horizontal_flip": true}}));
    let opened = there.open(folder.path()).unwrap();
    assert_eq!((opened.shape(), opened.len()), ([3, 4, 4], Some(2)));
    assert!(matches!(opened, Dataset::Images { horizontal_flip: true, .. }));
}
