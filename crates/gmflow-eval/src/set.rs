//! What is kept of a set of images: moments, colours, and the vectors themselves where a metric needs them.

use crate::features::FeatureInfo;
use crate::numbers::TensorFile;
use crate::{Error, ImageStats, Matrix, Moments, Result};
use gmflow::checkpoint::write_atomic;
use gmflow_files::json;
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
