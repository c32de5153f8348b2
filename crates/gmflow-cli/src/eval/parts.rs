//! Parts of `gmflow eval` and `gmflow stats` that processes compute without a word to each other, and what `gmflow merge` makes of them.

use super::source::{Reading, Source};
use crate::failure::{of_options, usage};
use crate::output;
use crate::terminal;
use anyhow::Result;
use burn::tensor::Device;
use gmflow_data::{Density, absolute};
use gmflow_eval::features::FeatureInfo;
use gmflow_eval::{CompareConfig, Judge, LikelihoodSum, PartFile, Reference, Row, SampleSet, points_of_parts};
use gmflow_world::{Apart, Shard, World};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a part is of. All parts of one measurement say the same, but for their names and how long they took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Which part, such as `2-of-8`.
    pub part: String,
    pub of: What,
}

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum What {
    /// Statistics: one set.
    Stats,
    /// Figures.
    Eval(Figures),
}

/// Figures that are still to be computed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// What samples are compared with.
    pub real: Real,
    pub config: CompareConfig,
    /// Whether the likelihood of models is measured.
    pub nll: bool,
    /// What is known of each set of samples.
    pub rows: Vec<Row>,
}

/// What samples are compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Real {
    /// Images, a part of which each process has read.
    Images,
    /// Statistics that were there before: they are read again.
    Statistics { path: PathBuf, precomputed: bool, count: u64, features: FeatureInfo },
    /// A density, and its name.
    Density { density: Density, name: String },
}

impl Real {
    /// That of a part's judge; `path` and `precomputed` say where statistics are and how they are read.
    pub fn of(reference: &Reference, path: &Path, precomputed: bool) -> Self {
        match reference {
            Reference::Density(density, name) => Self::Density { density: *density, name: name.clone() },
            Reference::Set(set) if set.moments.count() == 0 => Self::Images,
            Reference::Set(set) => {
                let (count, features) = (set.info.count, set.info.features.clone());
                Self::Statistics { path: absolute(path), precomputed, count, features }
            }
        }
    }

    /// The reference, of images from the pieces of all parts.
    fn reference(self, config: &CompareConfig, pieces: &mut Pieces) -> Result<Reference> {
        match self {
            Self::Images => Ok(Reference::Set(Box::new(SampleSet::of_parts(&pieces.next()?)?))),
            Self::Density { density, name } => {
                density.validate()?;
                Ok(Reference::Density(density, name))
            }
            Self::Statistics { path, precomputed, count, features } => {
                let source = Source::open(&path, &Reading { precomputed, ..Reading::default() })?;
                let alone = gmflow_world::Solo::default();
                let set = match source {
                    Source::Set(_) => source.into_set(&path, None, (None, !config.moments_only), (&alone, true))?,
                    _ => None,
                };
                match set.filter(|set| set.info.count == count && set.info.features == features) {
                    Some(set) => Ok(Reference::Set(Box::new(set))),
                    None => {
                        let expected = format!("the statistics of {count} samples that the parts were compared with");
                        Err(usage(&path.display().to_string(), expected, "others"))
                    }
                }
            }
        }
    }
}

/// One part, and its file.
pub struct Part {
    world: Apart,
    shard: Shard,
    path: PathBuf,
}

impl Part {
    /// The part of a measurement whose result is `out`; its file lies beside it.
    pub fn new(out: Option<&Path>, shard: Shard, force: bool) -> Result<Self> {
        let Some(out) = out else {
            return Err(usage("--shard", "--out beside it, which names the files of the parts", "no --out"));
        };
        let path = out.with_extension(format!("{}.safetensors", shard.name()));
        output::refuse_existing([path.as_path()], force)?;
        Ok(Self { world: Apart::new(shard), shard, path })
    }

    /// Which part.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// The rank that does this part.
    pub fn world(&self) -> &dyn World {
        &self.world
    }

    /// Writes what this part has computed.
    pub fn write(&self, of: What) -> Result<()> {
        output::create_parent(&self.path)?;
        let about = About { part: self.shard.name(), of };
        PartFile { about, pieces: self.world.take() }.save(&self.path)?;
        output::line(&format!("part {} in {}; gmflow merge joins the parts", self.shard, self.path.display()))
    }
}

/// What all parts have of one thing after the other.
struct Pieces {
    parts: Vec<std::vec::IntoIter<Vec<u8>>>,
}

impl Pieces {
    fn next(&mut self) -> Result<Vec<Vec<u8>>> {
        let pieces: Option<Vec<Vec<u8>>> = self.parts.iter_mut().map(Iterator::next).collect();
        pieces.ok_or_else(|| usage("PART", "all that was measured in every part", "less in one of them"))
    }
}

/// What `gmflow merge` has made of all parts.
pub enum Joined {
    /// Statistics.
    Stats(Box<SampleSet>),
    /// Figures.
    Eval(Vec<Row>),
}

/// Joins all parts of one measurement, in order.
pub fn join(parts: Vec<PartFile<About>>) -> Result<Joined> {
    let mut whole: Option<What> = None;
    let mut pieces = Vec::new();
    for PartFile { about, pieces: own } in parts {
        match &mut whole {
            None => whole = Some(about.of),
            Some(whole) => take_part(whole, about)?,
        }
        pieces.push(own.into_iter());
    }
    let mut pieces = Pieces { parts: pieces };
    match whole {
        None => Err(usage("PART", "at least one part", "none")),
        Some(What::Stats) => Ok(Joined::Stats(Box::new(SampleSet::of_parts(&pieces.next()?)?))),
        Some(What::Eval(figures)) => Ok(Joined::Eval(rows(figures, &mut pieces)?)),
    }
}

/// Takes the time of one more part, which must be of the same measurement.
fn take_part(whole: &mut What, About { part, of }: About) -> Result<()> {
    let bare = |what: &What| {
        let mut what = what.clone();
        if let What::Eval(figures) = &mut what {
            figures.rows.iter_mut().for_each(|row| row.seconds = None);
        }
        serde_json::to_string(&what)
    };
    if bare(whole)? != bare(&of)? {
        return Err(usage("PART", "parts with the same settings", format!("others in part {part}")));
    }
    if let (What::Eval(whole), What::Eval(own)) = (whole, of) {
        for (row, own) in whole.rows.iter_mut().zip(own.rows) {
            row.seconds = row.seconds.zip(own.seconds).map(|(a, b)| a.max(b));
        }
    }
    Ok(())
}

fn rows(figures: Figures, pieces: &mut Pieces) -> Result<Vec<Row>> {
    let Figures { real, config, nll, rows } = figures;
    let reference = real.reference(&config, pieces)?;
    let judge = Judge { reference, images: None, network: None, config, device: Device::flex() };
    let mut progress = terminal::Parts::default();
    let mut measured = Vec::new();
    for row in rows {
        let own = pieces.next()?;
        let figures = match &judge.reference {
            Reference::Density(..) => judge.points(&row.fake, points_of_parts(&own).as_flattened()),
            Reference::Set(_) => SampleSet::of_parts(&own).and_then(|set| judge.set(&row.fake, &set, &mut progress)),
        };
        let Row { samples, reference, features, metrics, points, .. } = figures.map_err(of_options)?;
        let likelihood = match nll && row.components.is_some() {
            true => LikelihoodSum::of_parts(&pieces.next()?)?.likelihood(),
            false => None,
        };
        measured.push(Row { samples, reference, features, metrics, points, likelihood, ..row });
    }
    Ok(measured)
}
