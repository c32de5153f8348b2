//! Downloads from a local server that answers as the hub does, and breaks as networks do.
#![allow(missing_docs)]

mod datasets;
mod server;

use burn::tensor::Device;
use gmflow::checkpoint::hub::{DownloadProgress, HubId, HubSettings, fetch};
use gmflow::checkpoint::{DataInfo, DataKind, ExportOptions, Model, ModelInfo, Precision, export_diffusers};
use gmflow::network::{GmDitConfig, NetworkConfig, SpectrumMlpConfig, named_tensors};
use server::{Fault, Hub};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 2,
        sample_size: 4,
        in_channels: 1,
        num_embeds_ada_norm: 3,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let spectrum = SpectrumMlpConfig { base_size: [1, 4, 4], layers: vec![4] };
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: Some(spectrum.init(2, &device).expect("valid")),
        vae: None,
        info: ModelInfo {
            spectrum: Some(spectrum),
            ..ModelInfo::new(network, DataInfo { channels: 1, height: 4, width: 4, kind: DataKind::Image })
        },
    }
}

/// The files of a folder by their paths in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("bytes"));
            }
        }
    }
    files
}

fn published(options: &ExportOptions) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().expect("a folder");
    export_diffusers(&model(), dir.path(), options).expect("written");
    let mut files = files(dir.path());
    files.insert("README.md".into(), b"not wanted".to_vec());
    files.insert("transformer/diffusion_pytorch_model.bin".into(), b"a pickle, not wanted".to_vec());
    files
}

const TRANSFORMER: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A server, and a cache that is empty.
struct Setting {
    hub: Hub,
    cache: tempfile::TempDir,
}

impl Setting {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { hub: Hub::start(files), cache: tempfile::tempdir().expect("a folder") }
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: Some(self.hub.address.clone()),
            token: None,
            cache: self.cache.path().to_owned(),
            offline: false,
        }
    }

    fn fetch(&self, variant: Option<&str>) -> gmflow::Result<std::path::PathBuf> {
        fetch(&id(), variant, &self.settings(), &mut Told::default())
    }

    fn loads(&self, variant: Option<&str>) {
        let folder = self.fetch(variant).expect("a snapshot");
        let loaded = Model::load(&folder, None, &Device::flex()).expect("a model");
        assert_eq!(named_tensors(&loaded.network), named_tensors(&model().network));
    }

    fn refused(&self, expected: &[&str]) {
        let error = self.fetch(None).expect_err("an error").to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

fn id() -> HubId {
    HubId::parse("owner/name").expect("an id")
}

#[derive(Default)]
struct Told {
    files: Vec<(String, u64, u64)>,
}

impl DownloadProgress for Told {
    fn start(&mut self, file: &str, bytes: u64) {
        self.files.push((file.to_owned(), bytes, 0));
    }

    fn advance(&mut self, bytes: u64) {
        self.files.last_mut().expect("a file").2 += bytes;
    }

    fn finish(&mut self) {}
}

#[test]
fn a_checkpoint_is_downloaded_once_and_whole() {
    let published = published(&ExportOptions::default());
    let setting = Setting::new(published.clone());
    let mut told = Told::default();
    let folder = fetch(&id(), None, &setting.settings(), &mut told).expect("a snapshot");
    let wanted: Vec<&String> =
        published.keys().filter(|name| name.ends_with("json") || name.ends_with("tensors")).collect();
    assert_eq!(files(&folder).keys().collect::<Vec<_>>(), wanted);
    assert!(files(&folder).iter().all(|(name, bytes)| published[name] == *bytes));
    assert!(told.files.iter().any(|(name, size, done)| name == TRANSFORMER && size == done && *size > 10_000));
    // As the hub's own programs keep it.
    let root = setting.cache.path().join("models--owner--name");
    assert_eq!(fs::read_to_string(root.join("refs/main")).expect("a reference"), server::COMMIT);
    assert!(folder.ends_with(format!("models--owner--name/snapshots/{}", server::COMMIT)));
    assert!(fs::read_dir(root.join("blobs")).expect("blobs").count() >= wanted.len());

    setting.hub.requests();
    setting.loads(None);
    assert_eq!(setting.hub.requests().len(), 1, "the list of files only");
}

#[test]
fn a_broken_transfer_continues_where_it_ended() {
    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::BreakOnceAfter(8000));
    setting.loads(None);
    let resumed = setting.hub.requests().into_iter().filter(|request| request.path == format!("/cdn/{TRANSFORMER}"));
    let starts: Vec<String> =
        resumed.filter_map(|request| request.range).filter(|range| range.ends_with('-')).collect();
    assert!(starts.len() == 2 && starts[0] == "bytes=0-" && starts[1] != "bytes=0-", "{starts:?}");
}

#[test]
fn a_later_call_continues_too() {
    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    setting.refused(&["owner/name", TRANSFORMER, "continues"]);
    setting.hub.set_fault(Fault::None);
    setting.hub.requests();
    setting.loads(None);
    let ranges: Vec<String> = setting.hub.requests().into_iter().filter_map(|request| request.range).collect();
    let first = ranges.iter().find(|range| range.ends_with('-')).expect("a download");
    assert!(first != "bytes=0-", "{ranges:?}");
}

#[test]
fn what_is_no_beginning_of_the_file_is_thrown_away() {
    let published = published(&ExportOptions::default());
    let setting = Setting::new(published.clone());
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    setting.refused(&[TRANSFORMER]);
    let blobs = setting.cache.path().join("models--owner--name/blobs");
    let mut parts = fs::read_dir(&blobs).expect("blobs").map(|entry| entry.expect("one").path());
    let part =
        parts.find(|path| path.extension().is_some_and(|extension| extension == "incomplete")).expect("a part");
    fs::write(&part, vec![0; published[TRANSFORMER].len() + 10]).expect("written");
    setting.hub.set_fault(Fault::None);
    setting.loads(None);
}

#[test]
fn a_server_without_ranges_costs_time_and_no_bytes() {
    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    setting.refused(&[TRANSFORMER]);
    setting.hub.set_fault(Fault::IgnoreRanges);
    setting.loads(None);

    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    setting.refused(&[TRANSFORMER]);
    setting.hub.set_fault(Fault::WrongRanges);
    setting.loads(None);
}

#[test]
fn a_transfer_that_ended_just_before_the_last_step_needs_no_byte() {
    let published = published(&ExportOptions::default());
    let setting = Setting::new(published.clone());
    setting.hub.set_fault(Fault::BreakAlwaysAfter(3000));
    setting.refused(&[TRANSFORMER]);
    let blobs = setting.cache.path().join("models--owner--name/blobs");
    let mut parts = fs::read_dir(&blobs).expect("blobs").map(|entry| entry.expect("one").path());
    let part = parts.find(|path| path.extension().is_some_and(|e| e == "incomplete")).expect("a part");
    fs::write(&part, &published[TRANSFORMER]).expect("written");
    setting.hub.set_fault(Fault::None);
    setting.hub.requests();
    setting.loads(None);
    assert_eq!(downloads(&setting.hub, TRANSFORMER), 0);
}

#[test]
fn content_that_is_in_the_cache_is_only_linked() {
    let setting = Setting::new(published(&ExportOptions::default()));
    let folder = setting.fetch(None).expect("a snapshot");
    fs::remove_dir_all(&folder).expect("removed");
    setting.hub.requests();
    setting.loads(None);
    assert_eq!(downloads(&setting.hub, TRANSFORMER), 0);
    // A blob that has been cut is no content.
    let blob = fs::canonicalize(folder.join(TRANSFORMER)).expect("a blob");
    fs::write(blob, b"cut").expect("written");
    fs::remove_dir_all(&folder).expect("removed");
    setting.loads(None);
    assert_eq!(downloads(&setting.hub, TRANSFORMER), 1);
}

/// How often a file was asked for from some byte to its end.
fn downloads(hub: &Hub, file: &str) -> usize {
    let wanted = format!("/cdn/{file}");
    let to_the_end = |range: Option<String>| range.is_some_and(|range| range.ends_with('-'));
    hub.requests().into_iter().filter(|request| request.path == wanted && to_the_end(request.range.clone())).count()
}

#[test]
fn variants_and_shards_are_chosen_by_name() {
    let half = ExportOptions { precision: Precision::Bf16, variant: Some("bf16".into()), shard_bytes: 4000 };
    let mut both = published(&half);
    both.extend(published(&ExportOptions::default()));
    let setting = Setting::new(both);
    let folder = setting.fetch(Some("bf16")).expect("a snapshot");
    let names: Vec<String> = files(&folder).into_keys().collect();
    assert!(names.iter().filter(|name| name.contains("-of-")).count() > 2, "{names:?}");
    assert!(!names.contains(&TRANSFORMER.to_owned()), "{names:?}");
    setting.loads(None);
    let error = setting.fetch(Some("int8")).expect_err("an error").to_string();
    assert!(error.contains("int8") && error.contains("bf16"), "{error}");

    let sharded = Setting::new(published(&ExportOptions { shard_bytes: 4000, ..ExportOptions::default() }));
    sharded.loads(None);
}

#[test]
fn hostile_repositories_are_refused() {
    let mut hostile = published(&ExportOptions { shard_bytes: 4000, ..ExportOptions::default() });
    let index = "transformer/diffusion_pytorch_model.safetensors.index.json";
    hostile.insert(index.into(), br#"{"weight_map": {"a": "../../../../out"}}"#.to_vec());
    let setting = Setting::new(hostile);
    setting.refused(&["weight_map", "../../../../out"]);

    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::HostileEtag);
    setting.refused(&["model_index.json"]);
    assert!(!setting.cache.path().join("out").exists());

    for (fault, words) in [(Fault::RedirectNowhere, "address"), (Fault::RedirectLoop, "redirects")] {
        setting.hub.set_fault(fault);
        setting.refused(&["model_index.json", words]);
    }

    let mut named = published(&ExportOptions::default());
    named.insert("model_index.json".into(), br#"{"../x": ["a", "b"], "transformer": ["a", "b"]}"#.to_vec());
    Setting::new(named).loads(None);
    Setting::new(BTreeMap::from([("README.md".into(), Vec::new())])).refused(&["holds no model"]);
}

#[test]
fn errors_say_what_to_do() {
    let setting = Setting::new(published(&ExportOptions::default()));
    for (status, advice) in [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "--revision"), (429, "wait"), (500, "500")] {
        setting.hub.set_fault(Fault::Status(status));
        setting.refused(&["owner/name", advice]);
    }
    setting.hub.set_fault(Fault::None);
    let elsewhere = id().at("v2").expect("a revision");
    let error = fetch(&elsewhere, None, &setting.settings(), &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("owner/name@v2") && error.contains("--revision"), "{error}");
    let mut without = published(&ExportOptions::default());
    without.remove(TRANSFORMER);
    Setting::new(without).refused(&["transformer/", "safetensors", "diffusion_pytorch_model.bin"]);
    let nobody = HubSettings { endpoint: Some("http://127.0.0.1:9".into()), ..setting.settings() };
    let error = fetch(&id(), None, &nobody, &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("HF_ENDPOINT"), "{error}");
    let file = setting.cache.path().join("file");
    fs::write(&file, b"").expect("written");
    let nowhere = HubSettings { cache: file.join("cache"), ..setting.settings() };
    let error = fetch(&id(), None, &nowhere, &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("cannot be written") && error.contains("file/cache"), "{error}");
}

#[test]
fn the_cache_is_enough_without_a_network() {
    let setting = Setting::new(published(&ExportOptions::default()));
    let offline = HubSettings { offline: true, ..setting.settings() };
    let error = fetch(&id(), None, &offline, &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("HF_HUB_OFFLINE") && error.contains("owner/name"), "{error}");
    setting.loads(None);
    setting.hub.requests();
    let folder = fetch(&id(), None, &offline, &mut Told::default()).expect("the cache");
    assert!(setting.hub.requests().is_empty());
    let nobody = HubSettings { endpoint: Some("http://127.0.0.1:9".into()), ..setting.settings() };
    assert_eq!(fetch(&id(), None, &nobody, &mut Told::default()).expect("the cache"), folder);
    let commit = id().at(server::COMMIT).expect("a commit");
    assert_eq!(fetch(&commit, None, &offline, &mut Told::default()).expect("the cache"), folder);
    assert_eq!(fetch(&commit, None, &setting.settings(), &mut Told::default()).expect("the cache"), folder);
    assert!(setting.hub.requests().is_empty(), "a commit does not change");
    setting.hub.set_fault(Fault::Status(503));
    assert_eq!(setting.fetch(None).expect("the cache"), folder);
    fs::remove_file(folder.join(TRANSFORMER)).expect("removed");
    let error = fetch(&id(), None, &offline, &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("transformer"), "{error}");
}

#[test]
fn a_token_is_shown_to_the_hub_alone() {
    let setting = Setting::new(published(&ExportOptions::default()));
    let settings = HubSettings { token: Some("secret".into()), ..setting.settings() };
    fetch(&id(), None, &settings, &mut Told::default()).expect("a snapshot");
    let requests = setting.hub.requests();
    let (elsewhere, to_hub): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.path.starts_with("/cdn/"));
    assert!(to_hub.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")), "{to_hub:?}");
    assert!(
        !elsewhere.is_empty() && elsewhere.iter().all(|request| request.authorization.is_none()),
        "{elsewhere:?}"
    );
    let settings = HubSettings { token: Some("two\nlines".into()), ..setting.settings() };
    let error = fetch(&id(), None, &settings, &mut Told::default()).expect_err("an error").to_string();
    assert!(error.contains("HF_TOKEN") && !error.contains("two"), "{error}");
}

#[test]
fn model_folders_of_our_own_can_be_on_the_hub() {
    let dir = tempfile::tempdir().expect("a folder");
    model().save(dir.path(), &[], Precision::F32).expect("saved");
    Setting::new(files(dir.path())).loads(None);
}

#[test]
fn damaged_content_is_noticed_and_comes_again() {
    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::WrongByteOnce);
    setting.loads(None);

    let setting = Setting::new(published(&ExportOptions::default()));
    setting.hub.set_fault(Fault::WrongByteAlways);
    setting.refused(&["owner/name", "SHA-256"]);
    setting.hub.set_fault(Fault::None);
    setting.loads(None);
}
