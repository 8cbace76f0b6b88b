//! Records as they are made in; what people look at out: lines (`flowtel tail`) and a screen (`flowtel top`).
//!
//! - [`source`]: where records come from: a running flowtel, this process, a capture;
//! - [`facts`]: a record's attributes as values, fit for a terminal;
//! - [`choose`]: which records are shown: the language of `--include`;
//! - [`tail`]: records to lines;
//! - [`top`]: records to a screen.
//!
//! Must never write a text from outside to a terminal unescaped, keep more than its bounds say, or hold the flowtel up that it
//! looks at.

pub mod choose;
pub mod facts;
#[cfg(test)]
mod sample;
pub mod source;
pub mod tail;
pub mod top;
