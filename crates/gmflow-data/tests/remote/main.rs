//! Data behind URLs, against a real S3 server, with cuts and answers of 503 in between.

mod proxy;
mod server;

use std::collections::BTreeSet;
use std::fs::{create_dir_all, write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use gmflow_data::{
    Batches, Corrupt, Dataset, DatasetConfig, EncodedBatch, Error, Files, FolderDataset, ImageDataset, ImageSettings,
    LatentManifest, LatentPrecision, LatentWriter, Loader, LoaderOptions, PackOptions, Storage, TarData, TarDataset,
    pack,
};
use image::{ImageFormat, Rgb, RgbImage};
use proxy::{Fault, Proxy};
use server::Server;
use tempfile::TempDir;

/// Settings for a server at an address, with a cache of its own.
fn storage(address: &str, cache: &Path) -> Storage {
    Storage {
        cache: Some(cache.to_path_buf()),
        endpoint: Some(address.to_owned()),
        timeout_seconds: 20,
        ..Storage::default()
    }
}

/// An image that no compression makes smaller.
fn noise(seed: u32, size: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
    let image = RgbImage::from_fn(size, size, |_, _| {
        Rgb([0, 1, 2].map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 9) as u8
        }))
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A folder of images in two classes.
fn photos(folder: &Path, count: u32, size: u32) -> FolderDataset {
    for number in 0..count {
        let class = folder.join(["cat", "dog"][number as usize % 2]);
        create_dir_all(&class).unwrap();
        write(class.join(format!("{number:03}.png")), noise(number, size)).unwrap();
    }
    FolderDataset::open(folder, &sized(8)).unwrap()
}

fn sized(size: usize) -> ImageSettings {
    ImageSettings { size: Some(size), ..ImageSettings::default() }
}

fn options(shards: usize, storage: &Storage) -> PackOptions {
    PackOptions { shards, seed: Some(0), corrupt: Corrupt::Refuse, force: false, storage: storage.clone() }
}

fn shards(url: &str, storage: &Storage) -> TarData {
    TarData { storage: storage.clone(), image: sized(8), ..TarData::at(Path::new(url)) }
}

fn open(url: &str, storage: &Storage) -> Result<TarDataset, Error> {
    TarDataset::open(&shards(url, storage), Path::new(""))
}

/// Copies of shards in a cache, and the bytes of all copies.
fn copies(cache: &Path) -> (usize, u64) {
    let found = std::fs::read_dir(cache.join("objects")).map(|entries| {
        entries.flatten().map(|entry| (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())))
    });
    let found: Vec<(PathBuf, u64)> = found.into_iter().flatten().collect();
    let tars = found.iter().filter(|(path, _)| path.extension().is_some_and(|ending| ending == "tar")).count();
    (tars, found.iter().map(|(_, bytes)| bytes).sum())
}

#[test]
fn shards_come_and_go_whole_through_cuts_and_busy_answers() {
    let Some(server) = Server::start() else { return };
    server.bucket("faulty");
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 16, 640);
    // Every third request fails: one with 503, the next after 100 bytes, within the head or early in the body, the next after 3 MB.
    let faulty = Proxy::start(server.port, |number| match number % 9 {
        2 => Fault::Busy,
        5 => Fault::Cut(100),
        8 => Fault::Cut(3_000_000),
        _ => Fault::None,
    });
    let storage = storage(&faulty.address(), &folder.path().join("cache"));
    let out = Path::new("s3://faulty/sets/photos");
    let packed = pack(&photos, out, &options(2, &storage), &mut |_| true).unwrap();
    assert!(packed.complete && packed.images == 16 && packed.bytes > 2 * (8 << 20), "{packed:?}");
    let error = pack(&photos, out, &options(2, &storage), &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("a complete one"), "{error}");
    let set = open("s3://faulty/sets/photos", &storage).unwrap();
    assert_eq!(set.class_names(), ["cat", "dog"]);
    let mut keys = BTreeSet::new();
    for index in 0..16 {
        let name = set.name(index);
        let key: usize = name.rsplit(' ').next().unwrap().trim_end_matches(".png").parse().unwrap();
        assert_eq!(set.file(index).unwrap(), photos.file(key).unwrap(), "{name}");
        assert_eq!(set.get(index).unwrap(), photos.get(key).unwrap(), "{name}");
        keys.insert(key);
    }
    assert_eq!(keys.len(), 16);
    // Who reads more than a few images of a shard gets a copy of it.
    for _ in 0..3 {
        (0..16).for_each(|index| assert_eq!(set.get(index).unwrap(), set.get(index).unwrap()));
    }
    assert_eq!(copies(&folder.path().join("cache")).0, 2);
    assert!(faulty.faults() >= 8, "{} of {}", faulty.faults(), faulty.requests());
    // The copies are there: nothing but sizes is asked for again.
    let before = faulty.requests();
    let again = open("s3://faulty/sets/photos", &storage).unwrap();
    (0..16).for_each(|index| assert_eq!(again.get(index).unwrap(), set.get(index).unwrap()));
    assert!(faulty.requests() - before < 12, "{}", faulty.requests() - before);
    // The same set in the bytes of the same call to a folder.
    let local = folder.path().join("local");
    pack(&photos, &local, &options(2, &storage), &mut |_| true).unwrap();
    let files = Files::new(&storage).unwrap();
    for name in ["shard-000000.tar", "shard-000001.tar", "shard-000001.index.json", "classes.txt", "pack.json"] {
        let entry = files.stat(&out.join(name)).unwrap();
        assert!(files.read_all(&entry).unwrap() == std::fs::read(local.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn every_kind_of_set_reads_the_same_behind_a_url() {
    let Some(server) = Server::start() else { return };
    server.bucket("kinds");
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    photos(&root.join("photos"), 6, 8);
    write(root.join("photos/notes.txt"), "no image").unwrap();
    let mut idx = vec![0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 2];
    idx.extend(0..20);
    write(root.join("images-idx3-ubyte"), idx).unwrap();
    write(root.join("labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 5, 1, 0, 2, 1, 0]).unwrap();
    parquet(&root.join("train-00000.parquet"));
    latents(&root.join("latents"));
    let storage = storage(&server.address(), &root.join("cache"));
    let files = Files::new(&storage).unwrap();
    upload(&files, root, Path::new("s3://kinds/all"));
    let storage = serde_json::to_value(&storage).unwrap();
    for config in [
        serde_json::json!({"kind": "folder", "path": "BASE/photos", "image": {"size": 8}}),
        serde_json::json!({"kind": "idx", "images": "BASE/images-idx3-ubyte", "labels": "BASE/labels-idx1-ubyte"}),
        serde_json::json!({"kind": "parquet", "path": "BASE/train-*.parquet"}),
        serde_json::json!({"kind": "parquet", "path": "BASE"}),
        serde_json::json!({"kind": "latents", "path": "BASE/latents"}),
    ] {
        let at = |base: &str| -> DatasetConfig {
            let mut value: serde_json::Value =
                serde_json::from_str(&config.to_string().replace("BASE", base)).unwrap();
            value["storage"] = storage.clone();
            serde_json::from_value(value).unwrap()
        };
        let (local, remote) = (at(root.to_str().unwrap()), at("s3://kinds/all"));
        let [local, remote] = [local, remote].map(|config| config.open(Path::new("")).unwrap());
        assert_eq!(local.fingerprint(), remote.fingerprint(), "{config}");
        let [local, remote] = [local, remote].map(|set| Batches::new(set, 4, 1).unwrap());
        (0..3).for_each(|step| assert_eq!(local.batch(step).unwrap(), remote.batch(step).unwrap(), "{config}"));
    }
    // What a message names is the URL, not the copy.
    write(root.join("bad.parquet"), "not a table").unwrap();
    files.put(&root.join("bad.parquet"), Path::new("s3://kinds/bad/bad.parquet")).unwrap();
    let bad = serde_json::json!({"kind": "parquet", "path": "s3://kinds/bad", "storage": storage});
    let bad: DatasetConfig = serde_json::from_value(bad).unwrap();
    let error = bad.open(Path::new("")).unwrap_err().to_string();
    assert!(error.starts_with("s3://kinds/bad/bad.parquet: content: expected a Parquet file"), "{error}");
}

fn upload(files: &Files, folder: &Path, url: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let to = url.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true if entry.ends_with("cache") => {}
            true => upload(files, &entry, &to),
            false => files.put(&entry, &to).unwrap(),
        }
    }
}

fn parquet(path: &Path) {
    let images: Vec<Vec<u8>> = (0..5).map(|number| noise(number, 4)).collect();
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(images.iter()));
    let labels: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "b", "c", "a"]));
    let batch = RecordBatch::try_from_iter([("image", images), ("label", labels)]).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn latents(folder: &Path) {
    let manifest = LatentManifest {
        shape: [1, 2, 2],
        shard: 4,
        precision: LatentPrecision::F32,
        mirrored: false,
        scaling_factor: 1.0,
        shift_factor: 0.0,
        downsampling: 8,
        classes: vec!["a".into(), "b".into()],
        vae: None,
        images: None,
        data: None,
        count: 0,
        left_out: 0,
        complete: false,
    };
    let mut writer = LatentWriter::open(folder, manifest).unwrap();
    let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
    let (labels, indices) = (vec![0, 1, 0, 1, 1, 0], (0..6).collect());
    let std = vec![0.5; 24];
    let none = Vec::new;
    let batch = EncodedBatch { mean: values, std, mirror_mean: none(), mirror_std: none(), labels, indices };
    writer.push(&batch).unwrap();
    writer.finish(0).unwrap();
}

#[test]
fn a_small_cache_stays_small_and_is_shared() {
    let Some(server) = Server::start() else { return };
    server.bucket("cache");
    let folder = TempDir::new().unwrap();
    // Eight shards of about 0.4 MB, of which five fit.
    let photos = photos(&folder.path().join("photos"), 32, 180);
    let cache = folder.path().join("cache");
    let storage = Storage { cache_gigabytes: 0.002, ..storage(&server.address(), &cache) };
    let packed = pack(&photos, Path::new("s3://cache/x"), &options(8, &storage), &mut |_| true).unwrap();
    assert!(packed.bytes > 3_000_000, "{packed:?}");
    let mut data = shards("s3://cache/x", &storage);
    data.shuffle = Some(4);
    data.lanes = Some(2);
    let read = |rank: usize| {
        let set = DatasetConfig::Tar(data.clone()).open(Path::new("")).unwrap();
        let stream = Batches::new(set, 4, rank as u64).unwrap();
        let mut seen = BTreeSet::new();
        for step in 0..16 {
            seen.extend(stream.batch(step).unwrap().indices);
            let (_, bytes) = copies(&cache);
            assert!(bytes <= 2_000_000, "{bytes}");
        }
        assert_eq!(seen.len(), 32);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|rank| scope.spawn(move || read(rank))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    // A file that is too large for the cache is read in ranges.
    let tiny = Storage { cache_gigabytes: 0.0005, cache: Some(folder.path().join("tiny")), ..storage.clone() };
    let set = open("s3://cache/x", &tiny).unwrap();
    let large = open("s3://cache/x", &storage).unwrap();
    (0..32).for_each(|index| assert_eq!(set.get(index).unwrap(), large.get(index).unwrap()));
    assert_eq!(copies(&folder.path().join("tiny")).0, 0);
    // Also without a list beside it: the headers are read through the ranges.
    let scanned = TarData { label_member: Some("cls".into()), ..shards("s3://cache/x/shard-000003.tar", &tiny) };
    let scanned = TarDataset::open(&scanned, Path::new("")).unwrap();
    assert_eq!((scanned.len(), scanned.get(0).unwrap()), (4, set.get(12).unwrap()));
}

#[test]
fn each_of_two_processes_copies_its_own_shards() {
    let Some(server) = Server::start() else { return };
    server.bucket("ranks");
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 640, 8);
    let caches = [0, 1].map(|rank| folder.path().join(format!("cache-{rank}")));
    let storages = caches.clone().map(|cache| storage(&server.address(), &cache));
    pack(&photos, Path::new("s3://ranks/x"), &options(16, &storages[0]), &mut |_| true).unwrap();
    let whole = {
        let set = DatasetConfig::Tar(shards("s3://ranks/x", &storage(&server.address(), &folder.path().join("all"))));
        Batches::new(set.open(Path::new("")).unwrap(), 8, 5).unwrap()
    };
    let mut all = BTreeSet::new();
    for rank in 0..2 {
        let set = TarDataset::open(&shards("s3://ranks/x", &storages[rank]), Path::new("")).unwrap();
        for step in 0..80 {
            let batch = whole.batch(step).unwrap();
            for place in 4 * rank..4 * (rank + 1) {
                // 32 images of a shard are read on their own before it is copied.
                let index = batch.indices[place] as usize;
                let image = set.get(index).unwrap();
                assert_eq!(image.pixels, batch.images[192 * place..192 * (place + 1)]);
                all.insert(index);
            }
        }
        let (tars, _) = copies(&caches[rank]);
        assert!((1..=9).contains(&tars), "rank {rank} copied {tars} of 16 shards");
    }
    assert_eq!(all.len(), 640);
}

#[test]
fn training_goes_on_where_it_stopped() {
    let Some(server) = Server::start() else { return };
    server.bucket("resume");
    server.publish("resume");
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 20, 16);
    let faulty = Proxy::start(server.port, |number| if number % 5 == 3 { Fault::Busy } else { Fault::None });
    let storage = storage(&faulty.address(), &folder.path().join("cache"));
    pack(&photos, Path::new("s3://resume/x"), &options(4, &storage), &mut |_| true).unwrap();
    let open = || DatasetConfig::Tar(shards("s3://resume/x", &storage)).open(Path::new("")).unwrap();
    let options = LoaderOptions { batch_size: 6, seed: 2, first_step: 0, workers: 2, queue: 3 };
    let whole: Vec<_> = Loader::start(open(), options).unwrap().take(10).map(Result::unwrap).collect();
    let resumed = Loader::start(open(), LoaderOptions { first_step: 6, workers: 1, ..options }).unwrap();
    let resumed: Vec<_> = resumed.take(4).map(Result::unwrap).collect();
    assert_eq!(resumed, whole[6..]);
    // In a range of a web server, which has no lists, the same images.
    let web = format!("{}/resume/x/shard-{{000000..000003}}.tar", server.address());
    let DatasetConfig::Tar(mut data) = DatasetConfig::guess(Path::new(&web)).unwrap() else { panic!("{web}") };
    (data.storage, data.image) = (storage.clone(), sized(8));
    let web = Batches::new(DatasetConfig::Tar(data).open(Path::new("")).unwrap(), 6, 2).unwrap();
    (0..10).for_each(|step| assert_eq!(web.batch(step as u64).unwrap(), whole[step]));
}

#[test]
fn what_is_wrong_is_said_in_plain_words_and_soon() {
    let Some(server) = Server::start() else { return };
    server.bucket("words");
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 4, 8);
    let storage = Storage { retries: 1, ..storage(&server.address(), &folder.path().join("cache")) };
    pack(&photos, Path::new("s3://words/x"), &options(1, &storage), &mut |_| true).unwrap();
    let told = |url: &str, storage: &Storage| {
        let start = Instant::now();
        let error = open(url, storage).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        assert!(error.contains(url.trim_end_matches('*')) && !error.contains('\n'), "{error}");
        error
    };
    assert!(told("s3://words/y.tar", &storage).contains("entity not found"));
    assert!(told("s3://words/nothing", &storage).contains("at least one *.tar file"));
    let error = told("s3://no-such-bucket/x", &storage);
    assert!(error.contains("no such bucket"), "{error}");
    assert!(told("s3://words/*.tar", &storage).contains("a pattern that matches files"));
    assert!(told("ftp://words/x.tar", &storage).contains("a URL that starts with s3://"));
    let web = format!("{}/words/x", server.address());
    assert!(told(&web, &storage).contains("web servers do not tell what they hold"));
    // A server that is not there, and one that is always busy.
    let gone = Storage { endpoint: Some("http://127.0.0.1:9".into()), ..storage.clone() };
    assert!(told("s3://words/x", &gone).contains("is the network there?"));
    let busy = Proxy::start(server.port, |_| Fault::Busy);
    let busy = Storage { endpoint: Some(busy.address()), ..storage.clone() };
    assert!(told("s3://words/x", &busy).contains("503"));
    // A file that is replaced while it is read.
    let set = open("s3://words/x", &storage).unwrap();
    let other = folder.path().join("other.tar");
    write(&other, vec![1; 20_000]).unwrap();
    Files::new(&storage).unwrap().put(&other, Path::new("s3://words/x/shard-000000.tar")).unwrap();
    let error = set.get(3).unwrap_err().to_string();
    assert!(error.contains("has changed while it was read"), "{error}");
}

#[test]
fn access_that_is_refused_names_the_variables() {
    let Some(server) = Server::start() else { return };
    server.bucket("private");
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 4, 8);
    let keys = storage(&server.address(), &folder.path().join("cache"));
    pack(&photos, Path::new("s3://private/x"), &options(1, &keys), &mut |_| true).unwrap();
    let nobody = Storage { anonymous: true, ..keys };
    let error = open("s3://private/x/shard-000000.tar", &nobody).unwrap_err();
    assert!(!error.is_corrupt());
    let error = error.to_string();
    assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains("storage.anonymous"), "{error}");
    server.publish("private");
    assert_eq!(open("s3://private/x/shard-000000.tar", &nobody).unwrap().len(), 4);
}

/// Keys come from variables, which a test cannot set for itself while others run.
#[test]
fn keys_come_from_the_usual_variables() {
    let Some(server) = Server::start() else { return };
    server.bucket("keys");
    let inner = "reads_with_the_keys_of_its_variables";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", inner, "--ignored", "--nocapture"]);
    child.envs([("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "eu-north-1")]);
    child.env("AWS_ENDPOINT_URL", server.address());
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by keys_come_from_the_usual_variables, with the variables"]
fn reads_with_the_keys_of_its_variables() {
    let folder = TempDir::new().unwrap();
    let photos = photos(&folder.path().join("photos"), 4, 8);
    let storage = Storage { cache: Some(folder.path().join("cache")), ..Storage::default() };
    pack(&photos, Path::new("s3://keys/x"), &options(2, &storage), &mut |_| true).unwrap();
    let set = Dataset::Images {
        images: Arc::new(open("s3://keys/x", &storage).unwrap()),
        corrupt: Corrupt::Refuse,
        horizontal_flip: false,
    };
    assert_eq!(Batches::new(set, 4, 0).unwrap().batch(0).unwrap().labels.iter().sum::<u32>(), 2);
}
