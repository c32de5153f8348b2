//! Pictures of samples during training: a grid of images, decoded where they are latents and an autoencoder is named, or a 2-D
//! histogram of points.

use burn::tensor::Tensor;
use gmflow::checkpoint::{LatentInfo, load_diffusers_vae};
use gmflow::limits::Need;
use gmflow::network::{Autoencoder, Tiling};
use gmflow::pipeline::{Decoder, Pipeline, SampleRequest, keep_going};
use gmflow::samples::Layout;
use gmflow_data::density::histogram;
use gmflow_data::to_byte;

use crate::config::{SampleConfig, below};
use crate::{Error, Result, Trainer};

/// Samples drawn at once, so that memory does not grow with the picture.
const BATCH: usize = 64;
/// The same for points, which are small.
const POINT_BATCH: usize = 4096;
/// Latents of unit variance are shown from minus this, black, to this, white.
const LATENT_RANGE: f64 = 3.0;
/// Bins per side of the histogram of points over [-4, 4) in both coordinates.
const BINS: usize = 128;

/// A PNG file in memory.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file's bytes.
    pub png: Vec<u8>,
    /// Height and width in pixels.
    pub size: [usize; 2],
}

/// Samples the trainer's network as `sample` says. The seeds are 0, 1, ... in every picture, so that pictures of different
/// steps show the same samples. A class that has images has one row of the grid or more.
///
/// # Errors
/// A sampler setting out of range or an average that is not there.
pub fn draw(trainer: &Trainer, sample: &SampleConfig) -> Result<Picture> {
    let info = trainer.data_info();
    let first = trainer.config().ema.first().map(|ema| ema.name.as_str());
    let network = trainer.snapshot(sample.ema.as_deref().or(first))?;
    let classes = network.null_class().filter(|&null| null > 0).map(|null| info.drawn_classes(null));
    let spectrum = trainer.spectrum().map(|spectrum| spectrum.snapshot(None)).transpose()?;
    let pipeline = Pipeline { network: &network, spectrum: spectrum.as_ref(), device: trainer.device().clone() };
    let batch = if info.points { POINT_BATCH } else { BATCH };
    let show = Show::new(trainer, sample)?;
    let (mut values, mut shape) = (Vec::new(), info.shape);
    for start in (0..sample.num).step_by(batch) {
        let range = start..(start + batch).min(sample.num);
        let request = SampleRequest {
            seeds: range.clone().map(|index| index as u64).collect(),
            classes: classes
                .as_ref()
                .map(|classes| range.filter_map(|index| classes.get(index % classes.len())).copied().collect()),
            shape: info.shape,
            noise: None,
        };
        let samples = show.images(pipeline.sample(&trainer.picture_sampler(sample), &request, &mut keep_going)?)?;
        let [_, c, h, w] = samples.dims();
        shape = [c, h, w];
        values.extend(host(samples)?);
    }
    let rows = classes.map(|classes| classes.len());
    if info.points { points_picture(&values) } else { image_grid(&values, shape, rows) }
}

/// What turns samples into what is shown.
enum Show<'a> {
    AsTheyAre,
    /// The first channels of latents.
    Channels,
    Decoded(Box<Autoencoder>, &'a LatentInfo),
}

impl<'a> Show<'a> {
    fn new(trainer: &'a Trainer, sample: &SampleConfig) -> Result<Self> {
        Ok(match (&trainer.data_info().latent, &sample.vae) {
            (None, None) => Self::AsTheyAre,
            (None, Some(vae)) => {
                return Err(Error::config("sample.vae", "nothing: the data are no latents", vae.display()));
            }
            (Some(_), None) => Self::Channels,
            (Some(latent), Some(folder)) => {
                let vae = load_diffusers_vae(folder, None, trainer.device())?;
                let got = [vae.config().latent_channels, vae.config().downsampling()];
                if got != [trainer.data_info().shape[0], latent.downsampling] {
                    let form =
                        |[channels, factor]: [usize; 2]| format!("{channels} channels, 1/{factor} of the size");
                    let expected = form([trainer.data_info().shape[0], latent.downsampling]);
                    return Err(Error::config("sample.vae", format!("latents of {expected}"), form(got)));
                }
                Self::Decoded(Box::new(vae), latent)
            }
        })
    }

    /// Images `[b c h w]` in about [-1, 1] of samples `[b c h w]`.
    fn images(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        match self {
            Self::AsTheyAre => Ok(samples),
            Self::Channels => {
                let shown = if samples.dims()[1] < 3 { 1 } else { 3 };
                Ok(samples.narrow(1, 0, shown) / LATENT_RANGE)
            }
            Self::Decoded(vae, latent) => {
                let decoder = Decoder { vae, latent, tiling: Tiling::default() };
                // One at a time: the widest layer of one image of 256x256 takes tens of megabytes.
                let each = samples.split(1, 0).into_iter().map(|one| decoder.decode(one, &mut keep_going));
                Ok(Tensor::cat(each.collect::<Result<Vec<_>, _>>()?, 0))
            }
        }
    }
}

/// Checks what [`draw`] will need, so that a wrong sampler or autoencoder is found before training and not at the first picture.
///
/// # Errors
/// A sampler that does not fit the network; an autoencoder that cannot be read, does not fit the latents, or is named where the data are
/// none.
pub fn check(trainer: &Trainer, sample: &SampleConfig) -> Result<()> {
    let info = trainer.data_info();
    let factor = if sample.vae.is_some() { info.latent.as_ref().map_or(1, |latent| latent.downsampling) } else { 1 };
    let [c, h, w] = info.shape.map(|size| size as u128);
    let picture =
        Need::new().floats("samples in the picture", &[sample.num as u128, c, h, w, (factor * factor) as u128]);
    picture.check("sample.num", sample.num, "lower sample.num")?;
    let network = trainer.network().module()?;
    let spectrum = trainer.spectrum().map(|spectrum| spectrum.module()).transpose()?;
    let pipeline = Pipeline { network, spectrum, device: trainer.device().clone() };
    let classes = network.null_class().filter(|&null| null > 0).map(|_| vec![0]);
    let request = SampleRequest { seeds: vec![0], classes, shape: info.shape, noise: None };
    let checked = pipeline.check(&trainer.picture_sampler(sample), &request);
    checked.map_err(|error| below("sample.sampler", error.into()))?;
    Show::new(trainer, sample).map(|_| ())
}

fn host(samples: Tensor<4>) -> Result<Vec<f32>> {
    let data = samples.into_data();
    let dtype = data.dtype();
    data.try_into_vec().map_err(|_| Error::config("sample", "f32 samples", format!("{dtype:?}")))
}

/// Images `[n c h w]` in a grid with one pixel of white between them.
fn image_grid(values: &[f32], [c, h, w]: [usize; 3], classes: Option<usize>) -> Result<Picture> {
    let layout = Layout::in_turn(values.len() / (c * h * w).max(1), classes);
    let size = [layout.rows * (h + 1) + 1, layout.columns * (w + 1) + 1];
    let mut rgb = vec![255u8; size[0] * size[1] * 3];
    for ([row, column], image) in layout.places.into_iter().zip(values.chunks_exact(c * h * w)) {
        let (top, left) = (row * (h + 1) + 1, column * (w + 1) + 1);
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            let place = ((top + y) * size[1] + left + x) * 3;
            for (channel, byte) in rgb.iter_mut().skip(place).take(3).enumerate() {
                // A grey image shows its one channel three times.
                let value = image.get(channel.min(c - 1) * h * w + y * w + x).copied().unwrap_or_default();
                *byte = to_byte(value);
            }
        }
    }
    encode(&rgb, size)
}

/// Points as a histogram: the darker, the more; y upwards.
fn points_picture(values: &[f32]) -> Result<Picture> {
    let points: Vec<[f32; 2]> = values.as_chunks::<2>().0.to_vec();
    let bins = histogram(&points, BINS, [-4.0, 4.0]);
    let full = bins.counts.iter().max().copied().unwrap_or(1).max(1) as f64;
    let rows: Vec<&[u64]> = bins.counts.chunks_exact(BINS).rev().collect();
    let shade = |count: u64| 255 - ((count as f64 / full).sqrt() * 255.0) as u8;
    let rgb: Vec<u8> = rows.into_iter().flatten().flat_map(|&count| [shade(count); 3]).collect();
    encode(&rgb, [BINS, BINS])
}

fn encode(rgb: &[u8], [height, width]: [usize; 2]) -> Result<Picture> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(rgb));
    written.map_err(|error| Error::file("sample picture", "pixels", "a picture", error))?;
    Ok(Picture { png, size: [height, width] })
}
