//! The binary is linked without its symbol table, a fifth of its size. Not by the profile, so that tests and benchmarks keep theirs for
//! profilers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env != "msvc") {
        println!("cargo::rustc-link-arg-bins=-s");
    }
}
