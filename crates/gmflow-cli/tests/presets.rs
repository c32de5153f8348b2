//! The presets of `gmflow demo` lie in the crate, so that its package is whole, and in `configs`, where people look for them.

use std::path::Path;

#[test]
fn presets_of_the_demo_are_those_in_configs() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["demo-k1.toml", "demo-k64.toml"] {
        let [own, shown] = [package.join("presets").join(name), package.join("../../configs").join(name)]
            .map(|path| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        assert_eq!(own, shown, "{name}");
    }
}
