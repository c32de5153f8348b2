//! What a training configuration means that says nothing about a setting.
//!
//! The defaults of [`NetworkConfig`](gmflow::network::NetworkConfig) are those of published checkpoints, whose files leave them out. Here
//! are small networks that train on a CPU, and the sizes that the data tells are taken from there.

use toml::{Table, Value};

/// Settings of the network that are taken from elsewhere, because the configuration does not give them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FromData {
    /// `network.in_channels`.
    pub channels: bool,
    /// `network.sample_size`.
    pub size: bool,
    /// `network.num_embeds_ada_norm` or `network.num_classes`.
    pub classes: bool,
    /// `network.patch_size` of a transformer.
    pub patch: bool,
    /// The whole network, where training starts from another's weights: it is that one's.
    pub network: bool,
}

/// What stands for a size that the data tells, until the data is open: it fits any other setting.
const ANY_SIZE: i64 = 1 << 12;

/// Channels of a group of a group norm: of one channel alone the norm would take the mean away.
const FEWEST_IN_A_GROUP: i64 = 4;

/// A transformer on pixels: 2.7 million parameters.
const GM_DIT: &str = "
num_gaussians = 8
num_attention_heads = 3
attention_head_dim = 64
num_layers = 6
logstd_inner_dim = 64
gm_num_logstd_layers = 2
";

/// A U-Net for small pictures: 1.1 million parameters.
const UNET: &str = "
num_gaussians = 4
block_out_channels = [32, 64, 128]
attention_levels = []
layers_per_block = 1
norm_num_groups = 8
logstd_inner_dim = 64
gm_num_logstd_layers = 2
";

/// A perceptron for points in the plane: 0.4 million parameters.
const MLP2D: &str = "
num_gaussians = 32
hidden_dim = 256
num_layers = 5
";

/// Fills in the network, the loss and the batch where they are not given, and tells what the data has to say.
pub(super) fn fill(table: &mut Table) -> FromData {
    let kind = table.get("data").and_then(|data| data.get("source")?.get("kind")?.as_str()).map(str::to_owned);
    let (network_type, ratio, batch) = match kind.as_deref() {
        Some("density") => ("mlp2d", 0.9, 1024),
        Some("latents") => ("gm-dit", 0.5, 32),
        _ => ("unet", 0.5, 32),
    };
    let mut entry = |name: &str, default: &dyn Fn() -> Table| {
        table.entry(name).or_insert_with(|| Value::Table(default()));
    };
    entry("network", &|| Table::from_iter([("type".to_owned(), Value::String(network_type.into()))]));
    entry("loss", &|| {
        let kind = Value::String("transition".into());
        Table::from_iter([("kind".to_owned(), kind), ("transition_ratio".to_owned(), Value::Float(ratio))])
    });
    if let Some(train) = table.entry("train").or_insert_with(|| Value::Table(Table::new())).as_table_mut() {
        train.entry("batch_size").or_insert(Value::Integer(batch));
    }
    table.get_mut("network").and_then(Value::as_table_mut).map_or_else(FromData::default, fill_network)
}

fn fill_network(network: &mut Table) -> FromData {
    let (defaults, classes) = match network.get("type").and_then(Value::as_str) {
        Some("gm-dit") => (GM_DIT, "num_embeds_ada_norm"),
        Some("unet") => (UNET, "num_classes"),
        Some("mlp2d") => (MLP2D, ""),
        _ => return FromData::default(),
    };
    // A wrong level or group of a U-Net would be hidden by a default that does not fit it.
    let own_levels = network.contains_key("block_out_channels");
    for (name, value) in defaults.parse::<Table>().unwrap_or_default() {
        if !(own_levels && name == "norm_num_groups") {
            network.entry(name).or_insert(value);
        }
    }
    if own_levels && !network.contains_key("norm_num_groups") {
        let levels: Vec<i64> =
            network["block_out_channels"].as_array().into_iter().flatten().filter_map(Value::as_integer).collect();
        let fits = |groups: &i64| {
            levels.iter().all(|channels| channels % groups == 0 && channels / groups >= FEWEST_IN_A_GROUP)
        };
        let groups = [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        network.insert("norm_num_groups".into(), Value::Integer(groups));
    }
    if classes.is_empty() {
        return FromData::default();
    }
    let mut absent = |name: &str, stand_in: i64| {
        let absent = !network.contains_key(name);
        network.entry(name).or_insert(Value::Integer(stand_in));
        absent
    };
    let transformer = classes == "num_embeds_ada_norm";
    FromData {
        channels: absent("in_channels", 1),
        size: absent("sample_size", ANY_SIZE),
        classes: absent(classes, 0),
        patch: transformer && absent("patch_size", 1),
        network: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gmflow::network::NetworkConfig;

    fn filled(text: &str) -> (Table, FromData) {
        let mut table: Table = text.parse().unwrap();
        let from_data = fill(&mut table);
        (table, from_data)
    }

    #[test]
    fn a_network_without_sizes_is_small() {
        for (name, most) in [("gm-dit", 200), ("unet", 130), ("mlp2d", 260)] {
            let (table, _) = filled(&format!("[network]\ntype = \"{name}\""));
            let network: NetworkConfig = table["network"].clone().try_into().unwrap();
            network.validate().unwrap();
            let width = match network {
                NetworkConfig::GmDit(net) => net.hidden(),
                NetworkConfig::Unet(net) => net.block_out_channels.into_iter().max().unwrap_or(0),
                NetworkConfig::Mlp2d(net) => net.hidden_dim,
            };
            assert!(width <= most, "{name}: {width}");
        }
    }

    #[test]
    fn what_is_given_stays() {
        let (table, from_data) = filled("[network]\ntype = \"unet\"\nnum_classes = 3\nblock_out_channels = [12, 24]");
        let network = table["network"].as_table().unwrap();
        assert_eq!(network["num_classes"].as_integer(), Some(3));
        assert_eq!(network["norm_num_groups"].as_integer(), Some(2));
        assert_eq!(from_data, FromData { channels: true, size: true, ..FromData::default() });
        assert_eq!(table["loss"]["transition_ratio"].as_float(), Some(0.5));
    }

    #[test]
    fn points_get_a_perceptron() {
        let (table, from_data) = filled("[data.source]\nkind = \"density\"\nname = \"moons\"");
        assert_eq!(table["network"]["type"].as_str(), Some("mlp2d"));
        assert_eq!(table["train"]["batch_size"].as_integer(), Some(1024));
        assert_eq!(from_data, FromData::default());
    }
}
