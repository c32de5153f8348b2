//! Samples with what is known of each of them, and the files that they can be saved as.
//!
//! ```
//! use gmflow::samples::Samples;
//! # let folder = tempfile::tempdir()?;
//! # let (png, npz) = (folder.path().join("two.png"), folder.path().join("two.npz"));
//!
//! // Two grey images of 2x2 pixels.
//! let values = vec![-1.0, 1.0, 0.0, 0.5, 1.0, -1.0, 0.5, 0.0];
//! let samples = Samples::new(values, [1, 2, 2], vec![7, 8])?;
//! samples.save_grid(&png)?;
//! samples.save_npz(&npz)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arrays;
mod layout;
mod picture;
mod read;

pub use layout::Layout;
pub use picture::{Picture, grid};

use crate::checkpoint::write_atomic;
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Small images are enlarged in grids to at least this many pixels.
const SMALLEST_IN_GRID: usize = 64;
/// The gap between the images of a grid.
const GAP: usize = 2;
/// The text chunk of a PNG file that says how its images were made.
const MADE_BY: &str = "gmflow";

/// Samples with what is known of each of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Values `[n c h w]`, the last axis fastest.
    pub values: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Points in the plane rather than images.
    pub points: bool,
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// One class per sample, of models with classes.
    pub classes: Option<Vec<usize>>,
    /// Names of the classes, where the model has them.
    pub class_names: Arc<[String]>,
    /// How the samples were made, all but seed and class.
    pub made_by: Value,
}

impl Samples {
    /// Images of shape `[c h w]` with these seeds, of which nothing else is known.
    ///
    /// # Errors
    /// [`Error::Shape`] where there are not as many values as seeds and shape say.
    pub fn new(values: Vec<f32>, shape: [usize; 3], seeds: Vec<u64>) -> Result<Self> {
        let [c, h, w] = shape;
        if values.len() != seeds.len() * c * h * w {
            return Err(Error::shape("values of samples", [seeds.len(), c, h, w], [values.len()]));
        }
        let (class_names, made_by) = (Arc::from([]), json!({}));
        Ok(Self { values, shape, points: false, seeds, classes: None, class_names, made_by })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.seeds.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty()
    }

    /// The samples as a tensor `[n c h w]`.
    pub fn tensor(&self, device: &Device) -> Tensor<4> {
        let [c, h, w] = self.shape;
        Tensor::from_data(TensorData::new(self.values.clone(), [self.len(), c, h, w]), device)
    }

    /// Adds the samples of another batch behind these.
    pub fn append(&mut self, batch: Self) {
        self.values.extend(batch.values);
        self.seeds.extend(batch.seeds);
        if let (Some(classes), Some(more)) = (&mut self.classes, batch.classes) {
            classes.extend(more);
        }
    }

    /// What is known of sample `index`, with the values of an image `[c h w]` that was made of it.
    pub fn one(&self, index: usize, values: Vec<f32>, shape: [usize; 3]) -> Self {
        Self {
            values,
            shape,
            points: self.points,
            seeds: self.seeds.get(index).copied().into_iter().collect(),
            classes: self.classes.as_ref().map(|classes| classes.get(index).copied().into_iter().collect()),
            class_names: Arc::clone(&self.class_names),
            made_by: self.made_by.clone(),
        }
    }

    /// The image of sample `index`.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] where there is no such sample, or its values are no image.
    pub fn picture(&self, index: usize) -> Result<Picture> {
        let size: usize = self.shape.iter().product();
        let values = self.values.get(index * size..(index + 1) * size);
        let values = values.ok_or_else(|| Error::config("sample", format!("one of {}", self.len()), index))?;
        Picture::from_chw(values, self.shape)
    }

    /// The file of the image with this seed in a folder of images.
    pub fn image_path(folder: &Path, seed: u64) -> PathBuf {
        folder.join(format!("{seed:06}.png"))
    }

    /// Writes one PNG per image into `folder`, named by its seed. A text chunk of each says how it was made.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] with the path; values that are no images.
    pub fn save_images(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        self.seeds
            .iter()
            .enumerate()
            .try_for_each(|(index, &seed)| write_atomic(&Self::image_path(folder, seed), &self.image_png(index)?))
    }

    /// The bytes of the PNG file of image `index`, as [`Samples::save_images`] writes it.
    ///
    /// # Errors
    /// There is no such sample, or its values are no image.
    pub fn image_png(&self, index: usize) -> Result<Vec<u8>> {
        self.picture(index)?.to_png(&[(MADE_BY, &self.made_by_one(index).to_string())])
    }

    /// Writes all images as one PNG, as nearly square as can be; small ones are enlarged. A class has whole rows. A text chunk says how they were made.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] with the path; values that are no images; no image at all.
    pub fn save_grid(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path.as_ref(), &self.grid_png()?)
    }

    /// The bytes of the PNG file that [`Samples::save_grid`] writes.
    ///
    /// # Errors
    /// Values that are no images; no image at all.
    pub fn grid_png(&self) -> Result<Vec<u8>> {
        let [_, height, width] = self.shape;
        let factor = SMALLEST_IN_GRID.div_ceil(height.max(width).max(1)).max(1);
        let pictures = (0..self.len()).map(|index| Ok(self.picture(index)?.enlarged(factor)));
        let pictures = pictures.collect::<Result<Vec<Picture>>>()?;
        let layout = self.classes.as_deref().map_or_else(|| Layout::in_turn(self.len(), None), Layout::of);
        in_layout(pictures, &layout)?.to_png(&[(MADE_BY, &self.made_by_all().to_string())])
    }

    /// How sample `index` was made.
    fn made_by_one(&self, index: usize) -> Value {
        let mut made_by = self.made_by.clone();
        made_by["seed"] = json!(self.seeds.get(index));
        if let Some(class) = self.classes.as_ref().and_then(|classes| classes.get(index)) {
            made_by["class"] = json!(class);
            made_by["class_name"] = json!(self.class_names.get(*class));
        }
        made_by
    }

    /// How all samples were made, with their seeds and classes.
    pub fn made_by_all(&self) -> Value {
        let mut made_by = self.made_by.clone();
        made_by["seeds"] = json!([self.seeds.first(), self.seeds.last()]);
        if let Some(classes) = &self.classes {
            made_by["classes"] = json!(classes);
        }
        made_by
    }
}

/// Pictures of one size in the places of a layout, the others white.
fn in_layout(pictures: Vec<Picture>, layout: &Layout) -> Result<Picture> {
    let white = pictures.first().map(|first| Picture { pixels: vec![255; first.pixels.len()], ..first.clone() });
    let mut cells: Vec<Picture> = white.into_iter().cycle().take(layout.rows * layout.columns).collect();
    for ([row, column], picture) in layout.places.iter().zip(pictures) {
        if let Some(cell) = cells.get_mut(row * layout.columns + column) {
            *cell = picture;
        }
    }
    grid(&cells, layout.columns, GAP)
}
