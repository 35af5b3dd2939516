//! The control socket from outside: real sockets and curl before it, shards that only answer behind it.

mod binary;
mod connections;
mod http;
mod limits;
mod readings;
mod shard;
