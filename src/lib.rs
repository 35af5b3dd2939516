//! Corecast, a push gateway for Linux.
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod fatal;
pub mod gateway;
pub mod message;
pub mod ring;
pub mod shard;
pub mod stats;
pub mod wire;
