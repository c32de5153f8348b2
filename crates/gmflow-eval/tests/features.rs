//! Feature networks from files, the classifier that is trained here, and the download of published weights.

use burn::tensor::Device;
use gmflow_data::{Corrupt, Error as DataError, Image, ImageDataset};
use gmflow_eval::SetBuilder;
use gmflow_eval::features::classifier::{Architecture, Augment, Classifier, TrainSettings, train};
use gmflow_eval::features::download::Published;
use gmflow_eval::features::resize::Resize;
use gmflow_eval::features::{FeatureNetwork, FeatureSpec};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

/// Squares of 9 x 9 pixels with a bright row (class 0) or column (class 1) somewhere.
#[derive(Debug)]
struct Stripes(Vec<String>);

impl ImageDataset for Stripes {
    fn len(&self) -> usize {
        480
    }

    fn shape(&self) -> [usize; 3] {
        [1, 9, 9]
    }

    fn class_names(&self) -> &[String] {
        &self.0
    }

    fn get(&self, index: usize) -> Result<Image, DataError> {
        let (label, at) = (index % 2, 1 + index / 2 % 7);
        let bright = |pixel: usize| [pixel / 9, pixel % 9][label] == at;
        let noise = |pixel: usize| ((index * 81 + pixel) * 7919 % 101) as f32 / 101.0 - 0.5;
        let value = |pixel| if bright(pixel) { 0.9 } else { -0.9 } + 0.2 * noise(pixel);
        Ok(Image { pixels: (0..81).map(value).collect(), label: label as u32 })
    }
}

fn stripes() -> Stripes {
    Stripes(vec!["row".into(), "column".into()])
}

fn trained(settings: TrainSettings) -> Classifier {
    train(&stripes(), Corrupt::Refuse, "stripes".into(), settings, &Device::flex(), &mut |_| {}).unwrap()
}

#[test]
fn a_classifier_learns_is_reproducible_and_comes_back_from_its_file() {
    let settings = TrainSettings { epochs: 4, batch_size: 16, ..TrainSettings::default() };
    let classifier = trained(settings);
    assert!(classifier.info.accuracy > 0.95, "{}", classifier.info.accuracy);
    assert_eq!((classifier.info.held_out, classifier.info.trained_on), (48, 432));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripes.safetensors");
    classifier.save(&file).unwrap();
    let spec: FeatureSpec = format!("classifier={}", file.display()).parse().unwrap();
    let network = FeatureNetwork::load(&spec, &Device::flex(), || unreachable!()).unwrap();
    let images: Vec<f32> = (0..5).flat_map(|index| stripes().get(index).unwrap().pixels).collect();
    let features = network.extract(&images, [1, 9, 9]).unwrap();
    let [vectors, logits] = trained(settings).extract(&images, [1, 9, 9]).unwrap();
    assert_eq!((&features.vectors, features.logits.as_ref()), (&vectors, Some(&logits)));
    assert_eq!((vectors.rows(), vectors.columns(), logits.columns()), (5, classifier.features(), 2));
    let message = network.extract(&images, [1, 3, 27]).unwrap_err().to_string();
    assert!(message.contains("[1, 9, 9]"), "{message}");
    // Damage.
    let bytes = std::fs::read(&file).unwrap();
    for (name, bytes, part) in [
        ("short", &bytes[..bytes.len() / 2], "header"),
        ("other", &b"{}"[..], "a JSON text"),
        ("none", &[][..], "an empty file"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = Classifier::load(&path, &Device::flex()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(name), "{message}");
    }
}

#[test]
fn samples_that_were_asked_for_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripes.safetensors");
    trained(TrainSettings { epochs: 4, batch_size: 16, ..TrainSettings::default() }).save(&file).unwrap();
    let spec: FeatureSpec = format!("classifier={}", file.display()).parse().unwrap();
    let network = FeatureNetwork::load(&spec, &Device::flex(), || unreachable!()).unwrap();
    assert_eq!(network.class_names(), ["row", "column"]);
    let images: Vec<f32> = (0..8).flat_map(|index| stripes().get(index).unwrap().pixels).collect();
    let read = |asked: &[&str]| {
        let mut builder = SetBuilder::new(&network, [1, 9, 9], false);
        builder.add_asked(&images, asked).unwrap();
        builder.finish(String::new(), Vec::new()).unwrap().read_as_asked
    };
    // Rows and columns take turns; the last two are asked for the wrong way round.
    let turns = ["row", "column", "row", "column", "row", "column", "column", "row"];
    assert_eq!(read(&turns), Some(0.75));
    assert_eq!(read(&[]), None, "nothing was asked for");
    assert_eq!(read(&["row", "column", "row", "column", "row", "column", "circle", "row"]), None, "an unknown class");
}

#[test]
fn a_residual_classifier_learns_and_comes_back_from_its_file() {
    let settings = TrainSettings {
        epochs: 3,
        batch_size: 16,
        warmup: 0.2,
        label_smoothing: 0.1,
        augment: Augment { shift: 1, flip: true },
        network: Architecture::Residual { width: 16, depth: 1 },
        ..TrainSettings::default()
    };
    let classifier = trained(settings);
    assert!(classifier.info.accuracy > 0.95, "{}", classifier.info.accuracy);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripes.safetensors");
    classifier.save(&file).unwrap();
    let back = Classifier::load(&file, &Device::flex()).unwrap();
    assert_eq!(back.info, classifier.info);
    let images: Vec<f32> = (0..5).flat_map(|index| stripes().get(index).unwrap().pixels).collect();
    let [vectors, logits] = back.extract(&images, [1, 9, 9]).unwrap();
    assert_eq!((vectors.rows(), vectors.columns(), logits.columns()), (5, 64, 2));
    assert_eq!([vectors, logits], classifier.extract(&images, [1, 9, 9]).unwrap());
}

/// The description in a classifier's file.
fn description(bytes: &[u8]) -> serde_json::Value {
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["gmflow-classifier"]).unwrap()
}

/// The same file with another description.
fn described(bytes: &[u8], info: &serde_json::Value) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap().tensors();
    let metadata = [("gmflow-classifier".to_owned(), info.to_string())].into();
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}

#[test]
fn files_from_before_there_was_a_choice_of_layers_are_read() {
    let classifier = trained(TrainSettings { epochs: 1, batch_size: 16, ..TrainSettings::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripes.safetensors");
    classifier.save(&file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let mut info = description(&bytes);
    let settings = info["settings"].as_object_mut().unwrap();
    settings.retain(|name, _| ["epochs", "batch_size", "lr", "held_out", "seed"].contains(&name.as_str()));
    assert_eq!(settings.len(), 5);
    std::fs::write(&file, described(&bytes, &info)).unwrap();
    let old = Classifier::load(&file, &Device::flex()).unwrap();
    assert_eq!(old.info, classifier.info);
    let image = stripes().get(3).unwrap().pixels;
    assert_eq!(old.extract(&image, [1, 9, 9]).unwrap(), classifier.extract(&image, [1, 9, 9]).unwrap());
    // Layers that the file does not hold, and sizes out of all reason.
    for (network, part) in [
        (r#"{"kind": "residual", "width": 16, "depth": 1}"#, "stem.conv.weight"),
        (r#"{"kind": "residual", "width": 16, "depth": 1000000000000}"#, "depth"),
        (r#"{"kind": "residual", "width": 20, "depth": 1}"#, "width"),
        (r#"{"kind": "transformer"}"#, "transformer"),
    ] {
        info["settings"]["network"] = serde_json::from_str(network).unwrap();
        std::fs::write(&file, described(&bytes, &info)).unwrap();
        let message = Classifier::load(&file, &Device::flex()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("stripes.safetensors"), "{message}");
    }
}

#[test]
fn settings_and_data_that_cannot_train_are_refused() {
    let refused = |images: Stripes, settings| {
        train(&images, Corrupt::Refuse, String::new(), settings, &Device::flex(), &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    let default = TrainSettings::default();
    assert!(refused(Stripes(Vec::new()), default).contains("classes"));
    assert!(refused(stripes(), TrainSettings { lr: -1.0, ..default }).contains("lr"));
    assert!(refused(stripes(), TrainSettings { batch_size: 470, ..default }).contains("518"));
    assert!(refused(stripes(), TrainSettings { held_out: 1.0, ..default }).contains("held_out"));
    assert!(refused(stripes(), TrainSettings { warmup: 1.0, ..default }).contains("warmup"));
    assert!(refused(stripes(), TrainSettings { label_smoothing: -0.1, ..default }).contains("label_smoothing"));
    assert!(refused(stripes(), TrainSettings { weight_decay: f64::NAN, ..default }).contains("weight_decay"));
    let augment = Augment { shift: 65, flip: false };
    assert!(refused(stripes(), TrainSettings { augment, ..default }).contains("shift"));
    let network = Architecture::Residual { width: 24, depth: 1 };
    assert!(refused(stripes(), TrainSettings { network, ..default }).contains("width"));
}

#[test]
fn features_are_named_as_on_the_command_line() {
    let parse = |text: &str| text.parse::<FeatureSpec>();
    assert_eq!(parse("pixels").unwrap(), FeatureSpec::Pixels);
    let weights = Some(PathBuf::from("a=b.pth"));
    assert_eq!(
        parse("inception=a=b.pth").unwrap(),
        FeatureSpec::Inception { weights, resize: Resize::TorchFidelity }
    );
    let published = FeatureSpec::Inception { weights: None, resize: Resize::PytorchFid };
    assert_eq!(parse("inception-pytorch-fid").unwrap(), published);
    for wrong in ["classifier", "pixels=x", "vgg", "classifier="] {
        let message = parse(wrong).unwrap_err().to_string();
        assert!(message.contains(wrong) && message.contains("classifier=FILE"), "{message}");
    }
    let pixels = FeatureNetwork::load(&FeatureSpec::Pixels, &Device::flex(), || unreachable!()).unwrap();
    assert_eq!(pixels.extract(&[0.5; 8], [1, 2, 2]).unwrap().vectors.rows(), 2);
}

/// Answers one request after the other with `body`, or with 404 without one.
fn serve(answers: Vec<Option<&'static [u8]>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for body in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
                .unwrap();
            stream.write_all(body).unwrap();
        }
    });
    format!("http://{address}/weights.pth")
}

#[test]
fn published_weights_are_fetched_once_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let url = serve(vec![Some(b"other"), None, Some(b"hello")]);
    // SHA-256 of "hello".
    let weights = Published { url: &url, file: "weights.pth", sha256: "2cf24dba" };
    let fetch = |offline| weights.fetch(&folder.path().join("cache"), offline, &mut |_| {});
    assert!(fetch(true).unwrap_err().to_string().contains("offline"));
    let message = fetch(false).unwrap_err().to_string();
    assert!(message.contains("2cf24dba") && message.contains("SHA-256"), "{message}");
    assert!(fetch(false).unwrap_err().to_string().contains("404"));
    let path = fetch(false).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    // The server is gone: the second call has to find the file.
    assert_eq!(fetch(false).unwrap(), path);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    std::fs::write(&path, "damaged").unwrap();
    assert!(fetch(true).unwrap_err().to_string().contains("SHA-256"));
}
