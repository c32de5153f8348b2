//! What the ranks tell each other between the parts of a step.

use gmflow_world::World;

use crate::{Error, Result};

/// What a rank says of itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Status {
    /// It is ready, and has nothing to say.
    Ready,
    /// It has the gradient of its part of the batch.
    Step {
        /// The loss of its part, as a share of the batch's.
        loss: f64,
        /// The spectral loss of its part, where a spectrum network is trained.
        spectral: Option<f64>,
        /// The largest loss of a sample of its part, in distillation.
        largest: Option<f64>,
        /// The digest of which parameters have a gradient.
        present: u32,
        /// It was told to stop.
        stop: bool,
    },
    /// Its weights have this digest.
    Weights(u32),
    /// It found numbers that are not finite in its own part of the work: these, or none.
    NotFinite(Option<String>),
    /// All save now.
    Save,
    /// All end now.
    End,
    /// It has failed.
    Failed(String),
}

const READY: u8 = 0;
const STEP: u8 = 1;
const WEIGHTS: u8 = 2;
const NOT_FINITE: u8 = 3;
const SAVE: u8 = 4;
const END: u8 = 5;
const FAILED: u8 = 6;

impl Status {
    /// Whether it asks the run to stop.
    pub(super) fn stops(&self) -> bool {
        matches!(self, Self::Step { stop: true, .. })
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready => vec![READY],
            Self::Step { loss, spectral, largest, present, stop } => {
                let there = [*stop, spectral.is_some(), largest.is_some()].map(u8::from);
                let mut bytes = [&[STEP], &there[..]].concat();
                bytes.extend(present.to_le_bytes());
                bytes.extend(loss.to_le_bytes());
                bytes.extend(spectral.unwrap_or_default().to_le_bytes());
                bytes.extend(largest.unwrap_or_default().to_le_bytes());
                bytes
            }
            Self::Weights(digest) => [&[WEIGHTS][..], &digest.to_le_bytes()].concat(),
            Self::NotFinite(None) => vec![NOT_FINITE, 0],
            Self::NotFinite(Some(what)) => [&[NOT_FINITE, 1], what.as_bytes()].concat(),
            Self::Save => vec![SAVE],
            Self::End => vec![END],
            Self::Failed(why) => [&[FAILED], why.as_bytes()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match bytes {
            [READY] => Some(Self::Ready),
            [STEP, stop, has_spectral, has_largest, rest @ ..] => {
                let (present, rest) = rest.split_first_chunk()?;
                let (loss, rest) = rest.split_first_chunk()?;
                let (spectral, rest) = rest.split_first_chunk()?;
                let largest = f64::from_le_bytes(*rest.first_chunk()?);
                Some(Self::Step {
                    loss: f64::from_le_bytes(*loss),
                    spectral: (*has_spectral == 1).then(|| f64::from_le_bytes(*spectral)),
                    largest: (*has_largest == 1).then_some(largest),
                    present: u32::from_le_bytes(*present),
                    stop: *stop == 1,
                })
            }
            [WEIGHTS, digest @ ..] => Some(Self::Weights(u32::from_le_bytes(*digest.first_chunk()?))),
            [NOT_FINITE, 0] => Some(Self::NotFinite(None)),
            [NOT_FINITE, 1, what @ ..] => Some(Self::NotFinite(Some(text(what)))),
            [SAVE] => Some(Self::Save),
            [END] => Some(Self::End),
            [FAILED, why @ ..] => Some(Self::Failed(text(why))),
            _ => None,
        }
    }
}

/// Tells all ranks of this one's status, and returns those of all, in their order.
///
/// # Errors
/// [`Error::Rank`] for the first rank that has failed; a message that is none of this version.
pub(super) fn round(world: &dyn World, status: Status) -> Result<Vec<Status>> {
    let mut heard = Vec::with_capacity(world.size());
    let mut failed = None;
    for (rank, bytes) in world.gather(&status.encode())?.iter().enumerate() {
        match Status::decode(bytes) {
            Some(Status::Failed(message)) => failed = failed.or(Some(Error::Rank { rank, message })),
            Some(status) => heard.push(status),
            None => {
                let message = "expected the status of this version of gmflow, got another message".to_owned();
                failed = failed.or(Some(Error::Rank { rank, message }));
            }
        }
    }
    failed.map_or(Ok(heard), Err)
}

/// What this rank has done, once all ranks have done their part of it.
///
/// # Errors
/// This rank's own error; where it has none and another rank has, [`Error::Rank`] with that one's message.
pub fn agree<T, E: std::fmt::Display + From<Error>>(world: &dyn World, done: Result<T, E>) -> Result<T, E> {
    if world.size() == 1 {
        return done;
    }
    let status = done.as_ref().map_or_else(|error| Status::Failed(error.to_string()), |_| Status::Ready);
    let heard = round(world, status);
    let done = done?;
    heard?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_as_it_was_said() {
        let step = |spectral| Status::Step { loss: -1.25e-300, spectral, largest: spectral, present: 7, stop: true };
        for status in [
            Status::Ready,
            step(None),
            step(Some(f64::INFINITY)),
            Status::Weights(0xdead_beef),
            Status::NotFinite(None),
            Status::NotFinite(Some("the loss".into())),
            Status::Save,
            Status::End,
            Status::Failed("no disk".into()),
        ] {
            assert_eq!(Status::decode(&status.encode()), Some(status));
        }
        for damaged in [&[][..], &[STEP], &[STEP, 0, 0, 0, 1, 2], &[WEIGHTS, 1], &[99]] {
            assert_eq!(Status::decode(damaged), None, "{damaged:?}");
        }
    }
}
