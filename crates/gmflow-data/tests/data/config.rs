use gmflow_data::{Background, Corrupt, DatasetConfig, Density};
use serde_json::json;

fn parse(value: serde_json::Value) -> Result<DatasetConfig, serde_json::Error> {
    serde_json::from_value(value)
}

#[test]
fn defaults_are_filled_in_and_survive_a_round_trip() {
    let config = parse(json!({"kind": "density", "name": "checkerboard"})).unwrap();
    assert_eq!(config, DatasetConfig::Density(Density::CHECKERBOARD));
    let configs = [
        json!({"kind": "density", "name": "gaussian-grid", "side": 3}),
        json!({"kind": "named", "name": "mnist"}),
        json!({"kind": "named", "name": "fashion-mnist", "split": "test", "folder": "x", "image": {"size": 32}}),
        json!({"kind": "shapes"}),
        json!({"kind": "shapes", "size": 16, "channels": 1, "count": 7, "seed": 3}),
        json!({"kind": "idx", "images": "a", "labels": "b", "image": {"size": 32, "channels": 3}}),
        json!({"kind": "parquet", "path": "train-*.parquet", "label_column": "fine_label"}),
        json!({"kind": "folder", "path": "x", "image": {"size": 8, "corrupt": "skip", "background": "black",
               "horizontal_flip": true}}),
        json!({"kind": "tar", "path": "x-{00..17}.tar"}),
        json!({"kind": "tar", "path": ["a.tar", "s3://bucket/b.tar"], "label_member": "json", "label_field": "class",
               "image_member": "jpg", "class_names": "names.txt", "shuffle": 5000, "lanes": 4, "image": {"size": 8},
               "storage": {"cache": "/scratch", "cache_gigabytes": 100.5, "retries": 3, "timeout_seconds": 5,
                           "endpoint": "http://localhost:9000", "anonymous": true}}),
        json!({"kind": "folder", "path": "gs://bucket/x", "image": {"size": 8}, "storage": {"anonymous": true}}),
    ];
    for value in configs {
        let config = parse(value).unwrap();
        config.validate().unwrap();
        assert_eq!(parse(serde_json::to_value(&config).unwrap()).unwrap(), config);
    }
    let folder = parse(json!({"kind": "folder", "path": "x", "image": {"size": 8, "corrupt": "skip"}})).unwrap();
    let image = folder.image().unwrap();
    assert_eq!((image.corrupt, image.background, image.horizontal_flip), (Corrupt::Skip, Background::White, false));
}

#[test]
fn unknown_fields_are_refused() {
    for value in [
        json!({"kind": "density", "name": "checkerboard", "sale": 4}),
        json!({"kind": "density", "name": "moon"}),
        json!({"kind": "idx", "images": "a", "lables": "b"}),
        json!({"kind": "folder", "path": "a", "image": {"size": 8, "chanels": 3}}),
        json!({"kind": "shapes", "path": "a"}),
        json!({"kind": "named", "name": "minst"}),
        json!({"kind": "named", "name": "mnist", "path": "x"}),
        json!({"kind": "tar", "path": "a", "labels": "b"}),
        json!({"kind": "zip", "path": "a"}),
    ] {
        assert!(parse(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn settings_outside_their_domain_are_named() {
    for (value, field) in [
        (json!({"kind": "folder", "path": "x", "image": {}}), "image.size"),
        (json!({"kind": "folder", "path": "x", "image": {"size": 0}}), "image.size"),
        (json!({"kind": "parquet", "path": "x", "image": {"size": 5000}}), "image.size"),
        (json!({"kind": "parquet", "path": "x", "image": {"channels": 4}}), "image.channels"),
        (json!({"kind": "parquet", "path": ""}), "path"),
        (json!({"kind": "density", "name": "spirals", "noise": -0.5}), "noise"),
        (json!({"kind": "named", "name": "mnist", "folder": ""}), "folder"),
        (json!({"kind": "shapes", "size": 7}), "size"),
        (json!({"kind": "shapes", "channels": 2}), "channels"),
        (json!({"kind": "shapes", "count": 0}), "count"),
    ] {
        let error = parse(value).unwrap().validate().unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn paths_can_be_resolved_by_the_caller() {
    let mut config = parse(json!({"kind": "idx", "images": "a", "labels": "b"})).unwrap();
    for (_, path) in config.paths_mut() {
        *path = std::path::Path::new("root").join(&path);
    }
    assert_eq!(config, parse(json!({"kind": "idx", "images": "root/a", "labels": "root/b"})).unwrap());
}
