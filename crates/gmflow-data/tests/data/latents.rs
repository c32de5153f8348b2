//! Caches of latents: written, interrupted, read, and damaged.

use gmflow_data::{
    Batch, Batches, Dataset, DatasetConfig, EncodedBatch, Error, LatentDataset, LatentManifest, LatentPrecision,
    LatentWriter, Loader, LoaderOptions,
};
use std::fs;
use std::path::Path;

const SHAPE: [usize; 3] = [2, 2, 3];
const VALUES: usize = 12;

fn manifest() -> LatentManifest {
    LatentManifest {
        shape: SHAPE,
        shard: 4,
        precision: LatentPrecision::F32,
        mirrored: true,
        scaling_factor: 0.5,
        shift_factor: 0.25,
        downsampling: 8,
        classes: vec!["cat".into(), "dog".into()],
        vae: Some("an autoencoder".into()),
        images: None,
        data: None,
        count: 0,
        left_out: 0,
        complete: false,
    }
}

/// Latent i has mean i, its mirror -i, and standard deviation 0.1 and 0.2.
fn encoded(range: std::ops::Range<usize>) -> EncodedBatch {
    let means = |sign: f32| range.clone().flat_map(move |i| vec![sign * i as f32; VALUES]).collect();
    let count = range.len() * VALUES;
    EncodedBatch {
        mean: means(1.0),
        std: vec![0.1; count],
        mirror_mean: means(-1.0),
        mirror_std: vec![0.2; count],
        labels: range.clone().map(|i| (i % 2) as u32).collect(),
        indices: range.map(|i| i as u32).collect(),
    }
}

fn write(folder: &Path, manifest: LatentManifest, count: usize) -> LatentManifest {
    let mut writer = LatentWriter::open(folder, manifest).unwrap();
    for first in (0..count).step_by(3) {
        writer.push(&encoded(first..(first + 3).min(count))).unwrap();
    }
    writer.finish(1).unwrap()
}

fn cache(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), manifest(), count);
    folder
}

fn open(folder: &Path, horizontal_flip: bool) -> Result<Dataset, Error> {
    DatasetConfig::Latents { path: folder.to_owned(), horizontal_flip, storage: Default::default() }
        .open(Path::new(""))
}

fn refused(folder: &Path, parts: &[&str]) {
    let error = LatentDataset::open(folder).unwrap_err().to_string();
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn a_cache_is_a_data_set() {
    let folder = cache(10);
    let data = open(folder.path(), false).unwrap();
    assert_eq!((data.shape(), data.len(), data.class_names().len()), (SHAPE, Some(10), 2));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "a manifest, three shards and the lock file");
    let batches = Batches::new(data, 10, 3).unwrap();
    let batch = batches.batch(0).unwrap();
    assert_eq!(batch, batches.batch(0).unwrap());
    for (i, index) in batch.indices.iter().enumerate() {
        assert_eq!(u64::from(batch.labels[i]), index % 2);
        for value in &batch.images[i * VALUES..(i + 1) * VALUES] {
            let deviation = value / 0.5 + 0.25 - *index as f32;
            assert!(deviation.abs() < 0.6 && deviation != 0.0, "{deviation}");
        }
    }
    assert!(batch.images != batches.batch(1).unwrap().images, "another draw in another epoch");
}

#[test]
fn draws_have_the_mean_and_the_variance_that_were_encoded() {
    let folder = cache(4);
    let batches = Batches::new(open(folder.path(), true).unwrap(), 4000, 1).unwrap();
    let batch = batches.batch(0).unwrap();
    let mut sums = [[0.0f64; 3]; 2];
    for (latent, index) in batch.images.chunks_exact(VALUES).zip(&batch.indices).filter(|(_, index)| **index == 3) {
        for value in latent {
            let raw = f64::from(value / 0.5 + 0.25);
            let side = usize::from(raw < 0.0);
            let deviation = raw.abs() - *index as f64;
            sums[side].iter_mut().zip([1.0, deviation, deviation * deviation]).for_each(|(sum, x)| *sum += x);
        }
    }
    for (side, std) in sums.iter().zip([0.1, 0.2]) {
        let (mean, var) = (side[1] / side[0], side[2] / side[0]);
        // About 6,000 values: four standard errors.
        assert!(side[0] > 4000.0 && mean.abs() < 4.0 * std / side[0].sqrt(), "{side:?}");
        assert!((var / (std * std) - 1.0).abs() < 4.0 * (2.0 / side[0]).sqrt(), "{side:?}");
    }
}

#[test]
fn an_interrupted_encoding_continues() {
    let (whole, parts) = (cache(10), tempfile::tempdir().unwrap());
    let mut writer = LatentWriter::open(parts.path(), manifest()).unwrap();
    writer.push(&encoded(0..6)).unwrap();
    drop(writer);
    refused(parts.path(), &["complete", "gmflow encode"]);
    let other = LatentManifest { scaling_factor: 1.0, ..manifest() };
    assert!(LatentWriter::open(parts.path(), other).unwrap_err().to_string().contains("other settings"));
    let mut writer = LatentWriter::open(parts.path(), manifest()).unwrap();
    assert_eq!((writer.written(), writer.next_index()), (4, 4));
    writer.push(&encoded(4..10)).unwrap();
    writer.finish(1).unwrap();
    for entry in fs::read_dir(whole.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            fs::read(whole.path().join(&name)).unwrap() == fs::read(parts.path().join(&name)).unwrap(),
            "{name:?}"
        );
    }
    assert!(LatentWriter::open(whole.path(), manifest()).unwrap_err().to_string().contains("complete"));
}

#[test]
fn what_an_interrupted_call_wrote_last_is_written_again() {
    let whole = cache(10);
    let begun = |folder: &Path| {
        let path = folder.join("latents.json");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"complete\": true", "\"complete\": false")).unwrap();
    };
    let continued = |folder: &Path, first: usize| {
        let mut writer = LatentWriter::open(folder, manifest()).unwrap();
        assert_eq!((writer.written(), writer.next_index()), (first, first as u64));
        writer.push(&encoded(first..10)).unwrap();
        writer.finish(1).unwrap();
        for number in 0..3 {
            let name = format!("shard-{number:05}.safetensors");
            assert!(fs::read(folder.join(&name)).unwrap() == fs::read(whole.path().join(&name)).unwrap(), "{name}");
        }
        LatentDataset::open(folder).unwrap();
    };
    // The last, short shard was there, and the manifest did not say so yet.
    let folder = cache(10);
    begun(folder.path());
    continued(folder.path(), 8);
    // A damaged shard counts as none, and so does one that holds another's latents.
    let shard = folder.path().join("shard-00001.safetensors");
    begun(folder.path());
    fs::write(&shard, b"noise").unwrap();
    continued(folder.path(), 4);
    begun(folder.path());
    fs::copy(folder.path().join("shard-00000.safetensors"), &shard).unwrap();
    continued(folder.path(), 4);
}

#[test]
fn images_that_were_left_out_keep_their_positions_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LatentWriter::open(folder.path(), manifest()).unwrap();
    let sparse = |positions: &[u32]| EncodedBatch { indices: positions.to_vec(), ..encoded(0..positions.len()) };
    writer.push(&sparse(&[0, 2, 3])).unwrap();
    writer.push(&sparse(&[7, 8])).unwrap();
    drop(writer);
    let mut writer = LatentWriter::open(folder.path(), manifest()).unwrap();
    // Four were written up to position 7, so four were left out.
    assert_eq!((writer.written(), writer.next_index()), (4, 8));
    writer.push(&sparse(&[8, 11])).unwrap();
    writer.finish(6).unwrap();
    let batch = Batches::new(open(folder.path(), false).unwrap(), 6, 2).unwrap().batch(0).unwrap();
    let mut indices = batch.indices;
    indices.sort_unstable();
    assert_eq!(indices, [0, 2, 3, 7, 8, 11]);
}

fn batches(folder: &Path, first_step: u64, workers: usize, count: usize) -> Vec<Batch> {
    let options = LoaderOptions { batch_size: 4, seed: 9, first_step, workers, queue: 3 };
    let loader = Loader::start(open(folder, true).unwrap(), options).unwrap();
    loader.take(count).map(Result::unwrap).collect()
}

#[test]
fn a_resumed_stream_continues_exactly() {
    let folder = cache(10);
    let whole = batches(folder.path(), 0, 1, 20);
    for workers in [1, 3] {
        assert_eq!(batches(folder.path(), 7, workers, 13), whole[7..]);
    }
    // Both sides of an image have their turn, and every epoch its own draw.
    let of_nine = |batch: &Batch| {
        let place = batch.indices.iter().position(|index| *index == 9)?;
        Some(batch.images[place * VALUES] / 0.5 + 0.25)
    };
    let values: Vec<f32> = whole.iter().filter_map(of_nine).collect();
    assert_eq!(values.len(), 8);
    assert!(values.iter().any(|value| *value > 0.0) && values.iter().any(|value| *value < 0.0), "{values:?}");
    assert!(values.iter().enumerate().all(|(i, value)| !values[..i].contains(value)), "{values:?}");
}

#[test]
fn half_precision_rounds_and_halves() {
    let (whole, half) = (cache(8), tempfile::tempdir().unwrap());
    write(half.path(), LatentManifest { precision: LatentPrecision::F16, ..manifest() }, 8);
    let size = |folder: &Path| fs::metadata(folder.join("shard-00000.safetensors")).unwrap().len();
    assert!(size(half.path()) < size(whole.path()));
    let batch = |folder: &Path| Batches::new(open(folder, false).unwrap(), 8, 0).unwrap().batch(0).unwrap().images;
    let (a, b) = (batch(whole.path()), batch(half.path()));
    assert!(a != b && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3));
    let folder = tempfile::tempdir().unwrap();
    let half = LatentManifest { precision: LatentPrecision::F16, ..manifest() };
    let mut writer = LatentWriter::open(folder.path(), half).unwrap();
    let mut large = encoded(0..1);
    large.mean[5] = 7e4;
    assert!(writer.push(&large).unwrap_err().to_string().contains("at most 65504"));
    writer.push(&encoded(0..1)).unwrap();
}

#[test]
fn what_cannot_be_encoded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LatentWriter::open(folder.path(), manifest()).unwrap();
    let mut short = encoded(0..2);
    short.std.pop();
    assert!(writer.push(&short).is_err());
    let mut infinite = encoded(0..2);
    infinite.mirror_mean[3] = f32::NAN;
    assert!(writer.push(&infinite).unwrap_err().to_string().contains("finite"));
    let changed = |change: &dyn Fn(&mut EncodedBatch)| {
        let mut batch = encoded(0..2);
        change(&mut batch);
        batch
    };
    for (batch, words) in [
        (changed(&|batch| batch.mirror_std[0] = -0.5), "standard deviations"),
        (changed(&|batch| batch.labels[1] = 2), "labels: expected below 2"),
        (changed(&|batch| batch.indices[1] = 0), "indices: expected at least 1"),
        (changed(&|batch| batch.indices.truncate(1)), "indices: expected 2"),
    ] {
        let error = writer.push(&batch).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(writer.finish(0).is_err(), "nothing was encoded");
    let plain = LatentManifest { mirrored: false, ..manifest() };
    let folder = tempfile::tempdir().unwrap();
    let mut writer = LatentWriter::open(folder.path(), plain).unwrap();
    assert!(writer.push(&encoded(0..2)).is_err(), "mirrored latents nobody asked for");
    writer.push(&EncodedBatch { mirror_mean: Vec::new(), mirror_std: Vec::new(), ..encoded(0..2) }).unwrap();
    writer.finish(0).unwrap();
    assert!(open(folder.path(), true).unwrap_err().to_string().contains("horizontal_flip"));
    assert!(open(folder.path(), false).is_ok());
}

#[test]
fn damaged_caches_are_named() {
    let folder = cache(10);
    let shard = folder.path().join("shard-00001.safetensors");
    let good = fs::read(&shard).unwrap();
    for end in [0, 7, 40, good.len() / 2, good.len() - 1] {
        fs::write(&shard, &good[..end]).unwrap();
        refused(folder.path(), &["shard-00001"]);
    }
    fs::remove_file(&shard).unwrap();
    refused(folder.path(), &["shard-00001"]);
    // The last shard has fewer latents than the manifest says of this one.
    fs::copy(folder.path().join("shard-00002.safetensors"), &shard).unwrap();
    refused(folder.path(), &["shard-00001", "tensor"]);
    // The right size, but another's latents.
    fs::copy(folder.path().join("shard-00000.safetensors"), &shard).unwrap();
    refused(folder.path(), &["shard-00001", "row 0", "an index above 3"]);
    let indices = [4u32, 5, 6, 7].map(u32::to_le_bytes).concat();
    let place = good.windows(16).position(|window| window == indices).unwrap();
    let mut unordered = good.clone();
    unordered[place + 8] = 5;
    fs::write(&shard, unordered).unwrap();
    refused(folder.path(), &["shard-00001", "row 2", "an index above 5"]);
    // Shapes that do not agree with the offsets.
    for (from, to) in [("\"shape\":[4]", "\"shape\":[9]"), ("[4,2,2,3]", "[4,2,2,9]")] {
        let (header, from) = (String::from_utf8_lossy(&good), from.as_bytes());
        assert!(header.contains(std::str::from_utf8(from).unwrap()), "{header}");
        let place = good.windows(from.len()).position(|window| window == from).unwrap();
        let mut lying = good.clone();
        lying[place..place + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&shard, lying).unwrap();
        refused(folder.path(), &["shard-00001"]);
    }
    fs::write(&shard, &good).unwrap();

    let path = folder.path().join("latents.json");
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, field) in [
        ("\"version\": 1", "\"version\": 2", "version"),
        ("gmflow-latents", "other", "format"),
        ("\"count\": 10", "\"count\": 100", "shard-00002"),
        ("\"count\": 10", "\"count\": 0", "count"),
        ("\"shard\": 4", "\"shard\": 0", "shard"),
        ("\"scaling_factor\": 0.5", "\"scaling_factor\": 0.0", "scaling_factor"),
        ("\"downsampling\": 8", "\"downsampling\": 0", "downsampling"),
        ("\"mirrored\": true", "\"miroired\": true", "latents.json"),
        ("\"precision\": \"f32\"", "\"precision\": \"f16\"", "tensor mean: expected F16"),
        ("\"shard\": 4", "\"shard\": 5", "shard-00000"),
        ("\"scaling_factor\": 0.5", "\"scaling_factor\": 1e999", "latents.json"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        refused(folder.path(), &[field]);
    }
}

#[test]
fn damaged_values_are_named_when_their_turn_comes() {
    for (tensor_value, bad, expected) in
        [(0.1f32, -1.0f32, "standard deviations"), (0.1, f32::NAN, "finite"), (5.0, f32::INFINITY, "finite")]
    {
        let folder = cache(8);
        let shard = folder.path().join("shard-00001.safetensors");
        let mut bytes = fs::read(&shard).unwrap();
        let place = bytes.windows(4).rposition(|window| window == tensor_value.to_le_bytes()).unwrap();
        bytes[place..place + 4].copy_from_slice(&bad.to_le_bytes());
        fs::write(&shard, bytes).unwrap();
        let error =
            Batches::new(open(folder.path(), false).unwrap(), 8, 0).unwrap().batch(0).unwrap_err().to_string();
        assert!(error.contains("shard-00001") && error.contains("row") && error.contains(expected), "{error}");
    }
    let folder = cache(8);
    let shard = folder.path().join("shard-00000.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let place = bytes.windows(8).rposition(|window| window == [1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    bytes[place] = 9;
    fs::write(&shard, bytes).unwrap();
    let error = Batches::new(open(folder.path(), false).unwrap(), 8, 0).unwrap().batch(0).unwrap_err().to_string();
    assert!(error.contains("label"), "{error}");
}
