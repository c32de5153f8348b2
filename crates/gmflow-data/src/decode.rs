//! From the bytes of an image file, or raw grey pixels, to `[c h w]` in [-1, 1].

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gmflow_files::what_is;
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::jpeg;
use crate::pixels::{convert, from_byte};
use crate::settings::Format;

/// The formats that are read, as messages name them.
pub(crate) const FORMATS: &str = "PNG, JPEG, WebP, BMP, GIF, TIFF or PNM";

/// The most bytes per pixel that a decoder takes: four channels of 16 bits.
const BYTES_PER_PIXEL: u64 = 8;

/// What a decoder may take beside the pixels.
const WORKING_MEMORY: u64 = 64 << 20;

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

/// Decodes an image file, whose format its content tells, and returns `[c h w]` in [-1, 1].
pub(crate) fn decode(bytes: &[u8], format: &Format) -> Result<Vec<f32>, Fault> {
    guarded(|| Ok(convert(open(bytes, format.max_pixels)?, format)))
}

/// The height and width of an image file after its orientation tag is applied, as its header claims them.
pub(crate) fn dimensions(bytes: &[u8], max_pixels: u64) -> Result<[usize; 2], Fault> {
    guarded(|| {
        let (decoder, orientation, _) = decoder(bytes, max_pixels)?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        Ok(if turned { [width, height] } else { [height, width] })
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

/// The format of an image file that is read here, by its first bytes.
pub(crate) fn format_of(start: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    match image::guess_format(start).ok()? {
        format @ (Png | Jpeg | WebP | Gif | Tiff) => Some(format),
        // These two have marks of two letters, with which texts start too.
        format @ (Bmp | Pnm) if what_is(start).is_some_and(|what| what.ends_with("image")) => Some(format),
        _ => None,
    }
}

/// The usual ending of files in the format of an image file; `img` where it is none that is read.
pub(crate) fn ending_of(bytes: &[u8]) -> &'static str {
    match format_of(bytes) {
        Some(ImageFormat::Jpeg) => "jpg",
        Some(format) => format.extensions_str().first().copied().unwrap_or("img"),
        None => "img",
    }
}

/// A decoder that panics on hostile input must not take the program with it.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Fault::new("a valid image", "content on which the decoder failed")))
}

/// The decoder of an image file, before any pixel is read, the orientation that its tag asks for, and its format.
fn decoder(bytes: &[u8], max_pixels: u64) -> Result<(impl ImageDecoder + '_, Orientation, ImageFormat), Fault> {
    let Some(format) = format_of(bytes) else {
        let got = match what_is(bytes) {
            // A photograph of a telephone, often under the name of a JPEG file.
            Some(what) if what.ends_with("image") => format!("{what} (convert it to JPEG or PNG)"),
            Some(what) => what.to_owned(),
            None => format!("{} unrecognised bytes", bytes.len()),
        };
        return Err(Fault::new(format!("a {FORMATS} image"), got));
    };
    if format == ImageFormat::Jpeg && !jpeg::is_complete(bytes) {
        return Err(Fault::new("a complete JPEG image", format!("{} bytes without an end (truncated)", bytes.len())));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_pixels.saturating_mul(BYTES_PER_PIXEL).max(WORKING_MEMORY));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| invalid(format, error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > max_pixels {
        return Err(Fault::new(format!("1 to {max_pixels} pixels (image.max_pixels)"), format!("{width}x{height}")));
    }
    // A damaged tag leaves the image as stored.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((decoder, orientation, format))
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Tiff => "TIFF",
        _ => "PNM",
    }
}

fn invalid(format: ImageFormat, error: ImageError) -> Fault {
    let name = name(format);
    match error {
        ImageError::Unsupported(error) => Fault::new(format!("a kind of {name} image that is read"), error),
        error => Fault::new(format!("a valid {name} image"), error),
    }
}

fn open(bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, Fault> {
    let (decoder, orientation, format) = decoder(bytes, max_pixels)?;
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(|error| invalid(format, error))?;
    if let Some(value) = floats(&decoded).and_then(|values| values.iter().find(|value| !(0.0..=1.0).contains(*value)))
    {
        return Err(Fault::new("float values from 0 (black) to 1 (white)", value));
    }
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// The values of an image that stores floats, in which nothing says what white is.
fn floats(decoded: &DynamicImage) -> Option<&[f32]> {
    match decoded {
        DynamicImage::ImageRgb32F(image) => Some(image.as_raw()),
        DynamicImage::ImageRgba32F(image) => Some(image.as_raw()),
        _ => None,
    }
}
