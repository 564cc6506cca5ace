//! All protocols together: recorded flows, and properties that hold for any bytes.

mod corpus;
mod properties;
mod race;
