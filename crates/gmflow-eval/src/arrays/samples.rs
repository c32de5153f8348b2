//! Samples in array files: what the numbers mean, and where the channels are. Neither is guessed where it could be otherwise.

use super::ArrayFile;
use crate::numbers::Kind;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The arrays of an archive that hold samples; the second is what NumPy calls an array without a name.
pub(super) const NAMES: &[&str] = &["samples", "arr_0"];
/// Black and white where nothing else is said.
const UNIT: [f64; 2] = [-1.0, 1.0];
/// Black and white of bytes.
const BYTES: [f64; 2] = [0.0, 255.0];
/// How far values may lie outside their range, as a share of it: samplers and resizing overshoot a little.
const OVERSHOOT: f64 = 0.025;
/// Numbers that reach no further below 0 than this, and seldom so, are taken for numbers from 0 to 1.
const NEARLY_POSITIVE: f32 = -0.25;
/// How often.
const SELDOM: f64 = 0.1;
/// A share of values outside a range that was said to be theirs, and of the range that they fill, that is worth a word.
const OUTSIDE: f64 = 0.01;
const FILLED: f64 = 0.02;

/// Where the channels of samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[n c h w]`
    Nchw,
    /// `[n h w c]`
    Nhwc,
}

/// What is known of an array of samples beside the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleReading {
    /// The numbers that stand for black and white.
    pub range: Option<[f64; 2]>,
    /// Where the channels are.
    pub layout: Option<Layout>,
    /// `[c h w]` of the images that they are compared with.
    pub like: Option<[usize; 3]>,
}

/// Checks the two numbers that stand for black and white.
///
/// # Errors
/// Numbers that are not finite, or the first not below the second.
pub fn check_range([low, high]: [f64; 2]) -> Result<()> {
    match low.is_finite() && high.is_finite() && low < high {
        true => Ok(()),
        false => Err(Error::config(
            "range",
            "two numbers, the lower one first, such as 0,255 or -1,1",
            format!("{low},{high}"),
        )),
    }
}

/// Samples as they are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Images `[n c h w]` from -1, black, to 1, white, or points `[n 2]`.
    pub values: Vec<f32>,
    /// `[c h w]` of an image; `[2 1 1]` of points.
    pub shape: [usize; 3],
}

/// Reads images `[n c h w]` or `[n h w c]`, or points `[n 2]`: the array of a .npy file, or `samples`, `arr_0` or the only array of a .npz
/// or .safetensors file. Memory: the samples in f32, twice where they are in Fortran order.
///
/// What the numbers are:
/// - files of `gmflow sample` are from -1 to 1 and `[n c h w]`; values beyond are cut off later, as in a picture;
/// - uint8 is 0 to 255, unless no number is above 1;
/// - other numbers are in `reading.range` where it is given;
/// - floating-point numbers are from -1 to 1 otherwise, and refused where they lie outside or where they look like numbers from 0 to 1.
///
/// The channels are the axis of 1 or 3, or the one that makes the images those of `reading.like`, unless `reading.layout` says it.
///
/// # Errors
/// A file of another kind, an array of another rank or type, a number that is not finite, numbers or axes that could mean several things.
pub fn read_samples(path: &Path, reading: &SampleReading) -> Result<Samples> {
    reading.range.map_or(Ok(()), check_range)?;
    let mut file = ArrayFile::open(path)?;
    let made_by = file.made_by();
    if made_by.as_ref().is_some_and(|made_by| made_by["latents"] == true) {
        return Err(Error::file(path, "samples", "images (gmflow sample without --latents)", "latents"));
    }
    let is_ours = made_by.is_some();
    let array = file.read::<f32>(NAMES, &mut |kind| match kind.is_float()
        || kind == Kind::U8
        || reading.range.is_some()
    {
        true => Ok(()),
        false => Err("uint8 or floating-point numbers, or --range LOW,HIGH to say which numbers are black and white"),
    })?;
    let sizes: Vec<usize> = array.shape.iter().map(|&size| size as usize).collect();
    let mut values = array.values;
    if let Some(wrong) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::file(path, array.name, "finite numbers", wrong));
    }
    match sizes[..] {
        [_, 2] if !array.kind.is_float() => {
            Err(Error::file(path, array.name, "points as floating-point numbers", array.kind.name()))
        }
        [_, 2] => Ok(Samples { values, shape: [2, 1, 1] }),
        [n, a, b, c] => {
            let reading = if is_ours { SampleReading { layout: Some(Layout::Nchw), ..*reading } } else { *reading };
            let (layout, shape) = placed([a, b, c], &reading).map_err(|(expected, got)| {
                Error::file(path, &array.name, expected, format!("[{n}, {a}, {b}, {c}], {got}"))
            })?;
            if !is_ours {
                let range = range(&values, array.kind, reading.range)
                    .map_err(|(expected, got)| Error::file(path, &array.name, expected, got))?;
                warn_of_range(path, &values, range);
                to_unit(&mut values, range);
            }
            if layout == Layout::Nhwc {
                channels_first(&mut values, shape);
            }
            Ok(Samples { values, shape })
        }
        _ => {
            let expected = "images [n, c, h, w] or [n, h, w, c], or points [n, 2]";
            Err(Error::file(path, array.name, expected, format!("{sizes:?}")))
        }
    }
}

/// What was expected, and what was found.
type Refused = (String, String);

/// Where the channels of images with these axes are, and `[c h w]` of one.
fn placed([a, b, c]: [usize; 3], reading: &SampleReading) -> Result<(Layout, [usize; 3]), Refused> {
    let candidates = [(Layout::Nchw, [a, b, c]), (Layout::Nhwc, [c, a, b])];
    if let Some(layout) = reading.layout {
        let [nchw, nhwc] = candidates;
        return Ok(if layout == Layout::Nchw { nchw } else { nhwc });
    }
    let those =
        |is: &dyn Fn([usize; 3]) -> bool| -> Vec<_> { candidates.into_iter().filter(|one| is(one.1)).collect() };
    let mut found = match reading.like {
        Some(like) => those(&|shape| shape == like),
        None => Vec::new(),
    };
    if found.is_empty() {
        found = those(&|[channels, ..]| channels == 1 || channels == 3);
    }
    let flag = "--layout nchw or --layout nhwc to say where they are";
    match found[..] {
        [one] => Ok(one),
        [] => Err((
            format!("1 or 3 channels, or {flag}"),
            "where neither the second nor the last size is 1 or 3".into(),
        )),
        _ => Err((flag.into(), "where the channels may be the second size or the last".into())),
    }
}

/// The numbers that are black and white.
fn range(values: &[f32], kind: Kind, said: Option<[f64; 2]>) -> Result<[f64; 2], Refused> {
    if values.is_empty() {
        return Ok(UNIT);
    }
    let (low, high) = extremes(values);
    let got = format!("numbers from {low} to {high}");
    match (kind, said) {
        (Kind::U8, _) if high > 1.0 => Ok(BYTES),
        (Kind::U8, None) => {
            Err(("bytes from 0 to 255, or --range 0,1 or --range 0,255 to say that they are".into(), got))
        }
        (_, Some(range)) => Ok(range),
        _ if !lies_in(low, high, UNIT) => {
            let likely = if low >= 0.0 && lies_in(low, high, BYTES) { "--range 0,255" } else { "--range LOW,HIGH" };
            Err((format!("numbers from -1 (black) to 1 (white), or {likely} to say what black and white are"), got))
        }
        _ if low >= 0.0 || low > NEARLY_POSITIVE && share(values, |x| x < 0.0) < SELDOM => {
            let expected = "numbers from -1 (black) to 1 (white), or --range 0,1 (or --range=-1,1) to say what black and white are";
            let none = if low < 0.0 { "hardly any" } else { "none" };
            Err((expected.into(), format!("{got}, {none} of them negative")))
        }
        _ => Ok(UNIT),
    }
}

fn extremes(values: &[f32]) -> (f32, f32) {
    let ends = |(low, high): (f32, f32), &x: &f32| (low.min(x), high.max(x));
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), ends)
}

/// Whether numbers lie in a range, or hardly outside.
fn lies_in(low: f32, high: f32, range: [f64; 2]) -> bool {
    let margin = (range[1] - range[0]) * OVERSHOOT;
    f64::from(low) >= range[0] - margin && f64::from(high) <= range[1] + margin
}

fn share(values: &[f32], is: impl Fn(f32) -> bool) -> f64 {
    values.iter().filter(|&&x| is(x)).count() as f64 / values.len().max(1) as f64
}

/// A word where the numbers do not look like those of the range that was said to be theirs.
fn warn_of_range(path: &Path, values: &[f32], range: [f64; 2]) {
    if values.is_empty() {
        return;
    }
    let (low, high) = extremes(values);
    let (from, to) = (range[0], range[1]);
    let outside = share(values, |x| !lies_in(x, x, range));
    let path = path.display();
    if outside > OUTSIDE {
        let percent = 100.0 * outside;
        log::warn!(
            "{path}: {percent:.0} % of the numbers lie outside {from} to {to} and are cut off; they are from {low} to {high}"
        );
    } else if f64::from(high) - f64::from(low) < FILLED * (to - from) {
        log::warn!(
            "{path}: the numbers, from {low} to {high}, are a small part of {from} to {to}; is it another --range?"
        );
    }
}

fn to_unit(values: &mut [f32], range: [f64; 2]) {
    if range == UNIT {
        return;
    }
    let scale = 2.0 / (range[1] - range[0]);
    values.iter_mut().for_each(|x| *x = ((f64::from(*x) - range[0]) * scale - 1.0) as f32);
}

/// `[n h w c]` to `[n c h w]`.
fn channels_first(values: &mut [f32], [c, h, w]: [usize; 3]) {
    let area = h * w;
    let mut image = vec![0.0; c * area];
    for target in values.chunks_exact_mut((c * area).max(1)) {
        image.copy_from_slice(target);
        for (channel, plane) in target.chunks_exact_mut(area).enumerate() {
            for (pixel, x) in plane.iter_mut().enumerate() {
                *x = image[pixel * c + channel];
            }
        }
    }
}
