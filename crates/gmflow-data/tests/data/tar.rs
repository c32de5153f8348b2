//! Tar shards: what is read, in which order, and what damage is told.

use std::collections::BTreeSet;
use std::fs::{create_dir_all, read, write};
use std::path::{Path, PathBuf};

use gmflow_data::{
    Batches, Corrupt, Dataset, DatasetConfig, Error, FilesError, Image, ImageDataset, ImageSettings, Loader,
    LoaderOptions, ShardPaths, Storage, TarData, TarDataset,
};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use crate::common::{encode, gzip};

/// A PNG file in one colour.
pub fn png(value: u8, size: u32) -> Vec<u8> {
    encode(RgbImage::from_pixel(size, size, Rgb([value, 2 * (value % 100), 255 - value])), ImageFormat::Png)
}

/// A tar archive of members in this order.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Settings that keep their cache in the test's folder.
pub fn at(folder: &Path, path: &str) -> TarData {
    let storage = Storage { cache: Some(folder.join("cache")), ..Storage::default() };
    TarData { storage, ..TarData::at(&folder.join(path)) }
}

fn open(data: &TarData) -> Result<TarDataset, Error> {
    TarDataset::open(data, Path::new(""))
}

fn all(set: &dyn ImageDataset) -> Vec<Image> {
    (0..set.len()).map(|index| set.get(index).unwrap()).collect()
}

fn labels(set: &dyn ImageDataset) -> Vec<u32> {
    all(set).iter().map(|image| image.label).collect()
}

/// Shards with this many samples each, of one class per shard.
fn shards(folder: &Path, counts: &[usize]) {
    let mut number = 0;
    for (shard, count) in counts.iter().enumerate() {
        let mut archive = Vec::new();
        for _ in 0..*count {
            archive.push((format!("{number:04}.cls"), shard.to_string().into_bytes()));
            archive.push((format!("{number:04}.png"), png(number as u8, 2)));
            number += 1;
        }
        let members: Vec<_> = archive.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        write(folder.join(format!("s-{shard:02}.tar")), tar(&members)).unwrap();
    }
}

fn fault(result: Result<TarDataset, Error>) -> String {
    match result {
        Err(error @ Error::Files(FilesError::File { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_of_one_name_are_a_sample() {
    let folder = TempDir::new().unwrap();
    let image = png(9, 3);
    let members: &[(&str, &[u8])] = &[
        ("a/1.json", br#"{"text": "no label"}"#),
        ("a/1.png", &image),
        ("a/1.cls", b"2\n"),
        ("a/._2.png", b"clutter"),
        ("a/2.cls", b"0"),
        ("a/2.seg.png", &image),
        ("a/3.txt", b"a sample without an image"),
        ("README", b"no sample"),
        ("b/1.cls", b"1"),
        ("b/1.PNG", &image),
    ];
    write(folder.path().join("x.tar"), tar(members)).unwrap();
    let set = open(&at(folder.path(), "x.tar")).unwrap();
    assert_eq!((set.len(), set.shape()), (3, [3, 3, 3]));
    assert_eq!(labels(&set), [2, 0, 1]);
    assert_eq!(set.class_names(), ["0", "1", "2"]);
    assert_eq!(set.class_images(), Some(vec![1, 1, 1]));
    assert!(set.name(1).ends_with("x.tar, a/2.seg.png"), "{}", set.name(1));
    assert_eq!(set.file(0).unwrap().unwrap().bytes, image);
    assert_eq!(set.stored(0).unwrap().format, "png");
    assert!(matches!(set.get(3), Err(Error::Files(FilesError::Config { .. }))));
}

#[test]
fn long_names_and_folders_in_an_archive_are_read() {
    let folder = TempDir::new().unwrap();
    let long = "deep/".repeat(40);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir("deep", folder.path()).unwrap();
    for number in 0..3 {
        let (mut header, image) = (tar::Header::new_gnu(), png(number, 2));
        header.set_size(image.len() as u64);
        archive.append_data(&mut header, format!("{long}{number}.png"), image.as_slice()).unwrap();
    }
    write(folder.path().join("x.tar"), archive.into_inner().unwrap()).unwrap();
    let set = open(&at(folder.path(), "x.tar")).unwrap();
    assert_eq!(set.len(), 3);
    assert!(set.class_names().is_empty());
    assert_ne!(set.get(0).unwrap(), set.get(2).unwrap());
}

#[test]
fn labels_are_read_as_they_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let image = png(9, 2);
    let members: &[(&str, &[u8])] = &[
        ("1.json", br#"{"label": "fox", "meta": {"kind": 7}}"#),
        ("1.png", &image),
        ("1.txt", b"red"),
        ("2.json", br#"{"label": "cat", "meta": {"kind": 3}}"#),
        ("2.png", &image),
        ("2.txt", b"blue\n"),
    ];
    write(folder.path().join("x.tar"), tar(members)).unwrap();
    let data = at(folder.path(), "x.tar");
    let with = |label: Option<&str>, field: Option<&str>| {
        let (label_member, label_field) = (label.map(str::to_owned), field.map(str::to_owned));
        let set = open(&TarData { label_member, label_field, ..data.clone() }).unwrap();
        (set.class_names().join(" "), labels(&set))
    };
    assert_eq!(with(None, None), ("cat fox".into(), vec![1, 0]));
    assert_eq!(with(Some("txt"), None), ("blue red".into(), vec![1, 0]));
    assert_eq!(with(None, Some("meta.kind")), ("0 1 2 3 4 5 6 7".into(), vec![7, 3]));
    assert_eq!(with(Some(""), None), (String::new(), vec![0, 0]));
    write(folder.path().join("classes.txt"), "fox\ncat\n").unwrap();
    assert_eq!(with(None, None), ("fox cat".into(), vec![0, 1]));
    write(folder.path().join("names.json"), r#"["cat", "dog", "fox"]"#).unwrap();
    let named = TarData { class_names: Some(folder.path().join("names.json")), ..data.clone() };
    assert_eq!(labels(&open(&named).unwrap()), [2, 0]);
    write(folder.path().join("classes.txt"), "fox\nfox\n").unwrap();
    assert!(fault(open(&data)).contains("classes.txt: line 2: expected a name that is there once"));
}

#[test]
fn a_sample_without_its_label_is_a_damaged_one() {
    let folder = TempDir::new().unwrap();
    let image = png(9, 2);
    let members: &[(&str, &[u8])] = &[("1.cls", b"1"), ("1.png", &image), ("2.png", &image)];
    write(folder.path().join("x.tar"), tar(members)).unwrap();
    let set = open(&at(folder.path(), "x.tar")).unwrap();
    let error = set.check_labels().unwrap_err().to_string();
    assert!(error.contains("x.tar: sample 2: expected a label of 2 classes, got none"), "{error}");
}

#[test]
fn shards_are_found_by_pattern_range_list_and_folder() {
    let folder = TempDir::new().unwrap();
    shards(folder.path(), &[2, 3, 1]);
    let count = |path: &str| open(&at(folder.path(), path)).map(|set| set.len());
    for (path, images) in [("", 6), ("s-*.tar", 6), ("s-{00..01}.tar", 5), ("s-{02,00}.tar", 3), ("s-0[12].tar", 4)] {
        assert_eq!(count(path).unwrap(), images, "{path}");
    }
    let mut list = at(folder.path(), "");
    list.path = ShardPaths::Several(vec!["s-02.tar".into(), "s-00.tar".into()]);
    assert_eq!(labels(&TarDataset::open(&list, folder.path()).unwrap()), [2, 0, 0]);
    list.path = ShardPaths::Several(vec!["s-02.tar".into(), "s-0*.tar".into()]);
    let error = TarDataset::open(&list, folder.path()).unwrap_err().to_string();
    assert!(error.contains("every shard once"), "{error}");
    let error = count("s-{00..03}.tar").unwrap_err().to_string();
    assert!(error.contains("s-03.tar"), "{error}");
    assert!(matches!(count("t-*.tar"), Err(Error::Files(FilesError::Config { .. }))));
    let url = format!("file://{}", folder.path().join("s-00.tar").display());
    assert_eq!(open(&TarData { path: ShardPaths::One(url.into()), ..at(folder.path(), "") }).unwrap().len(), 2);
}

#[test]
fn damage_names_shard_member_and_offset() {
    let folder = TempDir::new().unwrap();
    let image = png(9, 2);
    let names = ["1.cls", "1.png", "2.cls", "2.png", "3.cls", "3.png"];
    let members = names.map(|name| (name, if name.ends_with("cls") { b"0".as_slice() } else { &image }));
    let sound = tar(&members);
    // Six members of a header and a block each, then two blocks of zeros.
    assert_eq!(sound.len(), 14 * 512);
    let path = folder.path().join("x.tar");
    let block = |count: usize| &sound[..count * 512];
    // The last sample before damage may lack members, so it is not used.
    let cases = [
        (
            sound[..11 * 512 + 20].to_vec(),
            "member 3.png: expected 79 bytes from byte 5632 on, got the end of the file",
            2,
        ),
        (block(10).to_vec(), "expected a block of zeros, got 0 bytes at byte 5120 (truncated behind 3.cls)", 2),
        (block(12).to_vec(), "expected a block of zeros, got 0 bytes at byte 6144 (truncated behind 3.png)", 2),
        (sound[..10 * 512 + 100].to_vec(), "the header at byte 5120 behind 3.cls: expected that of a tar member", 2),
        ([block(8), &[7; 512], &sound[9 * 512..]].concat(), "the header at byte 4096 behind 2.png: expected that", 1),
    ];
    for (bytes, message, left) in cases {
        write(&path, bytes).unwrap();
        let mut data = at(folder.path(), "x.tar");
        let error = fault(open(&data));
        let message = message.replace("79 bytes", &format!("{} bytes", image.len()));
        assert!(error.contains("x.tar: ") && error.contains(&message), "{error}");
        data.image.corrupt = Corrupt::Skip;
        assert_eq!(open(&data).unwrap().len(), left, "{message}");
    }
    // An image that is none is told when its turn comes.
    let members: &[(&str, &[u8])] = &[("1.png", &image), ("2.png", b"not an image")];
    write(&path, tar(members)).unwrap();
    let set = open(&at(folder.path(), "x.tar")).unwrap();
    let error = set.get(1).unwrap_err().to_string();
    assert!(error.contains("x.tar: member 2.png at byte 1536: expected"), "{error}");
}

#[test]
fn what_is_no_shard_is_told() {
    let folder = TempDir::new().unwrap();
    let image = png(9, 2);
    let two: &[(&str, &[u8])] = &[("1.jpg", &image), ("1.png", &image)];
    for (bytes, message) in [
        (gzip(&tar(&[("1.png", &image)])), "expected a tar archive, got a gzip"),
        (b"<!DOCTYPE html><html>".to_vec(), "an HTML page"),
        (Vec::new(), "an empty file"),
        (tar(&[("1.txt", b"a")]), "expected samples with an image, such as 000001.jpg, got none, but 1 .txt"),
        (
            tar(two),
            "sample 1: expected one image of each sample (image_member chooses among several), got jpg and png",
        ),
    ] {
        write(folder.path().join("x.tar"), bytes).unwrap();
        let error = fault(open(&at(folder.path(), "x.tar")));
        assert!(error.contains(message), "{error}");
    }
    let data = TarData { image_member: Some("png".into()), ..at(folder.path(), "x.tar") };
    assert_eq!(open(&data).unwrap().len(), 1);
    write(folder.path().join("y.tar"), tar(&[("1.json", br#"{"label": 1}"#), ("1.png", &image)])).unwrap();
    write(folder.path().join("x.tar"), tar(&[("1.cls", b"1"), ("1.png", &image)])).unwrap();
    let error = fault(open(&at(folder.path(), "*.tar")));
    assert!(error.contains("y.tar: labels: expected labels in .cls members"), "{error}");
}

#[test]
fn the_list_of_a_shard_is_kept_and_checked() {
    let folder = TempDir::new().unwrap();
    shards(folder.path(), &[3]);
    let data = at(folder.path(), "s-00.tar");
    let before = all(&open(&data).unwrap());
    let kept: Vec<PathBuf> =
        std::fs::read_dir(folder.path().join("cache/shards")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [list] = kept.as_slice() else { panic!("{kept:?}") };
    // The list is what is believed: with its samples changed places, so are the images.
    let text = std::fs::read_to_string(list).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["samples"].as_array_mut().unwrap().reverse();
    write(list, value.to_string()).unwrap();
    let reversed = all(&open(&data).unwrap());
    assert_eq!(reversed, before.iter().rev().cloned().collect::<Vec<_>>());
    // An offset that no header stands before is found when the image is read.
    value["samples"][0]["offset"] = 520.into();
    write(list, value.to_string()).unwrap();
    let error = open(&data).unwrap().get(0).unwrap_err().to_string();
    assert!(error.contains("at byte 520: expected its header before it"), "{error}");
    // Places outside of the shard, and damage, are not believed.
    value["samples"][0]["offset"] = u64::MAX.into();
    for content in [value.to_string(), text[..text.len() / 2].to_owned()] {
        write(list, content).unwrap();
        assert_eq!(all(&open(&data).unwrap()), before);
    }
    // A shard that changed has another list.
    shards(folder.path(), &[4]);
    assert_eq!(open(&data).unwrap().len(), 4);
}

fn batches(dataset: &Dataset, batch: usize, seed: u64) -> Batches {
    Batches::new(dataset.clone(), batch, seed).unwrap()
}

#[test]
fn a_pass_by_shards_sees_every_image_once_and_goes_on_anywhere() {
    let folder = TempDir::new().unwrap();
    shards(folder.path(), &[20, 7, 13, 24]);
    let mut data = at(folder.path(), "");
    (data.shuffle, data.lanes) = (Some(10), Some(4));
    data.image = ImageSettings { horizontal_flip: true, ..ImageSettings::default() };
    let dataset = DatasetConfig::Tar(data).open(Path::new("")).unwrap();
    let stream = batches(&dataset, 8, 3);
    for pass in 0..3 {
        let seen: BTreeSet<u64> =
            (8 * pass..8 * (pass + 1)).flat_map(|step| stream.batch(step).unwrap().indices).collect();
        assert_eq!(seen.len(), 64, "{pass}");
    }
    // A loader that starts later, with other threads, gives the same.
    let options = LoaderOptions { batch_size: 8, seed: 3, first_step: 5, workers: 3, queue: 4 };
    for (step, batch) in (5..12).zip(Loader::start(dataset.clone(), options).unwrap()) {
        assert_eq!(batch.unwrap(), stream.batch(step).unwrap());
    }
    // Whoever takes a share of the places of every batch reads a share of the images, of few shards.
    for ranks in [2usize, 4] {
        let mut all = BTreeSet::new();
        for rank in 0..ranks {
            let places = 8 * rank / ranks..8 * (rank + 1) / ranks;
            let own: BTreeSet<u64> =
                (0..8).flat_map(|step| stream.batch(step).unwrap().indices[places.clone()].to_vec()).collect();
            assert_eq!(own.len(), 64 / ranks);
            all.extend(own);
        }
        assert_eq!(all.len(), 64);
    }
}

#[test]
fn a_path_is_guessed_to_be_shards() {
    let folder = TempDir::new().unwrap();
    shards(folder.path(), &[2, 1]);
    for path in ["", "s-00.tar", "s-*.tar", "s-{00..01}.tar"] {
        let guess = DatasetConfig::guess(&folder.path().join(path)).unwrap();
        assert!(matches!(guess, DatasetConfig::Tar(_)), "{path}: {guess:?}");
    }
    let DatasetConfig::Tar(mut data) = DatasetConfig::guess(folder.path()).unwrap() else { panic!("shards") };
    data.storage.cache = Some(folder.path().join("cache"));
    let survey = DatasetConfig::Tar(data).survey().unwrap();
    assert_eq!((survey.images, survey.sizes), (3, [[2, 2], [2, 2]]));
    assert_eq!(survey.formats.get("png"), Some(&3));
    // An archive beside class folders is what they were unpacked from.
    std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
    create_dir_all(folder.path().join("cats")).unwrap();
    write(folder.path().join("cats/1.png"), png(1, 2)).unwrap();
    assert!(matches!(DatasetConfig::guess(folder.path()).unwrap(), DatasetConfig::Folder { .. }));
}

#[test]
fn images_of_another_size_are_refused_where_one_size_is_asked_for() {
    let folder = TempDir::new().unwrap();
    write(folder.path().join("x.tar"), tar(&[("1.png", &png(1, 2)), ("2.png", &png(1, 3))])).unwrap();
    let set = TarDataset::open_exact(&at(folder.path(), "x.tar"), Path::new("")).unwrap();
    assert!(set.get(0).is_ok());
    let error = set.get(1).unwrap_err().to_string();
    assert!(error.contains("member 2.png") && error.contains("expected 2x2 pixels"), "{error}");
    assert_eq!(open(&at(folder.path(), "x.tar")).unwrap().get(1).unwrap().pixels.len(), 12);
}

#[test]
fn a_url_needs_the_feature() {
    let data = TarData::at(Path::new("s3://bucket/x.tar"));
    let outcome = open(&data);
    if cfg!(feature = "object-store") {
        return;
    }
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("--features object-store") && error.contains("s3://bucket/x.tar"), "{error}");
}

#[test]
fn settings_are_checked() {
    let folder = TempDir::new().unwrap();
    let data = at(folder.path(), "x.tar");
    let storage = |change: fn(&mut Storage)| {
        let mut data = data.clone();
        change(&mut data.storage);
        data
    };
    let cases = [
        (TarData { path: ShardPaths::Several(Vec::new()), ..data.clone() }, "path"),
        (TarData { image_member: Some(".jpg".into()), ..data.clone() }, "image_member"),
        (TarData { label_field: Some(String::new()), ..data.clone() }, "label_field"),
        (TarData { lanes: Some(0), ..data.clone() }, "lanes"),
        (storage(|storage| storage.cache_gigabytes = 0.0), "storage.cache_gigabytes"),
        (storage(|storage| storage.timeout_seconds = 0), "storage.timeout_seconds"),
        (storage(|storage| storage.retries = 1000), "storage.retries"),
        (storage(|storage| storage.endpoint = Some("host".into())), "storage.endpoint"),
    ];
    for (data, field) in cases {
        let error = DatasetConfig::Tar(data).validate().unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(read(folder.path().join("x.tar")).is_err());
}
