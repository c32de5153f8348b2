//! What a process holds in memory when moments and averages are divided, against the formula of the guide.

use super::failures::children;
use super::{DIT, command, config, has_mpirun, output_of, path, text};
use gmflow::limits::{Activations, numbers_in_training, parameters};
use gmflow::network::{GmDitConfig, NetworkConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const RANKS: usize = 4;

/// Numbers in the buffers of the exchange, of so many that are exchanged at once: as many that are sent and received, and the sums of one
/// rank.
fn buffers() -> f64 {
    gmflow_world::BUCKET as f64 * (2.0 + 1.0 / RANKS as f64)
}

/// The largest resident size so far of a process, in bytes.
fn largest_size(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The largest resident sizes of the ranks behind the first, which write no checkpoint.
fn sizes(config: &Path, out: &Path) -> Vec<f64> {
    let mut job = command(RANKS, &["train", path(config), "--out", path(out), "--set", "train.steps=4"]);
    // Large pages of the kernel round up what the allocator asks for, as the kernel is set; they are not measured here.
    let child = job.env("MIMALLOC_ALLOW_THP", "0").spawn().unwrap();
    let (id, mut found) = (child.id(), BTreeMap::new());
    let ended = std::thread::spawn(move || output_of(child));
    while !ended.is_finished() {
        found.extend(children(id).into_iter().filter_map(|rank| Some((rank, largest_size(rank)?))));
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = ended.join().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Ranks are started in their order; other children of the launcher are smaller than any of them.
    assert!(found.len() >= RANKS, "{found:?}");
    let mut sizes: Vec<f64> = found.into_values().map(|size| size as f64).collect();
    sizes.sort_by(f64::total_cmp);
    let ranks = sizes.split_off(sizes.len() - RANKS);
    // Rank 0 is the largest: it holds the whole state while it writes.
    ranks[..RANKS - 1].to_vec()
}

#[test]
fn a_process_with_a_part_of_the_state_needs_the_memory_of_the_formula() {
    if !has_mpirun() || !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let network = GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 8,
        attention_head_dim: 64,
        num_layers: 12,
        sample_size: 8,
        patch_size: 2,
        in_channels: 3,
        num_embeds_ada_norm: 6,
        ..GmDitConfig::default()
    };
    let own = "network = { type = 'gm-dit', num_gaussians = 2, num_attention_heads = 8, attention_head_dim = 64, num_layers = 12, \
        sample_size = 8, patch_size = 2, in_channels = 3, num_embeds_ada_norm = 6 }\n";
    let with = |network: &str, name: &str| {
        let path = config(folder.path(), network);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("batch_size = 12", "shard_state = true, batch_size = 4");
        std::fs::write(&path, text).unwrap();
        sizes(&path, &folder.path().join(name))
    };
    // What a process has without a network to speak of: the program, its libraries, those of MPI and what they share.
    let program = with(DIT, "small").into_iter().fold(f64::INFINITY, f64::min);
    let network = NetworkConfig::GmDit(network);
    let parameters = parameters(&network).unwrap();
    let numbers = numbers_in_training(parameters, 1, RANKS) + Activations::of(&network, [3, 8, 8], false).training;
    let predicted = 4.0 * (numbers as f64 + buffers());
    for size in with(own, "large") {
        let measured = size - program;
        println!(
            "MEMORY {parameters} parameters: predicted {predicted:.3e}, measured {measured:.3e}, program {program:.3e}"
        );
        assert!((measured / predicted - 1.0).abs() < 0.1, "expected {predicted:.3e} bytes, got {measured:.3e}");
    }
}
