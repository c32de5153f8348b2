//! Data sets: the files of one folder, whole and unaltered.

use super::{Told, files};
use crate::server::{self, Fault, Hub};
use gmflow::checkpoint::hub::{HubId, HubSettings, cached_dataset, fetch_dataset};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const FILES: (&str, &str) = ("mnist", "parquet");

struct Setting {
    hub: Hub,
    cache: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let files = [
            ("README.md", vec![1; 10]),
            ("mnist/train-00000-of-00001.parquet", (0..20_000u32).map(|i| (i * i) as u8).collect()),
            ("mnist/test-00000-of-00001.parquet", vec![7; 5000]),
            ("mnist/notes.txt", vec![2; 10]),
            ("other/train.parquet", vec![3; 10]),
        ];
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Self { hub: Hub::start_as("datasets", "owner/digits", files), cache: tempfile::tempdir().expect("a folder") }
    }

    fn settings(&self, offline: bool) -> HubSettings {
        HubSettings {
            endpoint: Some(self.hub.address.clone()),
            token: None,
            cache: self.cache.path().to_owned(),
            offline,
        }
    }

    fn fetch(&self, offline: bool) -> gmflow::Result<PathBuf> {
        fetch_dataset(&id(), FILES, &self.settings(offline), &mut Told::default())
    }

    fn cached(&self) -> Option<PathBuf> {
        cached_dataset(&id(), FILES, &self.settings(true))
    }
}

fn id() -> HubId {
    HubId::parse("owner/digits").expect("an id")
}

fn train() -> Vec<u8> {
    (0..20_000u32).map(|i| (i * i) as u8).collect()
}

#[test]
fn the_files_of_a_folder_are_kept_where_other_programs_look() {
    let setting = Setting::new();
    assert_eq!(setting.cached(), None);
    let folder = setting.fetch(false).expect("files");
    let expected = format!("datasets--owner--digits/snapshots/{}/mnist", server::COMMIT);
    assert!(folder.ends_with(&expected), "{}", folder.display());
    let there = files(&folder);
    assert_eq!(there.keys().collect::<Vec<_>>(), ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]);
    assert_eq!(there["train-00000-of-00001.parquet"], train());
    assert_eq!(setting.cached(), Some(folder.clone()));
    // What is there is not asked for again, and serves without a network.
    setting.hub.requests();
    assert_eq!(setting.fetch(false).expect("files"), folder);
    assert_eq!(setting.hub.requests().len(), 1, "the list of files only");
    assert_eq!(setting.fetch(true).expect("files"), folder);
    setting.hub.set_fault(Fault::Status(503));
    assert_eq!(setting.fetch(false).expect("files"), folder);
}

#[test]
fn a_download_that_broke_continues_in_the_next_call() {
    let setting = Setting::new();
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    let error = setting.fetch(false).expect_err("an error").to_string();
    assert!(error.contains("train-00000-of-00001.parquet") && error.contains("continues"), "{error}");
    assert_eq!(setting.cached(), None, "half a data set is none");
    setting.hub.set_fault(Fault::None);
    setting.hub.requests();
    let folder = setting.fetch(false).expect("files");
    assert_eq!(files(&folder)["train-00000-of-00001.parquet"], train());
    let requests = setting.hub.requests().into_iter().filter(|request| request.path.starts_with("/cdn/"));
    let asked: Vec<String> =
        requests.filter_map(|request| request.range).filter(|range| range.ends_with('-')).collect();
    assert_eq!(asked, ["bytes=15000-"], "five tries of 3000 bytes came before");
}

#[test]
fn damaged_files_are_found_by_their_hash_on_the_way_and_in_the_cache() {
    let setting = Setting::new();
    setting.hub.set_fault(Fault::WrongByteAlways);
    let error = setting.fetch(false).expect_err("an error").to_string();
    assert!(error.contains("SHA-256") && error.contains("parquet"), "{error}");
    setting.hub.set_fault(Fault::None);
    let path = setting.fetch(false).expect("files").join("train-00000-of-00001.parquet");
    let mut bytes = train();
    bytes[100] ^= 1;
    fs::write(&path, bytes).expect("written");
    setting.fetch(false).expect("files");
    assert_eq!(fs::read(&path).expect("bytes"), train());
}

#[test]
fn what_is_not_there_is_said() {
    let setting = Setting::new();
    let error = setting.fetch(true).expect_err("an error").to_string();
    assert!(error.contains("owner/digits") && error.contains("offline"), "{error}");
    let missing = fetch_dataset(&id(), ("cifar", "parquet"), &setting.settings(false), &mut Told::default());
    let error = missing.expect_err("an error").to_string();
    assert!(error.contains("cifar/*.parquet"), "{error}");
    let other = HubId::parse("owner/letters").expect("an id");
    let error = fetch_dataset(&other, FILES, &setting.settings(false), &mut Told::default()).expect_err("an error");
    assert!(error.to_string().contains("owner/letters"), "{error}");
}
