//! Reference statistics in their file, whole and damaged.

use burn::tensor::Device;
use gmflow::pipeline::keep_going;
use gmflow_eval::features::{FeatureNetwork, FeatureSpec};
use gmflow_eval::{CompareConfig, SampleSet, SetBuilder, SetInfo, compare};
use std::path::Path;

fn set(seed: u32, keep: bool) -> SampleSet {
    let network = FeatureNetwork::load(&FeatureSpec::Pixels, &Device::flex(), || unreachable!()).unwrap();
    let mut builder = SetBuilder::new(&network, [3, 2, 2], keep);
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8) as f32;
    for batch in 0..3_u32 {
        let images: Vec<f32> = (0..12 * 10).map(|i| value(batch * 120 + i) / (1 << 23) as f32 - 1.0).collect();
        builder.add(&images).unwrap();
    }
    builder.finish(format!("set {seed}"), vec!["a".into()]).unwrap()
}

#[test]
fn a_set_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, small) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    let (real, fake) = (set(1, true), set(2, true));
    real.save(&path).unwrap();
    assert!(SampleSet::is_saved(&path) && !SampleSet::is_saved(&folder.path().join("nothing")));
    let back = SampleSet::load(&path).unwrap();
    // A number read from JSON may be one unit in the last place off.
    let (was, is) = (real.info.colours.unwrap(), back.info.colours.unwrap());
    assert!((was.brightness - is.brightness).abs() < 1e-15 && was.count == is.count);
    assert_eq!(SetInfo { colours: None, ..back.info.clone() }, SetInfo { colours: None, ..real.info.clone() });
    assert!(back.vectors == real.vectors, "the vectors differ");
    let figures = |real: &SampleSet| compare(real, &fake, CompareConfig::default(), &mut keep_going).unwrap();
    let (before, after) = (figures(&real), figures(&back));
    assert!((before.frechet().unwrap() / after.frechet().unwrap() - 1.0).abs() < 1e-9);
    assert_eq!((before.manifolds, before.kernel_distance), (after.manifolds, after.kernel_distance));
    assert!(before.colours.unwrap().saturation_difference.is_some());
    set(1, false).save(&small).unwrap();
    let moments = figures(&SampleSet::load(&small).unwrap());
    assert!(moments.frechet_distance.is_some() && moments.manifolds.is_none());
    assert!(std::fs::metadata(&small).unwrap().len() < std::fs::metadata(&path).unwrap().len());
}

#[test]
fn damaged_files_and_other_features_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    set(1, true).save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = SampleSet::load(&path).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
        message
    };
    for length in [0, 7, 8, 100, whole.len() - 1] {
        refused("short.safetensors", &whole[..length]);
    }
    // The same length, another count: the vectors no longer fit it.
    let text = String::from_utf8_lossy(&whole[..]).contains("\\\"count\\\":30");
    assert!(text, "the description holds the count");
    let place = whole.windows(13).position(|bytes| bytes == b"\\\"count\\\":30,").unwrap();
    let mut other = whole.clone();
    other[place + 10..place + 12].copy_from_slice(b"31");
    assert!(refused("count.safetensors", &other).contains("31 rows"));
    let mut not_finite = whole.clone();
    let end = not_finite.len();
    not_finite[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    refused("nan.safetensors", &not_finite);
    let mut foreign = set(2, true);
    foreign.info.features.network = "inception".into();
    let message =
        compare(&set(1, true), &foreign, CompareConfig::default(), &mut keep_going).unwrap_err().to_string();
    assert!(message.contains("pixels") && message.contains("inception"), "{message}");
}

#[test]
fn a_file_that_is_no_set_is_none() {
    assert!(!SampleSet::is_saved(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/features.safetensors");
    assert!(!SampleSet::is_saved(&fixture));
    assert!(SampleSet::load(&fixture).unwrap_err().to_string().contains("gmflow-stats"));
}
