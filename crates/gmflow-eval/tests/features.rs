//! Feature networks from files, the classifier that is trained here, and the download of published weights.

use burn::tensor::Device;
use gmflow_data::{Corrupt, Error as DataError, Image, ImageDataset};
use gmflow_eval::features::classifier::{Classifier, TrainSettings, train};
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
    assert_eq!((vectors.rows(), vectors.columns(), logits.columns()), (5, Classifier::FEATURES, 2));
    let message = network.extract(&images, [1, 3, 27]).unwrap_err().to_string();
    assert!(message.contains("[1, 9, 9]"), "{message}");
    // Damage.
    let bytes = std::fs::read(&file).unwrap();
    for (name, bytes, part) in
        [("short", &bytes[..bytes.len() / 2], "header"), ("other", &b"{}"[..], "header"), ("none", &[][..], "header")]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = Classifier::load(&path, &Device::flex()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(name), "{message}");
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
