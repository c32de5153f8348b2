//! Caches of latents: what opens has every row that it claims, or says which is damaged.
//!
//! An input is two bytes with the length of the manifest, the manifest, and the first shard.

#![no_main]

mod scratch;

use gmflow_data::{Error, FilesError, LatentDataset};
use libfuzzer_sys::{Corpus, fuzz_target};
use rand::SeedableRng;
use rand::rngs::StdRng;

fuzz_target!(|data: &[u8]| -> Corpus {
    let [high, low, rest @ ..] = data else { return Corpus::Reject };
    let Some((manifest, shard)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else {
        return Corpus::Reject;
    };
    scratch::write("latents.json", manifest);
    scratch::write("shard-00000.safetensors", shard);
    let Ok(set) = LatentDataset::open(scratch::FOLDER.path()) else { return Corpus::Keep };
    let manifest = set.manifest();
    let (values, classes) = (manifest.shape.iter().product::<usize>(), manifest.classes.len());
    let mut rng = StdRng::seed_from_u64(0);
    for index in [0, manifest.count - 1] {
        for mirrored in [false, true] {
            match set.draw(index, mirrored, &mut rng) {
                Ok(latent) => {
                    assert_eq!(latent.values.len(), values);
                    assert!((latent.label as usize) < classes.max(1));
                }
                Err(error) => {
                    assert!(matches!(error, Error::Files(FilesError::File { .. })), "not the file's fault: {error}")
                }
            }
        }
    }
    assert!(matches!(set.draw(manifest.count, false, &mut rng), Err(Error::Files(FilesError::Config { .. }))));
    Corpus::Keep
});
