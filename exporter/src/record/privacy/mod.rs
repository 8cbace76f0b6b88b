//! The settings in; records without what the settings leave out, with short addresses and hashed values out.
//!
//! Every record of a flow passes here as a whole, after it was encoded and before it enters a batch: so an attribute can't
//! get past by being written elsewhere, and queue, receivers and standard output see the same. The body is made anew of the
//! attributes that are left. Rules that choose flows have run before, on the real values. Without such settings nothing of
//! this runs.
//!
//! - [`Policy`]: what becomes of each attribute;
//! - `key`: the key of hashes, and where it is read;
//! - `hash`: the form of a hash;
//! - `rewrite`: one record.
//!
//! Must never print the key, or let a value pass that it can't read.

mod hash;
mod key;
mod policy;
mod rewrite;

pub use hash::is_hashed;
pub use key::KeyError;
pub use policy::Policy;
pub(super) use rewrite::{Ids, Rewriter};
