pub mod rate;
pub mod targets;
