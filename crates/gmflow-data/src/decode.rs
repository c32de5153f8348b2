//! From the bytes of an image file, or raw grey pixels, to `[c h w]` in [-1, 1].

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::imageops::{FilterType, crop_imm, resize};
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Pixel, Rgba};

use crate::jpeg;
use crate::settings::Background;

/// Most pixels an image file may claim to have; beyond it, decoding is refused before memory is taken.
pub const MAX_PIXELS: u64 = 1 << 26;

/// Most bytes a decoder may allocate: the largest image at 16 bits and four channels.
const MAX_ALLOC: u64 = MAX_PIXELS * 8;

/// The resampling filter: the cubic one, which widens with the reduction, so that it does not alias.
const FILTER: FilterType = FilterType::CatmullRom;

/// The form in which images are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// What shows through transparent pixels.
    pub background: Background,
}

impl Format {
    /// `[c, h, w]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }
}

/// What was expected and what was found instead.
#[derive(Debug)]
pub(crate) struct Fault {
    pub expected: String,
    pub got: String,
}

impl Fault {
    fn new(expected: impl Into<String>, got: impl ToString) -> Self {
        Self { expected: expected.into(), got: got.to_string() }
    }
}

/// Decodes a PNG, JPEG or WebP file, recognised by its content, and returns `[c h w]` in [-1, 1].
pub(crate) fn decode(bytes: &[u8], format: &Format) -> Result<Vec<f32>, Fault> {
    guarded(|| Ok(convert(open(bytes)?, format)))
}

/// The height and width of an image file after its orientation tag is applied.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<[usize; 2], Fault> {
    guarded(|| {
        let decoded = open(bytes)?;
        Ok([decoded.height() as usize, decoded.width() as usize])
    })
}

/// Raw grey pixels `[h w]` to `[c h w]` in [-1, 1].
pub(crate) fn from_grey(pixels: &[u8], [height, width]: [usize; 2], format: &Format) -> Result<Vec<f32>, Fault> {
    if height == format.height && width == format.width {
        let plane = pixels.iter().map(|&value| from_byte(value));
        return Ok(plane.clone().cycle().take(pixels.len() * format.channels).collect()); // [c h w]
    }
    let fault = || Fault::new(format!("{height}x{width} pixels"), format!("{} bytes", pixels.len()));
    let (h, w) = (u32::try_from(height).map_err(|_| fault())?, u32::try_from(width).map_err(|_| fault())?);
    let buffer = ImageBuffer::from_raw(w, h, pixels.to_vec()).ok_or_else(fault)?;
    guarded(|| Ok(convert(DynamicImage::ImageLuma8(buffer), format)))
}

/// A decoder that panics on hostile input must not take the program with it.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Fault::new("a valid image", "content on which the decoder failed")))
}

fn open(bytes: &[u8]) -> Result<DynamicImage, Fault> {
    let invalid = |error: image::ImageError| Fault::new("a valid PNG, JPEG or WebP image", error);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOC);
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| Fault::new("a PNG, JPEG or WebP image", error))?;
    if reader.format().is_none() {
        return Err(Fault::new("a PNG, JPEG or WebP image", format!("{} unrecognised bytes", bytes.len())));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg::is_complete(bytes) {
        return Err(Fault::new("a complete JPEG image", format!("{} bytes without an end (truncated)", bytes.len())));
    }
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(invalid)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(Fault::new(format!("1 to {MAX_PIXELS} pixels"), format!("{width}x{height}")));
    }
    // A damaged tag leaves the image as stored.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(invalid)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// Flattens transparency, then fits the size, then splits the channels: 8-bit images stay in 8 bits until the last
/// step, deeper ones go through f32.
fn convert(decoded: DynamicImage, format: &Format) -> Vec<f32> {
    let deep = decoded.color().bytes_per_pixel() > decoded.color().channel_count();
    let flat = flatten(decoded, format.background, deep);
    match (deep, format.channels) {
        (false, 1) => planes(&fit(flat.into_luma8(), format), from_byte),
        (false, _) => planes(&fit(flat.into_rgb8(), format), from_byte),
        (true, 1) => planes(&fit(flat.to_luma32f(), format), from_unit),
        (true, _) => planes(&fit(flat.into_rgb32f(), format), from_unit),
    }
}

fn from_byte(value: u8) -> f32 {
    f32::from(value) / 127.5 - 1.0
}

fn from_unit(value: f32) -> f32 {
    (2.0 * value - 1.0).clamp(-1.0, 1.0)
}

/// Lays an image with transparency on a plain background.
fn flatten(decoded: DynamicImage, background: Background, deep: bool) -> DynamicImage {
    if !decoded.color().has_alpha() {
        return decoded;
    }
    let behind = match background {
        Background::White => 1.0,
        Background::Black => 0.0,
    };
    let mut pixels = decoded.into_rgba32f();
    for Rgba([r, g, b, a]) in pixels.pixels_mut() {
        for value in [r, g, b] {
            *value = *value * *a + behind * (1.0 - *a);
        }
        *a = 1.0;
    }
    let flat = DynamicImage::ImageRgba32F(pixels);
    if deep { flat } else { DynamicImage::ImageRgb8(flat.into_rgb8()) }
}

/// Cuts the largest centred rectangle of the wanted proportions and resizes it.
fn fit<P: Pixel + 'static>(
    image: ImageBuffer<P, Vec<P::Subpixel>>,
    format: &Format,
) -> ImageBuffer<P, Vec<P::Subpixel>>
where
    P::Subpixel: 'static,
{
    let (width, height) = (format.width as u32, format.height as u32);
    let [w, h, x, y] = centre(image.width(), image.height(), width, height);
    if (w, h) == (width, height) {
        return if (w, h) == image.dimensions() { image } else { crop_imm(&image, x, y, w, h).to_image() };
    }
    resize(&*crop_imm(&image, x, y, w, h), width, height, FILTER)
}

/// Width, height, left and top of the largest centred rectangle with the proportions of the target.
fn centre(from_w: u32, from_h: u32, to_w: u32, to_h: u32) -> [u32; 4] {
    let (fw, fh, tw, th) = (u64::from(from_w), u64::from(from_h), u64::from(to_w), u64::from(to_h));
    let (w, h) = if fw * th > fh * tw { ((fh * tw).div_ceil(th), fh) } else { (fw, (fw * th).div_ceil(tw)) };
    let (w, h) = (w.clamp(1, fw) as u32, h.clamp(1, fh) as u32);
    [w, h, (from_w - w) / 2, (from_h - h) / 2]
}

/// Interleaved pixels `[h w c]` to planes `[c h w]`.
fn planes<P: Pixel>(image: &ImageBuffer<P, Vec<P::Subpixel>>, value: impl Fn(P::Subpixel) -> f32) -> Vec<f32> {
    let channels = P::CHANNEL_COUNT as usize;
    let samples = image.as_raw();
    (0..channels).flat_map(|c| samples.iter().skip(c).step_by(channels).map(|&sample| value(sample))).collect()
}
