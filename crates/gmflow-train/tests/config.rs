//! Configuration: overrides, names in errors, presets.

use std::path::Path;

use gmflow::network::NetworkConfig;
use gmflow_train::{Config, Error};

mod common;

fn load(overrides: &[&str]) -> Result<Config, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let config = Config::parse(common::TINY, Path::new("tiny.toml"), &overrides)?;
    config.validate()?;
    Ok(config)
}

fn message(overrides: &[&str]) -> String {
    load(overrides).expect_err("must be refused").to_string()
}

#[test]
fn overrides_reach_tables_and_lists() {
    let config = load(&["train.lr=0.5", "ema.0.name=slow", "network.hidden_dim=32", "train.label_dropout = 0.25"])
        .expect("valid overrides");
    assert_eq!(config.train.lr, 0.5);
    assert_eq!(config.ema[0].name, "slow");
    assert_eq!(config.train.label_dropout, 0.25);
}

#[test]
fn the_resolved_form_reads_back() {
    let config = load(&["train.schedule={kind=\"cosine\"}"]).expect("valid");
    let text = config.to_toml().expect("TOML");
    let again = Config::parse(&text, Path::new("again.toml"), &[]).expect("its own form");
    assert_eq!(config, again);
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known() {
    let text = message(&["train.batchsize=3"]);
    assert!(
        text.contains("train") && text.contains("batchsize") && text.contains("did you mean batch_size?"),
        "{text}"
    );
}

#[test]
fn a_field_of_another_kind_is_refused() {
    for (set, field) in [
        ("loss={kind=\"l2\", transition_ratio=0.5}", "loss.transition_ratio"),
        ("time={sampling=\"uniform\", std=1.0}", "time"),
        ("train.schedule={kind=\"constant\", hold=0.5}", "train.schedule.hold"),
        ("sample={every=1, num=1, sampler={solver={kind=\"euler\", order=2}, steps=1}}", "solver.order"),
    ] {
        let text = message(&[set]);
        assert!(text.contains(field) && text.contains("an unknown name"), "{set}: {text}");
    }
    assert_eq!(load(&["time={sampling=\"uniform\", shift=3.0}"]).expect("valid").time.time(0.5), 0.75);
}

/// A value that is the default is a value, too.
#[test]
fn defaults_may_be_given() {
    let plain = load(&[]).expect("valid");
    assert_eq!(load(&["train.precision=f32", "train.gradient_checkpointing=false"]).expect("valid"), plain);
}

#[test]
fn a_wrong_type_is_named() {
    let text = message(&["train.lr=\"fast\""]);
    assert!(text == "--set: train.lr: expected a number, got the text \"fast\"", "{text}");
}

#[test]
fn values_outside_their_domain_are_named() {
    for (set, field) in [
        ("train.batch_size=0", "train.batch_size"),
        ("train.micro_batch=100", "train.micro_batch"),
        ("train.images=100", "train.steps"),
        ("train.lr=-1", "train.lr"),
        ("train.betas=[0.9, 1.0]", "train.betas"),
        ("train.precision=\"int8\"", "train.precision"),
        ("train.label_dropout=1.5", "train.label_dropout"),
        ("train.clip_grad_norm=0", "train.clip_grad_norm"),
        ("train.schedule={kind=\"cosine\", hold=1.0}", "train.schedule.hold"),
        ("ema.0.decay={kind=\"constant\", decay=1.0}", "ema.0.decay.decay"),
        ("ema.0.decay={kind=\"power\", std=0.5}", "ema.0.decay.std"),
        ("ema.0.name=\"../x\"", "ema.0.name"),
        ("time={sampling=\"logit-normal\", std=0}", "time.std"),
        ("time={sampling=\"uniform\", shift=0}", "time.shift"),
        ("spectrum={weight=0}", "spectrum.weight"),
        ("checkpoint.keep=0", "checkpoint.keep"),
        ("network.hidden_dim=0", "network.hidden_dim"),
        ("loss.transition_ratio=0", "loss.transition_ratio"),
        ("data.source.squares=1", "data.source.squares"),
    ] {
        let text = message(&[set]);
        assert!(text.contains(&format!("{field}: expected ")), "{set}: {text}");
    }
}

#[test]
fn malformed_overrides_are_refused() {
    for (set, words) in [
        ("train.lr", "train.lr: expected name=value, such as train.lr=1e-4, got no = in it"),
        ("=3", "name: expected a name such as train.lr, got no name before ="),
        ("train..lr=1", "train..lr: expected a name such as train.lr, got a name with an empty part"),
        ("train.lr.x=1", "train.lr.x: expected a table or a list above it, got 0.003, which has nothing called x"),
        ("ema.7.name=a", "ema.7.name: expected 0 in the place of 7, the only entry, got 7"),
        ("ema.-1.name=a", "ema.-1.name: expected 0 in the place of -1, the only entry, got -1"),
        ("TRAIN.lr=1", "TRAIN: expected data, network, loss"),
        ("train.micro_batch=", "train.micro_batch: expected a whole number of at least 0, got an empty text"),
        ("train.betas=[0.8]", "train.betas: expected a list of 2 values, got a list of 1"),
        ("train.schedule=cosine", "train.schedule: expected a table, got the text \"cosine\""),
        ("train.lr=1e400", "train.lr: expected a number, got the text \"1e400\""),
        ("train.steps=null", "train.steps: expected a whole number of at least 0, got the text \"null\""),
        (
            "train.steps=18446744073709551615",
            "train.steps: expected a whole number of at least 0, got 18446744073709551615, which is more than 2^63",
        ),
        ("train.steps=-1", "train.steps: expected a whole number of at least 0, got -1"),
        ("train.seed=-1", "train.seed: expected a whole number from 0 to 18446744073709551615"),
        (
            "train.precision=fp16",
            "train.precision: expected auto, f32, bf16 or int8, got \"fp16\" (did you mean bf16?)",
        ),
        ("network.num_layers=x", "network.num_layers: expected a whole number of at least 0, got the text \"x\""),
        ("network.type=mlp", "network.type: expected mlp2d, gm-dit or unet, got \"mlp\""),
        ("data.source.name=2020-01-01", "data.source.name: expected checkerboard, moons, spirals, rings"),
    ] {
        let text = message(&[set]);
        assert!(text.starts_with(&format!("--set: {words}")), "{set}: {text}");
    }
}

#[test]
fn every_preset_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("configs") {
        let path = entry.expect("entry").path();
        Config::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        count += 1;
    }
    assert!(count >= 5, "{count} presets");
}

#[test]
fn settings_that_differ_are_named() {
    let names = |a: &[&str], b: &[&str]| {
        common::tiny_with(a).differences(&common::tiny_with(b)).expect("the names").join(" ")
    };
    assert_eq!(names(&["train.lr=0.1"], &["train.lr=0.1"]), "");
    assert_eq!(names(&["train.lr=0.1", "loss.transition_ratio=0.5"], &[]), "loss.transition_ratio train.lr");
    assert_eq!(names(&[], &["train.warmup_steps=3", "train.micro_batch=8"]), "train.warmup_steps train.micro_batch");
}

#[test]
fn a_smaller_batch_takes_the_parts_with_it() {
    let text = "[data.source]\nkind = \"density\"\nname = \"moons\"\n[train]\nsteps = 1\nbatch_size = 128\nmicro_batch = 32\n";
    let load = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let config = Config::parse(text, Path::new("a.toml"), &overrides).unwrap();
        config.validate().map(|()| config.train.micro_batch).map_err(|error| error.to_string())
    };
    assert_eq!(load(&[]), Ok(Some(32)));
    assert_eq!(load(&["train.batch_size=64"]), Ok(Some(32)));
    assert_eq!(load(&["train.batch_size=2"]), Ok(Some(2)));
    assert!(
        load(&["train.batch_size=2", "train.micro_batch=4"]).is_err_and(|error| error.contains("train.micro_batch"))
    );
}

#[test]
fn what_is_not_said_is_small_and_taken_from_the_data() {
    let text = "[data.source]\nkind = \"idx\"\nimages = \"x\"\n[network]\ntype = \"gm-dit\"\nnum_layers = 2\n[train]\nsteps = 1\n";
    let config = Config::parse(text, Path::new("a.toml"), &[]).unwrap();
    let NetworkConfig::GmDit(net) = &config.network else { panic!("a transformer") };
    assert_eq!((net.hidden(), net.num_layers, config.train.batch_size), (192, 2, 32));
    assert!(config.from_data.channels && config.from_data.size && config.from_data.classes && config.from_data.patch);
    let resolved = Config::parse(&config.to_toml().unwrap(), Path::new("a.toml"), &[]).unwrap();
    assert_eq!(resolved.from_data, gmflow_train::config::FromData::default(), "everything is written down");
}

/// Words of Rust and of its libraries, which no message may have.
const RUST: [&str; 14] = [
    "Some(",
    "None",
    "usize",
    "u64",
    "f64",
    "enum",
    "variant",
    "struct",
    "invalid type",
    "sequence",
    "newtype",
    "`kind`",
    "unit ",
    "map,",
];

#[test]
fn messages_are_in_plain_words() {
    for set in [
        "train=3",
        "train=[]",
        "data=x",
        "data.source=x",
        "data.source={}",
        "network=7",
        "network={type='unet',num_layers=3}",
        "network.type=7",
        "loss=[]",
        "loss.kind=3",
        "loss={}",
        "time=1",
        "time.sampling=x",
        "ema=3",
        "ema=[3]",
        "ema=[{}]",
        "ema.0.decay=x",
        "ema.0.decay={}",
        "spectrum=x",
        "spectrum.layers=3",
        "spectrum.layers=[-1]",
        "sample=1",
        "sample={every=1}",
        "sample={every=1,num=1,sampler={steps=1}}",
        "sample={every=1,num=1,sampler={steps=1,solver='euler'}}",
        "sample={every=1,num=1,sampler={steps=-1,solver={kind='euler'}}}",
        "sample={every=1,num=1,sampler={steps=1,solver={kind='gm-ode',order='x'}}}",
        "sample={every=1,num=1,sampler={steps=1,solver={kind='x'}}}",
        "sample={every=1,num=1,sampler={steps=1,solver={kind='euler'},guidance={kind='x'}}}",
        "train.only=x",
        "train.only=[3]",
        "train.from=3",
        "train.lr=[1]",
        "train.images=100",
        "train.gradient_checkpointing=1",
        "network.constant_logstd=x",
        "network.block_out_channels=[3]",
        "log={every='x'}",
        "checkpoint=x",
        "train.schedule.kind=x",
        "train.schedule={kind='cosine',hold='x'}",
        "data.source.kind=folder",
    ] {
        let text = message(&[set]);
        assert!(text.contains(": expected ") && text.contains(", got "), "{set}: {text}");
        for word in RUST {
            assert!(!text.contains(word), "{set}: {word} in: {text}");
        }
        let name = set.split(['=', '.']).next().unwrap_or_default();
        assert!(text.split(": expected").next().is_some_and(|field| field.contains(name)), "{set}: {text}");
    }
}

#[test]
fn seeds_of_64_bits_are_taken_and_come_back() {
    let config = load(&["train.seed=18446744073709551615"]).expect("the largest seed");
    assert_eq!(config.train.seed, u64::MAX);
    let text = config.to_toml().expect("TOML");
    assert_eq!(Config::parse(&text, Path::new("again.toml"), &[]).expect("its own form"), config);
    assert_eq!(load(&["train.lr=.5"]).expect("valid").train.lr, 0.5);
    assert_eq!(load(&["train.lr=5."]).expect("valid").train.lr, 5.0);
}

/// What editors and other systems do to a text file.
#[test]
fn files_from_other_editors_are_read_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        Config::load(&path, &[]).map_err(|error| error.to_string())
    };
    let text = common::TINY;
    let plain = load(text.as_bytes()).expect("valid");
    assert_eq!(load(text.replace('\n', "\r\n").as_bytes()), Ok(plain.clone()), "lines end as on Windows");
    assert_eq!(load(format!("\u{feff}{text}").as_bytes()), Ok(plain.clone()), "a byte order mark");
    assert_eq!(load(text.replace('\n', "\n\t").as_bytes()), Ok(plain), "tabs");
    let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin = [b"# Gr\xf6\xdfe\n", text.as_bytes()].concat();
    let seed = "[train]\nseed = 18446744073709551615\n";
    for (bytes, words) in [
        (&wide[..], "text in UTF-16"),
        (&latin[..], "line 1: expected text in UTF-8, got the byte 0xf6, as in Latin-1"),
        (b"PK\x03\x04\xff", "a ZIP archive"),
        (text.replace('\n', "\r").as_bytes(), "carriage return alone"),
        (text.replace('"', "\u{201c}").as_bytes(), "typographic quotes"),
        (b"lr\xc2\xa0= 1", "line 1, column 3: expected TOML"),
        (b"data:\n  source: x\n", "TOML is written name = value"),
        (b"path = \"C:\\Users\\x\"", "in double quotes a backslash begins an escape"),
        (b"a = 1\na = 2\n", "line 2, column 1: expected every name once, got a a second time"),
        (seed.as_bytes(), "write a larger one in quotes"),
        (b"", "data: expected a value, got none: the setting is missing"),
    ] {
        let message = load(bytes).expect_err("must be refused");
        assert!(message.starts_with(&path.display().to_string()) && message.contains(words), "{words}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn all_faults_are_told_together() {
    let text = r#"
        data.source = { kind = "density", name = "moons" }
        network = { type = "mlp2d", hiden_dim = 8, num_layers = 0 }
        train = { stepz = 3, lr = "fast", batch_size = 0 }
        sample = { num = 4, sampler = { solver = { kind = "gm-ode", order = 2 }, steps = 0 } }
        [[ema]]
        decay = { kind = "constant", decay = 2.0 }
    "#;
    let error = Config::parse(text, Path::new("a.toml"), &["train.eps=-1".into()]).expect_err("faults").to_string();
    let expected = [
        ("a.toml: network.hiden_dim: ", "did you mean hidden_dim?"),
        ("a.toml: train.stepz: ", "did you mean steps?"),
        ("a.toml: train.lr: ", "a number"),
        ("a.toml: sample.every: ", "missing"),
        ("a.toml: ema.0.name: ", "missing"),
        ("a.toml: network.num_layers: ", "at least 1"),
        ("a.toml: train.batch_size: ", "1 to"),
        ("a.toml: train.steps: ", "either"),
        ("--set: train.eps: ", "-1"),
        ("a.toml: ema.0.decay.decay: ", "[0, 1)"),
        ("a.toml: sample.sampler.steps: ", "at least 1"),
    ];
    for (field, words) in expected {
        let found = error.lines().filter(|line| line.starts_with(field) && line.contains(words)).count();
        assert_eq!(found, 1, "{field} {words} in:\n{error}");
    }
    assert!(error.lines().count() <= expected.len() + 1, "{error}");
}

/// A configuration file with this source of data, loaded with overrides.
fn load_source(folder: &Path, source: &str, overrides: &[&str]) -> Result<Config, Error> {
    let path = folder.join("config.toml");
    let text = common::TINY.replace("kind = \"density\"\nname = \"checkerboard\"", source);
    assert!(text.contains(source), "the source of {text}");
    std::fs::write(&path, text).expect("written");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&path, &overrides)
}

#[test]
fn relative_paths_are_relative_to_the_file_and_those_of_overrides_to_the_working_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("photos")).expect("a folder");
    let photos = "kind = \"folder\"\npath = \"photos\"\nimage = { size = 8 }";
    let path_of = |overrides: &[&str]| {
        let mut config = load_source(folder.path(), photos, overrides).expect("valid");
        let paths = config.data.source.paths_mut();
        paths.into_iter().map(|(field, path)| (field, path.clone())).collect::<Vec<_>>()
    };
    assert_eq!(path_of(&[]), [("path", folder.path().join("photos"))]);
    // Tests run in the folder of their crate.
    let here = std::env::current_dir().expect("a folder");
    assert_eq!(path_of(&["data.source.path=src"]), [("path", here.join("src"))]);
    let whole = r#"data.source={kind = "idx", images = "src"}"#;
    assert_eq!(path_of(&[whole]), [("images", here.join("src"))]);
}

#[test]
fn a_path_that_exists_from_the_working_directory_only_is_taken_from_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "kind = \"folder\"\npath = \"src\"\nimage = { size = 8 }";
    let path = || load_source(folder.path(), source, &[]).expect("valid").data.source.paths_mut()[0].1.clone();
    let here = std::env::current_dir().expect("a folder");
    assert_eq!(path(), here.join("src"));
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    assert_eq!(path(), folder.path().join("src"), "the folder of the file goes first");
    let text = load_source(folder.path(), "kind = \"density\"\nname = \"checkerboard\"", &["train.from=src"]);
    assert_eq!(text.expect("valid").train.from.as_deref(), Some(Path::new("src")));
}

#[test]
fn the_paths_of_a_run_stay_as_they_were_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = "kind = \"folder\"\npath = \"src\"\nimage = { size = 8 }";
    load_source(folder.path(), source, &[]).expect("valid");
    let mut config = Config::load_resolved(&folder.path().join("config.toml"), &[]).expect("valid");
    assert_eq!(config.data.source.paths_mut()[0].1, Path::new("src"));
}

#[test]
fn a_list_is_no_table() {
    for (setting, field) in [
        ("train=[4, 2, 3]", "train"),
        ("checkpoint=[5, 1]", "checkpoint"),
        ("spectrum=[]", "spectrum"),
        ("loss=[\"l2\"]", "loss"),
    ] {
        let text = message(&[setting]);
        assert!(text.contains(&format!("{field}: expected a table, got a list of")), "{setting}: {text}");
    }
}

#[test]
fn one_fault_is_told_once_and_lists_have_their_length() {
    let text = message(&["train.batch_size=0"]);
    assert!(!text.contains("micro_batch"), "{text}");
    let text = message(&["train.betas=[0.1, 0.2, 0.3]"]);
    assert!(text.contains("train.betas: expected a list of 2 values, got a list of 3"), "{text}");
}
