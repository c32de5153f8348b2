//! From the name of a model to files of samples, in the words of the library.

use burn::tensor::{Device, Int, Tensor};
use gmflow::checkpoint::Model;
use gmflow::guidance::Guidance;
use gmflow::mixture::VelocityMixture;
use gmflow::network::Denoiser;
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::samples::Samples;
use gmflow::solver::{Context, Euler, GmOde, SeededNoise, Solver, SolverState, Span, SubStep, euler_step};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The digits of this repository.
fn digits() -> Model {
    Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist")).expect("the model of this repository")
}

fn values(samples: Tensor<4>) -> Vec<f32> {
    samples.into_data().try_into_vec().expect("f32 samples")
}

#[test]
fn a_sampler_draws_what_the_pipeline_draws_with_the_models_own_settings() {
    let model = digits();
    let samples = model.sampler().steps(2).classes([7, 1]).seeds(3..8).batch(2).sample().expect("samples");
    assert_eq!((samples.len(), samples.shape, samples.points), (5, [1, 28, 28], false));
    assert_eq!(samples.classes, Some(vec![7, 1, 7, 1, 7]), "classes take turns across batches");
    let config = SamplerConfig {
        guidance: model.info.guidance,
        reweight_by: model.info.reweight_by,
        shift: model.info.shift,
        second_order: model.info.second_order,
        ..SamplerConfig::new(GmOde { order: 2, substeps: None }, 2)
    };
    let pipeline = Pipeline { network: &model.network, spectrum: model.spectrum.as_ref(), device: Device::flex() };
    let request = SampleRequest { seeds: vec![3, 4], classes: Some(vec![7, 1]), shape: samples.shape, noise: None };
    let expected = values(pipeline.sample(&config, &request, &mut keep_going).expect("samples"));
    assert_eq!(samples.values[..expected.len()], expected);
}

#[test]
fn samples_save_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let samples = digits().sampler().steps(1).guidance(Guidance::Off).seeds([5, 6]).sample().expect("samples");
    samples.save_images(path("digits")).expect("images");
    samples.save_grid(path("grid.png")).expect("a grid");
    samples.save_npz(path("digits.npz")).expect("an archive");
    samples.save_safetensors(path("digits.safetensors")).expect("a file");
    for name in ["digits/000005.png", "digits/000006.png", "grid.png", "digits.npz", "digits.safetensors"] {
        assert!(path(name).metadata().expect("a file").len() > 100, "{name}");
    }
    let file = std::io::BufReader::new(std::fs::File::open(path("digits/000006.png")).expect("an image"));
    let image = png::Decoder::new(file).read_info().expect("an image");
    assert_eq!((image.info().width, image.info().height), (28, 28));
    let text = image.info().utf8_text.iter().find(|chunk| chunk.keyword == "gmflow").expect("how it was made");
    let made_by: serde_json::Value = serde_json::from_str(&text.get_text().expect("text")).expect("JSON");
    assert_eq!((&made_by["seed"], &made_by["class"]), (&6.into(), &1.into()));
    assert_eq!(made_by["sampler"]["steps"], 1);
    let file = std::io::BufReader::new(std::fs::File::open(path("digits.npz")).expect("a file"));
    let mut archive = zip::ZipArchive::new(file).expect("an archive");
    let stored = npyz::NpyFile::new(archive.by_name("samples.npy").expect("samples")).expect("an array");
    assert_eq!(stored.shape(), [2, 1, 28, 28]);
    assert_eq!(stored.into_vec::<f32>().expect("f32"), samples.values);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = digits();
    let refused = |error: gmflow::Error| error.to_string();
    assert!(refused(model.sampler().steps(0).sample().expect_err("no step")).contains("steps"));
    assert!(refused(model.sampler().classes([11]).steps(1).sample().expect_err("no class")).contains("class"));
    assert!(refused(model.sampler().classes([]).sample().expect_err("no class")).contains("classes"));
    assert!(refused(model.sampler().seeds([]).sample().expect_err("no seed")).contains("seeds"));
    assert!(refused(model.sampler().batch(0).sample().expect_err("no batch")).contains("batch"));
    assert!(refused(Samples::new(vec![0.0; 3], [1, 2, 2], vec![1]).expect_err("too few values")).contains("values"));
    assert!(refused(Model::open("no/such/folder/here").expect_err("no folder")).contains("no/such/folder/here"));
}

/// A network of one's own that counts its calls.
struct Counted<'a> {
    network: &'a dyn Denoiser,
    calls: AtomicUsize,
}

impl Denoiser for Counted<'_> {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.network.forward(x_t, t, class)
    }

    fn null_class(&self) -> Option<usize> {
        self.network.null_class()
    }
}

#[test]
fn sampling_stops_between_network_calls_when_it_is_told_to() {
    let model = digits();
    let network = Counted { network: &model.network, calls: AtomicUsize::new(0) };
    let pipeline = Pipeline { network: &network, spectrum: None, device: Device::flex() };
    let request = SampleRequest { seeds: vec![1], classes: None, shape: [1, 28, 28], noise: None };
    let config = SamplerConfig::new(GmOde { order: 2, substeps: Some(3) }, 4);
    let stops_at = |last: usize| {
        move |done: usize, _: usize| match done < last {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    let stopped = pipeline.sample(&config, &request, &mut stops_at(2));
    assert!(matches!(stopped, Err(gmflow::Error::Cancelled)));
    assert_eq!(network.calls.swap(0, Ordering::Relaxed), 2);
    pipeline.sample(&config, &request, &mut stops_at(4)).expect("what is whole is not thrown away");
    assert_eq!(network.calls.swap(0, Ordering::Relaxed), 4);

    let mut draws = SeededNoise { seeds: vec![1], device: Device::flex() };
    let mut told = 0;
    let mut observe = |done: &SubStep| {
        told += 1;
        if done.step == 1 && done.substep == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = pipeline.run(&config, &request, &mut draws, &mut keep_going, Some(&mut observe));
    assert!(matches!(stopped, Err(gmflow::Error::Cancelled)));
    assert_eq!(
        (network.calls.load(Ordering::Relaxed), told),
        (2, 5),
        "three sub-steps of the first call and two of the second"
    );
}

/// Euler's rule, written by someone else.
struct OwnEuler;

impl Solver for OwnEuler {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> gmflow::Result<SolverState> {
        let x0 = (context.predict)(state.x(), span.t).mixture().0.mean();
        Ok(SolverState::new(euler_step(state.x(), &x0, span.t, span.to)))
    }

    fn order(&self) -> usize {
        1
    }
}

#[test]
fn a_caller_sees_and_replaces_samples_after_each_step_and_gives_the_noise() {
    let model = digits();
    let sampler = || model.sampler().steps(3).classes([7, 1]).seeds(3..6).batch(2);
    let plain = sampler().sample().expect("samples");
    let mut seen = Vec::new();
    let watched = sampler().sample_steps(&mut |end| {
        seen.push((end.done, end.of, (end.from * 3.0).round(), (end.to * 3.0).round(), values(end.x.clone())));
        ControlFlow::Continue(None)
    });
    assert_eq!(watched.expect("samples").values, plain.values);
    let steps: Vec<_> = seen.iter().map(|(done, of, from, to, x)| (*done, *of, *from, *to, x.len() / 784)).collect();
    let one = |b: usize| [(1, 3, 3.0, 2.0, b), (2, 3, 2.0, 1.0, b), (3, 3, 1.0, 0.0, b)];
    assert_eq!(steps, [one(2), one(1)].concat());
    assert_eq!(seen[2].4, plain.values[..2 * 784]);

    let replaced = sampler().sample_steps(&mut |end| ControlFlow::Continue(Some(end.x.zeros_like() + 0.5)));
    assert!(
        replaced.expect("samples").values.iter().all(|x| *x == 0.5),
        "what replaces the last samples is the result"
    );
    let wrong = sampler().sample_steps(&mut |end| ControlFlow::Continue(Some(end.x.clone().narrow(2, 0, 1))));
    assert!(wrong.expect_err("another shape").to_string().starts_with("latents: expected shape"));

    let noise =
        gmflow::rng::normal_batch(&[3, 4, 5], gmflow::rng::Purpose::InitialNoise, 0, [1, 28, 28], &Device::flex());
    let given = sampler().seeds(100..103).noise(noise.clone()).sample().expect("samples");
    assert_eq!(given.values, plain.values);
    let wrong = sampler().noise(noise.narrow(0, 0, 2)).sample().expect_err("too little noise");
    assert!(wrong.to_string().starts_with("noise: expected shape [3, 1, 28, 28]"));
}

#[test]
fn a_solver_of_ones_own_samples_as_the_built_in_one_of_its_rule() {
    let model = digits();
    let pipeline = Pipeline { network: &model.network, spectrum: None, device: Device::flex() };
    let request = SampleRequest { seeds: vec![1, 2], classes: Some(vec![3, 4]), shape: [1, 28, 28], noise: None };
    let config = SamplerConfig::new(Euler {}, 3);
    let own = values(pipeline.sample_by(&OwnEuler, &config, &request, &mut keep_going).expect("samples"));
    let built_in = values(pipeline.sample(&config, &request, &mut keep_going).expect("samples"));
    let worst = own.iter().zip(&built_in).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "off by {worst}");
}
