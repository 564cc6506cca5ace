//! What a look-up and a compilation cost.
fn main() {}
