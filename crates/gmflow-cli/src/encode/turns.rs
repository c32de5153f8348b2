//! What a process has encoded in its turn, on its way to the one that writes.

use crate::world::unreadable;
use anyhow::Result;
use gmflow_data::EncodedBatch;
use gmflow_world::World;

/// The batch of one process.
#[derive(Debug, Default)]
pub struct Turn {
    pub batch: EncodedBatch,
    /// Damaged images that were left out.
    pub left_out: usize,
    /// An image behind these could not be read.
    pub failed: bool,
}

impl Turn {
    /// The turns of all processes in their order, on the first; nothing on the others.
    pub fn gathered(self, world: &dyn World) -> Result<Vec<Self>> {
        if world.size() == 1 {
            return Ok(vec![self]);
        }
        let Some(parts) = world.collect(&self.encode())? else { return Ok(Vec::new()) };
        parts.iter().map(|part| Self::decode(part).ok_or_else(unreadable)).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let EncodedBatch { mean, std, mirror_mean, mirror_std, labels, indices } = &self.batch;
        let mut bytes = Vec::new();
        bytes.extend((self.left_out as u64).to_le_bytes());
        bytes.push(u8::from(self.failed));
        let mut add = |numbers: &[u8]| {
            bytes.extend((numbers.len() as u64).to_le_bytes());
            bytes.extend(numbers);
        };
        for values in [mean, std, mirror_mean, mirror_std] {
            add(bytemuck::cast_slice(values));
        }
        add(bytemuck::cast_slice(labels));
        add(bytemuck::cast_slice(indices));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (left_out, rest) = bytes.split_first_chunk::<8>()?;
        let (failed, mut rest) = rest.split_first()?;
        let mut next = || {
            let (length, behind) = rest.split_first_chunk::<8>()?;
            let (numbers, behind) = behind.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            rest = behind;
            Some(numbers.as_chunks::<4>().0)
        };
        let floats = |numbers: &[[u8; 4]]| numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let whole = |numbers: &[[u8; 4]]| numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let batch = EncodedBatch {
            mean: floats(next()?),
            std: floats(next()?),
            mirror_mean: floats(next()?),
            mirror_std: floats(next()?),
            labels: whole(next()?),
            indices: whole(next()?),
        };
        Some(Self { batch, left_out: usize::try_from(u64::from_le_bytes(*left_out)).ok()?, failed: *failed == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_comes_back_as_it_was_sent() {
        let batch = EncodedBatch {
            mean: vec![1.5, -2.0],
            std: vec![0.0, f32::MIN_POSITIVE],
            labels: vec![7],
            indices: vec![u32::MAX],
            ..EncodedBatch::default()
        };
        let bytes = Turn { batch: batch.clone(), left_out: 3, failed: true }.encode();
        let back = Turn::decode(&bytes).unwrap();
        assert_eq!((back.batch.mean, back.batch.std), (batch.mean, batch.std));
        assert_eq!((back.batch.labels, back.batch.indices), (batch.labels, batch.indices));
        assert_eq!((back.left_out, back.failed), (3, true));
        for length in 0..bytes.len() {
            assert!(Turn::decode(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
