//! Checkpoints whose files are well formed and say what no one expects: a load ends in a model or in an error on one line that names
//! the file, without a panic and in bounded memory.
#![allow(missing_docs)]

use burn::tensor::Device;
use gmflow::checkpoint::hub::HubId;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, LoadOptions, Model, ModelInfo, Precision, Progress,
    export_diffusers,
};
use gmflow::guidance::Guidance;
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig, SpectrumMlpConfig};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a note of the largest piece that was asked for.
struct Watched;

static LARGEST_PIECE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_PIECE.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST_PIECE.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST_PIECE.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// No file of these checkpoints has a hundredth of it.
const MOST_BYTES: usize = 64 << 20;

type Files = BTreeMap<String, Vec<u8>>;

fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 4,
        num_layers: 1,
        sample_size: 4,
        num_embeds_ada_norm: 3,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let spectrum = SpectrumMlpConfig { base_size: [4, 4, 4], layers: vec![4] };
    let vae = AutoencoderConfig {
        block_out_channels: vec![4, 8],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderConfig::default()
    };
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: Some(spectrum.init(2, &device).expect("valid")),
        vae: Some(vae.init(3, &device).expect("valid")),
        info: ModelInfo {
            spectrum: Some(spectrum),
            latent: Some(LatentInfo { scaling_factor: 0.5, shift_factor: 0.25, downsampling: 2, vae: None }),
            classes: Some(vec!["cat".into(), "dog".into()]),
            guidance: Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 },
            shift: 2.0,
            training: Some(json!({ "train": { "steps": 3 } })),
            progress: Progress { step: 7, images: 70 },
            ..ModelInfo::new(network, DataInfo { channels: 4, height: 4, width: 4, kind: DataKind::Latents })
        },
    }
}

/// The files of a folder by their paths in it.
fn files(folder: &Path, below: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(folder, &path));
        } else {
            let name = path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).expect("bytes"));
        }
    }
    files
}

/// One checkpoint in every layout.
static CHECKPOINTS: LazyLock<[Files; 3]> = LazyLock::new(|| {
    let written = |write: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path());
        files(dir.path(), dir.path())
    };
    let export = |options| written(&|dir| export_diffusers(&model(), dir, &options).expect("written"));
    [
        written(&|dir| {
            model().save(dir, &[], Precision::F32).expect("saved");
        }),
        export(ExportOptions::default()),
        export(ExportOptions { precision: Precision::Bf16, variant: Some("bf16".into()), shard_bytes: 2000 }),
    ]
});

/// Loads a checkpoint in which the file called `name` has this content, and checks the error if there is one.
fn load_with(checkpoint: &Files, name: &str, content: &[u8]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().expect("a folder");
    for (file, original) in checkpoint {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, if file == name { content } else { original }).expect("written");
    }
    // The digests would find every change at once.
    let options = LoadOptions { unverified: true, ..LoadOptions::default() };
    if let Err(error) = Model::load_with(dir.path(), options, &Device::flex()) {
        let message = error.to_string();
        prop_assert!(message.contains(&*dir.path().to_string_lossy()), "no file is named: {}", message);
        prop_assert!(!message.contains(char::is_control), "{:?}", message);
        prop_assert!(message.len() < 2000, "{} characters: {:.200}", message.len(), message);
    }
    let largest = LARGEST_PIECE.load(Ordering::Relaxed);
    prop_assert!(largest < MOST_BYTES, "{} bytes in one piece", largest);
    Ok(())
}

/// Values that no one expects.
fn value() -> impl Strategy<Value = Value> {
    let numbers = [
        json!(0),
        json!(-1),
        json!(1),
        json!(3),
        json!(5000),
        json!(65_537),
        json!(1_000_000),
        json!(1u64 << 31),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e-300),
        json!(-0.5),
        json!(1e300),
        json!(2.5),
    ];
    let others = [
        json!(null),
        json!(true),
        json!(""),
        json!("../../x"),
        json!("/etc/passwd"),
        json!("a\0b\n\u{1b}[2J"),
        json!([]),
        json!({}),
        json!([1, 1, 1, 1]),
        json!([4, 0, 4]),
        json!(vec![8; 300]),
        json!([1u64 << 33, 1u64 << 33, 4]),
        json!([null, null]),
        json!({ "-1": "x" }),
        json!("x".repeat(100_000)),
    ];
    select([numbers.to_vec(), others.to_vec()].concat())
}

/// How many values there are in a value, with itself.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

/// Replaces the value at `number` of those in `value`, itself being 0.
fn replace(value: &mut Value, number: usize, with: Value) {
    if number == 0 {
        *value = with;
        return;
    }
    let inside: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return,
    };
    let mut number = number - 1;
    for item in inside {
        let there = nodes(item);
        if number < there {
            return replace(item, number, with);
        }
        number -= there;
    }
}

fn named(checkpoint: &Files, which: Index, wanted: impl Fn(&str) -> bool) -> (&str, &[u8]) {
    let names: Vec<&String> = checkpoint.keys().filter(|name| wanted(name)).collect();
    let name = names[which.index(names.len())];
    (name, &checkpoint[name])
}

proptest! {
    // The seed is fixed, so that the gate does not depend on chance.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(400)
    })]

    #[test]
    fn descriptions_with_values_that_no_one_expects(
        checkpoint in 0usize..3,
        file in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), value()), 1..3),
    ) {
        let checkpoint = &CHECKPOINTS[checkpoint];
        let (name, original) = named(checkpoint, file, |name| name.ends_with(".json"));
        let mut content: Value = serde_json::from_slice(original).expect("JSON");
        for (at, with) in changes {
            let number = at.index(nodes(&content));
            replace(&mut content, number, with);
        }
        load_with(checkpoint, name, &serde_json::to_vec(&content).expect("JSON"))?;
    }

    /// The header of a safetensors file is JSON too, after its length.
    #[test]
    fn headers_with_values_that_no_one_expects(
        checkpoint in 0usize..3,
        file in any::<Index>(),
        at in any::<Index>(),
        with in value(),
    ) {
        let checkpoint = &CHECKPOINTS[checkpoint];
        let (name, original) = named(checkpoint, file, |name| name.ends_with(".safetensors"));
        let (length, rest) = original.split_first_chunk::<8>().expect("a length");
        let (header, tensors) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut header: Value = serde_json::from_slice(header).expect("JSON");
        let number = at.index(nodes(&header));
        replace(&mut header, number, with);
        let header = serde_json::to_vec(&header).expect("JSON");
        let content = [&(header.len() as u64).to_le_bytes()[..], &header, tensors].concat();
        load_with(checkpoint, name, &content)?;
    }

    #[test]
    fn ids_on_the_hub_are_plain_names(parts in prop::collection::vec(
        select(vec!["a", "owner", "name", "/", "@", ".", "..", "-", "_", "\\", "%2e", ":", "~", " ", "\n", "\0", "é", "http:", "refs"]),
        0..8,
    )) {
        let text = parts.concat();
        if let Some(id) = HubId::parse(&text) {
            let parts: Vec<&str> = id.repo.split('/').collect();
            prop_assert_eq!(parts.len(), 2);
            let plain = |part: &str| {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                !part.is_empty() && part.chars().all(allowed) && part != "." && part != ".."
            };
            prop_assert!(parts.iter().all(|part| plain(part)), "{}", id.repo);
            prop_assert!(id.revision.split('/').all(plain), "{}", id.revision);
            prop_assert_eq!(HubId::parse(&id.to_string()), Some(id));
        }
    }
}

#[test]
fn what_is_not_damaged_loads() {
    for checkpoint in CHECKPOINTS.iter() {
        let dir = tempfile::tempdir().expect("a folder");
        for (file, content) in checkpoint {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, content).expect("written");
        }
        Model::load(dir.path(), None, &Device::flex()).expect("a model");
    }
}
