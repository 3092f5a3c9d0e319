//! Panic hook: panics are logged like any other event, with their place, and without secrets.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic, thread,
};

use palisade_resilience::redact;

/// Logs every panic of the process instead of printing it. The backtrace is empty unless
/// `RUST_BACKTRACE` asks for it. A panic that the log may lose is printed: the filter excludes
/// errors, or the process aborts because of a panic while unwinding.
#[expect(clippy::print_stderr, reason = "the log does not take it")]
pub(super) fn install() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        // The message of the standard library before it aborts; the writer of the log dies with the
        // process.
        let is_last = message.starts_with("panic in a ");
        if is_last || !tracing::enabled!(tracing::Level::ERROR) {
            eprintln!("{}", redact::text(&panic.to_string()));
        }
        let location = panic.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(cause = message, location, backtrace, thread = thread::current().name(), "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn panic_is_logged_with_its_place() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let before = panic::take_hook();
        install();
        let panicked = tracing::subscriber::with_default(log, || panic::catch_unwind(|| panic!("units below zero: {}", -1)));
        panic::set_hook(before);
        assert!(panicked.is_err());
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ERROR") && text.contains("panicked cause=\"units below zero: -1\""), "{text}");
        assert!(text.contains("telemetry/panic_hook.rs:"), "{text}");
    }
}
