//! The Rust examples of the book and the README, compiled and run with the doctests.

macro_rules! pages {
    ($($name:ident: $path:literal;)*) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!($path)]
            pub struct $name;
        )*
    };
}

pages! {
    Readme: "../README.md";
    Library: "src/library.md";
    Extending: "src/extending.md";
    Step: "src/step.md";
}
