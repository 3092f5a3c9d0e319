//! Scripted parties: servers below a client under test, and the handler of a server under test.

mod handler;
mod playback;
mod server;

pub(crate) use handler::router;
pub(crate) use playback::Playback;
pub(crate) use server::serve;
