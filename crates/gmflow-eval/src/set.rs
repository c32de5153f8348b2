//! What is kept of a set of images: moments, colours, and the vectors themselves where a metric needs them.

use crate::features::resize::to_byte;
use crate::features::{FeatureInfo, FeatureNetwork, Features};
use crate::numbers::TensorFile;
use crate::{Error, ImageStats, ImageStatsSum, Matrix, Moments, Result};
use gmflow::checkpoint::write_atomic;
use gmflow_files::json;
use gmflow_world::World;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's metadata entry that holds [`SetInfo`].
const METADATA: &str = "gmflow-stats";
const MEAN: &str = "mean";
const COVARIANCE: &str = "covariance";
const VECTORS: &str = "vectors";

/// What a set is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetInfo {
    /// How many samples.
    pub count: u64,
    /// Which data, as the caller describes it: file, split, limit.
    pub data: String,
    /// What the vectors were computed with.
    pub features: FeatureInfo,
    /// Channels, height and width of the images; none for vectors from another program.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shape: Option<[usize; 3]>,
    /// The names of the classes, of labelled data.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Colour statistics of the images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub colours: Option<ImageStats>,
}

/// A set of samples, ready to be compared.
#[derive(Clone, Debug)]
pub struct SampleSet {
    /// What it is.
    pub info: SetInfo,
    /// Of the feature vectors.
    pub moments: Moments,
    /// The feature vectors `[n d]`, where they were kept.
    pub vectors: Option<Matrix>,
    /// Class logits `[n classes]`, where they were kept.
    pub logits: Option<Matrix>,
    /// The share of the samples that the classifier reads as the class that was asked for, where it knows all of these classes.
    pub read_as_asked: Option<f64>,
}

/// Builds a set batch by batch. Memory grows with the number of samples only where vectors are kept.
#[derive(Debug)]
pub struct SetBuilder<'a> {
    network: &'a FeatureNetwork,
    shape: [usize; 3],
    keep: bool,
    moments: Option<Moments>,
    colours: ImageStatsSum,
    vectors: Matrix,
    logits: Matrix,
    /// How many samples were asked for by a class that the network knows, and how many of them it reads so.
    asked: [u64; 2],
    /// Of a process of several: what its batches add, until all are joined.
    own: Option<Vec<Added>>,
}

impl<'a> SetBuilder<'a> {
    /// For images of one shape `[c h w]`; `keep` keeps vectors and logits, which kernel distance, precision and recall, and the
    /// Inception Score need.
    pub fn new(network: &'a FeatureNetwork, shape: [usize; 3], keep: bool) -> Self {
        Self {
            network,
            shape,
            keep,
            moments: None,
            colours: ImageStatsSum::of_channels(shape[0]),
            vectors: Matrix::default(),
            logits: Matrix::default(),
            asked: [0; 2],
            own: None,
        }
    }

    /// A builder of one process of several, each of which adds its own batches.
    pub fn of_rank(network: &'a FeatureNetwork, shape: [usize; 3], keep: bool, world: &dyn World) -> Self {
        Self { own: (world.size() > 1).then(Vec::new), ..Self::new(network, shape, keep) }
    }

    /// Joins the batches of all processes in the order of the ranks, on the first one or on all; `None` on the others. The figures have the
    /// bits of one process that has added all batches.
    ///
    /// # Errors
    /// As [`add`](Self::add); those of the world.
    pub fn joined(mut self, world: &dyn World, on_all: bool) -> Result<Option<Self>> {
        let Some(own) = self.own.take() else { return Ok(Some(self)) };
        let bytes: Vec<u8> = own.iter().flat_map(Added::encode).collect();
        drop(own);
        let parts = match on_all {
            true => world.gather(&bytes)?,
            false => match world.collect(&bytes)? {
                Some(parts) => parts,
                None => return Ok(None),
            },
        };
        for part in parts {
            let mut rest = part.as_slice();
            while !rest.is_empty() {
                let wrong = || Error::config("ranks", "features of this version of gmflow", "others");
                let (added, behind) = Added::decode(rest).ok_or_else(wrong)?;
                rest = behind;
                self.take(added)?;
            }
        }
        Ok(Some(self))
    }

    /// Adds images `[n c h w]` in [-1, 1]. They are rounded to 8 bits and cut off at the ends first, so that samples have the figures that
    /// their files have.
    ///
    /// # Errors
    /// Images that the network does not take, or values that are not finite.
    pub fn add(&mut self, images: &[f32]) -> Result<()> {
        self.add_asked(images, &[])
    }

    /// [`add`](Self::add) for samples of classes with these names, one for each image.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_asked(&mut self, images: &[f32], asked: &[&str]) -> Result<()> {
        let images: Vec<f32> = images.iter().map(|&x| to_byte(x) / 127.5 - 1.0).collect();
        let features = self.network.extract(&images, self.shape)?;
        let colours = ImageStatsSum::default().add_each(&images, self.shape)?;
        let mut of_asked = [0; 2];
        if let Some(logits) = &features.logits {
            for (row, name) in (0..logits.rows()).zip(asked) {
                let Some(class) = self.network.class_names().iter().position(|known| known == name) else { continue };
                of_asked[0] += 1;
                of_asked[1] += u64::from(largest(logits.row(row)) == Some(class));
            }
        }
        let added = Added { features, colours, asked: of_asked };
        match &mut self.own {
            Some(own) => {
                own.push(added);
                Ok(())
            }
            None => self.take(added),
        }
    }

    fn take(&mut self, added: Added) -> Result<()> {
        let Added { features, colours, asked } = added;
        self.colours.add_images(&colours);
        self.asked.iter_mut().zip(asked).for_each(|(sum, count)| *sum += count);
        match &mut self.moments {
            Some(moments) => moments.add(&features.vectors)?,
            none => none.insert(Moments::new(features.vectors.columns())?).add(&features.vectors)?,
        }
        if self.keep {
            self.vectors.append(&features.vectors)?;
            features.logits.iter().try_for_each(|logits| self.logits.append(logits))?;
        }
        Ok(())
    }

    /// The set, under the name `data`.
    ///
    /// # Errors
    /// No image was added.
    pub fn finish(self, data: String, classes: Vec<String>) -> Result<SampleSet> {
        let moments = self.moments.ok_or_else(|| Error::config("samples", "at least 2", 0))?;
        let info = SetInfo {
            count: moments.count(),
            data,
            features: self.network.info.clone(),
            shape: Some(self.shape),
            classes,
            colours: self.colours.stats(),
        };
        let kept = |matrix: Matrix| (matrix.rows() > 0).then_some(matrix);
        let [asked, right] = self.asked;
        let read_as_asked = (asked == moments.count()).then(|| right as f64 / asked as f64);
        Ok(SampleSet { info, moments, vectors: kept(self.vectors), logits: kept(self.logits), read_as_asked })
    }
}

/// What a batch adds to a set.
#[derive(Debug)]
struct Added {
    features: Features,
    /// Saturation, brightness and contrast of each image.
    colours: Vec<[f64; 3]>,
    asked: [u64; 2],
}

impl Added {
    /// Numbers of 64 bits: how many rows, columns and classes, those asked for and read so; then colours, vectors and logits.
    fn encode(&self) -> Vec<u8> {
        let Features { vectors, logits } = &self.features;
        let classes = logits.as_ref().map_or(0, Matrix::columns);
        let header = [vectors.rows() as u64, vectors.columns() as u64, classes as u64, self.asked[0], self.asked[1]];
        let mut bytes: Vec<u8> = header.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(self.colours.iter().flatten().flat_map(|value| value.to_le_bytes()));
        bytes.extend_from_slice(bytemuck::cast_slice(vectors.values()));
        bytes.extend_from_slice(logits.as_ref().map_or(&[], |logits| bytemuck::cast_slice(logits.values())));
        bytes
    }

    /// One of several that stand one behind the other, and what stands behind it.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        const HEADER: usize = 5;
        let (header, rest) = bytes.split_at_checked(HEADER * 8)?;
        let number = |place: usize| header.as_chunks::<8>().0.get(place).map(|bytes| u64::from_le_bytes(*bytes));
        let size = |place: usize| number(place).and_then(|number| usize::try_from(number).ok());
        let (rows, columns, classes) = (size(0)?, size(1)?, size(2)?);
        let (colours, rest) = rest.split_at_checked(rows.checked_mul(24)?)?;
        let (vectors, rest) = rest.split_at_checked(rows.checked_mul(columns)?.checked_mul(4)?)?;
        let (logits, rest) = rest.split_at_checked(rows.checked_mul(classes)?.checked_mul(4)?)?;
        let floats = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let colours = colours.as_chunks::<24>().0.iter().map(|bytes| {
            let of =
                |place: usize| bytes.as_chunks::<8>().0.get(place).map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
            [of(0), of(1), of(2)]
        });
        let logits = if classes > 0 { Some(Matrix::new(floats(logits), classes).ok()?) } else { None };
        let features = Features { vectors: Matrix::new(floats(vectors), columns).ok()?, logits };
        Some((Self { features, colours: colours.collect(), asked: [number(3)?, number(4)?] }, rest))
    }
}

/// The index of the largest value.
pub(crate) fn largest(row: &[f32]) -> Option<usize> {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index)
}

impl SampleSet {
    /// A set of vectors from another program.
    ///
    /// # Errors
    /// Vectors that are too long for a covariance.
    pub fn of_vectors(vectors: Matrix, data: String) -> Result<Self> {
        let mut moments = Moments::new(vectors.columns())?;
        moments.add(&vectors)?;
        Ok(Self::precomputed(moments, Some(vectors), data))
    }

    /// A set of which another program kept the moments.
    pub fn of_moments(moments: Moments, data: String) -> Self {
        Self::precomputed(moments, None, data)
    }

    fn precomputed(moments: Moments, vectors: Option<Matrix>, data: String) -> Self {
        let features = FeatureInfo::precomputed();
        let info =
            SetInfo { count: moments.count(), data, features, shape: None, classes: Vec::new(), colours: None };
        Self { info, moments, vectors, logits: None, read_as_asked: None }
    }

    /// Whether a file is one that [`save`](Self::save) wrote.
    pub fn is_saved(path: &Path) -> bool {
        TensorFile::open(path).is_ok_and(|file| file.entry(METADATA).is_some())
    }

    /// Writes moments, colours, description, and the vectors where they were kept, to one .safetensors file, atomically.
    ///
    /// # Errors
    /// A file that cannot be written, or a set of one sample.
    pub fn save(&self, path: &Path) -> Result<()> {
        let unwritable = |error: &dyn std::fmt::Display| Error::file(path, "content", "what can be written", error);
        let info = serde_json::to_string(&self.info).map_err(|error| unwritable(&error))?;
        let d = self.moments.mean().len();
        let covariance = self.moments.covariance()?;
        let mut views = vec![
            (MEAN, Dtype::F64, vec![d], bytemuck::cast_slice(self.moments.mean())),
            (COVARIANCE, Dtype::F64, vec![d, d], bytemuck::cast_slice(&covariance)),
        ];
        if let Some(vectors) = &self.vectors {
            views.push((VECTORS, Dtype::F32, vec![vectors.rows(), d], bytemuck::cast_slice(vectors.values())));
        }
        let views: Result<Vec<_>, _> = views
            .into_iter()
            .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?)))
            .collect();
        let views = views.map_err(|error: safetensors::SafeTensorError| unwritable(&error))?;
        let metadata = [(METADATA.to_owned(), info)].into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(&error))?;
        Ok(write_atomic(path, &file)?)
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file of another kind, or one with parts that do not fit each other.
    pub fn load(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let text = file.entry(METADATA);
        let text = text.ok_or_else(|| Error::file(path, METADATA, "an entry of the metadata", "none"))?;
        let info: SetInfo = json::read(text.as_bytes()).map_err(|wrong| Error::in_metadata(path, METADATA, wrong))?;
        let is = |name: &str, wanted: Dtype| match file.info(name) {
            Some(tensor) if tensor.dtype != wanted => {
                Err(Error::file(path, name, format!("{wanted:?}"), format!("{:?}", tensor.dtype)))
            }
            tensor => Ok(tensor.is_some()),
        };
        let doubles = |name: &str| -> Result<Vec<f64>> {
            is(name, Dtype::F64)?;
            Ok(file.read(name)?.1)
        };
        let within = |error: Error| error.in_file(path);
        let moments = Moments::from_covariance(info.count, doubles(MEAN)?, doubles(COVARIANCE)?).map_err(within)?;
        let mut vectors = None;
        if is(VECTORS, Dtype::F32)? {
            let read = Matrix::new(file.read(VECTORS)?.1, moments.mean().len()).map_err(within)?;
            if read.rows() as u64 != info.count {
                return Err(Error::file(path, VECTORS, format!("{} rows", info.count), read.rows()));
            }
            vectors = Some(read);
        }
        Ok(Self { info, moments, vectors, logits: None, read_as_asked: None })
    }
}
