//! What the host gives, what a number of connections needs of it, and the kernel settings between the two.
//!
//! `facts` reads the host, `need` is arithmetic, `findings` compares, `profile` writes the difference down as
//! a file for sysctl.d, `tune` puts it into effect and back. `memory` is for measuring instead of reckoning,
//! `marks` says what is to be done when it gets short.
//! Never touches a client or a gateway's work. Next: `cli::check`, `cli::tune`.

pub mod cgroup;
pub mod facts;
pub mod findings;
pub mod marks;
pub mod memory;
pub mod need;
pub mod profile;
pub mod tune;
