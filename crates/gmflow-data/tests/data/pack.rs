//! Packing: the shards hold what the set holds, and nothing is overwritten.

use std::collections::BTreeMap;
use std::fs::{create_dir, read, write};
use std::path::Path;

use gmflow_data::{
    Batches, Corrupt, Dataset, Error, FilesError, FolderDataset, ImageDataset, ImageSettings, PackOptions, Packed,
    Result, Shapes, ShapesDataset, Storage, TarData, TarDataset, pack,
};
use tempfile::TempDir;

use crate::tar::png;

fn options(folder: &Path, shards: usize, seed: Option<u64>) -> PackOptions {
    let storage = Storage { cache: Some(folder.join("cache")), ..Storage::default() };
    PackOptions { shards, seed, corrupt: Corrupt::Refuse, force: false, storage }
}

/// Pictures of different sizes in three classes, one of them empty.
fn photos(folder: &Path) -> FolderDataset {
    let photos = folder.join("photos");
    create_dir(&photos).unwrap();
    for (class, count) in [("cat", 11), ("dog", 0), ("red fox", 6)] {
        create_dir(photos.join(class)).unwrap();
        for number in 0..count {
            let value = (class.len() * 20 + number) as u8;
            write(photos.join(class).join(format!("{number}.png")), png(value, 2 + number as u32)).unwrap();
        }
    }
    FolderDataset::open(&photos, &ImageSettings { size: Some(4), ..ImageSettings::default() }).unwrap()
}

fn packed(set: &dyn ImageDataset, folder: &Path, out: &str, options: &PackOptions) -> Result<Packed> {
    pack(set, &folder.join(out), options, &mut |_| true)
}

fn open(folder: &Path, out: &str, size: usize) -> TarDataset {
    let mut data = crate::tar::at(folder, out);
    data.image.size = Some(size);
    TarDataset::open(&data, Path::new("")).unwrap()
}

/// The contents of a folder's files by their names, but for the lock.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(&path).unwrap()));
    named.filter(|(name, _)| name != ".gmflow.lock").collect()
}

#[test]
fn shards_hold_the_folder_sample_for_sample() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    for (out, seed) in [("mixed", Some(4)), ("ordered", None)] {
        let outcome = packed(&photos, folder.path(), out, &options(folder.path(), 4, seed)).unwrap();
        assert_eq!((outcome.images, outcome.left_out, outcome.kept, outcome.complete), (17, 0, 0, true));
        let shards = open(folder.path(), out, 4);
        assert_eq!(shards.class_names(), photos.class_names());
        assert_eq!(shards.class_images(), photos.class_images());
        let mut order = Vec::new();
        for index in 0..17 {
            let name = shards.name(index);
            let key: usize = name.rsplit([' ', ',']).next().unwrap().trim_end_matches(".png").parse().unwrap();
            assert_eq!(shards.get(index).unwrap(), photos.get(key).unwrap(), "{name}");
            assert_eq!(shards.file(index).unwrap(), photos.file(key).unwrap(), "{name}");
            order.push(key);
        }
        assert_eq!(order.is_sorted(), seed.is_none());
        order.sort();
        assert_eq!(order, (0..17).collect::<Vec<_>>());
    }
}

#[test]
fn training_on_shards_in_order_is_training_on_the_folder() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    packed(&photos, folder.path(), "out", &options(folder.path(), 3, None)).unwrap();
    let set = |images: std::sync::Arc<dyn ImageDataset>| Dataset::Images {
        images,
        corrupt: Corrupt::Refuse,
        horizontal_flip: true,
    };
    let shards = open(folder.path(), "out", 4);
    let [a, b] = [set(std::sync::Arc::new(photos)), set(std::sync::Arc::new(shards))];
    let [a, b] = [a, b].map(|set| Batches::new(set, 5, 9).unwrap());
    for step in 0..10 {
        assert_eq!(a.batch(step).unwrap(), b.batch(step).unwrap());
    }
}

#[test]
fn the_same_call_gives_the_same_bytes_also_when_it_was_stopped() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    let options = options(folder.path(), 4, Some(0));
    packed(&photos, folder.path(), "a", &options).unwrap();
    let stopped = pack(&photos, &folder.path().join("b"), &options, &mut |done| done < 8).unwrap();
    assert!(!stopped.complete && stopped.images == 8, "{stopped:?}");
    // What a killed call leaves: a shard without its list, and a part.
    write(folder.path().join("b/shard-000002.tar"), "half of it").unwrap();
    let rest = packed(&photos, folder.path(), "b", &options).unwrap();
    assert_eq!((rest.images, rest.kept, rest.complete), (17, 2, true));
    assert_eq!(contents(&folder.path().join("a")), contents(&folder.path().join("b")));
    // Other tools read them too.
    let mut archive = tar::Archive::new(std::fs::File::open(folder.path().join("a/shard-000001.tar")).unwrap());
    let names: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert!(names.len() == 8 && names[0].extension().unwrap() == "cls" && names[1].extension().unwrap() == "png");
}

#[test]
fn nothing_is_overwritten_without_a_word() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    let told = |out: &str, options: &PackOptions| match packed(&photos, folder.path(), out, options) {
        Err(error @ Error::Files(FilesError::File { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let two = options(folder.path(), 2, Some(0));
    packed(&photos, folder.path(), "out", &two).unwrap();
    let before = contents(&folder.path().join("out"));
    assert!(told("out", &two).contains("a complete one"));
    assert_eq!(contents(&folder.path().join("out")), before);
    let three = PackOptions { shards: 3, force: true, ..two.clone() };
    packed(&photos, folder.path(), "out", &three).unwrap();
    packed(&photos, folder.path(), "out", &PackOptions { force: true, ..two.clone() }).unwrap();
    assert_eq!(contents(&folder.path().join("out")), before, "the third shard is gone");
    // A set that was begun with other settings, or of other images.
    pack(&photos, &folder.path().join("begun"), &two, &mut |_| false).unwrap();
    assert!(told("begun", &PackOptions { shards: 3, ..two.clone() }).contains("3 shards, 2 before"));
    assert!(told("begun", &PackOptions { seed: None, ..two.clone() }).contains("in order, seed 0 before"));
    write(folder.path().join("photos/dog/1.png"), png(3, 3)).unwrap();
    let more = FolderDataset::open(
        &folder.path().join("photos"),
        &ImageSettings { size: Some(4), ..ImageSettings::default() },
    );
    let error = packed(&more.unwrap(), folder.path(), "begun", &two).unwrap_err().to_string();
    assert!(error.contains("other images: 18 images, 17 before"), "{error}");
    // Files that are no set's.
    for name in ["shard-000001.tar", "classes.txt", "pack.json"] {
        let other = folder.path().join(format!("other-{name}"));
        create_dir(&other).unwrap();
        write(other.join(name), "mine").unwrap();
        for force in [false, true] {
            let error = told(&format!("other-{name}"), &PackOptions { force, ..two.clone() });
            assert!(error.contains(name) && error.contains("not overwritten"), "{error}");
        }
        assert_eq!(read(other.join(name)).unwrap(), b"mine");
    }
}

#[test]
fn images_without_files_become_files_of_the_same_values() {
    let folder = TempDir::new().unwrap();
    let shapes = ShapesDataset::new(Shapes { size: 8, count: 12, ..Shapes::default() }).unwrap();
    packed(&shapes, folder.path(), "out", &options(folder.path(), 2, None)).unwrap();
    let shards = open(folder.path(), "out", 8);
    assert_eq!(shards.class_names(), shapes.class_names());
    for index in 0..12 {
        assert_eq!(shards.get(index).unwrap().label, shapes.get(index).unwrap().label);
        let [a, b] = [shards.get(index).unwrap().pixels, shapes.get(index).unwrap().pixels];
        // Half of a step of 8 bits.
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1.0 / 255.0));
    }
}

#[test]
fn more_shards_than_images_are_refused_and_odd_names_are_kept() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    let error = packed(&photos, folder.path(), "out", &options(folder.path(), 18, None)).unwrap_err();
    assert!(error.to_string().starts_with("shards: expected 1 to 17, got 18"), "{error}");
    assert!(!folder.path().join("out").exists());
    let odd = folder.path().join("odd");
    for class in ["a ", "b"] {
        std::fs::create_dir_all(odd.join(class)).unwrap();
        write(odd.join(class).join("1.png"), png(1, 2)).unwrap();
    }
    let settings = ImageSettings { size: Some(2), ..ImageSettings::default() };
    let set = FolderDataset::open(&odd, &settings).unwrap();
    packed(&set, folder.path(), "named", &options(folder.path(), 1, None)).unwrap();
    assert_eq!(open(folder.path(), "named", 2).class_names(), ["a ", "b"]);
}

#[test]
fn shards_can_be_packed_again() {
    let folder = TempDir::new().unwrap();
    let photos = photos(folder.path());
    packed(&photos, folder.path(), "one", &options(folder.path(), 1, None)).unwrap();
    packed(&open(folder.path(), "one", 4), folder.path(), "two", &options(folder.path(), 2, None)).unwrap();
    packed(&open(folder.path(), "two", 4), folder.path(), "three", &options(folder.path(), 1, None)).unwrap();
    let shard = |out: &str| read(folder.path().join(out).join("shard-000000.tar")).unwrap();
    assert_eq!(shard("one"), shard("three"));
    let data = TarData::at(&folder.path().join("two"));
    assert_eq!(data.path.all().len(), 1);
}
