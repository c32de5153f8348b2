//! Sweeps, as `gmflow sweep` writes them.

use super::{Runs, changed, search};
use crate::refusal::{Answer, Refusal};
use serde_json::{Value, json};
use std::fs;

/// The file of a sweep's measurements, one a line.
const CELLS: &str = "cells.jsonl";
const SWEEP: search::Kind = search::Kind { marker: CELLS };
/// Bytes of the file at the most.
const MOST: u64 = 64 << 20;

impl Runs {
    /// All sweeps, those that changed last first.
    pub fn sweeps(&self) -> Value {
        let mut told: Vec<(f64, String)> =
            SWEEP.list(&self.root).into_iter().map(|(id, folder)| (changed(&folder.join(CELLS)), id)).collect();
        told.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let told: Vec<Value> =
            told.into_iter().map(|(updated, id)| json!({ "id": id, "updated": updated })).collect();
        json!({ "sweeps": told })
    }

    /// The cells of a sweep that can be read, without histograms and the names of files.
    pub fn sweep(&self, id: &str) -> Answer<Value> {
        let missing = || Refusal::not_found(format!("no sweep {id}"));
        let path = SWEEP.find(&self.root, id).ok_or_else(missing)?.join(CELLS);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MOST);
        let text = small.then(|| fs::read_to_string(&path).ok()).flatten().ok_or_else(missing)?;
        let mut cells: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        for cell in cells.iter_mut().filter_map(Value::as_object_mut) {
            cell.retain(|name, _| !["histogram", "weights", "key"].contains(&name.as_str()));
        }
        Ok(json!({ "id": id, "cells": cells }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_tells_its_cells() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("grid")).unwrap();
        let text = "{\"model\":\"a\",\"label\":\"gm-ode 2\",\"key\":1,\"row\":{\"seconds\":2.0}}\nnot JSON\n";
        fs::write(root.path().join("grid").join(CELLS), text).unwrap();
        let runs = Runs::new(root.path().to_owned());
        assert_eq!(runs.sweeps()["sweeps"][0]["id"], "grid");
        let told = runs.sweep("grid").unwrap();
        let cell = json!({ "model": "a", "label": "gm-ode 2", "row": { "seconds": 2.0 } });
        assert_eq!(told, json!({ "id": "grid", "cells": [cell] }));
        assert!(runs.sweep("..").is_err() && runs.sweep("other").is_err());
    }
}
