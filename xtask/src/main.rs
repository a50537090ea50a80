//! Development commands: `cargo xtask setup | run | test | ci | tidy | bless`.

fn main() {}
