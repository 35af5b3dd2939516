//! The pure rooms of the tool, as their specifications tell them.

mod stamp;
