//! Whatever form images are written in: they are read right, or refused; with unit and layout said, they are read right.

use gmflow_eval::arrays::{Layout, SampleReading, read_samples};
use proptest::prelude::*;
use safetensors::Dtype;
use std::io::{Cursor, Write};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Images of bytes `[n c h w]` with black and white among them.
#[derive(Clone, Debug)]
struct Images {
    shape: [usize; 4],
    bytes: Vec<u8>,
}

fn images() -> impl Strategy<Value = Images> {
    (1..4_usize, prop_oneof![Just(1_usize), Just(3)], 1..6_usize, 1..6_usize)
        .prop_filter("room for black and white", |(n, c, h, w)| n * c * h * w >= 2)
        .prop_flat_map(|(n, c, h, w)| {
            prop::collection::vec(any::<u8>(), n * c * h * w).prop_map(move |mut bytes| {
                (bytes[0], bytes[1]) = (255, 0);
                Images { shape: [n, c, h, w], bytes }
            })
        })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    U8,
    U16,
    I16,
    I64,
    F16,
    F32,
    F64,
}

/// How images are written.
#[derive(Clone, Copy, Debug)]
struct Form {
    kind: Kind,
    /// Black and white, of floating-point numbers.
    range: [f64; 2],
    channels_last: bool,
    big_endian: bool,
    fortran: bool,
    /// npy, npz or safetensors.
    ending: &'static str,
}

fn form() -> impl Strategy<Value = Form> {
    let kind = prop::sample::select(vec![Kind::U8, Kind::U16, Kind::I16, Kind::I64, Kind::F16, Kind::F32, Kind::F64]);
    let range = prop::sample::select(vec![[-1.0, 1.0], [0.0, 1.0], [0.0, 255.0]]);
    let ending = prop::sample::select(vec!["npy", "npz", "safetensors"]);
    (kind, range, any::<[bool; 3]>(), ending).prop_map(|(kind, range, flags, ending)| {
        let [channels_last, big_endian, fortran] = flags;
        let is_float = matches!(kind, Kind::F16 | Kind::F32 | Kind::F64);
        // safetensors knows one order of bytes and of axes.
        let plain = ending == "safetensors";
        Form {
            kind,
            range: if is_float { range } else { [0.0, 255.0] },
            channels_last,
            big_endian: big_endian && !plain && kind != Kind::U8,
            fortran: fortran && !plain,
            ending,
        }
    })
}

impl Form {
    /// The shape in the file, and for each number of it, in the file's order, its place in `[n c h w]`.
    fn places(&self, [n, c, h, w]: [usize; 4]) -> ([usize; 4], Vec<usize>) {
        let shape = if self.channels_last { [n, h, w, c] } else { [n, c, h, w] };
        let count = n * c * h * w;
        let axes = |mut number: usize| {
            let mut index = [0; 4];
            let order: [usize; 4] = if self.fortran { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
            for axis in order {
                index[axis] = number % shape[axis];
                number /= shape[axis];
            }
            index
        };
        let place = |number: usize| {
            let [n, i, j, k] = axes(number);
            let [channel, y, x] = if self.channels_last { [k, i, j] } else { [i, j, k] };
            ((n * c + channel) * h + y) * w + x
        };
        (shape, (0..count).map(place).collect())
    }

    fn number(&self, byte: u8) -> Vec<u8> {
        let value = f64::from(byte) / 255.0 * (self.range[1] - self.range[0]) + self.range[0];
        let mut bytes = match self.kind {
            Kind::U8 => vec![byte],
            Kind::U16 => u16::from(byte).to_le_bytes().to_vec(),
            Kind::I16 => i16::from(byte).to_le_bytes().to_vec(),
            Kind::I64 => i64::from(byte).to_le_bytes().to_vec(),
            Kind::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
            Kind::F32 => (value as f32).to_le_bytes().to_vec(),
            Kind::F64 => value.to_le_bytes().to_vec(),
        };
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// The file's bytes.
    fn written(&self, images: &Images) -> Vec<u8> {
        let (shape, places) = self.places(images.shape);
        let data: Vec<u8> = places.iter().flat_map(|&place| self.number(images.bytes[place])).collect();
        let (numpy, dtype) = match self.kind {
            Kind::U8 => ("u1", Dtype::U8),
            Kind::U16 => ("u2", Dtype::U16),
            Kind::I16 => ("i2", Dtype::I16),
            Kind::I64 => ("i8", Dtype::I64),
            Kind::F16 => ("f2", Dtype::F16),
            Kind::F32 => ("f4", Dtype::F32),
            Kind::F64 => ("f8", Dtype::F64),
        };
        if self.ending == "safetensors" {
            let view = safetensors::tensor::TensorView::new(dtype, shape.to_vec(), &data).unwrap();
            return safetensors::serialize([("samples", view)], None).unwrap();
        }
        let order = match self.kind {
            Kind::U8 => "|",
            _ if self.big_endian => ">",
            _ => "<",
        };
        let fortran = if self.fortran { "True" } else { "False" };
        let [n, a, b, c] = shape;
        let header =
            format!("{{'descr': '{order}{numpy}', 'fortran_order': {fortran}, 'shape': ({n}, {a}, {b}, {c})}}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        let npy = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &data].concat();
        if self.ending == "npy" {
            return npy;
        }
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        archive.start_file("arr_0.npy", SimpleFileOptions::default()).unwrap();
        archive.write_all(&npy).unwrap();
        archive.finish().unwrap().into_inner()
    }
}

/// The images of a file as bytes.
fn read(form: Form, images: &Images, reading: &SampleReading) -> Result<(Vec<u8>, [usize; 3]), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("a.{}", form.ending));
    std::fs::write(&path, form.written(images)).unwrap();
    let samples = read_samples(&path, reading).map_err(|error| error.to_string())?;
    let bytes = samples.values.iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect();
    Ok((bytes, samples.shape))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn images_are_read_right_or_refused(images in images(), form in form(), with_like in any::<bool>()) {
        let [_, c, h, w] = images.shape;
        let right = Ok((images.bytes.clone(), [c, h, w]));
        let like = with_like.then_some([c, h, w]);
        let found = read(form, &images, &SampleReading { like, ..Default::default() });
        let has_known_unit = form.kind == Kind::U8 || form.range == [-1.0, 1.0];
        match &found {
            Ok(_) => prop_assert!(has_known_unit && found == right, "{:?}", found),
            Err(message) => prop_assert!(message.contains("--range") || message.contains("--layout"), "{}", message),
        }
        // What is clear is not asked for.
        let is_one_layout = [h, w].iter().all(|size| *size != 1 && *size != 3);
        if has_known_unit && is_one_layout {
            prop_assert_eq!(found, right);
        }
    }

    #[test]
    fn images_are_read_right_where_everything_is_said(images in images(), form in form()) {
        let [_, c, h, w] = images.shape;
        let layout = Some(if form.channels_last { Layout::Nhwc } else { Layout::Nchw });
        let reading = SampleReading { range: Some(form.range), layout, like: None };
        prop_assert_eq!(read(form, &images, &reading), Ok((images.bytes.clone(), [c, h, w])));
    }
}
