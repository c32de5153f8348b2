//! Sums over ranks, with the same bits on all of them.

use crate::world::{Counts, World};
use crate::{Result, share};
use half::bf16;
use std::ops::Range;

/// Numbers that are exchanged at once: enough to hide latency, few enough that the buffers stay small beside the weights.
pub const BUCKET: usize = 4 << 20;

/// How numbers travel between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exchange {
    /// In 32 bits: the sum is that of one process.
    #[default]
    F32,
    /// Rounded to bf16 on the way, each number twice: half the bytes. Sums are in f32.
    Bf16,
}

/// Sums of numbers over all ranks, in the order of the ranks: `((x0 + x1) + x2) + ...`. Keeps its buffers.
#[derive(Debug, Default)]
pub struct Sums {
    exchange: Exchange,
    received: Vec<f32>,
    own: Vec<f32>,
    rounded: Vec<u16>,
    received_rounded: Vec<u16>,
}

impl Sums {
    /// Sums of numbers that travel so.
    pub fn new(exchange: Exchange) -> Self {
        Self { exchange, ..Self::default() }
    }

    /// Replaces `values` by their sum over all ranks, which have as many.
    ///
    /// # Errors
    /// Those of [`World`].
    pub fn sum(&mut self, world: &dyn World, values: &mut [f32]) -> Result<()> {
        if world.size() == 1 {
            return Ok(());
        }
        values.chunks_mut(BUCKET).try_for_each(|bucket| self.bucket(world, bucket))
    }

    fn bucket(&mut self, world: &dyn World, values: &mut [f32]) -> Result<()> {
        let blocks: Vec<Range<usize>> =
            (0..world.size()).map(|rank| share(values.len(), rank, world.size())).collect();
        self.add_up(world, values, &blocks)?;
        match self.exchange {
            Exchange::F32 => {
                let counts = bytes::<f32>(&blocks);
                world.all_gather(bytemuck::cast_slice(&self.own), &counts, bytemuck::cast_slice_mut(values))
            }
            Exchange::Bf16 => {
                let mut own = vec![0; self.own.len()];
                round(&self.own, &mut own);
                self.rounded.resize(values.len(), 0);
                let counts = bytes::<u16>(&blocks);
                world.all_gather(bytemuck::cast_slice(&own), &counts, bytemuck::cast_slice_mut(&mut self.rounded))?;
                widen(&self.rounded, values);
                Ok(())
            }
        }
    }

    /// The sums of the numbers that are this rank's: those of `blocks[rank]`. The blocks stand one behind the other in `values`.
    ///
    /// # Errors
    /// Those of [`World`]; blocks that are not those of `values`.
    pub fn own(&mut self, world: &dyn World, values: &[f32], blocks: &[Range<usize>]) -> Result<&[f32]> {
        self.add_up(world, values, blocks)?;
        Ok(&self.own)
    }

    /// Sends every rank its block, and adds up what was received in the order of the ranks, into `self.own`.
    fn add_up(&mut self, world: &dyn World, values: &[f32], blocks: &[Range<usize>]) -> Result<()> {
        let (rank, size) = (world.rank(), world.size());
        let length = blocks.get(rank).map_or(0, Range::len);
        // What comes from every rank is as long as this rank's own block.
        let own_block = vec![0..length; size];
        self.received.resize(size * length, 0.0);
        match self.exchange {
            Exchange::F32 => {
                let counts = Counts { send: &bytes::<f32>(blocks), receive: &bytes::<f32>(&own_block) };
                let received = bytemuck::cast_slice_mut(&mut self.received);
                world.all_to_all(bytemuck::cast_slice(values), counts, received)?;
            }
            Exchange::Bf16 => {
                self.rounded.resize(values.len(), 0);
                self.received_rounded.resize(size * length, 0);
                round(values, &mut self.rounded);
                let counts = Counts { send: &bytes::<u16>(blocks), receive: &bytes::<u16>(&own_block) };
                let received = bytemuck::cast_slice_mut(&mut self.received_rounded);
                world.all_to_all(bytemuck::cast_slice(&self.rounded), counts, received)?;
                widen(&self.received_rounded, &mut self.received);
            }
        }
        self.own.clear();
        let mut parts = self.received.chunks_exact(length.max(1));
        self.own.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            self.own.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        Ok(())
    }
}

/// The lengths of blocks of numbers, in bytes.
fn bytes<T>(blocks: &[Range<usize>]) -> Vec<usize> {
    blocks.iter().map(|block| block.len() * size_of::<T>()).collect()
}

/// To the nearest number of bf16, ties to even.
fn round(values: &[f32], rounded: &mut [u16]) {
    for (value, rounded) in values.iter().zip(rounded) {
        *rounded = bf16::from_f32(*value).to_bits();
    }
}

fn widen(rounded: &[u16], values: &mut [f32]) {
    for (rounded, value) in rounded.iter().zip(values) {
        *value = f32::from_bits(u32::from(*rounded) << 16);
    }
}
