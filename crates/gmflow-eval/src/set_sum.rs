//! What the batches of a set add up to; and what processes compute of one, each for its own samples, as bytes that are joined in order.

use crate::features::{FeatureInfo, Features};
use crate::{Error, ImageStatsSum, Matrix, Moments, Result, SampleSet, SetInfo, check_covariances};
use serde::{Deserialize, Serialize};

/// What every part of a set knows of the whole.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) data: String,
    pub(crate) features: FeatureInfo,
    pub(crate) shape: [usize; 3],
    pub(crate) classes: Vec<String>,
    pub(crate) keep: bool,
}

/// What a batch adds to a set.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) features: Features,
    /// Saturation, brightness and contrast of each image.
    pub(crate) colours: Vec<[f64; 3]>,
    /// How many samples were asked for by a class that the network knows, and how many of them it reads so.
    pub(crate) asked: [u64; 2],
}

/// What the batches of a set add up to.
#[derive(Debug)]
pub(crate) struct SetSum {
    pub(crate) shape: [usize; 3],
    pub(crate) keep: bool,
    moments: Option<Moments>,
    colours: ImageStatsSum,
    vectors: Matrix,
    logits: Matrix,
    /// How many samples were asked for by a class that the network knows, and how many of them it reads so.
    asked: [u64; 2],
}

impl SetSum {
    pub(crate) fn new(shape: [usize; 3], keep: bool) -> Self {
        Self {
            shape,
            keep,
            moments: None,
            colours: ImageStatsSum::of_channels(shape[0]),
            vectors: Matrix::default(),
            logits: Matrix::default(),
            asked: [0; 2],
        }
    }

    pub(crate) fn take(&mut self, added: Added) -> Result<()> {
        let Added { features, colours, asked } = added;
        self.colours.add_images(&colours);
        self.asked.iter_mut().zip(asked).for_each(|(sum, count)| *sum += count);
        match &mut self.moments {
            Some(moments) => moments.add(&features.vectors)?,
            none => {
                let columns = features.vectors.columns();
                // Before a product of such matrices asks for room to work in, and before the other images are read.
                check_covariances(columns)?;
                none.insert(Moments::new(columns)?).add(&features.vectors)?;
            }
        }
        if self.keep {
            self.vectors.append(&features.vectors)?;
            features.logits.iter().try_for_each(|logits| self.logits.append(logits))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self, whole: Whole) -> Result<SampleSet> {
        let moments = self.moments.ok_or_else(|| Error::config("samples", "at least 2", 0))?;
        let Whole { data, features, shape, classes, .. } = whole;
        let colours = self.colours.stats();
        let info = SetInfo { count: moments.count(), data, features, shape: Some(shape), classes, colours };
        let kept = |matrix: Matrix| (matrix.rows() > 0).then_some(matrix);
        let [asked, right] = self.asked;
        let read_as_asked = (asked == moments.count()).then(|| right as f64 / asked as f64);
        Ok(SampleSet { info, moments, vectors: kept(self.vectors), logits: kept(self.logits), read_as_asked })
    }
}

/// The bytes of a part: the length of the words on the whole, these words, and the batches.
pub(crate) fn encode(whole: &Whole, added: &[Added]) -> Result<Vec<u8>> {
    let words = serde_json::to_vec(whole).map_err(|error| Error::config("set", "a description", error))?;
    let mut bytes = (words.len() as u64).to_le_bytes().to_vec();
    bytes.extend(words);
    added.iter().for_each(|added| added.encode(&mut bytes));
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<(Whole, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (words, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(words).ok()?, rest))
}

impl SampleSet {
    /// Joins the parts of a set, in order: what the processes of a job have sent, or kept where they work apart
    /// ([`gmflow_world::Apart`]). The figures have the bits of one process that has added all batches.
    ///
    /// # Errors
    /// Parts of different sets, or of another version; no sample.
    pub fn of_parts<B: AsRef<[u8]>>(parts: &[B]) -> Result<Self> {
        let wrong = || Error::config("parts", "features of this version of gmflow", "others");
        let mut whole: Option<Whole> = None;
        let mut sum: Option<SetSum> = None;
        for part in parts {
            let (own, mut rest) = decode(part.as_ref()).ok_or_else(wrong)?;
            let sum = sum.get_or_insert_with(|| SetSum::new(own.shape, own.keep));
            match &whole {
                Some(whole) if own != *whole => {
                    let words = |whole: &Whole| format!("{} with {}", whole.data, whole.features.label());
                    return Err(Error::config("parts", format!("those of one set, {}", words(whole)), words(&own)));
                }
                Some(_) => {}
                None => whole = Some(own),
            }
            while !rest.is_empty() {
                let (added, behind) = Added::decode(rest).ok_or_else(wrong)?;
                rest = behind;
                sum.take(added)?;
            }
        }
        let (sum, whole) = sum.zip(whole).ok_or_else(|| Error::config("parts", "at least 1", 0))?;
        sum.finish(whole)
    }
}

impl Added {
    /// Numbers of 64 bits: how many rows, columns and classes, those asked for and read so; then colours, vectors and logits.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let Features { vectors, logits } = &self.features;
        let classes = logits.as_ref().map_or(0, Matrix::columns);
        let header = [vectors.rows() as u64, vectors.columns() as u64, classes as u64, self.asked[0], self.asked[1]];
        bytes.extend(header.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(self.colours.iter().flatten().flat_map(|value| value.to_le_bytes()));
        bytes.extend_from_slice(bytemuck::cast_slice(vectors.values()));
        bytes.extend_from_slice(logits.as_ref().map_or(&[], |logits| bytemuck::cast_slice(logits.values())));
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
