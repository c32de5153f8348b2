//! Pictures of coloured shapes that are drawn when they are asked for: data without a download.

mod figure;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::fingerprint::{Content, Fingerprint};
use crate::pixels::{from_byte, grey_of};
use crate::rng::{Purpose, stream};
use crate::settings::{Background, Format, MAX_PIXELS};
use crate::source::{Image, ImageDataset};
use crate::{Error, Result};
use figure::{CLASSES, Scene};

/// Largest height and width of the pictures.
const MAX_SIDE: usize = 1024;
/// Smallest height and width: below it the classes look alike.
const MIN_SIDE: usize = 8;
/// Most pictures of a set, so that an index fits 32 bits.
const MAX_COUNT: usize = 1 << 31;

/// A set of pictures of coloured shapes on light backgrounds. Classes take turns: picture i shows class i mod 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shapes {
    /// Height and width in pixels, 8 to 1024.
    pub size: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// The number of pictures.
    pub count: usize,
    /// Another seed gives other pictures; above 9223372036854775807 in quotes.
    #[serde(with = "gmflow_files::seed")]
    pub seed: u64,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { size: 32, channels: 3, count: 6000, seed: 0 }
    }
}

impl Shapes {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        if !(MIN_SIDE..=MAX_SIDE).contains(&self.size) {
            return Err(Error::config("size", format!("{MIN_SIDE} to {MAX_SIDE}"), self.size));
        }
        if ![1, 3].contains(&self.channels) {
            return Err(Error::config("channels", "1 or 3", self.channels));
        }
        match (1..=MAX_COUNT).contains(&self.count) {
            true => Ok(()),
            false => Err(Error::config("count", format!("1 to {MAX_COUNT}"), self.count)),
        }
    }
}

/// The pictures of [`Shapes`]: each is a pure function of (seed, index), the same bytes on every machine.
///
/// ```
/// use gmflow_data::{ImageDataset, Shapes, ShapesDataset};
///
/// let shapes = ShapesDataset::new(Shapes { size: 16, ..Shapes::default() })?;
/// let star = shapes.get(4)?;
/// assert_eq!(shapes.class_names()[star.label as usize], "star");
/// assert_eq!(star.pixels.len(), 3 * 16 * 16);
/// # Ok::<(), gmflow_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ShapesDataset {
    shapes: Shapes,
}

impl ShapesDataset {
    /// # Errors
    /// Those of [`Shapes::validate`].
    pub fn new(shapes: Shapes) -> Result<Self> {
        shapes.validate()?;
        Ok(Self { shapes })
    }
}

static CLASS_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| CLASSES.map(String::from).to_vec());

impl ImageDataset for ShapesDataset {
    fn len(&self) -> usize {
        self.shapes.count
    }

    fn shape(&self) -> [usize; 3] {
        [self.shapes.channels, self.shapes.size, self.shapes.size]
    }

    fn class_names(&self) -> &[String] {
        &CLASS_NAMES
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        let (count, classes) = (self.shapes.count, CLASSES.len());
        Some((0..classes).map(|class| (count / classes + usize::from(class < count % classes)) as u64).collect())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let Shapes { size, channels, count, seed } = self.shapes;
        let mut content = Content::default();
        content.bytes(b"shapes");
        [size as u64, channels as u64, count as u64, seed].into_iter().for_each(|number| content.number(number));
        let (background, max_pixels) = (Background::default(), MAX_PIXELS);
        let format = Format { height: size, width: size, channels, background, max_pixels };
        let class_images = self.class_images().unwrap_or_default();
        Some(Fingerprint::new(count, &CLASS_NAMES, &class_images, &format, content))
    }

    fn get(&self, index: usize) -> Result<Image> {
        let Shapes { size, channels, count, seed } = self.shapes;
        if index >= count {
            return Err(Error::config("index", format!("less than {count}"), index));
        }
        let class = index % CLASSES.len();
        let scene = Scene::draw(class, &mut stream(seed, Purpose::Shape, 0, index as u64));
        let bytes = scene.paint(size); // [h w 3]
        let rgb = bytes.as_chunks::<3>().0;
        let pixels = match channels {
            1 => rgb.iter().map(|colour| from_byte(grey_of(*colour))).collect(), // [1 h w]
            _ => (0..3).flat_map(|channel| rgb.iter().map(move |colour| from_byte(colour[channel]))).collect(), // [3 h w]
        };
        Ok(Image { pixels, label: class as u32 })
    }
}
