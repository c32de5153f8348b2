//! From a decoded image to `[c h w]` in [-1, 1]: transparency, grey, size, planes.

use image::imageops::{FilterType, crop_imm, resize};
use image::{DynamicImage, ImageBuffer, Luma, Pixel, Rgb, RgbImage, Rgba};

use crate::settings::{Background, Format};

/// The number of the rules in this file. It is kept with what is made of images, and raised when the same image would give other values.
pub(crate) const RULES: u32 = 2;

/// The resampling filter: the cubic one, which widens with the reduction, so that it does not alias.
const FILTER: FilterType = FilterType::CatmullRom;

/// Rec. 601, the weights of red, green and blue in grey, as Pillow and torchvision have them.
const GREY: [f32; 3] = [0.299, 0.587, 0.114];
/// The same in 65536ths, which is how Pillow computes images of 8 bits.
const GREY_8: [u32; 3] = [19_595, 38_470, 7_471];

/// Flattens transparency, then makes grey of colour where grey is wanted, then fits the size, then splits the channels. Images of 8 bits
/// stay in 8 bits until the last step, deeper ones go through f32.
pub(crate) fn convert(decoded: DynamicImage, format: &Format) -> Vec<f32> {
    let deep = decoded.color().bytes_per_pixel() > decoded.color().channel_count();
    let flat = flatten(decoded, format.background, deep);
    match (deep, format.channels) {
        (false, 1) => planes(&fit(grey_8(flat), format), from_byte),
        (false, _) => planes(&fit(flat.into_rgb8(), format), from_byte),
        (true, 1) => planes(&fit(grey_deep(flat), format), from_unit),
        (true, _) => planes(&fit(flat.into_rgb32f(), format), from_unit),
    }
}

pub(crate) fn from_byte(value: u8) -> f32 {
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

/// `L = (19595 R + 38470 G + 7471 B + 32768) / 65536`, rounded down: Pillow's `convert("L")`.
pub(crate) fn grey_of(rgb: [u8; 3]) -> u8 {
    let sum: u32 = rgb.iter().zip(GREY_8).map(|(value, weight)| u32::from(*value) * weight).sum();
    ((sum + 0x8000) >> 16) as u8
}

/// An image of 8 bits in grey.
fn grey_8(flat: DynamicImage) -> ImageBuffer<Luma<u8>, Vec<u8>> {
    if !flat.color().has_color() {
        return flat.into_luma8();
    }
    let colour: RgbImage = flat.into_rgb8();
    each(&colour, |Rgb(rgb)| Luma([grey_of(*rgb)]))
}

/// `L = 0.299 R + 0.587 G + 0.114 B`.
fn grey_deep(flat: DynamicImage) -> ImageBuffer<Luma<f32>, Vec<f32>> {
    if !flat.color().has_color() {
        return flat.to_luma32f();
    }
    each(&flat.into_rgb32f(), |Rgb(rgb)| {
        Luma([rgb.iter().zip(GREY).map(|(value, weight)| value * weight).sum::<f32>()])
    })
}

/// An image of the same size, pixel by pixel.
fn each<P: Pixel, Q: Pixel>(
    image: &ImageBuffer<P, Vec<P::Subpixel>>,
    pixel: impl Fn(&P) -> Q,
) -> ImageBuffer<Q, Vec<Q::Subpixel>> {
    let mut out = ImageBuffer::new(image.width(), image.height());
    out.pixels_mut().zip(image.pixels()).for_each(|(out, from): (&mut Q, &P)| *out = pixel(from));
    out
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
