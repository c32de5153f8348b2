//! Feature files from other programs, whole and damaged.

use gmflow_eval::SampleSet;
use gmflow_eval::arrays::{Layout, SampleReading, read_features, read_mu_sigma, read_samples};
use npyz::WriterBuilder;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

fn npy(values: &[f64], shape: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
    bytes
}

fn npz(arrays: &[(&str, &[f64], &[u64])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, values, shape) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&npy(values, shape)).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A file whose header claims what it likes.
fn claiming(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    ordered(kind, "False", shape, data)
}

fn ordered(kind: &str, is_fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': {is_fortran}, 'shape': {shape}}}\n");
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
        let samples = read_samples(&file, &SampleReading::default());
        assert!(samples.unwrap_err().to_string().contains("[n, 2]"), "{kind}");
    }
    // What f32 has no room for stays in f64.
    let stats: &[(&str, &[f64], &[u64])] = &[("mu", &[1.0 + 1e-12], &[1]), ("sigma", &[1.0], &[1, 1])];
    assert_eq!(read_mu_sigma(&file(folder.path(), "a.npz", &npz(stats))).unwrap().mean(), [1.0 + 1e-12]);
}

#[test]
fn either_order_of_bytes_and_of_axes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..24).map(|i| i as f32 / 8.0).collect();
    let columns: Vec<f32> = (0..24).map(|i| values[i % 6 * 4 + i / 6]).collect();
    let bytes = |values: &[f32], big: bool| -> Vec<u8> {
        values.iter().flat_map(|x| if big { x.to_be_bytes() } else { x.to_le_bytes() }).collect()
    };
    for (kind, is_fortran, bytes) in [
        (">f4", "False", bytes(&values, true)),
        ("<f4", "True", bytes(&columns, false)),
        (">f4", "True", bytes(&columns, true)),
    ] {
        let matrix = read_features(&file(folder.path(), "a.npy", &ordered(kind, is_fortran, "(6, 4)", &bytes)));
        let matrix = matrix.unwrap();
        assert_eq!((matrix.columns(), matrix.values()), (4, &values[..]), "{kind}, {is_fortran}");
    }
    // Four axes: number (n, c, h, w) of [2 3 2 2] stands at n + 2 c + 6 h + 12 w.
    let images: Vec<f32> = (0..24).map(|i| [-1.0, 1.0][i % 2] * i as f32 / 24.0).collect();
    let mut turned = vec![0.0; 24];
    for (i, &x) in images.iter().enumerate() {
        turned[i / 12 + 2 * (i / 4 % 3) + 6 * (i / 2 % 2) + 12 * (i % 2)] = x;
    }
    let path = file(folder.path(), "a.npy", &ordered("<f4", "True", "(2, 3, 2, 2)", &bytes(&turned, false)));
    assert_eq!(read_samples(&path, &SampleReading::default()).unwrap().values, images);
}

/// Two images of 3 x 2 x 4 bytes, `[n c h w]`, that hold black and white.
fn images() -> Vec<u8> {
    let byte = |i: u8| i.wrapping_mul(67) ^ [0, 255][usize::from(i.is_multiple_of(5))];
    [255, 0].into_iter().chain((2..48).map(byte)).collect()
}

/// The same as `[n h w c]`.
fn channels_last<T: Copy>(images: &[T]) -> Vec<T> {
    (0..48).map(|i| images[i / 24 * 24 + i % 3 * 8 + i % 24 / 3]).collect()
}

#[test]
fn images_are_the_same_in_every_unit_and_layout_that_is_known_or_said() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = images();
    let floats = |scale: f32, shift: f32| bytes.iter().map(|&b| f32::from(b) * scale + shift).collect::<Vec<f32>>();
    let f4 = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (unit, half, whole) = (floats(1.0 / 127.5, -1.0), floats(1.0 / 255.0, 0.0), floats(1.0, 0.0));
    let (nchw, nhwc) = ("(2, 3, 2, 4)", "(2, 2, 4, 3)");
    let range = |low, high| SampleReading { range: Some([low, high]), ..Default::default() };
    let none = SampleReading::default();
    let i8s: Vec<u8> = bytes.iter().flat_map(|&b| i64::from(b).to_be_bytes()).collect();
    let u2s: Vec<u8> = bytes.iter().flat_map(|&b| (u16::from(b) * 257).to_le_bytes()).collect();
    for (name, kind, shape, data, reading) in [
        ("bytes", "|u1", nchw, bytes.clone(), none),
        ("bytes, channels last", "|u1", nhwc, channels_last(&bytes), none),
        ("bytes, whatever is said of others", "|u1", nhwc, channels_last(&bytes), range(-1.0, 1.0)),
        ("-1 to 1", "<f4", nchw, f4(&unit), none),
        ("-1 to 1, channels last", "<f4", nhwc, f4(&channels_last(&unit)), none),
        ("0 to 1", "<f4", nchw, f4(&half), range(0.0, 1.0)),
        ("0 to 255, channels last", "<f4", nhwc, f4(&channels_last(&whole)), range(0.0, 255.0)),
        ("int64", ">i8", nchw, i8s, range(0.0, 255.0)),
        ("uint16", "<u2", nchw, u2s, range(0.0, 65535.0)),
    ] {
        let samples = read_samples(&file(folder.path(), "a.npy", &claiming(kind, shape, &data)), &reading).unwrap();
        assert_eq!(samples.shape, [3, 2, 4], "{name}");
        let off = samples.values.iter().zip(&unit).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Far less than half a level of 8 bits.
        assert!(off < 1e-3, "{name}: {off}");
    }
}

#[test]
fn numbers_and_axes_that_may_be_otherwise_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let none = SampleReading::default();
    let refused = |kind: &str, shape: &str, data: &[u8], reading: &SampleReading, part: &str| {
        let path = file(folder.path(), "a.npy", &claiming(kind, shape, data));
        let message = read_samples(&path, reading).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("a.npy"), "{part}: {message}");
    };
    let f4 = |scale: f32, shift: f32| {
        let values = images().into_iter().map(|b| f32::from(b) * scale + shift);
        values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
    };
    let shape = "(2, 3, 2, 4)";
    refused("<f4", shape, &f4(1.0 / 255.0, 0.0), &none, "--range 0,1");
    // A little below 0 and above 1, as after resizing.
    refused("<f4", shape, &f4(1.02 / 255.0, -0.01), &none, "--range 0,1");
    refused("<f4", shape, &f4(1.0, 0.0), &none, "numbers from 0 to 255");
    refused("<f4", shape, &f4(0.02, -2.1), &none, "--range LOW,HIGH");
    refused("|u1", shape, &[0, 1].repeat(24), &none, "--range 0,255");
    refused("<i4", shape, &[1; 192], &none, "int32");
    refused("|b1", shape, &[1; 48], &none, "|b1");
    refused("|u1", "(2, 3, 5, 3)", &[200; 90], &none, "--layout");
    refused("|u1", "(2, 1, 5, 3)", &[200; 30], &none, "--layout");
    refused("|u1", "(2, 4, 5, 4)", &[200; 160], &none, "1 or 3 channels");
    refused("|u1", "(3, 4, 5)", &[200; 60], &none, "[n, h, w, c]");
    refused("|u1", "(4, 2)", &[200; 8], &none, "points");
    let path = file(folder.path(), "a.npy", &claiming("|u1", "(2, 3, 5, 3)", &(0..90).collect::<Vec<u8>>()));
    for (reading, shape) in [
        (SampleReading { layout: Some(Layout::Nhwc), ..none }, [3, 3, 5]),
        (SampleReading { layout: Some(Layout::Nchw), ..none }, [3, 5, 3]),
        (SampleReading { like: Some([3, 5, 3]), ..none }, [3, 5, 3]),
        (SampleReading { like: Some([3, 3, 5]), ..none }, [3, 3, 5]),
    ] {
        assert_eq!(read_samples(&path, &reading).unwrap().shape, shape, "{reading:?}");
    }
    let cube = file(folder.path(), "cube.npy", &claiming("|u1", "(1, 3, 3, 3)", &[200; 27]));
    let like = SampleReading { like: Some([3, 3, 3]), ..none };
    assert!(read_samples(&cube, &like).unwrap_err().to_string().contains("--layout"));
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
    for kind in ["<i8", "|b1", "<c16", "|O"] {
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
