//! Feature files from other programs, whole and damaged.

use gmflow_eval::SampleSet;
use gmflow_eval::arrays::{read_features, read_mu_sigma, read_samples};
use npyz::WriterBuilder;
use std::io::Cursor;
use std::path::{Path, PathBuf};

fn npy(values: &[f64], shape: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
    bytes
}

fn npz(arrays: &[(&str, &[f64], &[u64])]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
    for (name, values, shape) in arrays {
        let options = npyz::zip::write::FileOptions::default();
        let mut writer = archive.array(name, options).unwrap().default_dtype().shape(shape).begin_nd().unwrap();
        writer.extend(values.iter()).unwrap();
        writer.finish().unwrap();
    }
    archive.zip_writer().finish().unwrap();
    drop(archive);
    bytes.into_inner()
}

/// A file whose header claims what it likes.
fn claiming(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn features_are_read_from_every_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let half: Vec<u8> = values.iter().flat_map(|&x| half::f16::from_f64(x).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![3, 2], &half).unwrap();
    let tensors = safetensors::serialize([("x", view)], None).unwrap();
    let both: &[(&str, &[f64], &[u64])] = &[("other", &[0.0], &[1]), ("features", &values, &[3, 2])];
    for (name, bytes) in [("a.npy", npy(&values, &[3, 2])), ("a.npz", npz(both)), ("a.safetensors", tensors)] {
        let matrix = read_features(&file(folder.path(), name, &bytes)).unwrap();
        assert_eq!((matrix.rows(), matrix.row(2)), (3, &[5.0, 6.0][..]), "{name}");
    }
    let stats: &[(&str, &[f64], &[u64])] = &[("mu", &[1.0, 2.0], &[2]), ("sigma", &[1.0, 0.5, 0.5, 2.0], &[2, 2])];
    let moments = read_mu_sigma(&file(folder.path(), "stats.npz", &npz(stats))).unwrap();
    assert_eq!(moments.mean(), [1.0, 2.0]);
    assert!((moments.covariance().unwrap()[1] - 0.5).abs() < 1e-12);
}

#[test]
fn numbers_of_every_width_are_converted_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    // Several pieces, the last of them short.
    let values: Vec<f32> = (0..50_001).map(|i| (i as f32 - 20_000.0) / 7.0).collect();
    let half = |x: f32| half::f16::from_f32(x);
    let rounded: Vec<f32> = values.iter().map(|&x| half(x).to_f32()).collect();
    let bytes: [(&str, Vec<u8>, &[f32]); 3] = [
        ("<f2", values.iter().flat_map(|&x| half(x).to_le_bytes()).collect(), &rounded),
        ("<f4", values.iter().flat_map(|x| x.to_le_bytes()).collect(), &values),
        ("<f8", values.iter().flat_map(|&x| (f64::from(x) * (1.0 + 1e-12)).to_le_bytes()).collect(), &values),
    ];
    for (kind, bytes, expected) in bytes {
        let file = file(folder.path(), "a.npy", &claiming(kind, "(16667, 3)", &bytes));
        let matrix = read_features(&file).unwrap();
        assert!(matrix.rows() == 16_667 && matrix.values() == expected, "{kind}");
        let samples = read_samples(&file);
        assert!(samples.unwrap_err().to_string().contains("[n, 2]"), "{kind}");
    }
    // What f32 has no room for stays in f64.
    let stats: &[(&str, &[f64], &[u64])] = &[("mu", &[1.0 + 1e-12], &[1]), ("sigma", &[1.0], &[1, 1])];
    assert_eq!(read_mu_sigma(&file(folder.path(), "a.npz", &npz(stats))).unwrap().mean(), [1.0 + 1e-12]);
}

#[test]
fn what_is_no_feature_file_is_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let whole = npy(&[1.0, 2.0], &[1, 2]);
    let data = [0; 16];
    assert!(read_features(&file(folder.path(), "fits.npy", &claiming("<f8", "(1, 2)", &data))).is_ok());
    let refused = |name: &str, bytes: &[u8], part: &str| {
        let path = file(folder.path(), name, bytes);
        let message = read_features(&path).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(name), "{message}");
    };
    refused("short.npy", &whole[..whole.len() - 3], "readable");
    refused("text.npy", b"hello", "readable");
    refused("empty.npz", b"", "readable");
    refused("huge.npy", &claiming("<f8", "(9, 9)", &data), "readable");
    refused("flat.npy", &npy(&[1.0, 2.0], &[2]), "[n, d]");
    refused("nan.npy", &npy(&[f64::NAN, 2.0], &[1, 2]), "finite");
    refused("enormous.npy", &claiming("<f8", "(1099511627776, 2)", &data), "at most");
    refused("overflow.npy", &claiming("<f8", "(1099511627776, 1099511627776)", &data), "at most");
    for kind in ["<i8", ">f8", "<c16", "|O"] {
        refused("kind.npy", &claiming(kind, "(1, 1)", &data), kind);
    }
    let wide = claiming("<f8", "(0, 9223372036854775808)", &[]);
    let wide = read_features(&file(folder.path(), "wide.npy", &wide)).unwrap();
    assert!(SampleSet::of_vectors(wide, "wide".into()).unwrap_err().to_string().contains("columns"));
    refused("a.txt", b"1 2", ".npy");
    refused("two.npz", &npz(&[("a", &[0.0], &[1]), ("b", &[0.0], &[1])]), "a, b");
    refused("header.safetensors", &[255; 40], "header");
    let none =
        read_mu_sigma(&file(folder.path(), "none.npz", &npz(&[("mu", &[0.0], &[1])]))).unwrap_err().to_string();
    assert!(none.contains("sigma"), "{none}");
}
