//! What is said of a panic: where, on which thread, and how often; not what it quotes.
//!
//! A panic's message may hold what a client wrote: slicing a string at the wrong place quotes the
//! string. A message that is a literal of the source code cannot, and only those are logged. The
//! location leads to the rest.

use super::metrics::PANICS;
use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    sync::Once,
    thread,
};

/// What stands for a message that was put together at run time.
const WITHHELD: &str = "withheld, for it may quote a request";

/// Makes panics log lines, from now on, on every thread.
pub(super) fn catch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(report)));
}

fn report(panic: &PanicHookInfo<'_>) {
    PANICS.inc();
    let backtrace = Backtrace::capture();
    let taken = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        thread = thread::current().name().unwrap_or("unnamed"),
        location = panic.location().map(tracing::field::display),
        reason = message(panic.payload()),
        backtrace = taken.then(|| tracing::field::display(&backtrace)),
        "panic"
    );
}

/// What a panic said, if that was written when the program was.
pub fn message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(WITHHELD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn only_literals_are_repeated() {
        let literal = catch_unwind(|| panic!("no slot is free")).expect_err("it panics");
        assert_eq!(message(literal.as_ref()), "no slot is free");
        let text = String::from("prömpt");
        let slice = catch_unwind(|| text[..3].len()).expect_err("not at a character");
        assert!(slice.downcast_ref::<String>().expect("formatted").contains("prömpt"));
        assert_eq!(message(slice.as_ref()), WITHHELD);
        let formatted = catch_unwind(|| panic!("lost {text}")).expect_err("it panics");
        assert_eq!(message(formatted.as_ref()), WITHHELD);
    }
}
