//! Runs of several ranks, which are threads here: the same bits as one process, and an end together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use gmflow_data::{EncodedBatch, LatentManifest, LatentPrecision, LatentWriter};
use gmflow_train::{Config, Error, Follower, Observer, Outcome, Result, Run, Silent, StepReport, Trainer, agree};
use gmflow_world::{World, threads};

/// Forty-eight images of 8 x 8 pixels in three classes.
fn write_images(folder: &Path) {
    let header = |dims: &[u32]| -> Vec<u8> {
        let magic = [0, 0, 8, dims.len() as u8];
        magic.into_iter().chain(dims.iter().flat_map(|dim| dim.to_be_bytes())).collect()
    };
    let mut images = header(&[48, 8, 8]);
    images.extend((0..48 * 64u32).map(|i| ((i * i + i / 64 * 37) % 251) as u8));
    let mut labels = header(&[48]);
    labels.extend((0..48).map(|i| i % 3));
    std::fs::write(folder.join("images"), images).expect("images");
    std::fs::write(folder.join("labels"), labels).expect("labels");
}

const DIT: &str = r#"type = "gm-dit", num_gaussians = 2, num_attention_heads = 2, attention_head_dim = 8, num_layers = 2,
    sample_size = 8, patch_size = 4, in_channels = 1, num_embeds_ada_norm = 3, logstd_inner_dim = 8"#;
const UNET: &str = r#"type = "unet", num_gaussians = 2, sample_size = 8, in_channels = 1, block_out_channels = [8, 8],
    norm_num_groups = 4, layers_per_block = 1, num_classes = 3, logstd_inner_dim = 8, dropout = 0.2"#;

/// Twenty steps of 12 images, with everything that draws random numbers.
fn config(folder: &Path, network: &str, overrides: &[&str]) -> Config {
    if !folder.join("images").exists() {
        write_images(folder);
    }
    let text = format!(
        r#"
        data.source = {{ kind = "idx", images = "images", labels = "labels", image = {{ horizontal_flip = true }} }}
        loss = {{ kind = "transition", transition_ratio = 0.5 }}
        train = {{ batch_size = 12, steps = 20, label_dropout = 0.3, lr = 3e-3, clip_grad_norm = 1.0, seed = 2 }}
        spectrum = {{ layers = [6] }}
        network = {{ {} }}
        ema = [{{ name = "ema", decay = {{ kind = "constant", decay = 0.9 }} }}]
        checkpoint = {{ every = 10 }}
        log = {{ every = 5 }}
        sample = {{ every = 10, num = 4, sampler = {{ solver = {{ kind = "gm-ode", substeps = 2 }}, steps = 2 }} }}
    "#,
        network.replace('\n', " ")
    );
    let path = folder.join("config.toml");
    std::fs::write(&path, text).expect("a configuration");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&path, &overrides).expect("a valid configuration")
}

/// Stops the run after a step.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

/// Where a run begins.
#[derive(Clone, Copy)]
enum Begin<'a> {
    New(&'a Config),
    Resume,
}

/// Runs all ranks; returns what each of them ended with. `prepare` is called on each before it begins.
fn train(
    ranks: usize,
    begin: Begin,
    out: &Path,
    stop_after: Option<u64>,
    own: impl Fn(usize) -> Option<Config> + Sync,
) -> Vec<Result<Outcome>> {
    let work = |world: Arc<dyn World>| -> Result<Outcome> {
        let (device, stop) = (Device::flex(), AtomicBool::new(false));
        if world.rank() > 0 {
            agree(world.as_ref(), Ok::<(), Error>(()))?;
            return Follower::join(world.clone(), &device, own(world.rank()).as_ref())?.run(&stop);
        }
        let run = match begin {
            Begin::New(config) => Run::create_in(world.clone(), config.clone(), out, false, &device),
            Begin::Resume => Run::resume_in(world.clone(), out, &[], Default::default(), &device),
        };
        let mut run = agree(world.as_ref(), run)?;
        run.lead()?;
        match stop_after {
            Some(step) => run.run(&stop, &mut StopAfter(step, &stop)),
            None => run.run(&stop, &mut Silent),
        }
    };
    std::thread::scope(|scope| {
        let ranks = threads(ranks, None).into_iter().map(|world| scope.spawn(|| work(Arc::new(world))));
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
    })
}

fn train_well(ranks: usize, config: &Config, out: &Path) {
    for outcome in train(ranks, Begin::New(config), out, None, |_| Some(config.clone())) {
        assert_eq!(outcome.expect("training"), Outcome::Finished);
    }
}

/// The tensor files of a checkpoint, and the picture of its step.
fn files(out: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let folder = out.join(format!("checkpoints/step-{step:08}"));
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).expect("a checkpoint").map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    names.sort();
    assert_eq!(names.len(), 5, "model, average, both optimisers and the spectrum network: {names:?}");
    names.push(out.join(format!("samples/step-{step:08}.png")));
    let read = |path: &std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).expect("a file"))
    };
    names.iter().map(read).collect()
}

fn expect_same(what: &str, expected: &[(String, Vec<u8>)], got: &[(String, Vec<u8>)]) {
    for ((name, expected), (other, got)) in expected.iter().zip(got) {
        assert_eq!(name, other);
        assert!(expected == got, "{what}: {name} differs");
    }
}

#[test]
fn ranks_train_bit_for_bit_as_one_process_with_as_many_parts() {
    for network in [DIT, UNET] {
        let folder = tempfile::tempdir().expect("a folder");
        for ranks in [2, 4] {
            let micro = format!("train.micro_batch={}", 12 / ranks);
            let alone = folder.path().join(format!("alone-{ranks}"));
            train_well(1, &config(folder.path(), network, &[&micro]), &alone);
            let expected = files(&alone, 20);
            let together = folder.path().join(format!("together-{ranks}"));
            train_well(ranks, &config(folder.path(), network, &[]), &together);
            expect_same(&format!("{ranks} ranks"), &expected, &files(&together, 20));
            let sharded = folder.path().join(format!("sharded-{ranks}"));
            train_well(ranks, &config(folder.path(), network, &["train.shard_state=true"]), &sharded);
            expect_same(&format!("{ranks} ranks, sharded"), &expected, &files(&sharded, 20));
        }
    }
}

#[test]
fn uneven_shares_train_to_rounding() {
    for (network, ranks) in [(DIT, 5), (UNET, 5), (DIT, 3)] {
        let folder = tempfile::tempdir().expect("a folder");
        // Adam divides by the size of a gradient, so that the rounding of a small one counts as much as the learning rate says.
        let config = config(folder.path(), network, &["sample.every=20", "train.lr=1e-4"]);
        let weights = |ranks: usize| {
            let out = folder.path().join(format!("run-{ranks}"));
            train_well(ranks, &config, &out);
            let file = std::fs::read(out.join("checkpoints/step-00000020/model.safetensors")).expect("weights");
            let tensors = safetensors::SafeTensors::deserialize(&file).expect("tensors");
            let mut values: Vec<f32> = Vec::new();
            let mut tensors = tensors.tensors();
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            for (_, tensor) in tensors {
                values.extend(tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            values
        };
        let (one, several) = (weights(1), weights(ranks));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut one.iter().zip(&several).map(|(a, b)| f64::from(a - b)));
        let relative = difference / norm(&mut one.iter().map(|a| f64::from(*a)));
        assert!(relative < 1e-6, "{ranks} ranks: off by {relative:e}");
    }
}

#[test]
fn a_run_stops_and_goes_on_with_any_number_of_ranks() {
    for sharded in ["train.shard_state=false", "train.shard_state=true"] {
        let folder = tempfile::tempdir().expect("a folder");
        // Parts of 3 on any number of ranks, so that the sums are the same.
        let config = config(folder.path(), DIT, &["train.micro_batch=3", sharded]);
        let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
        train_well(1, &config, &whole);
        let stopped = train(4, Begin::New(&config), &broken, Some(6), |_| None);
        assert!(stopped.iter().all(|outcome| matches!(outcome, Ok(Outcome::Stopped))), "{stopped:?}");
        let step = gmflow_train::checkpoint::latest(&broken).expect("a checkpoint");
        assert!(step.ends_with("step-00000007"), "all stop after the step in which one was told: {}", step.display());
        // Four ranks with a part each add up like one process with four parts. Two ranks with two parts each do not: the sums differ.
        for (ranks, until) in [(4, Some(12)), (1, None)] {
            for outcome in train(ranks, Begin::Resume, &broken, until, |_| None) {
                outcome.expect("training");
            }
        }
        expect_same(sharded, &files(&whole, 20), &files(&broken, 20));
    }
}

#[test]
fn points_are_those_of_one_process() {
    let text = |micro: &str| {
        let text = format!(
            "data.source = {{ kind = 'density', name = 'checkerboard' }}\n\
             network = {{ type = 'mlp2d', num_gaussians = 4, embed_dim = 8, hidden_dim = 16 }}\n\
             train = {{ batch_size = 64, steps = 5, {micro} lr = 1e-3 }}\ncheckpoint = {{ every = 5 }}"
        );
        Config::parse(&text, "points.toml".as_ref(), &[]).expect("a configuration")
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    train_well(1, &text("micro_batch = 32,"), &alone);
    train_well(2, &text(""), &together);
    let weights =
        |out: &Path| std::fs::read(out.join("checkpoints/step-00000005/model.safetensors")).expect("weights");
    assert!(weights(&alone) == weights(&together));
}

#[test]
fn parameters_without_a_gradient_and_an_exchange_in_bf16() {
    let folder = tempfile::tempdir().expect("a folder");
    let only = "train.only=[\"gm_out\"]";
    let weights = |name: &str, ranks: usize, overrides: &[&str]| {
        let out = folder.path().join(name);
        train_well(ranks, &config(folder.path(), DIT, overrides), &out);
        std::fs::read(out.join("checkpoints/step-00000020/model.safetensors")).expect("weights")
    };
    let alone = weights("alone", 1, &[only, "train.micro_batch=6"]);
    assert!(alone == weights("two", 2, &[only]));
    assert!(alone == weights("two-sharded", 2, &[only, "train.shard_state=true"]));
    // Rounded on the way: other bits, the same on both ranks (or the run would end), and the same with a sharded state.
    let rounded = weights("rounded", 2, &[only, "train.exchange_bf16=true"]);
    assert!(rounded != alone);
}

#[test]
fn ranks_that_differ_are_refused_with_the_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = config(folder.path(), DIT, &[]);
    let other = config(folder.path(), DIT, &["train.lr=1e-4", "train.seed=7"]);
    let outcomes = train(2, Begin::New(&first), &folder.path().join("run"), None, |_| Some(other.clone()));
    let words = outcomes.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect::<Vec<_>>();
    assert!(
        words[1].starts_with("configuration: expected that of rank 0, got another train.lr, train.seed"),
        "{words:?}"
    );
    assert_eq!(words[0], format!("rank 1: {}", words[1]));

    let few = config(folder.path(), DIT, &["train.batch_size=3"]);
    for outcome in train(4, Begin::New(&few), &folder.path().join("few"), None, |_| None) {
        let error = outcome.unwrap_err().to_string();
        assert!(
            error.contains("train.batch_size: expected at least 4, a sample for each of the 4 processes"),
            "{error}"
        );
    }
}

#[test]
fn a_full_disk_of_rank_0_ends_all_ranks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, out) = (config(folder.path(), DIT, &["checkpoint.every=3"]), folder.path().join("run"));
    // Where the second checkpoint would be written there is a file that cannot be removed as a folder.
    let work = |world: Arc<dyn World>| -> Result<Outcome> {
        let (device, stop) = (Device::flex(), AtomicBool::new(false));
        if world.rank() > 0 {
            agree(world.as_ref(), Ok::<(), Error>(()))?;
            return Follower::join(world.clone(), &device, None)?.run(&stop);
        }
        let mut run = agree(world.as_ref(), Run::create_in(world.clone(), config.clone(), &out, false, &device))?;
        run.lead()?;
        std::fs::write(out.join("checkpoints/.step-00000006.unfinished"), "in the way").expect("a file");
        run.run(&stop, &mut Silent)
    };
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let ranks: Vec<_> = threads(3, None).into_iter().map(|world| scope.spawn(|| work(Arc::new(world)))).collect();
        ranks.into_iter().map(|rank| rank.join().expect("no panic")).collect()
    });
    let words: Vec<String> = outcomes.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect();
    assert!(words[0].contains(".step-00000006.unfinished"), "{words:?}");
    assert!(words[1..].iter().all(|word| *word == format!("rank 0: {}", words[0])), "{words:?}");
    let newest = gmflow_train::checkpoint::latest(&out).expect("a checkpoint");
    assert!(newest.ends_with("step-00000003"));
    gmflow_train::checkpoint::verify(&newest).expect("whole");
}

/// Latents, of which one is so large that its loss is not finite.
fn write_latents(folder: &Path, bad: u32) {
    let manifest = LatentManifest {
        shape: [4, 8, 8],
        shard: 64,
        precision: LatentPrecision::F32,
        mirrored: false,
        scaling_factor: 1.0,
        shift_factor: 0.0,
        downsampling: 2,
        classes: Vec::new(),
        vae: None,
        images: None,
        data: None,
        count: 0,
        left_out: 0,
        complete: false,
    };
    let mut writer = LatentWriter::open(folder, manifest).expect("a cache");
    let values = |i: u32| (0..256).map(move |v| if i == bad { 3e38 } else { ((i * 256 + v) as f32 * 0.37).sin() });
    let batch = EncodedBatch {
        mean: (0..24).flat_map(values).collect(),
        std: vec![0.0; 24 * 256],
        labels: vec![0; 24],
        indices: (0..24).collect(),
        ..EncodedBatch::default()
    };
    writer.push(&batch).expect("latents");
    writer.finish(0).expect("a whole cache");
}

#[test]
fn a_loss_that_is_not_finite_on_one_rank_ends_all_after_what_was_before_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    write_latents(&folder.path().join("latents"), 5);
    let text = "data.source = { kind = 'latents', path = 'latents' }\n\
        network = { type = 'gm-dit', num_gaussians = 2, num_attention_heads = 1, attention_head_dim = 8, num_layers = 1, \
        sample_size = 8, patch_size = 4, in_channels = 4, num_embeds_ada_norm = 0, logstd_inner_dim = 8 }\n\
        train = { batch_size = 6, steps = 8, lr = 1e-4, seed = 1 }\ncheckpoint = { every = 100 }";
    std::fs::write(folder.path().join("config.toml"), text).expect("a configuration");
    let config = Config::load(&folder.path().join("config.toml"), &[]).expect("a configuration");
    // Which step and which rank it is: the order of the data is that of one process.
    let mut alone = Trainer::new(config.clone(), &Device::flex()).expect("a trainer");
    let mut step = 1;
    while alone.step().is_ok() {
        step += 1;
    }
    let out = folder.path().join("run");
    let outcomes = train(3, Begin::New(&config), &out, None, |_| None);
    let words: Vec<String> = outcomes.into_iter().map(|outcome| outcome.unwrap_err().to_string()).collect();
    let dumps: Vec<usize> =
        (0..3).filter(|rank| out.join(format!("failure/rank-{rank}/report.json")).exists()).collect();
    assert_eq!(dumps.len(), 1, "one rank has it: {words:?}");
    let expected = format!("step {step}: the loss on rank {} is not finite", dumps[0]);
    assert!(words.iter().all(|word| word.starts_with(&expected)), "{words:?}, expected {expected}");
    if step > 1 {
        let newest = gmflow_train::checkpoint::latest(&out).expect("what was before is saved");
        assert!(newest.ends_with(format!("step-{:08}", step - 1)), "{}", newest.display());
    }
    let report =
        std::fs::read_to_string(out.join(format!("failure/rank-{}/report.json", dumps[0]))).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let indices: Vec<u64> =
        report["indices"].as_array().expect("indices").iter().filter_map(|i| i.as_u64()).collect();
    assert!(indices.len() == 2 && indices.contains(&5), "the part of that rank: {indices:?}");
    // A new run may take the folder, and removes what this one left.
    train_well_over(&config, &out);
}

fn train_well_over(config: &Config, out: &Path) {
    let run = Run::create(config.clone(), out, true, &Device::flex()).expect("the folder is free");
    drop(run);
    assert!(!out.join("failure").exists(), "the dumps are the run's own files");
}
