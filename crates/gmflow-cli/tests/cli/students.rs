//! Students of distillation: they are sampled as they were trained, and what makes no sense for them is refused with the reason.

use crate::models::{image_model, points_model};
use crate::run;
use crate::sample::read_png;
use burn::tensor::Device;
use gmflow::checkpoint::{Model, Precision, StudentInfo, TeacherInfo};
use gmflow::guidance::{Guidance, ReweightScale};
use gmflow::solver::PiFlow;
use std::path::Path;

/// A transformer with classes as a student for two calls.
fn student(folder: &Path) {
    image_model(folder);
    let mut model = Model::load(folder, None, &Device::flex()).unwrap();
    let guidance = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
    model.info.shift = 3.0;
    model.info.student = Some(StudentInfo {
        steps: 2,
        policy: PiFlow { final_step_scale: 0.5, substeps: 24, ..PiFlow::default() },
        teacher: Some(TeacherInfo {
            name: "cats".into(),
            guidance,
            guidance_interval: Some([0.0, 0.6]),
            reweight_by: ReweightScale::Image,
        }),
    });
    model.save(folder, &[], Precision::F32).unwrap();
}

fn sample(checkpoint: &Path, out: &Path, more: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["sample", "--checkpoint", checkpoint.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--num", "2"]);
    arguments.extend(more);
    run(&arguments)
}

#[test]
fn a_student_needs_no_flag() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    student(&at("student"));
    let (code, _, stderr) = sample(&at("student"), &at("own"), &[]);
    assert_eq!(code, 0, "{stderr}");
    let (_, made_by, ..) = read_png(&at("own/000000.png"));
    assert_eq!(
        (&made_by["solver"], &made_by["steps"], &made_by["shift"]),
        (&"policy".into(), &2.into(), &3.0.into())
    );
    assert_eq!((&made_by["policy"]["substeps"], &made_by["policy"]["final_step_scale"]), (&24.into(), &0.5.into()));
    let (code, stdout, _) = run(&["info", at("student").to_str().unwrap()]);
    let (has, what) = (stdout.contains("student       2 calls"), "teacher       cats, classifier-free");
    assert!(code == 0 && has && stdout.contains(what) && stdout.contains("[0, 0.6]"), "{stdout}");
}

#[test]
fn more_steps_are_taken_and_said_and_noise_and_temperature_change_samples() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    student(&at("student"));
    let (code, _, stderr) = sample(&at("student"), &at("three"), &["--steps", "3"]);
    assert!(code == 0 && stderr.contains("trained for 2 network calls, and is sampled with 3"), "{stderr}");
    assert_eq!(sample(&at("student"), &at("own"), &[]).0, 0);
    let own = read_png(&at("own/000000.png")).0;
    for (name, more) in [("noisy", ["--renoise", "1"]), ("cold", ["--temperature", "0.2"])] {
        let (code, _, stderr) = sample(&at("student"), &at(name), &more);
        assert_eq!(code, 0, "{stderr}");
        assert!(read_png(&at(name).join("000000.png")).0 != own, "{name}");
    }
}

#[test]
fn what_makes_no_sense_for_a_student_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    student(&at("student"));
    for (more, reason) in [
        (["--guidance", "0.3"], "guidance built in"),
        (["--cfg", "2"], "guidance built in"),
        (["--solver", "euler"], "follows its own policy"),
        (["--order", "2"], "holds for the whole step"),
        (["--second-order", "translate"], "no guidance, steps of order 2"),
        (["--renoise", "nan"], "--renoise"),
    ] {
        let (code, _, stderr) = sample(&at("student"), &at("refused"), &more);
        assert!(code == 2 && stderr.contains(reason), "{more:?}: {code}: {stderr}");
    }
    assert!(!at("refused").exists());
    points_model(&at("points"), 3);
    let (code, _, stderr) = sample(&at("points"), &at("p"), &["--renoise", "1"]);
    assert!(code == 2 && stderr.contains("student of distillation"), "{stderr}");
}
